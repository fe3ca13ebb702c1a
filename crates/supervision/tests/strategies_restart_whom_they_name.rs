//! The strategies, intensity and shutdown on real actors; the cases are decided in the machine's own tests.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use roomcast_supervision::{
    AutoShutdown, Backoff, ChildSpec, ExitReason, Fault, PathPattern, PolicyPatch, PolicySet, Restart, Shutdown, Slot,
    SupervisorSpec, System, SystemOptions,
};
use support::*;

type Slots = [Slot<Do>; 3];

fn abc(slots: &Slots) -> Vec<ChildSpec> {
    ["a", "b", "c"].iter().zip(slots).map(|(id, slot)| puppet(id, slot)).collect()
}

async fn generations(slots: &Slots) -> [Option<u64>; 3] {
    [ping(&slots[0]).await, ping(&slots[1]).await, ping(&slots[2]).await]
}

#[tokio::test(start_paused = true)]
async fn one_for_one_the_one_one_for_all_all_rest_for_one_the_rest() {
    type Make = fn(Vec<ChildSpec>) -> SupervisorSpec;
    let cases: [(Make, [u64; 3]); 3] = [
        (SupervisorSpec::one_for_one, [1, 2, 1]),
        (SupervisorSpec::one_for_all, [2, 2, 2]),
        (SupervisorSpec::rest_for_one, [1, 2, 2]),
    ];
    for (make, expected) in cases {
        let log = Log::default();
        let slots = Slots::default();
        let system = start(make(abc(&slots)), &log).await;
        system.tree().inject("b", Fault::Kill).unwrap();
        log.wait_for("b: started 2", 1).await;
        if expected[2] == 2 {
            log.wait_for("c: started 2", 1).await;
        }
        assert_eq!(generations(&slots).await, expected.map(Some));
        system.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_gives_up_is_restarted_by_its_parent_and_the_root_ends() {
    let log = Log::default();
    let slot = Slot::default();
    let inner = slot.clone();
    let spec = SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("s", move || {
        SupervisorSpec::one_for_one(vec![puppet("a", &inner)])
    })]);
    let system = start_with(spec, &log, |policy| policy.intensity = 1).await;
    // Two crashes are too many for `s`, two ends of `s` for the root.
    for generation in 1..=4 {
        log.wait_for(&format!("s/a: started {generation}"), 1).await;
        slot.send(Do::Crash).unwrap();
    }
    log.wait_for("s: gave up", 2).await;
    assert_eq!(system.wait().await, ExitReason::GaveUp);
    assert_eq!(log.count("root: gave up"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_transient_supervisor_that_gives_up_stays_down_and_its_sibling_up() {
    let log = Log::default();
    let (slot, other) = (Slot::default(), Slot::default());
    let inner = slot.clone();
    let room = ChildSpec::supervisor("room", move || SupervisorSpec::one_for_one(vec![puppet("a", &inner)]));
    let spec = SupervisorSpec::one_for_one(vec![room.restart(Restart::Transient), puppet("other", &other)]);
    let system = start_with(spec, &log, |policy| policy.intensity = 0).await;
    slot.send(Do::Crash).unwrap();
    log.wait_for("room: exited, gave up: too many restarts", 1).await;
    assert_eq!(ping(&other).await, Some(1));
    assert_eq!(states(&system), ["root running", "room down", "other running"]);
    assert_eq!(system.stop().await, SHUTDOWN);
}

#[tokio::test(start_paused = true)]
async fn a_stop_gets_through_between_attempts_and_during_a_hanging_restart() {
    for start_again in [Start::Fails, Start::Hangs] {
        let log = Log::default();
        let (slot, script) = (Slot::default(), Script::default());
        let system = start_with(SupervisorSpec::one_for_one(vec![scripted("a", &slot, &script)]), &log, |policy| {
            policy.backoff = Backoff::new(Duration::from_secs(60), 1.0, Duration::from_secs(60), 0.0).unwrap();
            policy.start = Duration::from_secs(600);
        })
        .await;
        script.set_start(start_again.clone());
        slot.send(Do::Crash).unwrap();
        let restarts = if start_again == Start::Fails { 2 } else { 1 };
        log.wait_for("a: restart", restarts).await;
        let begun = tokio::time::Instant::now();
        assert_eq!(system.stop().await, SHUTDOWN);
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert_eq!(script.living(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_hangs_is_given_up_on_and_tried_again() {
    let log = Log::default();
    let (slot, script) = (Slot::default(), Script::default());
    let system = start(SupervisorSpec::one_for_one(vec![scripted("a", &slot, &script)]), &log).await;
    script.set_start(Start::Hangs);
    slot.send(Do::Crash).unwrap();
    log.wait_for("a: start failed, killed", 1).await;
    script.set_start(Start::Well);
    log.wait_for("a: started 3", 1).await;
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_policy_acts_at_the_next_decision() {
    let log = Log::default();
    let slot = Slot::default();
    let inner = slot.clone();
    let spec = SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("s", move || {
        SupervisorSpec::one_for_one(vec![puppet("a", &inner)])
    })]);
    let policies = policies(|_| {});
    let options = SystemOptions { policies: policies.clone(), ..options(&log) };
    let system = System::start(spec, options).await.unwrap();
    slot.send(Do::Crash).unwrap();
    log.wait_for("s/a: started 2", 1).await;
    let strict = PolicyPatch { intensity: Some(0), ..PolicyPatch::default() };
    policies.replace(PolicySet::default().with(PathPattern::parse("s").unwrap(), strict));
    slot.send(Do::Crash).unwrap();
    log.wait_for("s: gave up", 1).await;
    log.wait_for("s: started 2", 1).await;
    assert_eq!(ping(&slot).await, Some(3));
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_significant_child_takes_its_supervisor_along() {
    let log = Log::default();
    let slots = Slots::default();
    let mut children = abc(&slots);
    children[1] = children[1].clone().restart(Restart::Temporary).significant();
    let system = start(SupervisorSpec::one_for_one(children).auto_shutdown(AutoShutdown::Any), &log).await;
    slots[1].send(Do::Stop).unwrap();
    assert_eq!(system.wait().await, ExitReason::AutoShutdown);
}

#[tokio::test(start_paused = true)]
async fn shutdown_kill_does_not_ask() {
    let log = Log::default();
    let slot = Slot::default();
    let script = Script::stopping(Stop::Hangs);
    let child = scripted("a", &slot, &script).shutdown(Shutdown::Kill);
    let system = start(SupervisorSpec::one_for_one(vec![child]), &log).await;
    let begun = tokio::time::Instant::now();
    system.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(log.count("a: exited, killed"), 1);
}

#[tokio::test(start_paused = true)]
async fn two_systems_in_one_process_share_nothing() {
    let (log, other_log) = (Log::default(), Log::default());
    let (slot, other) = (Slot::default(), Slot::default());
    let system = start(SupervisorSpec::one_for_one(vec![puppet("a", &slot)]), &log).await;
    let other_system = start(SupervisorSpec::one_for_one(vec![puppet("a", &other)]), &other_log).await;
    system.tree().inject("a", Fault::Panic).unwrap();
    log.wait_for("a: started 2", 1).await;
    system.stop().await;
    assert_eq!(ping(&other).await, Some(1));
    assert_eq!(other_log.lines().len(), 2);
    other_system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_fault_finds_its_actors_by_pattern_and_says_when_there_are_none() {
    let log = Log::default();
    let slots = Slots::default();
    let system = start(SupervisorSpec::one_for_one(abc(&slots)), &log).await;
    let tree = system.tree();
    assert_eq!(tree.inject("*", Fault::Kill), Ok(3));
    assert!(tree.inject("", Fault::Kill).is_err());
    assert!(tree.inject("x", Fault::Kill).is_err());
    assert!(tree.inject("a/", Fault::Kill).is_err());
    for id in ["a", "b", "c"] {
        log.wait_for(&format!("{id}: started 2"), 1).await;
    }
    tree.inject("a", Fault::Stall(Duration::from_secs(9))).unwrap();
    let begun = tokio::time::Instant::now();
    assert_eq!(ping(&slots[0]).await, Some(2));
    assert_eq!(begun.elapsed().as_secs(), 9);
    system.stop().await;
}
