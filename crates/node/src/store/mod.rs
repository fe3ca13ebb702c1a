//! The node-level store: what must outlive a crash, and so is owned by no actor.
//!
//! Listening sockets, certificates, the bus, rooms with their tables, the sessions' numbers, the tasks that still owe a
//! client something, and the settings in force. Actors borrow from here; a new incarnation takes over where the last
//! one stood. Nothing here decides: `relay` does.

mod clock;
mod drain;
mod egress;
mod entrance;
mod events;
mod flush;
mod intake;
mod lanes;
mod live;
mod outlet;
mod presence;
mod rooms;

use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use roomcast_bus::{Bus, BusState};
use roomcast_protocol::{Dialect, SessionId};
use roomcast_relay::{Budget, DropReason, PerAddress};
use roomcast_supervision::{ChildSpec, Policies, Slot, SupervisorSlot, Tree};
use roomcast_transport::tls::ServerIdentity;
use roomcast_transport::webtransport;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

pub use clock::Clock;
pub(crate) use drain::Drain;
pub use egress::Egress;
pub use entrance::{Candidate, Permit, Seated, Welcome};
pub use events::{
    EVENTS_KEPT, EventId, EventIdError, Events, Member, Next, NodeEvent, Recorded, Reload, Subscriber, Text, Texts,
};
pub(crate) use lanes::{Lane, Lanes};
pub use live::Live;
pub(crate) use presence::Presence;
pub use rooms::{FanOutTable, JoinError, RoomCell, Rooms, Seat};

use crate::actors::config::Message as ConfigMessage;
use crate::config::{Change, Content, Settings};
use crate::metrics::{Metrics, Transport};

/// Handshakes under way at once, over all listeners; more wait in the kernel. Each lasts `timers.handshake` at most.
const MAX_HANDSHAKES: usize = 1024;
/// How long what still owes a client a close frame is waited for when the node stops.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Sockets and certificates: bound once at start; only a changed configuration would bind anew.
#[derive(Default)]
pub struct Sockets {
    /// Where WebSocket clients connect; none any more once the node drains, so that they are refused at once.
    pub websocket: ArcSwapOption<TcpListener>,
    /// The certificate of `websocket`, where it is secured.
    pub websocket_identity: Option<Arc<ServerIdentity>>,
    /// Where WebTransport clients connect.
    pub webtransport: Option<quinn::Endpoint>,
    /// The certificate of `webtransport`.
    pub webtransport_identity: Option<Arc<ServerIdentity>>,
    /// Where the operator connects.
    pub admin: Option<TcpListener>,
    /// Where they were bound.
    pub addresses: Addresses,
}

/// What the node is, and what its actors share.
pub struct Store {
    /// The node's unique name.
    pub name: String,
    /// The numbering that this node speaks.
    pub dialect: Dialect,
    /// Time for `relay`.
    pub clock: Clock,
    /// Every figure.
    pub metrics: Metrics,
    /// Bytes that may wait in all egress queues together, and in packets that are still arriving.
    pub budget: Budget,
    /// The way to other nodes.
    pub bus: Arc<dyn Bus>,
    /// What this node tells the others, and what it knows of them.
    pub(crate) presence: Presence,
    /// Sockets and certificates.
    pub sockets: Sockets,
    /// The threads that connections live on.
    pub(crate) lanes: Lanes,
    /// The rooms.
    pub rooms: Rooms,
    /// What happens, for whoever watches: the supervision's events, members who come and go, and what the configuration
    /// actor publishes after each reload.
    pub events: Arc<Events>,
    /// Restart policies, by path.
    pub policies: Arc<Policies>,
    /// The supervisor of rooms, whichever incarnation.
    pub rooms_supervisor: SupervisorSlot,
    /// The supervisor of connections.
    pub connections_supervisor: SupervisorSlot,
    /// The configuration actor, whichever incarnation: ask it to read the file again.
    pub config: Slot<ConfigMessage>,
    /// The token that changing admin calls need, and the file that shows it.
    pub token: Option<(String, PathBuf)>,
    /// Handshakes and writes that wait: they owe a client something and so outlive the actors that began them.
    pub(crate) tasks: TaskTracker,
    pub(crate) handshakes: Arc<Semaphore>,
    settings: ArcSwap<Settings>,
    live: ArcSwap<Live>,
    generation: AtomicU64,
    /// What the file says and only a restart puts in force.
    waiting: ArcSwap<Vec<Change>>,
    /// The file's content that was read last, whatever came of it; `None` before the first look.
    judged: ArcSwapOption<Content>,
    sessions: Arc<Sessions>,
    connections: AtomicUsize,
    per_address: std::sync::Mutex<PerAddress>,
    /// The node's way out.
    pub(crate) drain: Drain,
    bus_reached: AtomicBool,
    /// What became of WebTransport streams, on all connections.
    stream_counts: Arc<webtransport::Counters>,
    tree: OnceLock<Tree>,
}

/// What a store is made of.
pub struct StoreParts {
    /// The node's unique name.
    pub name: String,
    /// The settings, checked.
    pub settings: Settings,
    /// The numbers of its sessions.
    pub sessions: Arc<Sessions>,
    /// The way to other nodes.
    pub bus: Arc<dyn Bus>,
    /// Whether nobody can be there yet whose packets must not pass: then rooms are shared from the beginning.
    pub settled: bool,
    /// Sockets, bound.
    pub sockets: Sockets,
    /// The admin token and its file.
    pub token: Option<(String, PathBuf)>,
}

impl Store {
    /// Makes an empty store.
    ///
    /// # Errors
    /// When the system gives no thread for a lane.
    pub fn new(parts: StoreParts) -> std::io::Result<Arc<Self>> {
        let StoreParts { name, settings, sessions, bus, settled, sockets, token } = parts;
        let lanes = Lanes::start()?;
        let dialect = Dialect::from(settings.node.dialect);
        let live = Live::from(&settings);
        let dialect_name = if dialect == Dialect::Seed { "seed" } else { "sessions" };
        let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), dialect_name);
        metrics.config_generation.set(1.0);
        let policies = crate::policy::policies(&settings);
        let presence = Presence::new(presence::own_node(&name, dialect, &settings, &sockets), settled);
        Ok(Arc::new(Self {
            name,
            dialect,
            clock: Clock::start(),
            metrics,
            budget: Budget::new(settings.limits.max_buffered_bytes),
            bus,
            presence,
            sockets,
            lanes,
            rooms: Rooms::default(),
            events: Arc::default(),
            policies: Arc::new(Policies::new(policies)),
            rooms_supervisor: SupervisorSlot::default(),
            connections_supervisor: SupervisorSlot::default(),
            config: Slot::default(),
            token,
            tasks: TaskTracker::new(),
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            live: ArcSwap::from_pointee(live),
            settings: ArcSwap::from_pointee(settings),
            generation: AtomicU64::new(1),
            waiting: ArcSwap::default(),
            judged: ArcSwapOption::empty(),
            sessions,
            connections: AtomicUsize::new(0),
            per_address: std::sync::Mutex::default(),
            drain: Drain::default(),
            bus_reached: AtomicBool::new(false),
            stream_counts: Arc::default(),
            tree: OnceLock::new(),
        }))
    }

    /// The settings that act while the node runs, as they are now. Do not hold it across an await.
    pub(crate) fn live(&self) -> Guard<Arc<Live>> {
        self.live.load()
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// The number of the settings in force, from 1.
    #[must_use]
    pub fn config_generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// What the configuration says and only a restart puts in force, since the last good reload.
    #[must_use]
    pub fn config_waiting(&self) -> Arc<Vec<Change>> {
        self.waiting.load_full()
    }

    /// Puts new settings in force; only what is live differs from the old ones. They act on what runs already: what sleeps
    /// until some time is woken, since that time may have changed.
    pub(crate) fn apply(&self, settings: Settings) {
        self.budget.set_limit(settings.limits.max_buffered_bytes);
        self.policies.replace(crate::policy::policies(&settings));
        self.live.store(Arc::new(Live::from(&settings)));
        if let (Some(endpoint), Some(identity)) = (&self.sockets.webtransport, &self.sockets.webtransport_identity) {
            // QUIC's own idle time, which each connection keeps as it was when it began.
            let options = webtransport_options(&settings);
            endpoint.set_server_config(Some(webtransport::server_config(identity, &options)));
        }
        // Whoever comes later than this look at the rooms has read the new ones.
        self.rooms.retune();
        self.lanes.retune();
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
        self.metrics.config_generation.set(generation as f64);
        // Last, so that whoever sees the settings sees the rest too.
        self.settings.store(Arc::new(settings));
    }

    /// Remembers what waits for a restart.
    pub(crate) fn set_config_waiting(&self, waiting: Vec<Change>) {
        self.metrics.config_waiting.set(waiting.len() as f64);
        self.waiting.store(Arc::new(waiting));
    }

    /// The content that was read last, whatever came of it.
    pub(crate) fn judged(&self) -> Option<Arc<Content>> {
        self.judged.load_full()
    }

    /// Remembers what was read.
    pub(crate) fn set_judged(&self, content: Arc<Content>) {
        self.judged.store(Some(content));
    }

    /// A number that no other session has.
    pub(crate) fn new_session(&self) -> SessionId {
        self.sessions.next()
    }

    /// Open connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Handshakes, writes that wait, and last readings that are under way.
    #[must_use]
    pub fn tasks_under_way(&self) -> usize {
        self.tasks.len()
    }

    /// Tasks on the lanes: connections, handshakes, flushers, QUIC's own. None where there is no thread but the node's.
    #[must_use]
    pub fn tasks_on_lanes(&self) -> usize {
        self.lanes.tasks()
    }

    /// Starts the actors of a new room. That there is no supervisor right now is no failure: its next incarnation
    /// begins with every room that is in the store.
    pub(crate) async fn start_room(self: &Arc<Self>, cell: &Arc<RoomCell>) {
        if let Err(error) = self.rooms_supervisor.start_child(crate::tree::room(self, cell)).await {
            tracing::debug!(room = %cell.id(), %error, "the room waits for its supervisor");
        }
    }

    /// The subtrees of all rooms: what the rooms' supervisor begins with.
    pub(crate) fn room_children(self: &Arc<Self>) -> Vec<ChildSpec> {
        self.rooms.all().iter().map(|cell| crate::tree::room(self, cell)).collect()
    }

    /// Whether the node is on its way out.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain.is_begun()
    }

    /// From now on the node is not ready, and its listeners accept nobody.
    pub(crate) fn begin_draining(&self) {
        if self.drain.begin(self.clock.now()) {
            // What the kernel has accepted for it and nobody has greeted is reset, and tries elsewhere.
            self.sockets.websocket.store(None);
            self.events.publish(NodeEvent::Draining);
        }
    }

    /// The tree of actors; `None` until all of it is up.
    #[must_use]
    pub fn tree(&self) -> Option<&Tree> {
        self.tree.get()
    }

    pub(crate) fn set_tree(&self, tree: Tree) {
        // Set once, by the one who started it.
        let _ = self.tree.set(tree);
    }

    /// What a WebTransport connection may take, from the settings.
    pub(crate) fn webtransport_options(self: &Arc<Self>) -> webtransport::Options {
        let counters = Arc::clone(&self.stream_counts);
        webtransport::Options { counters, intake: self.intake(), ..webtransport_options(&self.settings.load()) }
    }

    /// Brings the figures up to date that nobody counts as they happen.
    pub(crate) fn collect(&self) {
        let metrics = &self.metrics;
        metrics.rooms.set(self.rooms.count() as f64);
        metrics.members.set(self.rooms.members() as f64);
        metrics.buffered_bytes.set(self.budget.used() as f64);
        let actors = self.tree().map(Tree::snapshot).unwrap_or_default();
        metrics.mailbox_depth.set(actors.iter().map(|entry| entry.depth).sum::<usize>() as f64);
        metrics.actors_are(self.tree().map(Tree::count_by_state).into_iter().flatten());
        let counts = self.bus.take_counts();
        metrics.dropped(DropReason::BusFull, counts.dropped_full);
        metrics.dropped(DropReason::BusLate, counts.dropped_late);
        metrics.dropped(DropReason::BusDown, counts.dropped_down);
        metrics.bus_connections.increment(counts.connections);
        metrics.bus_slow.increment(counts.slow);
        metrics.bus_refused.increment(counts.refused);
        self.presence.collect(metrics);
        let streams = self.stream_counts.take();
        metrics.dropped(DropReason::Stalled, streams.stalled + streams.overdue + streams.memory);
        for (reason, count) in [
            ("stalled", streams.stalled),
            ("overdue", streams.overdue),
            ("memory", streams.memory),
            ("reset", streams.reset),
            ("cut", streams.cut),
            ("foreign", streams.foreign),
        ] {
            metrics.streams_abandoned(reason, count);
        }
    }

    /// Remembers that the bus was reached once: from then on a lost bus is `degraded` and still ready.
    pub(crate) fn bus_is(&self, state: BusState) {
        if state == BusState::Up {
            self.bus_reached.store(true, Ordering::Relaxed);
        }
        for (each, gauge) in &self.metrics.bus_states {
            gauge.set(f64::from(u8::from(*each == state)));
        }
    }

    /// Whether the bus was reached at least once.
    #[must_use]
    pub fn bus_reached(&self) -> bool {
        self.bus_reached.load(Ordering::Relaxed)
    }

    /// Waits, within a bound, for what still owes a client something; then lets go of everything.
    pub(crate) async fn wind_up(&self) {
        self.tasks.close();
        if tokio::time::timeout(LAST_WORDS, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "some clients did not take their close frame");
        }
        if let Some(endpoint) = &self.sockets.webtransport {
            endpoint.close(0_u32.into(), b"");
            let _ = tokio::time::timeout(LAST_WORDS, endpoint.wait_idle()).await;
        }
        // What it says last, where it can still be heard.
        self.presence.leave(self);
        self.bus.close().await;
        self.rooms.forget_all();
    }
}

/// The addresses that listeners are bound to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Addresses {
    /// Of the WebSocket listener.
    pub websocket: Option<SocketAddr>,
    /// Of the WebTransport listener.
    pub webtransport: Option<SocketAddr>,
    /// Of the admin listener.
    pub admin: Option<SocketAddr>,
}

impl Transport {
    /// The open connections' gauge is set by whoever opens and closes one.
    fn count(self, metrics: &Metrics, by: f64) {
        metrics.transport(self).connections.increment(by);
    }
}

/// What QUIC must know of the settings when a connection begins.
pub(crate) fn webtransport_options(settings: &Settings) -> webtransport::Options {
    webtransport::Options {
        handshake: settings.timers.handshake,
        idle: settings.timers.idle,
        ..webtransport::Options::default()
    }
}

/// The numbers of a node's sessions: from a random start, so that nodes that share a bus do not collide, and below 2^53,
/// which JavaScript holds exactly: 2^30 starts, 2^22 sessions apart.
pub struct Sessions {
    first: u64,
    next: AtomicU64,
}

/// From one start to the next.
const BLOCK: u64 = 1 << 22;
/// More sessions than begin between two heartbeats.
const AHEAD: u64 = 1 << 16;

impl Default for Sessions {
    fn default() -> Self {
        let first = (random() & ((1 << 30) - 1)) * BLOCK + 1;
        Self { first, next: AtomicU64::new(first) }
    }
}

impl Sessions {
    fn next(&self) -> SessionId {
        SessionId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether a session is one of this node's, past ones included.
    #[must_use]
    pub fn is_own(&self, session: SessionId) -> bool {
        self.used().contains(&session.0)
    }

    /// The numbers that the other nodes are told are this one's: all of its block, and some more than were given out, so
    /// that a session is known for this node's before its first packet, however long ago they were told.
    #[must_use]
    pub fn announced(&self) -> Range<u64> {
        let used = self.used();
        used.start..(used.start - 1 + BLOCK).max(used.end + AHEAD)
    }

    /// The numbers that were given out.
    #[must_use]
    pub fn used(&self) -> Range<u64> {
        self.first..self.next.load(Ordering::Relaxed)
    }
}

/// A number that another node does not have.
pub(crate) fn random() -> u64 {
    let mut random = [0; 8];
    // Without randomness from the system, the time is different enough between two starts.
    if getrandom::fill(&mut random).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        random = u64::from(now.subsec_nanos()).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    }
    u64::from_le_bytes(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_holds_the_sessions_that_are_still_to_come() {
        let sessions = Sessions::default();
        for given in [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK] {
            sessions.next.store(sessions.first + given, Ordering::Relaxed);
            let announced = sessions.announced();
            let next = sessions.next();
            assert!(announced.contains(&sessions.first) && announced.contains(&next.0), "{given}");
            assert!(announced.end - announced.start < 1 << 32, "a range that the others believe");
        }
        assert!(sessions.first + BLOCK <= 1 << 53);
    }
}
