//! Children of a fixed supervisor are started, terminated, restarted, deleted and shown by request, with OTP's refusals.

#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use roomcast_supervision::{
    ActorState, Backoff, ChildCounts, ChildSpec, DeleteChildError, ExitReason, Fault, Restart, RestartChildError, Slot,
    SpecError, Start as Started, StartChildError, SupervisorSlot, SupervisorSpec, TerminateChildError,
};
use support::*;

fn fixed(slot: &SupervisorSlot, children: Vec<ChildSpec>) -> SupervisorSpec {
    SupervisorSpec::one_for_one(children).in_slot(slot)
}

fn shown(slot: &SupervisorSlot) -> Vec<String> {
    slot.which_children().iter().map(|entry| format!("{} {}", entry.path.name(), entry.state.as_str())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_child_goes_through_all_requests() {
    let log = Log::default();
    let (admin, a, b) = (SupervisorSlot::new(), Slot::default(), Slot::default());
    let system = start(fixed(&admin, vec![puppet("a", &a)]), &log).await;
    assert_eq!(admin.start_child(puppet("b", &b)).await.unwrap(), Started::Running);
    assert!(matches!(admin.start_child(puppet("b", &b)).await, Err(StartChildError::AlreadyStarted)));
    assert_eq!(admin.restart_child("b").await, Err(RestartChildError::Running));
    assert_eq!(admin.delete_child("b").await, Err(DeleteChildError::Running));
    assert_eq!(shown(&admin), ["a running", "b running"]);

    assert_eq!(admin.terminate_child("b").await, Ok(()));
    assert_eq!(admin.terminate_child("b").await, Ok(()));
    assert_eq!(shown(&admin), ["a running", "b down"]);
    assert_eq!(admin.count_children(), ChildCounts { specs: 2, active: 1, workers: 2, supervisors: 0 });
    assert!(matches!(admin.start_child(puppet("b", &b)).await, Err(StartChildError::AlreadyPresent)));
    let other_id = puppet("c", &b).named("b");
    let taken = StartChildError::Invalid(SpecError::Duplicate("c".to_owned()));
    assert_eq!(admin.start_child(other_id).await.unwrap_err().to_string(), taken.to_string());

    assert_eq!(admin.restart_child("b").await, Ok(Started::Running));
    assert_eq!(ping(&b).await, Some(2));
    assert_eq!(admin.child_spec("b").await.unwrap().kind().as_str(), "worker");
    admin.terminate_child("b").await.unwrap();
    assert_eq!(admin.delete_child("b").await, Ok(()));
    assert_eq!(shown(&admin), ["a running"]);
    assert!(admin.child_spec("b").await.is_none());
    assert_eq!(admin.restart_child("b").await, Err(RestartChildError::NotFound));
    assert_eq!(admin.delete_child("b").await, Err(DeleteChildError::NotFound));
    assert_eq!(admin.terminate_child("b").await, Err(TerminateChildError::NotFound));
    assert_eq!(ping(&a).await, Some(1));

    system.stop().await;
    assert!(matches!(admin.start_child(puppet("b", &b)).await, Err(StartChildError::NotRunning)));
    assert_eq!(admin.restart_child("a").await, Err(RestartChildError::NotRunning));
    assert_eq!(admin.delete_child("a").await, Err(DeleteChildError::NotRunning));
    assert_eq!(admin.terminate_child("a").await, Err(TerminateChildError::NotRunning));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_is_told_and_only_a_kept_child_stays() {
    let log = Log::default();
    let (admin, script) = (SupervisorSlot::new(), Script::default());
    let system = start(fixed(&admin, vec![scripted("a", &Slot::default(), &script)]), &log).await;
    script.set_start(Start::Fails);
    let failed = ExitReason::Failed("told to fail".into());
    let new = scripted("b", &Slot::default(), &script);
    let Err(StartChildError::Failed(reason)) = admin.start_child(new).await else { panic!("it cannot start") };
    assert_eq!(reason, failed);
    admin.terminate_child("a").await.unwrap();
    for _ in 0..20 {
        assert_eq!(admin.restart_child("a").await, Err(RestartChildError::Failed(failed.clone())));
    }
    assert_eq!(shown(&admin), ["a down"]);
    script.set_start(Start::Panics);
    let panicked = ExitReason::Panicked("told to panic in start".into());
    assert_eq!(admin.restart_child("a").await, Err(RestartChildError::Failed(panicked)));
    assert_eq!(log.count("root: gave up"), 0);
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_child_in_backoff_is_restarting_until_it_is_terminated() {
    let log = Log::default();
    let (admin, a, script) = (SupervisorSlot::new(), Slot::default(), Script::default());
    let hour = Duration::from_secs(3600);
    let system = start_with(fixed(&admin, vec![scripted("a", &a, &script)]), &log, |policy| {
        policy.backoff = Backoff::new(hour, 1.0, hour, 0.0).unwrap();
    })
    .await;
    script.set_start(Start::Fails);
    a.send(Do::Crash).unwrap();
    log.wait_for("a: restart", 2).await;
    assert_eq!(shown(&admin), ["a restarting"]);
    assert_eq!(admin.restart_child("a").await, Err(RestartChildError::Restarting));
    assert_eq!(admin.delete_child("a").await, Err(DeleteChildError::Restarting));
    assert!(matches!(admin.start_child(puppet("a", &a)).await, Err(StartChildError::AlreadyPresent)));
    assert_eq!(admin.count_children(), ChildCounts { specs: 1, active: 0, workers: 1, supervisors: 0 });
    assert_eq!(admin.terminate_child("a").await, Ok(()));
    assert_eq!(shown(&admin), ["a down"]);
    script.set_start(Start::Well);
    tokio::time::sleep(hour * 2).await;
    assert_eq!(shown(&admin), ["a down"], "it does not come back");
    assert_eq!(admin.restart_child("a").await, Ok(Started::Running));
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_in_backoff_is_restarting_and_goes_on_without_who_is_terminated() {
    let log = Log::default();
    let (admin, script) = (SupervisorSlot::new(), Script::default());
    let slots: [Slot<Do>; 3] = Default::default();
    let children = vec![puppet("a", &slots[0]), scripted("b", &slots[1], &script), puppet("c", &slots[2])];
    let minute = Duration::from_secs(60);
    let spec = SupervisorSpec::rest_for_one(children).in_slot(&admin);
    let system = start_with(spec, &log, |policy| {
        policy.backoff = Backoff::new(minute, 1.0, minute, 0.0).unwrap();
    })
    .await;
    script.set_start(Start::Fails);
    slots[1].send(Do::Crash).unwrap();
    log.wait_for("b: restart", 2).await;
    assert_eq!(shown(&admin), ["a running", "b restarting", "c restarting"]);
    assert_eq!(admin.restart_child("c").await, Err(RestartChildError::Restarting));
    admin.terminate_child("b").await.unwrap();
    assert_eq!(shown(&admin), ["a running", "b down", "c restarting"]);
    log.wait_for("c: started 2", 1).await;
    assert_eq!(shown(&admin), ["a running", "b down", "c running"]);
    assert_eq!(ping(&slots[0]).await, Some(1));
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_is_restarted_begins_with_its_specification() {
    let log = Log::default();
    let (admin, a) = (SupervisorSlot::new(), Slot::default());
    let (inner, slot) = (admin.clone(), a.clone());
    let spec =
        SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("s", move || fixed(&inner, vec![puppet("a", &slot)]))]);
    let system = start(spec, &log).await;
    admin.start_child(puppet("b", &Slot::default())).await.unwrap();
    admin.terminate_child("a").await.unwrap();
    system.tree().inject("s", Fault::Kill).unwrap();
    log.wait_for("s: started 2", 1).await;
    assert_eq!(shown(&admin), ["a running"]);
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_killed_supervisor_leaves_nobody_restarting_in_the_tree() {
    let log = Log::default();
    let (a, script) = (Slot::default(), Script::default());
    let (slot, inner) = (a.clone(), script.clone());
    let spec = SupervisorSpec::one_for_one(vec![
        ChildSpec::supervisor("s", move || SupervisorSpec::one_for_one(vec![scripted("a", &slot, &inner)]))
            .restart(Restart::Temporary),
        ChildSpec::supervisor("t", || SupervisorSpec::one_for_one(Vec::new())),
    ]);
    let hour = Duration::from_secs(3600);
    let system = start_with(spec, &log, |policy| policy.backoff = Backoff::new(hour, 1.0, hour, 0.0).unwrap()).await;
    script.set_start(Start::Fails);
    a.send(Do::Crash).unwrap();
    log.wait_for("s/a: restart", 2).await;
    assert_eq!(system.tree().find("s/a").unwrap().state, ActorState::Restarting);
    system.tree().inject("s", Fault::Kill).unwrap();
    log.wait_for("s: exited, killed", 1).await;
    assert!(states(&system).iter().all(|line| !line.contains("restarting")), "{:?}", states(&system));
    system.stop().await;
}
