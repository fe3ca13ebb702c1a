//! The bus inside one process: for a node that stands alone, and for tests of several nodes. What lives here: the hub that joins
//! them. What does not: any network.
//!
//! A subscription's buffer is bounded in packets and bytes. When it is full the oldest packet goes, counted by
//! [`Subscription::take_lost`]: after a stall, the newest media is worth the most.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use roomcast_protocol::subject::SubjectError;
use roomcast_protocol::{Packet, RoomId, RoomSubject, Sender, Subject};
use tokio::sync::watch;

use crate::buffer::Buffer;
pub use crate::buffer::BufferLimits;
use crate::{
    BoxFuture, BrokerInfo, Bus, BusCounts, BusState, Delivery, Inbox, Letter, Published, SubscribeError, Subscription,
};

/// What the nodes of one process share rooms through. Clones are the same hub.
#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    limits: BufferLimits,
    /// Read for each publication, written by subscribing and leaving only.
    rooms: RwLock<Rooms>,
    /// Read for each message that is no packet.
    inboxes: RwLock<Vec<Inboxed>>,
    nodes: Mutex<Nodes>,
}

/// A room's key to the nodes that subscribe to it. A room nobody subscribes to has no entry.
type Rooms = HashMap<String, Vec<Subscriber>>;

#[derive(Debug)]
struct Subscriber {
    node: u64,
    buffer: Arc<Buffer<Delivery>>,
}

#[derive(Debug)]
struct Inboxed {
    node: u64,
    subjects: Vec<Subject>,
    buffer: Arc<Buffer<Letter>>,
}

#[derive(Debug)]
struct Nodes {
    last: u64,
    /// What a node finds that joins now.
    state: BusState,
    states: HashMap<u64, watch::Sender<BusState>>,
}

impl Default for Nodes {
    fn default() -> Self {
        Self { last: 0, state: BusState::Up, states: HashMap::new() }
    }
}

impl Hub {
    /// A hub that is up.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A hub that is up, with other bounds for each subscription.
    #[must_use]
    pub fn with_limits(limits: BufferLimits) -> Self {
        Self(Arc::new(Shared { limits, ..Shared::default() }))
    }

    /// One node's access. Dropping it is closing it.
    #[must_use]
    pub fn join(&self) -> LocalBus {
        let mut nodes = self.nodes();
        nodes.last += 1;
        let node = nodes.last;
        let (sender, state) = watch::channel(nodes.state);
        nodes.states.insert(node, sender);
        LocalBus { hub: self.clone(), node, state }
    }

    /// Puts all nodes that have not closed into this state, and those that join later. For tests of what happens without a
    /// bus; a hub by itself is always up.
    pub fn set_state(&self, state: BusState) {
        if state == BusState::Closed {
            let open: Vec<u64> = self.nodes().states.keys().copied().collect();
            open.into_iter().for_each(|node| self.leave(node));
        }
        let mut nodes = self.nodes();
        nodes.state = state;
        for sender in nodes.states.values() {
            sender.send_replace(state);
        }
    }

    /// Publishes as a server that is not of this project would: on any room's subject, to all nodes that subscribe to it.
    ///
    /// # Errors
    ///
    /// [`SubjectError`] where the subject is not one of a room.
    pub fn publish_foreign(&self, subject: &str, payload: &Bytes) -> Result<(), SubjectError> {
        let subject = RoomSubject::parse(subject)?;
        let room = subject.room()?;
        let sender = match subject.sender() {
            Sender::Session(session) => Some(session),
            Sender::System | Sender::Foreign(_) => None,
        };
        for subscriber in self.rooms().get(room.key()).into_iter().flatten() {
            subscriber.buffer.push(Delivery { sender, payload: payload.clone() }, self.0.limits);
        }
        Ok(())
    }

    /// Subscriptions of all nodes in all rooms.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.rooms().values().map(Vec::len).sum()
    }

    fn leave(&self, node: u64) {
        let Some(state) = self.nodes().states.remove(&node) else { return };
        self.rooms_mut().retain(|_, subscribers| {
            subscribers.retain(|subscriber| {
                if subscriber.node == node {
                    subscriber.buffer.close();
                }
                subscriber.node != node
            });
            !subscribers.is_empty()
        });
        self.inboxes_mut().retain(|inbox| {
            if inbox.node == node {
                inbox.buffer.close();
            }
            inbox.node != node
        });
        state.send_replace(BusState::Closed);
    }

    // No code that holds one of these locks can panic half way through a change, so a poisoned one is as good as new.

    fn rooms(&self) -> RwLockReadGuard<'_, Rooms> {
        self.0.rooms.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn rooms_mut(&self) -> RwLockWriteGuard<'_, Rooms> {
        self.0.rooms.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn inboxes(&self) -> RwLockReadGuard<'_, Vec<Inboxed>> {
        self.0.inboxes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn inboxes_mut(&self) -> RwLockWriteGuard<'_, Vec<Inboxed>> {
        self.0.inboxes.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.0.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One node's access to a [`Hub`].
#[derive(Debug)]
pub struct LocalBus {
    hub: Hub,
    node: u64,
    state: watch::Receiver<BusState>,
}

impl Bus for LocalBus {
    /// Costs a look into a table where no other node subscribes to the room, and never copies the packet's bytes.
    fn publish(&self, room: &RoomId, packet: &Packet) -> Published {
        if *self.state.borrow() != BusState::Up {
            return Published::Down;
        }
        let mut delivery = None;
        for subscriber in self.hub.rooms().get(room.key()).into_iter().flatten() {
            if subscriber.node == self.node {
                continue;
            }
            let delivery = delivery.get_or_insert_with(|| Delivery {
                sender: Some(packet.tag().sender),
                payload: Bytes::from_owner(Payload(packet.clone())),
            });
            subscriber.buffer.push(delivery.clone(), self.hub.0.limits);
        }
        Published::Sent
    }

    fn subscribe<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<Box<dyn Subscription>, SubscribeError>> {
        Box::pin(async move {
            let mut rooms = self.hub.rooms_mut();
            // Under the lock of the rooms: who closes marks the state after it has taken the node out of them.
            if !self.hub.nodes().states.contains_key(&self.node) {
                return Err(SubscribeError::Closed);
            }
            let subscribers = rooms.entry(room.key().to_owned()).or_default();
            if subscribers.iter().any(|subscriber| subscriber.node == self.node) {
                return Err(SubscribeError::AlreadySubscribed);
            }
            let buffer = Arc::new(Buffer::default());
            subscribers.push(Subscriber { node: self.node, buffer: buffer.clone() });
            let subscription = LocalSubscription { hub: self.hub.clone(), key: room.key().to_owned(), buffer };
            Ok(Box::new(subscription) as Box<dyn Subscription>)
        })
    }

    fn send(&self, subject: &Subject, payload: Bytes) -> Published {
        if *self.state.borrow() != BusState::Up {
            return Published::Down;
        }
        let inboxes = self.hub.inboxes();
        let heard = |inbox: &&Inboxed| inbox.subjects.iter().any(|pattern| pattern.takes_in(subject));
        for inbox in inboxes.iter().filter(|inbox| inbox.node != self.node).filter(heard) {
            let letter = Letter { subject: subject.as_str().to_owned(), payload: payload.clone() };
            inbox.buffer.push(letter, self.hub.0.limits);
        }
        drop(inboxes);
        if let Ok(room) = RoomSubject::parse(subject.as_str()).and_then(|subject| subject.room()) {
            for subscriber in self.hub.rooms().get(room.key()).into_iter().flatten() {
                if subscriber.node != self.node {
                    subscriber.buffer.push(Delivery { sender: None, payload: payload.clone() }, self.hub.0.limits);
                }
            }
        }
        Published::Sent
    }

    fn receive(&self, subjects: Vec<Subject>) -> BoxFuture<'_, Result<Box<dyn Inbox>, SubscribeError>> {
        Box::pin(async move {
            let mut inboxes = self.hub.inboxes_mut();
            // Under the lock of the inboxes, as in `subscribe`.
            if !self.hub.nodes().states.contains_key(&self.node) {
                return Err(SubscribeError::Closed);
            }
            let buffer = Arc::new(Buffer::default());
            inboxes.push(Inboxed { node: self.node, subjects, buffer: Arc::clone(&buffer) });
            Ok(Box::new(LocalInbox { hub: self.hub.clone(), buffer }) as Box<dyn Inbox>)
        })
    }

    fn state(&self) -> watch::Receiver<BusState> {
        self.state.clone()
    }

    fn take_counts(&self) -> BusCounts {
        BusCounts::default()
    }

    fn broker(&self) -> Option<BrokerInfo> {
        None
    }

    /// No task carries it, so none can die.
    fn watch_over(&self) -> BoxFuture<'_, String> {
        Box::pin(pending())
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.hub.leave(self.node) })
    }
}

impl Drop for LocalBus {
    fn drop(&mut self) {
        self.hub.leave(self.node);
    }
}

/// A packet's payload, shared with the packet itself.
struct Payload(Packet);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.0.payload()
    }
}

#[derive(Debug)]
struct LocalSubscription {
    hub: Hub,
    key: String,
    buffer: Arc<Buffer<Delivery>>,
}

impl Subscription for LocalSubscription {
    /// After the bus has closed, what was buffered still comes, then `None`.
    fn next(&mut self) -> BoxFuture<'_, Option<Delivery>> {
        Box::pin(self.buffer.pop())
    }

    fn take_lost(&mut self) -> u64 {
        self.buffer.take_lost()
    }
}

impl Drop for LocalSubscription {
    fn drop(&mut self) {
        let mut rooms = self.hub.rooms_mut();
        if let Some(subscribers) = rooms.get_mut(&self.key) {
            subscribers.retain(|subscriber| !Arc::ptr_eq(&subscriber.buffer, &self.buffer));
            if subscribers.is_empty() {
                rooms.remove(&self.key);
            }
        }
    }
}

#[derive(Debug)]
struct LocalInbox {
    hub: Hub,
    buffer: Arc<Buffer<Letter>>,
}

impl Inbox for LocalInbox {
    fn next(&mut self) -> BoxFuture<'_, Option<Letter>> {
        Box::pin(self.buffer.pop())
    }

    fn take_lost(&mut self) -> u64 {
        self.buffer.take_lost()
    }
}

impl Drop for LocalInbox {
    fn drop(&mut self) {
        self.hub.inboxes_mut().retain(|inbox| !Arc::ptr_eq(&inbox.buffer, &self.buffer));
    }
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
