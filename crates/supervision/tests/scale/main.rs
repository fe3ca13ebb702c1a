//! Many children under one supervisor: what they cost grows with their number, not with its square.
//!
//! Costs are compared by processor time of the one thread that does the work, so that a loaded machine does not matter.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use roomcast_supervision::{
    ActorState, ChildCounts, ChildSpec, Context, Failure, Fault, Flow, Policies, Policy, PolicySet, Restart,
    StartError, SupervisorSlot, SupervisorSpec, System, SystemOptions, Worker,
};
use tokio::sync::Semaphore;

/// Does nothing but tell that it is up.
struct Idle;

impl Worker for Idle {
    type Message = ();
    type Args = Arc<Semaphore>;

    async fn start(up: Arc<Semaphore>, _: &Context<Self>) -> Result<Self, StartError> {
        up.add_permits(1);
        Ok(Self)
    }

    async fn handle(&mut self, (): (), _: &Context<Self>) -> Result<Flow, Failure> {
        Ok(Flow::Continue)
    }
}

/// A supervisor of many in a thread of its own choosing: each test runs on one thread.
struct Many {
    slot: SupervisorSlot,
    system: System,
    up: Arc<Semaphore>,
    count: u32,
}

impl Many {
    async fn start(count: u32, restart: Restart) -> Self {
        let (slot, up) = (SupervisorSlot::new(), Arc::new(Semaphore::new(0)));
        let policy = Policy { intensity: u32::MAX, ..Policy::default() };
        let options =
            SystemOptions { policies: Arc::new(Policies::new(PolicySet::new(policy))), ..SystemOptions::default() };
        let system = System::start(SupervisorSpec::dynamic(Vec::new, &slot), options).await.unwrap();
        for id in 0..count {
            let up = Arc::clone(&up);
            let child = ChildSpec::worker::<Idle>(id.to_string(), move || Arc::clone(&up)).restart(restart);
            slot.start_child(child).await.unwrap();
        }
        let many = Self { slot, system, up, count };
        many.all_up().await;
        many
    }

    /// Waits for as many starts as there are children.
    async fn all_up(&self) {
        let all = tokio::time::timeout(Duration::from_secs(120), self.up.acquire_many(self.count));
        all.await.expect("they come up in time").unwrap().forget();
    }

    fn assert_running(&self) {
        let all = self.count as usize;
        assert_eq!(self.slot.count_children(), ChildCounts { specs: all, active: all, workers: all, supervisors: 0 });
        let children = self.slot.which_children();
        assert_eq!(children.len(), all);
        assert!(children.iter().all(|child| child.state == ActorState::Running));
    }

    /// All crash at once; until all run again.
    async fn crash(&self) {
        assert_eq!(self.system.tree().inject("*", Fault::Kill).unwrap(), self.count as usize);
        self.all_up().await;
    }

    async fn terminate_each(&self) {
        for id in 0..self.count {
            self.slot.terminate_child(id.to_string()).await.unwrap();
        }
        assert_eq!(self.slot.count_children(), ChildCounts::default());
    }
}

/// Processor time of this thread so far.
fn busy() -> Duration {
    static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    let nanoseconds = std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok());
    // Elsewhere than on Linux the wall clock has to do.
    nanoseconds.map_or_else(|| BEGIN.get_or_init(Instant::now).elapsed(), Duration::from_nanos)
}

/// The least of a few attempts, each on a fresh runtime of one thread.
fn cost<F: Future<Output = Duration>>(attempts: usize, measure: impl Fn() -> F) -> Duration {
    let attempt = |_| tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(measure());
    (0..attempts).map(attempt).min().unwrap()
}

/// Ten times as many may cost this much more; a quadratic cost would be a hundred times.
const AT_MOST: u32 = 30;

fn assert_not_quadratic(what: &str, few: Duration, many: Duration) {
    println!(
        "{what}: 1,000 children {few:?}, 10,000 children {many:?}: {:.1} times",
        many.as_secs_f64() / few.as_secs_f64()
    );
    assert!(many < few * AT_MOST, "{what}: 1,000 children cost {few:?}, ten times as many {many:?}");
}

#[test]
fn children_that_crash_at_once_are_restarted_in_time_that_grows_with_their_number() {
    let crash = |count| {
        move || async move {
            let many = Many::start(count, Restart::Permanent).await;
            let begin = busy();
            many.crash().await;
            let spent = busy() - begin;
            many.assert_running();
            assert!(many.slot.which_children().iter().all(|child| child.generation == 2));
            many.system.stop().await;
            spent
        }
    };
    let few = cost(3, crash(1_000));
    assert_not_quadratic("crash", few, cost(2, crash(10_000)));
}

#[test]
fn temporary_children_that_crash_at_once_are_forgotten_in_time_that_grows_with_their_number() {
    let crash = |count| {
        move || async move {
            let many = Many::start(count, Restart::Temporary).await;
            let begin = busy();
            many.system.tree().inject("*", Fault::Kill).unwrap();
            let gone = async {
                while many.slot.count_children() != ChildCounts::default() {
                    // A request is answered after the reports that came before it.
                    let _ = many.slot.terminate_child("nobody").await;
                }
            };
            tokio::time::timeout(Duration::from_secs(120), gone).await.expect("they are forgotten in time");
            let spent = busy() - begin;
            many.system.stop().await;
            spent
        }
    };
    let few = cost(3, crash(1_000));
    assert_not_quadratic("forget", few, cost(2, crash(10_000)));
}

#[test]
fn starting_counting_and_stopping_takes_time_that_grows_with_their_number() {
    let come_and_go = |count| {
        move || async move {
            let begin = busy();
            let many = Many::start(count, Restart::Permanent).await;
            many.assert_running();
            many.terminate_each().await;
            let spent = busy() - begin;
            many.system.stop().await;
            spent
        }
    };
    let few = cost(3, come_and_go(1_000));
    assert_not_quadratic("start, count and terminate", few, cost(2, come_and_go(10_000)));

    let stop = |count| {
        move || async move {
            let many = Many::start(count, Restart::Permanent).await;
            let begin = busy();
            many.system.stop().await;
            busy() - begin
        }
    };
    let few = cost(3, stop(1_000));
    assert_not_quadratic("stop", few, cost(2, stop(10_000)));
}

#[tokio::test]
async fn a_hundred_thousand_idle_children_start_count_and_stop() {
    let begin = Instant::now();
    let many = Many::start(100_000, Restart::Permanent).await;
    let started = begin.elapsed();
    many.assert_running();
    let counted = begin.elapsed();
    many.system.stop().await;
    println!(
        "100,000 children: started in {started:?}, seen in {:?}, stopped in {:?}",
        counted - started,
        begin.elapsed() - counted
    );
    assert_eq!(many.slot.count_children(), ChildCounts::default());
}
