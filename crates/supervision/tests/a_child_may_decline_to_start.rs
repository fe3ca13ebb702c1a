//! A child that declines to start is no failure: it is down, its specification is kept, its siblings go on.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use roomcast_supervision::{
    ActorState, ChildSpec, EventKind, ExitReason, Restart, Slot, Start as Started, SupervisorSlot, SupervisorSpec,
};
use support::*;

fn declining() -> Script {
    Script::starting(Start::Declines)
}

#[tokio::test(start_paused = true)]
async fn its_siblings_start_and_it_can_be_restarted_later() {
    let log = Log::default();
    let (admin, script, b) = (SupervisorSlot::new(), declining(), Slot::default());
    let spec = SupervisorSpec::one_for_all(vec![
        scripted("a", &Slot::default(), &script),
        scripted("gone", &Slot::default(), &script).restart(Restart::Temporary),
        puppet("b", &b),
    ]);
    let system = start(spec.in_slot(&admin), &log).await;
    assert_eq!(states(&system), ["root running", "a down", "b running"]);
    assert_eq!(system.tree().find("a").unwrap().last_reason, Some(ExitReason::Ignored));
    assert!(log.events().iter().any(|event| event.kind == EventKind::Ignored { generation: 1 }));
    assert_eq!(admin.restart_child("a").await, Ok(Started::Ignored));
    script.set_start(Start::Well);
    assert_eq!(admin.restart_child("a").await, Ok(Started::Running));
    assert_eq!(ping(&b).await, Some(1));
    assert_eq!(log.count("root: gave up"), 0);
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_declines_to_be_restarted_stays_down() {
    let log = Log::default();
    let (slot, script, b) = (Slot::default(), Script::default(), Slot::default());
    let spec = SupervisorSpec::one_for_one(vec![scripted("a", &slot, &script), puppet("b", &b)]);
    let system = start(spec, &log).await;
    script.set_start(Start::Declines);
    slot.send(Do::Crash).unwrap();
    log.wait_until("it declined", |log| {
        log.events().iter().any(|event| event.kind == EventKind::Ignored { generation: 2 })
    })
    .await;
    script.set_start(Start::Well);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(states(&system), ["root running", "a down", "b running"]);
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dynamic_one_is_forgotten() {
    let log = Log::default();
    let admin = SupervisorSlot::new();
    let adopt = || vec![scripted("adopted", &Slot::default(), &declining())];
    let system = start(SupervisorSpec::dynamic(adopt, &admin), &log).await;
    let child = scripted("a", &Slot::default(), &declining());
    assert_eq!(admin.start_child(child).await.unwrap(), Started::Ignored);
    assert!(admin.which_children().is_empty());
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_may_decline_too() {
    let log = Log::default();
    let admin = SupervisorSlot::new();
    let wanted = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&wanted);
    let child = ChildSpec::supervisor_or_ignore("s", move || {
        asked.load(Ordering::SeqCst).then(|| SupervisorSpec::one_for_one(vec![puppet("a", &Slot::default())]))
    });
    let system = start(SupervisorSpec::one_for_one(vec![child]).in_slot(&admin), &log).await;
    assert_eq!(system.tree().find("s").unwrap().state, ActorState::Down);
    wanted.store(true, Ordering::SeqCst);
    assert_eq!(admin.restart_child("s").await, Ok(Started::Running));
    assert_eq!(states(&system), ["root running", "s running", "s/a running"]);
    system.stop().await;
}
