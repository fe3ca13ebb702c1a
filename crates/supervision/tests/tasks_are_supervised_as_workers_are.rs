//! A child that is a task only: it is started, stopped, killed and restarted as a worker is, and its end is told once.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use roomcast_supervision::{ChildSpec, Failure, Fault, SupervisorSlot, SupervisorSpec, TaskContext};
use support::*;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// How a task goes on once it is up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// Waits to be stopped.
    Waits,
    /// As `Waits`, but takes this long to stop.
    Lingers(Duration),
    Ends,
    Fails,
    Panics,
}

/// What many incarnations of a task share.
#[derive(Clone)]
struct Play {
    /// For the next incarnations, the last of them for good.
    then: Arc<Mutex<Vec<Then>>>,
    alive: Arc<AtomicUsize>,
}

/// Counted while it is there, in whatever way it goes.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Play {
    fn of(then: &[Then]) -> Self {
        Self { then: Arc::new(Mutex::new(then.to_vec())), alive: Arc::default() }
    }

    fn living(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }

    async fn live(self, task: TaskContext) -> Result<(), Failure> {
        self.alive.fetch_add(1, Ordering::SeqCst);
        let _alive = Alive(Arc::clone(&self.alive));
        let then = {
            let mut then = self.then.lock().unwrap();
            if then.len() > 1 { then.remove(0) } else { then[0] }
        };
        match then {
            Then::Waits => task.stopping().await,
            Then::Lingers(time) => {
                task.stopping().await;
                tokio::time::sleep(time).await;
            }
            Then::Ends => {}
            Then::Fails => return Err("told to fail".into()),
            Then::Panics => panic!("told to panic"),
        }
        Ok(())
    }

    fn child(&self, id: &str) -> ChildSpec {
        let play = self.clone();
        ChildSpec::task(id, move |task| play.clone().live(task))
    }

    fn child_once(&self, id: &str) -> ChildSpec {
        let play = self.clone();
        ChildSpec::task_once(id, &Handle::current(), move |task| play.live(task))
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_up_until_it_is_asked_to_stop() {
    let (log, play) = (Log::default(), Play::of(&[Then::Waits]));
    let system = start(SupervisorSpec::one_for_one(vec![play.child("a")]), &log).await;
    assert_eq!((play.living(), system.tree().find("a").unwrap().depth), (1, 0));
    assert!(states(&system).contains(&"a running".to_owned()), "{:?}", states(&system));
    assert_eq!(system.stop().await, SHUTDOWN);
    assert_eq!(play.living(), 0);
    assert_eq!(log.count("a: exited, shut down"), 1, "{:?}", log.lines());
}

#[tokio::test(start_paused = true)]
async fn however_it_ends_a_permanent_one_is_there_again() {
    for (then, reason) in [
        (Then::Ends, "ended normally"),
        (Then::Fails, "failed: told to fail"),
        (Then::Panics, "panicked: told to panic"),
    ] {
        let (log, play, other) = (Log::default(), Play::of(&[then, Then::Waits]), Play::of(&[Then::Waits]));
        let children = vec![play.child("bad"), other.child("good")];
        let system = start(SupervisorSpec::one_for_one(children), &log).await;
        log.wait_for("bad: started 2", 1).await;
        assert_eq!(log.count(&format!("bad: exited, {reason}")), 1, "{:?}", log.lines());
        assert_eq!((play.living(), other.living()), (1, 1));
        assert_eq!(log.count("good: started 1"), 1);
        assert_eq!(system.stop().await, SHUTDOWN);
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_and_an_injected_panic_are_crashes() {
    for (fault, reason) in [(Fault::Kill, "killed"), (Fault::Panic, "panicked: injected")] {
        let (log, play) = (Log::default(), Play::of(&[Then::Waits]));
        let system = start(SupervisorSpec::one_for_one(vec![play.child("a")]), &log).await;
        assert_eq!(system.tree().inject("a", fault), Ok(1));
        log.wait_for("a: started 2", 1).await;
        assert_eq!(log.count(&format!("a: exited, {reason}")), 1, "{:?}", log.lines());
        assert_eq!(play.living(), 1);
        assert_eq!(system.stop().await, SHUTDOWN);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stalled_one_does_nothing_meanwhile_and_goes_on() {
    let (log, ticks) = (Log::default(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&ticks);
    let child = ChildSpec::task("a", move |task| {
        let ticks = Arc::clone(&counted);
        async move {
            let ticking = async {
                loop {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    ticks.fetch_add(1, Ordering::SeqCst);
                }
            };
            tokio::select! {
                () = task.stopping() => Ok(()),
                () = ticking => Ok(()),
            }
        }
    });
    let system = start(SupervisorSpec::one_for_one(vec![child]), &log).await;
    system.tree().inject("a", Fault::Stall(Duration::from_secs(2))).unwrap();
    tokio::time::sleep(Duration::from_millis(1_900)).await;
    assert!(ticks.load(Ordering::SeqCst) <= 1, "{ticks:?} ticks while it was stalled");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(ticks.load(Ordering::SeqCst) > 50, "{ticks:?} ticks after that");
    assert_eq!(system.stop().await, SHUTDOWN);
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_stop_in_time_is_killed() {
    let (log, play) = (Log::default(), Play::of(&[Then::Lingers(Duration::from_secs(60))]));
    let system = start_with(SupervisorSpec::one_for_one(vec![play.child("a")]), &log, |policy| {
        policy.shutdown = Duration::from_secs(3);
    })
    .await;
    let asked = Instant::now();
    assert_eq!(system.stop().await, SHUTDOWN);
    assert_eq!((asked.elapsed().as_secs(), play.living()), (3, 0));
    assert_eq!(log.count("a: exited, killed"), 1, "{:?}", log.lines());
}

#[tokio::test(start_paused = true)]
async fn its_supervisors_death_is_its_own() {
    let (log, play) = (Log::default(), Play::of(&[Then::Waits]));
    let below = play.clone();
    let spec = SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("s", move || {
        SupervisorSpec::one_for_one(vec![below.child("a")])
    })]);
    let system = start(spec, &log).await;
    for (round, fault) in [(2, Fault::Kill), (3, Fault::Panic)] {
        system.tree().inject("s", fault).unwrap();
        log.wait_for(&format!("s/a: started {round}"), 1).await;
        assert_eq!(play.living(), 1, "the one before was gone before the next began");
        assert_eq!(log.count("s/a: exited, killed"), round - 1);
    }
    assert_eq!(system.stop().await, SHUTDOWN);
}

#[tokio::test(start_paused = true)]
async fn a_temporary_one_is_forgotten_when_it_ends() {
    let log = Log::default();
    let slot = SupervisorSlot::default();
    let in_slot = slot.clone();
    let spec = SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("many", move || {
        SupervisorSpec::dynamic(Vec::new, &in_slot)
    })]);
    let system = start(spec, &log).await;
    let plays: Vec<_> = [Then::Waits, Then::Ends, Then::Fails, Then::Panics].map(|then| Play::of(&[then])).into();
    for (number, play) in plays.iter().enumerate() {
        slot.start_child(play.child_once(&number.to_string())).await.unwrap();
    }
    log.wait_until("three ends", |log| log.lines().iter().filter(|line| line.contains("exited")).count() == 3).await;
    assert_eq!(slot.count_children().active, 1);
    assert_eq!(plays.iter().map(Play::living).collect::<Vec<_>>(), [1, 0, 0, 0]);
    system.tree().inject("many/0", Fault::Kill).unwrap();
    log.wait_for("many/0: exited, killed", 1).await;
    log.wait_until("none is left", |_| slot.count_children().active == 0).await;
    assert_eq!(system.stop().await, SHUTDOWN);
}

#[tokio::test]
async fn it_runs_where_it_was_told_to() {
    let elsewhere =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("elsewhere").build().unwrap();
    let log = Log::default();
    let slot = SupervisorSlot::default();
    let in_slot = slot.clone();
    let spec = SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("many", move || {
        SupervisorSpec::dynamic(Vec::new, &in_slot)
    })]);
    let system = start(spec, &log).await;
    let (tell, told) = tokio::sync::oneshot::channel();
    let child = ChildSpec::task_once("one", elsewhere.handle(), move |task| async move {
        let _ = tell.send(std::thread::current().name().map(str::to_owned));
        task.stopping().await;
        Ok(())
    });
    slot.start_child(child).await.unwrap();
    assert_eq!(told.await.unwrap().as_deref(), Some("elsewhere"));
    assert_eq!(system.stop().await, SHUTDOWN);
    assert_eq!(log.count("many/one: exited, shut down"), 1, "{:?}", log.lines());
    elsewhere.shutdown_background();
}
