//! Snapshots, addresses and slots show what is there.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use roomcast_supervision::{ActorState, Backoff, ChildSpec, EventKind, Fault, SendError, Slot, SupervisorSpec};
use support::*;

#[tokio::test(start_paused = true)]
async fn a_child_between_two_incarnations_is_restarting() {
    let log = Log::default();
    let (slot, script) = (Slot::default(), Script::default());
    let system = start_with(SupervisorSpec::one_for_one(vec![scripted("a", &slot, &script)]), &log, |policy| {
        policy.backoff = Backoff::new(Duration::from_secs(3), 1.0, Duration::from_secs(3), 0.0).unwrap();
    })
    .await;
    slot.send(Do::Fail).unwrap();
    log.wait_for("a: started 2", 1).await;
    slot.send(Do::Crash).unwrap();
    log.wait_for("a: restart", 2).await;
    let entry = system.tree().find("a").unwrap();
    assert_eq!((entry.state, entry.generation, entry.restarts, entry.depth), (ActorState::Restarting, 2, 1, 0));
    assert_eq!(entry.last_reason.unwrap().to_string(), "panicked: told to crash");
    assert!(slot.current().is_none());
    assert!(slot.send(Do::Stop).is_err());
    log.wait_for("a: started 3", 1).await;
    let recovery = log.events().into_iter().filter_map(|event| match event.kind {
        EventKind::Started { generation: 2.., after } => after.map(|after| after.as_secs()),
        _ => None,
    });
    assert_eq!(recovery.collect::<Vec<_>>(), [0, 3]);
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_start_is_starting_and_a_hanging_stop_is_stopping() {
    let log = Log::default();
    let (slot, script) = (Slot::default(), Script::stopping(Stop::Hangs));
    let system = start(SupervisorSpec::one_for_one(vec![scripted("a", &slot, &script)]), &log).await;
    script.set_start(Start::Hangs);
    slot.send(Do::Crash).unwrap();
    log.wait_for("a: restart", 1).await;
    tokio::task::yield_now().await;
    assert_eq!(system.tree().find("a").unwrap().state, ActorState::Starting);
    script.set_start(Start::Well);
    log.wait_for("a: started 3", 1).await;
    system.request_stop();
    while system.tree().find("a").unwrap().state == ActorState::Running {
        tokio::task::yield_now().await;
    }
    assert_eq!(system.tree().find("a").unwrap().state, ActorState::Stopping);
    assert_eq!(system.wait().await, SHUTDOWN);
}

#[tokio::test(start_paused = true)]
async fn the_depth_counts_what_is_put_in_and_not_taken() {
    let log = Log::default();
    let slot = Slot::default();
    let system = start(SupervisorSpec::one_for_one(vec![puppet("a", &slot)]), &log).await;
    let address = slot.current().unwrap();
    address.send(Do::Hang).unwrap();
    for _ in 0..3 {
        address.send(Do::Stop).unwrap();
    }
    while address.depth() == 4 {
        tokio::task::yield_now().await;
    }
    assert_eq!((address.depth(), system.tree().find("a").unwrap().depth), (3, 3));
    system.tree().inject("a", Fault::Kill).unwrap();
    log.wait_for("a: started 2", 1).await;
    assert!(!address.is_alive());
    assert!(matches!(address.send(Do::Stop), Err(SendError(Do::Stop))), "a stale address hands the message back");
    assert_eq!(ping(&slot).await, Some(2));
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_name_of_odd_bytes_stands_in_its_path_escaped() {
    let log = Log::default();
    let slot = Slot::default();
    let spec = SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("rooms", move || {
        SupervisorSpec::one_for_one(vec![puppet("room:ü", &slot).named("a/b")])
    })]);
    let system = start(spec, &log).await;
    assert_eq!(states(&system), ["root running", "rooms running", "rooms/a%2Fb running"]);
    assert_eq!(system.tree().inject("rooms/a%2Fb", Fault::Kill), Ok(1));
    log.wait_for("rooms/a%2Fb: started 2", 1).await;
    system.stop().await;
}
