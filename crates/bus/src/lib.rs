//! How nodes share rooms: the bus trait, an implementation inside one process and one on NATS, and the suite that both pass.
//!
//! Local delivery between members of one node never comes here.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod buffer;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
pub mod local;
pub mod nats;
#[cfg(feature = "testing")]
pub mod testing;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use roomcast_protocol::{Packet, RoomId, SessionId, Subject};
use tokio::sync::watch;

pub use buffer::BufferLimits;

/// What an asynchronous call of a bus returns: buses are used as trait objects.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Whether the bus carries anything right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusState {
    /// Never reached yet.
    Connecting,
    /// Carrying.
    Up,
    /// Was reached once, is lost now; being reconnected.
    Down,
    /// Closed for good.
    Closed,
}

/// What became of a publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// Handed to the bus.
    Sent,
    /// Dropped: the bus is not up.
    Down,
    /// Dropped: the bus's outgoing buffer is full.
    Full,
}

/// Why a subscription could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// The bus was closed for good.
    #[error("the bus is closed")]
    Closed,
    /// This node has a subscription of the room already, and packets must not reach it twice.
    #[error("this node subscribes to the room already")]
    AlreadySubscribed,
    /// An inbox was asked for a room's subjects: those are for a [`Subscription`].
    #[error("{0} is a subject of rooms, which an inbox cannot receive")]
    RoomSubject(String),
    /// The broker or the client library refused.
    #[error("subscribing failed: {0}")]
    Failed(String),
}

/// One packet that another node published in a room.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The session that sent it, where the subject names one; a foreign server may use a user's name there.
    pub sender: Option<SessionId>,
    /// The serialized `PacketWrapper`.
    pub payload: Bytes,
}

/// The stream of what other nodes publish in one room. Dropping it unsubscribes.
pub trait Subscription: Send + 'static {
    /// The next delivery, in each publisher's order; `None` when the bus closed for good. Cancel-safe.
    fn next(&mut self) -> BoxFuture<'_, Option<Delivery>>;

    /// Packets that this subscription lost since the last call because its bounded buffer was full.
    fn take_lost(&mut self) -> u64;
}

/// A message that another node sent on a subject of an [`Inbox`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Where it was sent to; no wildcards.
    pub subject: String,
    /// What was sent.
    pub payload: Bytes,
}

/// The stream of what other nodes send on some subjects. Dropping it ends it.
pub trait Inbox: Send + 'static {
    /// The next message, in each sender's order on each subject; `None` when the bus closed for good. Cancel-safe.
    fn next(&mut self) -> BoxFuture<'_, Option<Letter>>;

    /// Messages that this inbox lost since the last call because its bounded buffer was full.
    fn take_lost(&mut self) -> u64;
}

/// What happened behind [`Bus::publish`]'s back since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusCounts {
    /// Taken, but dropped later: there was no room for something that matters more, or the broker takes nothing so large.
    pub dropped_full: u64,
    /// Taken, but dropped later: it waited too long for the broker to be of use.
    pub dropped_late: u64,
    /// Taken, but dropped later: the connection was lost meanwhile.
    pub dropped_down: u64,
    /// Connections to the broker made, the first included.
    pub connections: u64,
    /// Times that this node was found too slow in reading: by the broker, which then cuts it off, or by the client library, which
    /// drops a message.
    pub slow: u64,
    /// Publications and subscriptions that the broker did not permit, as far as it has said so.
    pub refused: u64,
}

/// What a broker says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The cluster it belongs to, if any.
    pub cluster: Option<String>,
    /// The largest message that it takes, in bytes.
    pub max_payload: usize,
    /// The URL it was reached at, without credentials.
    pub url: String,
}

/// What carries packets between nodes.
pub trait Bus: Send + Sync + 'static {
    /// Hands a packet to all other nodes with members in the room. Never blocks and never buffers without bound.
    fn publish(&self, room: &RoomId, packet: &Packet) -> Published;

    /// Begins to receive what other nodes publish in the room, once per room and node.
    fn subscribe<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<Box<dyn Subscription>, SubscribeError>>;

    /// Sends a message that is no packet of a room's member (presence, rosters, server events), on any subject without
    /// wildcards: on a room's to all other nodes that subscribe to it, on another to their inboxes. Never blocks. Where room is
    /// needed, media goes first, then the oldest message. This node does not hear it itself, except that what it sent just before
    /// it lost a broker may come to it by way of the next.
    fn send(&self, subject: &Subject, payload: Bytes) -> Published;

    /// Begins to receive what other nodes send on these subjects (a token may be `*`), all in one bounded stream. A message on a
    /// subject that more than one of them matches may come more than once. Not for a room's subjects.
    fn receive(&self, subjects: Vec<Subject>) -> BoxFuture<'_, Result<Box<dyn Inbox>, SubscribeError>>;

    /// Waits until what was published and sent before has been handed to the broker's connection, or was dropped. Cancel-safe.
    fn flush(&self) -> BoxFuture<'_, ()>;

    /// The state and its changes.
    fn state(&self) -> watch::Receiver<BusState>;

    /// What happened behind [`Self::publish`]'s and [`Self::send`]'s back since the last call.
    fn take_counts(&self) -> BusCounts;

    /// What the broker says of itself, where there is one and it was reached.
    fn broker(&self) -> Option<BrokerInfo>;

    /// Starts (again) whatever task of its own carries the bus, if it is not running; then waits until that task dies, which
    /// only a bug makes it do, and says why. Does not end otherwise. Giving it up does nothing to the bus.
    fn watch_over(&self) -> BoxFuture<'_, String>;

    /// Leaves the bus: subscriptions and inboxes end, nothing more is published.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// The first of these subjects that an inbox cannot have.
pub(crate) fn refused_subject(subjects: &[Subject]) -> Option<SubscribeError> {
    let room =
        subjects.iter().find(|subject| matches!(subject.as_str().split('.').next(), Some("room" | "*" | ">")))?;
    Some(SubscribeError::RoomSubject(room.to_string()))
}
