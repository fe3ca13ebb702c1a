//! `[chaos]` and `[telemetry]`. (`[presence]` is live as well; no actor uses it yet.)

use std::sync::{Arc, Mutex};

use roomcast_node::LogControl;

use crate::bench::{Call, Tuned};

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_allowed_and_refused_as_the_switch_says() {
    let tuned = Tuned::start(&[]).await;
    let call = Call::begin(&tuned.node).await;
    let kill = async |tuned: &Tuned| tuned.node.admin("POST", "/actors/rooms/call/room/kill").await.0;
    assert_eq!(kill(&tuned).await, 403, "off unless it is switched on");
    for (enabled, status) in [("true", 200), ("false", 403), ("true", 200)] {
        let deadline = tuned.set(&[("chaos.enabled", enabled)]).await;
        assert_eq!(kill(&tuned).await, status);
        deadline.is_kept();
    }
    call.end().await;
    tuned.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_filter_follows_the_file() {
    let filters = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&filters);
    let control = LogControl::new(move |filter| {
        log.lock().unwrap().push(filter.to_owned());
        Ok(())
    });
    let tuned = Tuned::start_logged(&[], control).await;
    let call = Call::begin(&tuned.node).await;
    for filter in ["debug", "roomcast_node=trace,warn", "info"] {
        let deadline = tuned.set(&[("telemetry.log", &format!("\"{filter}\""))]).await;
        deadline.shows(filter, async || filters.lock().unwrap().last().is_some_and(|last| last == filter)).await;
    }
    call.end().await;
    tuned.node.stop().await;
}
