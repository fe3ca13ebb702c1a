//! Whatever a worker does wrong, and wherever, it is an exit for its supervisor and nothing else.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use roomcast_supervision::{
    ChildSpec, Context, EventKind, Failure, Fault, Flow, Observer, Restart, Slot, StartChildError, StartError,
    SupervisorSlot, SupervisorSpec, System, SystemOptions, Worker,
};
use support::*;

/// Runs a pair of puppets through `fault` and checks that only the first notices.
async fn only_it_is_restarted(script: Script, fault: Do, reason: &str) {
    let log = Log::default();
    let (bad, good) = (Slot::default(), Slot::default());
    let spec = SupervisorSpec::one_for_one(vec![scripted("bad", &bad, &script), puppet("good", &good)]);
    let system = start(spec, &log).await;
    bad.send(fault).unwrap();
    log.wait_for("bad: started 2", 1).await;
    assert_eq!(log.count(&format!("bad: exited, {reason}")), 1, "{:?}", log.lines());
    assert_eq!(ping(&bad).await, Some(2));
    assert_eq!(ping(&good).await, Some(1));
    assert_eq!(script.living(), 1);
    assert_eq!(system.stop().await, SHUTDOWN);
    assert_eq!(script.living(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_handler() {
    only_it_is_restarted(Script::default(), Do::Crash, "panicked: told to crash").await;
}

#[tokio::test(start_paused = true)]
async fn an_error_in_a_handler() {
    only_it_is_restarted(Script::default(), Do::Fail, "failed: told to fail").await;
}

#[tokio::test(start_paused = true)]
async fn an_orderly_end_of_a_permanent_child() {
    only_it_is_restarted(Script::default(), Do::Stop, "ended normally").await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_stop() {
    only_it_is_restarted(Script::stopping(Stop::Panics), Do::Stop, "panicked: told to panic in stop").await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_hangs_after_an_orderly_end() {
    only_it_is_restarted(Script::stopping(Stop::Hangs), Do::Stop, "failed: did not stop within 5s").await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_drop() {
    let script = Script { drop_panics: true, ..Script::default() };
    only_it_is_restarted(script, Do::Stop, "panicked: told to panic in drop").await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_drop_after_a_panic() {
    let script = Script { drop_panics: true, ..Script::default() };
    only_it_is_restarted(script, Do::Crash, "panicked: told to crash").await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_an_attached_task() {
    only_it_is_restarted(Script::default(), Do::Attach(Err("panic")), "panicked: task `task`: told to panic").await;
}

#[tokio::test(start_paused = true)]
async fn an_error_in_an_attached_task() {
    only_it_is_restarted(Script::default(), Do::Attach(Err("boom")), "failed: task `task`: boom").await;
}

#[tokio::test(start_paused = true)]
async fn an_attached_task_that_is_done() {
    only_it_is_restarted(Script::default(), Do::Attach(Ok(true)), "ended normally").await;
}

#[tokio::test(start_paused = true)]
async fn a_helper_that_is_done_means_nothing() {
    let log = Log::default();
    let slot = Slot::default();
    let system = start(SupervisorSpec::one_for_one(vec![puppet("a", &slot)]), &log).await;
    slot.send(Do::Attach(Ok(false))).unwrap();
    assert_eq!(ping(&slot).await, Some(1));
    system.stop().await;
    assert_eq!(log.count("a: started 2"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_start() {
    let script = Script::starting(Start::Panics);
    let spec = SupervisorSpec::one_for_one(vec![scripted("a", &Slot::default(), &script)]);
    let error = System::start(spec, options(&Log::default())).await.unwrap_err();
    assert_eq!(error.to_string(), "`root` did not start: failed: child `a`: panicked: told to panic in start");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_observer() {
    let slot = Slot::default();
    let options = roomcast_supervision::SystemOptions {
        observer: Some(Arc::new(|_| panic!("told to panic"))),
        ..Default::default()
    };
    let system = System::start(SupervisorSpec::one_for_one(vec![puppet("a", &slot)]), options).await.unwrap();
    assert_eq!(ping(&slot).await, Some(1));
    assert_eq!(system.stop().await, SHUTDOWN);
}

#[tokio::test(start_paused = true)]
async fn an_attached_task_ends_with_its_worker_before_the_next_begins() {
    let log = Log::default();
    let slot = Slot::default();
    let system = start(SupervisorSpec::one_for_one(vec![puppet("a", &slot)]), &log).await;
    let token = Arc::new(());
    for (generation, end) in [(2, Do::Crash), (3, Do::Stop), (4, Do::Fail)] {
        slot.send(Do::AttachForever(Arc::clone(&token))).unwrap();
        ping(&slot).await;
        assert_eq!(Arc::strong_count(&token), 2);
        slot.send(end).unwrap();
        log.wait_for(&format!("a: started {generation}"), 1).await;
        assert_eq!(Arc::strong_count(&token), 1);
    }
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_hangs_is_killed_after_its_shutdown_time() {
    let log = Log::default();
    let slot = Slot::default();
    let system = start(SupervisorSpec::one_for_one(vec![puppet("a", &slot)]), &log).await;
    slot.send(Do::Hang).unwrap();
    let begun = tokio::time::Instant::now();
    assert_eq!(system.stop().await, SHUTDOWN);
    assert_eq!(begun.elapsed().as_secs(), 5);
    assert_eq!(log.count("a: exited, killed"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_but_timely_stop_is_waited_for() {
    let log = Log::default();
    let slot = Slot::default();
    let script = Script::stopping(Stop::After(Duration::from_secs(4)));
    let system = start(SupervisorSpec::one_for_one(vec![scripted("a", &slot, &script)]), &log).await;
    assert_eq!(system.stop().await, SHUTDOWN);
    assert_eq!(log.count("a: exited, shut down"), 1);
}

/// Panics when it is dropped, unless a panic is under way.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("told to panic in drop");
        }
    }
}

fn with_a_bomb(id: &str) -> ChildSpec {
    let bomb = Bomb;
    ChildSpec::worker::<Puppet>(id, move || {
        let _bomb = &bomb;
        Script::default()
    })
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_drop_of_a_specification_that_is_refused_or_forgotten() {
    let log = Log::default();
    let (desk, good) = (SupervisorSlot::new(), Slot::default());
    let inner = desk.clone();
    let many = ChildSpec::supervisor("many", move || SupervisorSpec::dynamic(Vec::new, &inner));
    let system = start(SupervisorSpec::one_for_one(vec![many]), &log).await;
    desk.start_child(puppet("good", &good)).await.unwrap();
    let refused = desk.start_child(with_a_bomb("good")).await;
    assert!(matches!(refused, Err(StartChildError::AlreadyStarted)), "{refused:?}");
    desk.start_child(with_a_bomb("bad")).await.unwrap();
    assert_eq!(desk.terminate_child("bad").await, Ok(()));
    assert_eq!(ping(&good).await, Some(1));
    assert_eq!(system.tree().find("many").unwrap().generation, 1, "{:?}", log.lines());
    assert_eq!(system.stop().await, SHUTDOWN);
}

/// Kills a transient child while it is in the stop that `end` has led to: as after any kill, it is restarted.
async fn a_kill_on_the_way_out_is_a_kill(end: Do) {
    let log = Log::default();
    let slot = Slot::default();
    let script = Script::stopping(Stop::After(Duration::from_secs(2)));
    let spec = SupervisorSpec::one_for_one(vec![scripted("a", &slot, &script).restart(Restart::Transient)]);
    let system = start(spec, &log).await;
    slot.send(end).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await; // paused time: it is in its stop now, whatever the machine's load
    system.tree().inject("a", Fault::Kill).unwrap();
    log.wait_for("a: exited, killed", 1).await;
    log.wait_for("a: started 2", 1).await;
    system.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_during_an_orderly_end() {
    a_kill_on_the_way_out_is_a_kill(Do::Stop).await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_during_the_end_that_a_task_brought() {
    a_kill_on_the_way_out_is_a_kill(Do::Attach(Ok(true))).await;
}

/// Cannot be shown.
#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("told to panic when shown");
    }
}

impl std::error::Error for Unspeakable {}

#[derive(Clone, Copy)]
enum End {
    TaskFails,
    TaskPanics,
    HandlerFails,
    HandlerPanics,
}

/// Ends, when sent to, with an error that cannot be shown or a panic whose payload cannot be dropped.
struct Mean(End);

fn end<T>(panics: bool) -> Result<T, Failure> {
    if panics {
        std::panic::panic_any(Bomb);
    }
    Err(Box::new(Unspeakable))
}

impl Worker for Mean {
    type Message = ();
    type Args = End;

    async fn start(end: End, _: &Context<Self>) -> Result<Self, StartError> {
        Ok(Self(end))
    }

    async fn handle(&mut self, (): (), ctx: &Context<Self>) -> Result<Flow, Failure> {
        match self.0 {
            End::TaskFails => ctx.attach("vital", async { end(false) }),
            End::TaskPanics => ctx.attach("vital", async { end(true) }),
            End::HandlerFails => return end(false),
            End::HandlerPanics => return end(true),
        }
        Ok(Flow::Continue)
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_cannot_be_shown_and_a_panic_that_cannot_be_dropped() {
    let unshown = "an error that panics when it is shown: told to panic when shown";
    for (end, reason) in [
        (End::TaskFails, format!("failed: task `vital`: {unshown}")),
        (End::TaskPanics, "panicked: task `vital`: a panic without a text".to_owned()),
        (End::HandlerFails, format!("failed: {unshown}")),
        (End::HandlerPanics, "panicked: a panic without a text".to_owned()),
    ] {
        let log = Log::default();
        let slot = Slot::default();
        let child = ChildSpec::worker_in::<Mean>("a", &slot, move || end);
        let system = start(SupervisorSpec::one_for_one(vec![child]), &log).await;
        slot.send(()).unwrap();
        log.wait_for("a: started 2", 1).await;
        assert_eq!(log.count(&format!("a: exited, {reason}")), 1, "{:?}", log.lines());
        system.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_observer_that_cannot_be_dropped() {
    let slot = Slot::default();
    let observer: Observer = Arc::new(|event| {
        if matches!(event.kind, EventKind::Exited { .. }) {
            std::panic::panic_any(Bomb);
        }
    });
    let spec = SupervisorSpec::one_for_one(vec![puppet("a", &slot)]);
    let options = SystemOptions { observer: Some(observer), ..SystemOptions::default() };
    let system = System::start(spec, options).await.unwrap();
    slot.send(Do::Crash).unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await; // paused time: nothing is left to happen after this
    assert_eq!(ping(&slot).await, Some(2));
    assert_eq!(system.stop().await, SHUTDOWN);
}
