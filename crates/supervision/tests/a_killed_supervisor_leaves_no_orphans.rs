//! When a supervisor dies, so does everything below it, and its parent starts it again only after that.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use roomcast_supervision::{ActorState, ChildSpec, Fault, Shutdown, Slot, SupervisorSpec};
use support::*;

fn three_deep(slot: &Slot<Do>, script: &Script) -> SupervisorSpec {
    let (slot, script) = (slot.clone(), script.clone());
    SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("a", move || {
        let (slot, script) = (slot.clone(), script.clone());
        SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("b", move || {
            SupervisorSpec::one_for_one(vec![scripted("c", &slot, &script)])
        })])
    })])
}

#[tokio::test(start_paused = true)]
async fn its_grandchildren_die_and_come_back_with_it() {
    for (fault, reason) in [(Fault::Kill, "killed"), (Fault::Panic, "panicked: injected")] {
        let log = Log::default();
        let (slot, script) = (Slot::default(), Script::default());
        let system = start(three_deep(&slot, &script), &log).await;
        log.take();
        assert_eq!(system.tree().inject("a", fault), Ok(1));
        log.wait_for("a: started 2", 1).await;
        assert_eq!(
            log.take(),
            [
                "a/b/c: exited, killed".to_owned(),
                "a/b: exited, killed".to_owned(),
                format!("a: exited, {reason}"),
                "a: restart".to_owned(),
                "a/b/c: started 2".to_owned(),
                "a/b: started 2".to_owned(),
                "a: started 2".to_owned(),
            ]
        );
        assert_eq!(ping(&slot).await, Some(2));
        assert_eq!(script.living(), 1);
        system.stop().await;
        assert_eq!(script.living(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_is_just_stopping_dies_too() {
    let log = Log::default();
    let (slot, script) = (Slot::default(), Script::stopping(Stop::Hangs));
    let (inner, scripted_child) = (slot.clone(), script.clone());
    let spec = SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("a", move || {
        let child = scripted("b", &inner, &scripted_child).shutdown(Shutdown::Infinity);
        SupervisorSpec::one_for_one(vec![child])
    })]);
    let system = start(spec, &log).await;
    slot.send(Do::Stop).unwrap();
    while slot.current().is_some() {
        tokio::task::yield_now().await; // its stop begins with leaving the slot
    }
    system.tree().inject("a", Fault::Kill).unwrap();
    let begun = tokio::time::Instant::now();
    log.wait_for("a: started 2", 1).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "it was killed, not given up on");
    assert_eq!(script.living(), 1, "only the new one");
}

#[tokio::test]
async fn nobody_comes_back_while_a_grandchild_still_runs() {
    let log = Log::default();
    let (slot, script) = (Slot::default(), Script::default());
    // In two threads, so that the blocked one does not block the test.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let system = runtime.spawn({
        let (log, spec) = (log.clone(), three_deep(&slot, &script));
        async move { start(spec, &log).await }
    });
    let system = system.await.unwrap();
    slot.send(Do::Block(Duration::from_millis(300))).unwrap();
    // Taken, so the block has begun or is about to.
    while slot.current().unwrap().depth() > 0 {
        tokio::task::yield_now().await;
    }
    system.tree().inject("a", Fault::Kill).unwrap();
    log.wait_for("a: started 2", 1).await;
    let lines = log.lines();
    let place = |wanted: &str| lines.iter().position(|line| line == wanted).unwrap();
    assert!(place("a/b/c: exited, killed") < place("a: restart"), "{lines:?}");
    assert_eq!(script.living(), 1);
    runtime.spawn(async move { system.stop().await }).await.unwrap();
    runtime.shutdown_background();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grandchild_that_never_awaits_is_abandoned_in_the_end() {
    // Real time is needed: a blocked thread does not run on tokio's clock. The block is longer than the wait for it, and
    // the test ends when the supervisor is back, before the block does.
    static BLOCKED: AtomicUsize = AtomicUsize::new(0);
    struct Stuck;
    impl roomcast_supervision::Worker for Stuck {
        type Message = std::sync::mpsc::Receiver<()>;
        type Args = ();
        async fn start(
            (): (),
            _: &roomcast_supervision::Context<Self>,
        ) -> Result<Self, roomcast_supervision::StartError> {
            Ok(Self)
        }
        async fn handle(
            &mut self,
            release: std::sync::mpsc::Receiver<()>,
            _: &roomcast_supervision::Context<Self>,
        ) -> Result<roomcast_supervision::Flow, roomcast_supervision::Failure> {
            BLOCKED.fetch_add(1, Ordering::SeqCst);
            let _ = release.recv(); // the sender's end is the release
            Ok(roomcast_supervision::Flow::Continue)
        }
    }
    let log = Log::default();
    let slot = Slot::default();
    let inner = slot.clone();
    let spec = SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("a", move || {
        SupervisorSpec::one_for_one(vec![ChildSpec::worker_in::<Stuck>("b", &inner, || ())])
    })]);
    let system = start(spec, &log).await;
    let (release, held) = std::sync::mpsc::channel();
    slot.send(held).unwrap();
    while BLOCKED.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    system.tree().inject("a", Fault::Kill).unwrap();
    log.wait_for("a: started 2", 1).await;
    assert_eq!(log.count("a: abandoned"), 1);
    drop(release);
    log.wait_for("a/b: exited, killed", 1).await; // the old one, at last; it harms nobody
    let entry = system.tree().find("a/b").unwrap();
    assert_eq!((entry.generation, entry.state), (2, ActorState::Running));
    assert!(slot.current().is_some_and(|address| address.is_alive()), "the old one took the new one's slot along");
    assert_eq!(system.stop().await, SHUTDOWN);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_system_kills_all_of_it() {
    let log = Log::default();
    let (slot, script) = (Slot::default(), Script::default());
    let system = start(three_deep(&slot, &script), &log).await;
    let tree = system.tree();
    drop(system);
    log.wait_for("root: exited, killed", 1).await;
    assert_eq!((script.living(), tree.snapshot().len()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_panicking_specification_is_a_failed_start() {
    let log = Log::default();
    let calls = Arc::new(AtomicUsize::new(0));
    let spec = SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("a", move || {
        match calls.fetch_add(1, Ordering::SeqCst) {
            1 => panic!("told to panic"),
            _ => SupervisorSpec::one_for_one(Vec::new()),
        }
    })]);
    let system = start(spec, &log).await;
    system.tree().inject("a", Fault::Kill).unwrap();
    log.wait_for("a: started 3", 1).await;
    assert_eq!(log.count("a: start failed, panicked: told to panic"), 1);
    system.stop().await;
}
