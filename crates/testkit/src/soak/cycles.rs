//! Joins, leaves, rooms' lifetimes and crashes by the thousand, and a census of what the node holds before and after: it
//! must hold what it held.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use roomcast_bus::local::Hub;
use roomcast_supervision::{ActorState, Fault};
use tokio::time::{Instant, sleep};

use crate::node_box::{NodeBox, Via, eventually};

use super::PATIENCE;
use super::chaos::kind;
use super::line::Line;
use super::usage;

/// How many of each make a cycle.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Decides who is hit and how.
    pub seed: u64,
    /// Clients that join a standing room and leave it.
    pub joins: usize,
    /// Rooms that begin and end.
    pub rooms: usize,
    /// Actors that crash.
    pub crashes: usize,
    /// Clients or rooms at once.
    pub at_once: usize,
}

/// What there is of everything that could be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// Of the process.
    pub file_descriptors: usize,
    /// Of the runtime, and of the lanes. May become fewer: a supervisor's alarm for a start that went well sleeps on until it is due.
    pub tasks: usize,
    /// Handshakes, writes that wait, and last readings.
    pub owed: usize,
    /// In the store.
    pub rooms: usize,
    /// In the store.
    pub members: usize,
    /// In the store.
    pub connections: usize,
    /// Clients' addresses.
    pub addresses: usize,
    /// Actors, by the tree.
    pub actors: usize,
    /// On the bus.
    pub subscriptions: usize,
    /// Bytes that wait in egress queues.
    pub buffered: usize,
}

/// What a cycle left.
#[derive(Clone, Debug)]
pub struct Cycle {
    /// What there was once it was over.
    pub census: Census,
    /// Lines of `/metrics`: labels are bounded, but some appear with the first crash that they tell of.
    pub figures: usize,
    /// Resident memory then, in bytes.
    pub resident: u64,
    /// How long it took.
    pub time: Duration,
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { census, figures, resident, time } = self;
        let resident = *resident as f64 / f64::from(1 << 20);
        write!(f, "{resident:.1} MiB resident after {time:.1?}; {figures} figures; {census:?}")
    }
}

/// A node with a standing call of two, and what happens to it.
pub struct Mill {
    node: Arc<NodeBox>,
    hub: Hub,
    plan: Plan,
    random: fastrand::Rng,
    _standing: [Line; 2],
    serial: usize,
}

const STANDING: &str = "standing";

impl Mill {
    /// Starts the node.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(plan: Plan) -> Self {
        let hub = Hub::new();
        // The standing call says nothing all the time.
        let settings: Vec<&str> = super::PATIENT.into_iter().chain(["timers.idle=1h"]).collect();
        let node = NodeBox::start_on(&settings, Some(Arc::new(hub.join()))).await;
        let join = |via, user| Line::open(&node, via, user, STANDING, |_| {});
        let standing = [
            join(Via::WebSocket, "ann").await.expect("a calm node takes a client in"),
            join(Via::WebTransport, "bob").await.expect("a calm node takes a client in"),
        ];
        let random = fastrand::Rng::with_seed(plan.seed);
        let mill = Self { node: Arc::new(node), hub, plan, random, _standing: standing, serial: 0 };
        // Nothing is owed then: no handshake is under way any more, and no write waits.
        eventually("the standing call is up", PATIENCE, async || {
            let Census { owed, connections, subscriptions, .. } = mill.census();
            (owed, connections, subscriptions) == (0, 2, 1) && mill.running()
        })
        .await;
        mill
    }

    fn running(&self) -> bool {
        self.node.node().tree().snapshot().iter().all(|entry| entry.state == ActorState::Running)
    }

    /// Counts everything, now.
    #[must_use]
    pub fn census(&self) -> Census {
        let store = self.node.node().store();
        Census {
            file_descriptors: usage::file_descriptors(),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks() + store.tasks_on_lanes(),
            owed: store.tasks_under_way(),
            rooms: store.rooms.count(),
            members: store.rooms.members(),
            connections: store.connections(),
            addresses: store.client_addresses(),
            actors: self.node.node().tree().snapshot().len(),
            subscriptions: self.hub.subscriptions(),
            buffered: store.budget.used(),
        }
    }

    /// One cycle, and then a wait until the census is `before` again.
    ///
    /// # Panics
    /// When somebody does not get in, an actor does not come back, or something is left behind.
    pub async fn turn(&mut self, before: &Census) -> Cycle {
        let began = Instant::now();
        self.joins(self.plan.joins, |_, _| STANDING.to_owned()).await;
        // Two clients each, so that a room's end is its last leave and not its only one.
        self.joins(self.plan.rooms * 2, |turn, serial| format!("room-{turn}-{}", serial / 2)).await;
        self.crashes().await;
        let time = began.elapsed();
        let deadline = Instant::now() + PATIENCE;
        let mut census = self.census();
        let back = |census: &Census| {
            census.tasks <= before.tasks && Census { tasks: before.tasks, ..census.clone() } == *before
        };
        while !self.running() || !back(&census) {
            assert!(Instant::now() < deadline, "something was left behind:\nbefore {before:?}\nafter  {census:?}");
            sleep(Duration::from_millis(50)).await;
            census = self.census();
        }
        let resident = usage::resident_bytes();
        let figures = self.node.admin("GET", "/metrics").await.1.lines().filter(|line| !line.starts_with('#')).count();
        Cycle { census, figures, resident, time }
    }

    async fn joins(&mut self, count: usize, room: impl Fn(usize, usize) -> String + Copy + Send + 'static) {
        let next = Arc::new(AtomicUsize::new(0));
        let turn = self.serial;
        self.serial += 1;
        let mut crowd = tokio::task::JoinSet::new();
        for _ in 0..self.plan.at_once {
            let (node, next) = (Arc::clone(&self.node), Arc::clone(&next));
            crowd.spawn(async move {
                loop {
                    let serial = next.fetch_add(1, Ordering::Relaxed);
                    if serial >= count {
                        return;
                    }
                    let via = Via::ALL[serial % 2];
                    let line = Line::open(&node, via, "guest", &room(turn, serial), |_| {}).await;
                    let line =
                        line.unwrap_or_else(|error| panic!("guest {serial} did not get in over {via:?}: {error:#}"));
                    line.leave().await.unwrap_or_else(|ended| panic!("guest {serial} over {via:?}: {ended:?}"));
                }
            });
        }
        while let Some(guest) = crowd.join_next().await {
            guest.expect("guests do not panic");
        }
    }

    /// One after another, each when the last victim is up again; connections are spared, so the standing call goes on.
    async fn crashes(&mut self) {
        let tree = self.node.node().tree();
        for _ in 0..self.plan.crashes {
            let mut victims: Vec<_> = tree.snapshot();
            victims.retain(|entry| {
                let kind = kind(entry.path.as_str());
                !kind.is_empty() && !kind.starts_with("connections") && entry.state == ActorState::Running
            });
            let Some(victim) = self.random.choice(victims) else { continue };
            let fault = if self.random.bool() { Fault::Kill } else { Fault::Panic };
            let path = victim.path.as_str();
            if tree.inject(path, fault).is_err() {
                continue; // it had not heard of its supervisor's end yet
            }
            eventually(&format!("{path} is up again after {fault:?}"), PATIENCE, async || {
                tree.find(path).is_none_or(|now| now.generation > victim.generation && now.state == ActorState::Running)
            })
            .await;
        }
    }

    /// Stops the node.
    pub async fn stop(self) {
        self.node.node().stop().await;
    }
}
