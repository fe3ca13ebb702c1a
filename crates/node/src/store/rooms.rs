//! The rooms of this node and what of each must outlive its actors: membership, the fan-out table, the bus stream.
//!
//! Membership's truth is here; the room's actor alone turns it into a table. An entry is a [`Seat`], held by the
//! connection, so it cannot outlive it. Change is level-triggered: every entry and leave raises the revision, an actor
//! publishes the table of the newest one, and who waits for a revision waits for the table, not for a reply. So a
//! message that dies with an actor's mailbox costs nothing: the next incarnation starts from the newest revision.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use roomcast_bus::Subscription;
use roomcast_protocol::{CloseCode, Packet, RoomId, SessionId};
use roomcast_relay::cluster::{RosterEntry, Via};
use roomcast_relay::membership::EnterError;
use roomcast_relay::{DropReason, Membership, Refused};
use roomcast_supervision::Slot;
use tokio::sync::watch;
use tokio::time::timeout;

use super::egress::Egress;
use super::{Live, Member, NodeEvent, Store};
use crate::actors::room;
use crate::metrics::Transport;

/// Why a session could not be seated.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// A limit is reached.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The room's actor did not take the member in within the time given.
    #[error("the room did not answer in time")]
    TimedOut,
}

/// Who is in a room right now, as senders see it. Immutable; replaced whole.
pub struct FanOutTable {
    members: Vec<(SessionId, Arc<Egress>)>,
}

impl FanOutTable {
    fn empty() -> Self {
        Self { members: Vec::new() }
    }

    /// How many members it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

/// One room, as the store keeps it.
pub struct RoomCell {
    id: RoomId,
    /// Tells two lives of one room's name apart: an old subtree may still be stopping when the next begins.
    serial: u64,
    store: Arc<Store>,
    membership: Mutex<Membership<Arc<Egress>>>,
    table: ArcSwap<FanOutTable>,
    /// The newest revision whose table was published.
    published: watch::Sender<u64>,
    /// The room's actor, whichever incarnation.
    pub(crate) actor: Slot<room::Message>,
    /// The stream from the bus; whichever incarnation of the subscription actor holds the lock reads it.
    pub(crate) subscription: Arc<tokio::sync::Mutex<Option<Box<dyn Subscription>>>>,
}

impl RoomCell {
    /// The room's name.
    #[must_use]
    pub fn id(&self) -> &RoomId {
        &self.id
    }

    /// This life's number.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Members whose connections are alive.
    #[must_use]
    pub fn members(&self) -> usize {
        self.lock().len()
    }

    /// Who is in it, in the order of sessions.
    #[must_use]
    pub fn occupants(&self) -> Vec<Arc<Egress>> {
        self.lock().iter().map(|(_, egress)| Arc::clone(egress)).collect()
    }

    /// Incarnations of the room's actor so far.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.lock().generation()
    }

    /// Messages in the mailbox of the room's actor.
    #[must_use]
    pub fn mailbox_depth(&self) -> usize {
        self.actor.current().map_or(0, |actor| actor.depth())
    }

    /// Where its actors are in the tree.
    #[must_use]
    pub fn path(&self) -> String {
        format!("rooms/{}", crate::tree::room_segment(&self.id))
    }

    /// Closes who is in it right now with 1000 and says how many. The room is over when the last has left; who joins
    /// meanwhile stays.
    pub(crate) fn end(&self) -> usize {
        self.close_all(CloseCode::Done, "the room was ended")
    }

    /// Closes who is in it right now and says how many.
    fn close_all(&self, code: CloseCode, reason: &'static str) -> usize {
        // Not under the room's lock: closing wakes writers.
        let occupants = self.occupants();
        for egress in &occupants {
            egress.close(code, reason);
        }
        occupants.len()
    }

    /// Delivers a packet to every member but its sender. Never waits.
    pub(crate) fn fan_out(&self, packet: &Packet, live: &Live) {
        let now = self.store.clock.now();
        let table = self.table.load();
        let sender = packet.tag().sender;
        for (session, egress) in &table.members {
            if *session != sender {
                egress.push(packet, now, live);
            }
        }
    }

    /// Delivers a packet to every member here, and publishes it for the members elsewhere.
    pub(crate) fn relay(&self, packet: &Packet, live: &Live) {
        self.fan_out(packet, live);
        match self.store.bus.publish(&self.id, packet) {
            roomcast_bus::Published::Sent => self.store.metrics.bus_publishes.increment(1),
            roomcast_bus::Published::Down => self.store.metrics.dropped(DropReason::BusDown, 1),
            roomcast_bus::Published::Full => self.store.metrics.dropped(DropReason::BusFull, 1),
        }
    }

    /// Begins an incarnation of the room's actor; all earlier ones can no longer publish.
    pub(crate) fn begin_generation(&self) -> u64 {
        self.lock().begin_generation()
    }

    /// Publishes the table of the newest revision. False when the generation is stale.
    pub(crate) fn publish(&self, generation: u64) -> bool {
        let membership = self.lock();
        let Some((revision, members)) = membership.snapshot(generation) else { return false };
        if *self.published.borrow() != revision {
            // Under the lock, so that no older table can come after a newer one.
            self.table.store(Arc::new(FanOutTable { members }));
            self.published.send_replace(revision);
        }
        true
    }

    /// Ends this life of the room if nobody is in it. False when somebody is, or the generation is stale.
    pub(crate) fn close_if_empty(&self, generation: u64) -> bool {
        let closed = self.lock().close_if_empty(generation);
        if closed {
            self.store.rooms.forget(self, "empty");
        }
        closed
    }

    /// The current table.
    #[must_use]
    pub fn table(&self) -> Arc<FanOutTable> {
        self.table.load_full()
    }

    fn enter(self: &Arc<Self>, egress: &Arc<Egress>, max_members: usize) -> Result<(Seat, u64), EnterError> {
        let revision = self.lock().enter(egress.session(), Arc::clone(egress), max_members)?;
        self.store.rooms.members.fetch_add(1, Ordering::Relaxed);
        self.store.events.publish(NodeEvent::Join(self.member(egress)));
        self.store.presence.joined(self.roster_entry(egress));
        Ok((Seat { cell: Arc::clone(self), session: egress.session() }, revision))
    }

    fn member(&self, egress: &Egress) -> Member {
        let (user, session, transport) = (egress.user().clone(), egress.session(), egress.transport());
        Member { room: self.id.clone(), user, session, transport }
    }

    /// What the other nodes are told of a member.
    fn roster_entry(&self, egress: &Egress) -> RosterEntry {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        RosterEntry {
            session: egress.session(),
            user: egress.user().clone(),
            room: self.id.clone(),
            via: match egress.transport() {
                Transport::WebSocket => Via::WebSocket,
                Transport::WebTransport => Via::WebTransport,
            },
            joined_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Membership<Arc<Egress>>> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place in a room; dropping it is leaving.
pub struct Seat {
    cell: Arc<RoomCell>,
    session: SessionId,
}

impl Seat {
    /// The room.
    #[must_use]
    pub fn room(&self) -> &Arc<RoomCell> {
        &self.cell
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let left = {
            let mut membership = self.cell.lock();
            let egress = membership.get(self.session).cloned();
            membership.leave(self.session).and(egress)
        };
        if let Some(egress) = left {
            self.cell.store.events.publish(NodeEvent::Leave(self.cell.member(&egress)));
            self.cell.store.presence.left(self.session);
            self.cell.store.rooms.members.fetch_sub(1, Ordering::Relaxed);
            // Lost when the actor is between two incarnations: the next one starts from the newest revision.
            let _ = self.cell.actor.send(room::Message::Changed);
        }
    }
}

/// All rooms of the node.
#[derive(Default)]
pub struct Rooms {
    cells: DashMap<RoomId, Arc<RoomCell>>,
    serials: AtomicU64,
    count: AtomicUsize,
    members: AtomicUsize,
}

impl Rooms {
    /// Rooms now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Members of all rooms now.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members.load(Ordering::Relaxed)
    }

    /// All rooms, in no order.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<RoomCell>> {
        self.cells.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    /// One room.
    #[must_use]
    pub fn get(&self, id: &RoomId) -> Option<Arc<RoomCell>> {
        self.cells.get(id).map(|entry| Arc::clone(entry.value()))
    }

    /// Seats a session in a room, makes the room where there is none, and waits until the room's table has it: when
    /// this returns, what any member sends reaches the session.
    ///
    /// # Errors
    /// When a limit is reached or the room's actor does not come to life in time; nothing is left behind then.
    pub(crate) async fn join(
        store: &Arc<Store>,
        room: &RoomId,
        egress: &Arc<Egress>,
        within: Duration,
    ) -> Result<Seat, JoinError> {
        let live = store.live();
        loop {
            let (cell, new) = store.rooms.get_or_make(store, room, live.limits.max_rooms)?;
            let (seat, revision) = match cell.enter(egress, live.limits.max_room_members) {
                Ok(entered) => entered,
                Err(EnterError::Full | EnterError::Present) => return Err(Refused::RoomMembers.into()),
                // Ended between the look-up and the entry: it is out of the map, or will be at once.
                Err(EnterError::Closed) => {
                    store.rooms.forget(&cell, "empty");
                    continue;
                }
            };
            drop(live);
            let mut published = cell.published.subscribe();
            if new {
                // When the rooms' supervisor is between two incarnations, its next one finds the cell in the store.
                store.start_room(&cell).await;
            } else {
                let _ = cell.actor.send(room::Message::Changed);
            }
            let taken_in = timeout(within, published.wait_for(|published| *published >= revision)).await;
            return if matches!(taken_in, Ok(Ok(_))) { Ok(seat) } else { Err(JoinError::TimedOut) };
        }
    }

    fn get_or_make(
        &self,
        store: &Arc<Store>,
        id: &RoomId,
        max_rooms: usize,
    ) -> Result<(Arc<RoomCell>, bool), JoinError> {
        match self.cells.entry(id.clone()) {
            Entry::Occupied(entry) => Ok((Arc::clone(entry.get()), false)),
            Entry::Vacant(entry) => {
                // Counted first, so that joins at the same time on other shards cannot pass the limit together.
                if self.count.fetch_add(1, Ordering::Relaxed) >= max_rooms {
                    self.count.fetch_sub(1, Ordering::Relaxed);
                    return Err(Refused::Rooms.into());
                }
                let cell = Arc::new(RoomCell {
                    id: id.clone(),
                    serial: self.serials.fetch_add(1, Ordering::Relaxed),
                    store: Arc::clone(store),
                    membership: Mutex::default(),
                    table: ArcSwap::from_pointee(FanOutTable::empty()),
                    published: watch::Sender::new(0),
                    actor: Slot::default(),
                    subscription: Arc::default(),
                });
                entry.insert(Arc::clone(&cell));
                store.events.publish(NodeEvent::RoomBegun { room: id.clone() });
                Ok((cell, true))
            }
        }
    }

    /// A room whose supervisor gave up is over: its members are told 1011, and who joins that name next begins anew.
    pub(crate) fn supervisor_gave_up(&self, path: &str) {
        let Some(name) = path.strip_prefix("rooms/").filter(|name| !name.contains('/')) else { return };
        for cell in self.all().iter().filter(|cell| crate::tree::room_segment(&cell.id) == name) {
            self.forget(cell, "failed");
            cell.close_all(CloseCode::Crashed, "the room failed; reconnect");
        }
    }

    /// Closes every member's connection, without asking any actor.
    pub(crate) fn close_all(&self, code: CloseCode, reason: &'static str) {
        for cell in self.all() {
            cell.close_all(code, reason);
        }
    }

    /// Has every member's connection look at the settings again.
    pub(crate) fn retune(&self) {
        for cell in self.all() {
            cell.occupants().iter().for_each(|egress| egress.retune());
        }
    }

    /// Lets go of all rooms: the node is gone.
    pub(crate) fn forget_all(&self) {
        self.cells.clear();
    }

    fn forget(&self, cell: &RoomCell, why: &'static str) {
        if self.cells.remove_if(&cell.id, |_, current| current.serial == cell.serial).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
            cell.store.events.publish(NodeEvent::RoomEnded { room: cell.id.clone(), why });
        }
    }
}
