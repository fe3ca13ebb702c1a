//! A replaced policy acts on the waits that are under way, and the waits are seen.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use roomcast_supervision::{
    ActorState, Backoff, Policies, Policy, PolicySet, Slot, SupervisorSlot, SupervisorSpec, System, SystemOptions,
};
use support::*;

fn waiting(seconds: u64) -> PolicySet {
    let wait = Duration::from_secs(seconds);
    PolicySet::new(Policy { backoff: Backoff::new(wait, 1.0, wait, 0.0).unwrap(), ..Policy::default() })
}

#[tokio::test(start_paused = true)]
async fn a_child_in_backoff_waits_as_long_as_the_new_policy_says() {
    for strategy in [SupervisorSpec::one_for_one, SupervisorSpec::one_for_all, SupervisorSpec::rest_for_one] {
        let log = Log::default();
        let (admin, slot) = (SupervisorSlot::new(), Slot::default());
        let policies = Arc::new(Policies::new(waiting(1_000_000)));
        let options = SystemOptions { policies: Arc::clone(&policies), ..options(&log) };
        let spec = strategy(vec![puppet("a", &slot), puppet("b", &Slot::default())]).in_slot(&admin);
        let system = System::start(spec, options).await.unwrap();
        slot.send(Do::Crash).unwrap();
        log.wait_for("a: started 2", 1).await;
        assert_eq!(system.tree().find("a").unwrap().attempts, 1);
        slot.send(Do::Crash).unwrap();
        log.wait_for("a: restart", 2).await;
        let begun = tokio::time::Instant::now();
        let entry = system.tree().find("a").unwrap();
        assert_eq!((entry.state, entry.attempts), (ActorState::Restarting, 2));
        assert_eq!(entry.backoff.map(|left| left.as_secs().div_ceil(10)), Some(100_000));
        let by_state = |wanted| system.tree().count_by_state().iter().find(|(state, _)| *state == wanted).unwrap().1;
        let waiting_too = admin.which_children().iter().filter(|entry| entry.state == ActorState::Restarting).count();
        assert_eq!(by_state(ActorState::Restarting), waiting_too);

        policies.replace(waiting(60));
        log.wait_for("a: started 3", 1).await;
        assert_eq!(begun.elapsed().as_secs(), 60);
        let entry = system.tree().find("a").unwrap();
        assert_eq!((entry.backoff, entry.attempts), (None, 2));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(system.tree().find("a").unwrap().attempts, 0, "it has been up for long enough");
        system.stop().await;
        assert_eq!(by_state(ActorState::Down), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_soon_ends_and_is_long_in_it_is_not_restarted_at_once_each_time() {
    let log = Log::default();
    let slot = Slot::default();
    let script = Script::stopping(Stop::After(Duration::from_secs(3)));
    let wait = Duration::from_secs(60);
    let system = start_with(SupervisorSpec::one_for_one(vec![scripted("a", &slot, &script)]), &log, |policy| {
        policy.backoff = Backoff::new(wait, 1.0, wait, 0.0).unwrap();
    })
    .await;
    slot.send(Do::Stop).unwrap();
    log.wait_for("a: started 2", 1).await;
    slot.send(Do::Stop).unwrap();
    log.wait_for("a: restart", 2).await;
    assert_eq!(system.tree().find("a").unwrap().attempts, 2);
    system.stop().await;
}
