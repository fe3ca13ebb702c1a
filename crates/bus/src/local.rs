//! The bus inside one process: for a node that stands alone, and for tests of several nodes. What lives here: the hub that joins
//! them. What does not: any network.
//!
//! A subscription's buffer is bounded in packets and bytes. When it is full the oldest packet goes, counted by
//! [`Subscription::take_lost`]: after a stall, the newest media is worth the most.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use roomcast_protocol::subject::SubjectError;
use roomcast_protocol::{Packet, RoomId, RoomSubject, Sender};
use tokio::sync::{Notify, watch};

use crate::{BoxFuture, Bus, BusState, Delivery, Published, SubscribeError, Subscription};

/// What one subscription may hold unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferLimits {
    /// Most packets.
    pub packets: usize,
    /// Most payload bytes.
    pub bytes: usize,
}

impl Default for BufferLimits {
    /// A second of a busy room, and no more memory than two full egress queues.
    fn default() -> Self {
        Self { packets: 4_096, bytes: 16 * 1024 * 1024 }
    }
}

/// What the nodes of one process share rooms through. Clones are the same hub.
#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    limits: BufferLimits,
    /// Read for each publication, written by subscribing and leaving only.
    rooms: RwLock<Rooms>,
    nodes: Mutex<Nodes>,
}

/// A room's key to the nodes that subscribe to it. A room nobody subscribes to has no entry.
type Rooms = HashMap<String, Vec<Subscriber>>;

#[derive(Debug)]
struct Subscriber {
    node: u64,
    buffer: Arc<Buffer>,
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
        state.send_replace(BusState::Closed);
    }

    // No code that holds one of these locks can panic half way through a change, so a poisoned one is as good as new.

    fn rooms(&self) -> RwLockReadGuard<'_, Rooms> {
        self.0.rooms.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn rooms_mut(&self) -> RwLockWriteGuard<'_, Rooms> {
        self.0.rooms.write().unwrap_or_else(PoisonError::into_inner)
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

    fn state(&self) -> watch::Receiver<BusState> {
        self.state.clone()
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
    buffer: Arc<Buffer>,
}

impl Subscription for LocalSubscription {
    /// After the bus has closed, what was buffered still comes, then `None`.
    fn next(&mut self) -> BoxFuture<'_, Option<Delivery>> {
        Box::pin(self.buffer.pop())
    }

    fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.buffer.lock().lost)
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

/// What one subscription has not read yet. One reader.
#[derive(Debug, Default)]
struct Buffer {
    unread: Mutex<Unread>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Unread {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    lost: u64,
    closed: bool,
}

/// Deliveries for which an empty buffer keeps room.
const KEEP_DELIVERIES: usize = 64;

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, Unread> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, delivery: Delivery, limits: BufferLimits) {
        let mut unread = self.lock();
        let length = delivery.payload.len();
        if limits.packets == 0 || length > limits.bytes {
            unread.lost += 1;
            return;
        }
        while unread.deliveries.len() >= limits.packets || unread.bytes + length > limits.bytes {
            let Some(oldest) = unread.deliveries.pop_front() else { break };
            unread.bytes -= oldest.payload.len();
            unread.lost += 1;
        }
        let was_empty = unread.deliveries.is_empty();
        unread.bytes += length;
        unread.deliveries.push_back(delivery);
        drop(unread);
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    async fn pop(&self) -> Option<Delivery> {
        loop {
            {
                let mut unread = self.lock();
                if let Some(delivery) = unread.deliveries.pop_front() {
                    unread.bytes -= delivery.payload.len();
                    if unread.deliveries.is_empty() && unread.deliveries.capacity() > KEEP_DELIVERIES {
                        unread.deliveries = VecDeque::new();
                    }
                    return Some(delivery);
                }
                if unread.closed {
                    return None;
                }
            }
            // A push between the look and this wait has left its permit, so no wake-up is lost.
            self.filled.notified().await;
        }
    }
}

#[cfg(test)]
#[path = "local_tests.rs"]
mod tests;
