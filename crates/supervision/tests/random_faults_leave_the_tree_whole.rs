//! Thousands of random faults, in real threads: no incarnation overlaps another, and at the end everybody is there.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use roomcast_supervision::{
    ActorState, Backoff, ChildSpec, Context, Entry, Failure, Fault, Flow, Restart, StartError, SupervisorSlot,
    SupervisorSpec, Worker,
};
use support::*;

/// Fails the test, in the end, if it ever meets another incarnation of itself.
struct Lonely {
    here: Arc<Place>,
}

#[derive(Default)]
struct Place {
    occupants: AtomicUsize,
    tasks: Arc<()>,
    overlaps: AtomicUsize,
}

impl Drop for Lonely {
    fn drop(&mut self) {
        self.here.occupants.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Worker for Lonely {
    type Message = ();
    type Args = Arc<Place>;

    async fn start(here: Arc<Place>, ctx: &Context<Self>) -> Result<Self, StartError> {
        let met = here.occupants.fetch_add(1, Ordering::SeqCst) + Arc::strong_count(&here.tasks) - 1;
        here.overlaps.fetch_add(met, Ordering::SeqCst);
        let (worker, token) = (Self { here: Arc::clone(&here) }, Arc::clone(&here.tasks));
        ctx.attach("ticks", async move {
            let _token = token;
            loop {
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        tokio::task::yield_now().await;
        Ok(worker)
    }

    async fn handle(&mut self, (): (), _: &Context<Self>) -> Result<Flow, Failure> {
        Ok(Flow::Continue)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_faults_leave_the_tree_whole() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let places: Vec<Arc<Place>> = (0..12).map(|_| Arc::default()).collect();
    let worker = |place: &Arc<Place>, id: &str| {
        let place = Arc::clone(place);
        ChildSpec::worker::<Lonely>(id, move || Arc::clone(&place))
    };
    let room = move |places: &[Arc<Place>], id: usize| {
        let places = places.to_vec();
        ChildSpec::supervisor(id.to_string(), move || {
            SupervisorSpec::rest_for_one(vec![worker(&places[0], "room"), worker(&places[1], "subscription")])
        })
        .restart(Restart::Transient)
    };
    let handle = SupervisorSlot::new();
    let rooms = (handle.clone(), places.clone());
    let bus = places.clone();
    let spec = SupervisorSpec::one_for_one(vec![
        ChildSpec::supervisor("bus", move || {
            SupervisorSpec::one_for_all(vec![worker(&bus[0], "link"), worker(&bus[1], "presence")])
        }),
        ChildSpec::supervisor("rooms", move || {
            let (handle, places) = rooms.clone();
            let adopt = move || (1..6).map(|id| room(&places[id * 2..id * 2 + 2], id)).collect();
            SupervisorSpec::dynamic(adopt, &handle)
        }),
    ]);
    let log = Log::default();
    let system = start_with(spec, &log, |policy| {
        policy.intensity = u32::MAX;
        // Short, so that most actors are there to be hit most of the time.
        policy.backoff = Backoff::new(Duration::from_micros(100), 1.0, Duration::from_millis(1), 0.5).unwrap();
    })
    .await;
    let tree = system.tree();
    for _ in 0..250 {
        for fault in [Fault::Kill, Fault::Panic, Fault::Kill] {
            let entries = tree.snapshot();
            // Nobody may be there just now.
            let Some(entry) = entries.get(dice.usize(1..20)) else { continue };
            let path = entry.path.as_str();
            if tree.inject(path, fault).is_ok() && dice.bool() {
                // Until it has struck; without this, the next ones strike the same incarnations.
                let same = |now: &Entry| now.generation == entry.generation && now.state == ActorState::Running;
                while tree.find(path).as_ref().is_some_and(same) {
                    tokio::task::yield_now().await;
                }
            }
        }
        let whole = async {
            let there = |place: &Arc<Place>| place.occupants.load(Ordering::SeqCst) == 1;
            loop {
                let entries = tree.snapshot();
                let running = entries.iter().filter(|entry| entry.state == ActorState::Running).count();
                if running == 20 && places.iter().all(there) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), whole).await;
        assert!(in_time.is_ok(), "SEED={seed}: {:#?}", tree.snapshot());
    }
    let restarts: u64 = tree.snapshot().iter().map(|entry| entry.restarts).sum();
    println!("{restarts} restarts");
    assert!(restarts > 250, "SEED={seed}: the faults hardly hit, with {restarts} restarts");
    assert_eq!(log.lines().iter().filter(|line| line.contains("abandoned") || line.contains("gave up")).count(), 0);
    assert_eq!(system.stop().await, SHUTDOWN);
    assert!(
        places.iter().all(|place| place.occupants.load(Ordering::SeqCst) == 0 && Arc::strong_count(&place.tasks) == 1)
    );
}
