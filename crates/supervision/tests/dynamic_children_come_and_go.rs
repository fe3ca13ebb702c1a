//! A supervisor of many: children added and removed at run time, adopted after a crash, never leaked.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use roomcast_supervision::{
    ChildCounts, ChildSpec, Fault, Restart, Slot, StartChildError, SupervisorSlot, SupervisorSpec, TerminateChildError,
};
use support::*;

fn many(handle: &SupervisorSlot) -> SupervisorSpec {
    let handle = handle.clone();
    SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("many", move || SupervisorSpec::dynamic(Vec::new, &handle))])
}

fn temporary(id: &str, slot: &Slot<Do>) -> ChildSpec {
    ChildSpec::once_in::<Puppet>(id, slot, Script::default())
}

#[tokio::test(start_paused = true)]
async fn a_child_is_started_counted_refused_twice_and_terminated() {
    let log = Log::default();
    let (handle, slot) = (SupervisorSlot::new(), Slot::default());
    assert!(matches!(handle.start_child(puppet("x", &slot)).await, Err(StartChildError::NotRunning)));
    let system = start(many(&handle), &log).await;
    handle.start_child(puppet("x", &slot)).await.unwrap();
    assert_eq!(ping(&slot).await, Some(1));
    assert!(matches!(handle.start_child(puppet("x", &slot)).await, Err(StartChildError::AlreadyStarted)));
    assert_eq!(handle.count_children(), ChildCounts { specs: 1, active: 1, workers: 1, supervisors: 0 });
    let failing = scripted("y", &Slot::default(), &Script::starting(Start::Fails));
    assert!(matches!(handle.start_child(failing).await, Err(StartChildError::Failed(_))));
    assert_eq!(handle.terminate_child("x").await, Ok(()));
    assert_eq!(handle.terminate_child("x").await, Err(TerminateChildError::NotFound));
    assert_eq!(handle.count_children(), ChildCounts::default());
    assert_eq!(log.count("many/x: exited, shut down"), 1);
    system.stop().await;
    assert!(!handle.is_running());
}

#[tokio::test(start_paused = true)]
async fn a_temporary_child_is_forgotten_when_it_ends() {
    let log = Log::default();
    let (handle, slot) = (SupervisorSlot::new(), Slot::default());
    let system = start(many(&handle), &log).await;
    for round in 1..=3 {
        handle.start_child(temporary("x", &slot)).await.unwrap();
        slot.send(Do::Crash).unwrap();
        log.wait_for("many/x: exited, panicked: told to crash", round).await;
        // Its supervisor is told last; asking it for anything else comes after that.
        let _ = handle.terminate_child("nobody").await;
        assert!(system.tree().find("many/x").is_none());
    }
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn children_are_adopted_when_their_supervisor_comes_back() {
    let log = Log::default();
    type Store = Arc<Mutex<Vec<(String, Slot<Do>)>>>;
    let store = Store::default();
    let handle = SupervisorSlot::new();
    let (adopted, slot) = (Arc::clone(&store), handle.clone());
    let spec = SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("many", move || {
        let adopted = Arc::clone(&adopted);
        let adopt = move || adopted.lock().unwrap().iter().map(|(id, slot)| puppet(id, slot)).collect();
        SupervisorSpec::dynamic(adopt, &slot)
    })]);
    let system = start(spec, &log).await;
    for id in ["x", "y"] {
        let slot = Slot::default();
        store.lock().unwrap().push((id.to_owned(), slot.clone()));
        handle.start_child(puppet(id, &slot)).await.unwrap();
    }
    handle.start_child(puppet("not in the store", &Slot::default())).await.unwrap();
    system.tree().inject("many", Fault::Kill).unwrap();
    log.wait_for("many: started 2", 1).await;
    assert_eq!(handle.count_children().active, 2);
    let stored = store.lock().unwrap().clone();
    for (_, slot) in stored {
        assert_eq!(ping(&slot).await, Some(2), "a generation is never used twice");
    }
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_start_does_not_keep_the_others() {
    let log = Log::default();
    let handle = SupervisorSlot::new();
    let script = Script::starting(Start::Fails);
    let (good, bad, slot) = (Slot::default(), script.clone(), handle.clone());
    let inner = good.clone();
    let spec = SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("many", move || {
        let (inner, bad) = (inner.clone(), bad.clone());
        SupervisorSpec::dynamic(move || vec![scripted("bad", &Slot::default(), &bad), puppet("good", &inner)], &slot)
    })]);
    let system = start(spec, &log).await;
    assert_eq!(ping(&good).await, Some(1));
    script.set_start(Start::Well);
    log.wait_until("bad is up", |log| log.lines().iter().any(|line| line.starts_with("many/bad: started"))).await;
    assert_eq!(ping(&good).await, Some(1));
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn they_stop_side_by_side_under_one_timer() {
    let log = Log::default();
    let handle = SupervisorSlot::new();
    let system = start(many(&handle), &log).await;
    let script = Script::stopping(Stop::After(Duration::from_secs(4)));
    for id in 0..50 {
        handle.start_child(scripted(&id.to_string(), &Slot::default(), &script)).await.unwrap();
    }
    let stuck = Script::stopping(Stop::Hangs);
    handle.start_child(scripted("stuck", &Slot::default(), &stuck)).await.unwrap();
    let begun = tokio::time::Instant::now();
    system.stop().await;
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!((script.living(), stuck.living()), (0, 0));
    assert_eq!(log.count("many/stuck: exited, killed"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_child_terminated_while_it_waits_to_be_restarted_does_not_come_back() {
    let log = Log::default();
    let (handle, slot, script) = (SupervisorSlot::new(), Slot::default(), Script::default());
    let system = start(many(&handle), &log).await;
    handle.start_child(scripted("x", &slot, &script)).await.unwrap();
    script.set_start(Start::Fails);
    slot.send(Do::Crash).unwrap();
    log.wait_for("many/x: restart", 2).await;
    assert_eq!(handle.terminate_child("x").await, Ok(()));
    script.set_start(Start::Well);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(handle.count_children(), ChildCounts::default());
    assert_eq!(log.count("many/x: started 2") + log.count("many/x: started 3"), 0);
    system.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_come_and_go_without_a_quadratic_cost() {
    const MANY: usize = 20_000;
    let handle = SupervisorSlot::new();
    let system = start_with(many(&handle), &Log::default(), |policy| policy.intensity = u32::MAX).await;
    let mut times = Vec::new();
    for count in [MANY / 10, MANY, MANY / 10] {
        let slots: Vec<Slot<Do>> = (0..count).map(|_| Slot::default()).collect();
        let begun = std::time::Instant::now();
        for (id, slot) in slots.iter().enumerate() {
            handle.start_child(puppet(&id.to_string(), slot).restart(Restart::Temporary)).await.unwrap();
        }
        assert_eq!(handle.count_children().active, count);
        for slot in &slots {
            slot.send(Do::Fail).unwrap();
        }
        while handle.count_children().specs > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        times.push(begun.elapsed().as_secs_f64() * 1e6 / count as f64);
    }
    println!("µs per child, started and failed, of 2,000, of 20,000, of 2,000 again: {times:.1?}");
    // Quadratic would be ten times. The machine may be busy, hence the better of two and the wide bound.
    assert!(times[1] < times[0].max(times[2]) * 6.0, "{times:?}");
    assert_eq!(system.tree().snapshot().len(), 2);
    system.stop().await;
}
