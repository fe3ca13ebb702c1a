//! Children start left to right and stop in reverse.

#![allow(clippy::unwrap_used)]

mod support;

use roomcast_supervision::{ChildSpec, Slot, SupervisorSpec, System};
use support::*;

#[tokio::test(start_paused = true)]
async fn children_start_left_to_right_and_stop_in_reverse() {
    let log = Log::default();
    let slots: [Slot<Do>; 3] = Default::default();
    let inner = slots[1].clone();
    let spec = SupervisorSpec::one_for_one(vec![
        puppet("a", &slots[0]),
        ChildSpec::supervisor("b", move || SupervisorSpec::one_for_one(vec![puppet("c", &inner)])),
        puppet("d", &slots[2]),
    ]);
    let system = start(spec, &log).await;
    assert_eq!(log.take(), ["a: started 1", "b/c: started 1", "b: started 1", "d: started 1", "root: started 1"]);
    assert_eq!(states(&system), ["root running", "a running", "b running", "b/c running", "d running"]);
    assert_eq!(ping(&slots[1]).await, Some(1));
    assert_eq!(system.stop().await, SHUTDOWN);
    assert_eq!(
        log.take(),
        [
            "d: exited, shut down",
            "b/c: exited, shut down",
            "b: exited, shut down",
            "a: exited, shut down",
            "root: exited, shut down"
        ]
    );
    assert!(slots.iter().all(|slot| slot.current().is_none()));
    assert!(system.tree().snapshot().iter().all(|entry| entry.path.is_root()), "{:?}", system.tree().snapshot());
}

#[tokio::test(start_paused = true)]
async fn a_failing_start_stops_what_was_started_in_reverse_and_is_reported() {
    let log = Log::default();
    let slots: [Slot<Do>; 4] = Default::default();
    let spec = SupervisorSpec::one_for_one(vec![
        puppet("a", &slots[0]),
        puppet("b", &slots[1]),
        scripted("c", &slots[2], &Script::starting(Start::Fails)),
        puppet("d", &slots[3]),
    ]);
    let error = System::start(spec, options(&log)).await.unwrap_err();
    assert_eq!(error.to_string(), "`root` did not start: failed: child `c`: failed: told to fail");
    assert_eq!(
        log.take(),
        [
            "a: started 1",
            "b: started 1",
            "c: start failed, failed: told to fail",
            "b: exited, shut down",
            "a: exited, shut down",
            "root: start failed, failed: child `c`: failed: told to fail"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_crashed_child_is_restarted_with_a_new_generation() {
    let log = Log::default();
    let slot = Slot::default();
    let system = start(SupervisorSpec::one_for_one(vec![puppet("a", &slot)]), &log).await;
    for generation in 2..5 {
        slot.send(Do::Crash).unwrap();
        log.wait_for(&format!("a: started {generation}"), 1).await;
        assert_eq!(ping(&slot).await, Some(generation));
    }
    let entry = system.tree().find("a").unwrap();
    assert_eq!((entry.restarts, entry.generation), (3, 4));
    assert_eq!(entry.last_reason.unwrap().to_string(), "panicked: told to crash");
    system.stop().await;
}
