//! The bus inside one process: for a node that stands alone, and for tests of several nodes. What lives here: the hub that joins
//! them. What does not: any network.
//!
//! Each subscription's and inbox's buffer is bounded in packets and bytes, and counts what it loses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use roomcast_protocol::subject::SubjectError;
use roomcast_protocol::{Packet, RoomId, RoomSubject, Sender, Subject};
use tokio::sync::watch;

use crate::buffer::Buffer;
use crate::{
    BoxFuture, BrokerInfo, Bus, BusCounts, BusState, Delivery, Inbox, Letter, Published, SubscribeError, Subscription,
    refused_subject,
};

pub use crate::buffer::BufferLimits;

/// What the nodes of one process share rooms through. Clones are the same hub.
#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    limits: BufferLimits,
    /// Read for each publication, written by subscribing and leaving only.
    rooms: RwLock<Rooms>,
    inboxes: RwLock<Vec<Receiver>>,
    nodes: Mutex<Nodes>,
}

/// A room's key to the nodes that subscribe to it. A room nobody subscribes to has no entry.
type Rooms = HashMap<String, Vec<Subscriber>>;

#[derive(Debug)]
struct Subscriber {
    node: u64,
    buffer: Arc<Buffer<Delivery>>,
}

/// Who has an inbox, and of what.
#[derive(Debug)]
struct Receiver {
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
        self.deliver_in_room(&RoomSubject::parse(subject)?, payload, None)
    }

    /// Delivers to all nodes that subscribe to the subject's room, but one.
    fn deliver_in_room(
        &self,
        subject: &RoomSubject<'_>,
        payload: &Bytes,
        except: Option<u64>,
    ) -> Result<(), SubjectError> {
        let room = subject.room()?;
        let sender = match subject.sender() {
            Sender::Session(session) => Some(session),
            Sender::System | Sender::Foreign(_) => None,
        };
        for subscriber in self.rooms().get(room.key()).into_iter().flatten() {
            if except != Some(subscriber.node) {
                subscriber.buffer.push(Delivery { sender, payload: payload.clone() });
            }
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
        self.inboxes_mut().retain(|receiver| {
            if receiver.node == node {
                receiver.buffer.close();
            }
            receiver.node != node
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

    fn inboxes(&self) -> RwLockReadGuard<'_, Vec<Receiver>> {
        self.0.inboxes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn inboxes_mut(&self) -> RwLockWriteGuard<'_, Vec<Receiver>> {
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
            subscriber.buffer.push(delivery.clone());
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
            let buffer = Arc::new(Buffer::new(self.hub.0.limits));
            subscribers.push(Subscriber { node: self.node, buffer: buffer.clone() });
            let subscription = LocalSubscription { hub: self.hub.clone(), key: room.key().to_owned(), buffer };
            Ok(Box::new(subscription) as Box<dyn Subscription>)
        })
    }

    fn send(&self, subject: &Subject, payload: Bytes) -> Published {
        if *self.state.borrow() != BusState::Up {
            return Published::Down;
        }
        if let Ok(subject) = RoomSubject::parse(subject.as_str()) {
            // A subject of ours always names a room.
            let _ = self.hub.deliver_in_room(&subject, &payload, Some(self.node));
            return Published::Sent;
        }
        for receiver in self.hub.inboxes().iter().filter(|receiver| receiver.node != self.node) {
            if receiver.subjects.iter().any(|pattern| matches(pattern.as_str(), subject.as_str())) {
                receiver.buffer.push(Letter { subject: subject.to_string(), payload: payload.clone() });
            }
        }
        Published::Sent
    }

    fn receive(&self, subjects: Vec<Subject>) -> BoxFuture<'_, Result<Box<dyn Inbox>, SubscribeError>> {
        Box::pin(async move {
            if let Some(refused) = refused_subject(&subjects) {
                return Err(refused);
            }
            let mut inboxes = self.hub.inboxes_mut();
            // Under the lock of the inboxes, as for a room.
            if !self.hub.nodes().states.contains_key(&self.node) {
                return Err(SubscribeError::Closed);
            }
            let buffer = Arc::new(Buffer::new(self.hub.0.limits));
            inboxes.push(Receiver { node: self.node, subjects, buffer: buffer.clone() });
            Ok(Box::new(LocalInbox { hub: self.hub.clone(), buffer }) as Box<dyn Inbox>)
        })
    }

    /// It is where it goes at once.
    fn flush(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn state(&self) -> watch::Receiver<BusState> {
        self.state.clone()
    }

    /// All zero: what a hub takes, it has delivered.
    fn take_counts(&self) -> BusCounts {
        BusCounts::default()
    }

    fn broker(&self) -> Option<BrokerInfo> {
        None
    }

    /// Never ends: a hub has no task.
    fn watch_over(&self) -> BoxFuture<'_, String> {
        Box::pin(std::future::pending())
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
    /// After the bus has closed, what was buffered still comes, then `None`.
    fn next(&mut self) -> BoxFuture<'_, Option<Letter>> {
        Box::pin(self.buffer.pop())
    }

    fn take_lost(&mut self) -> u64 {
        self.buffer.take_lost()
    }
}

impl Drop for LocalInbox {
    fn drop(&mut self) {
        self.hub.inboxes_mut().retain(|receiver| !Arc::ptr_eq(&receiver.buffer, &self.buffer));
    }
}

/// Whether a subject is one of a pattern's, whose tokens may be `*`.
fn matches(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (None, None) => return true,
            (Some(wanted), Some(token)) if wanted == "*" || wanted == token => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
