//! How nodes share rooms: the bus trait, its local implementation and the suite that every bus passes.
//!
//! Local delivery between members of one node never comes here.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod buffer;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
pub mod local;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use roomcast_protocol::{Packet, RoomId, SessionId, Subject};
use tokio::sync::watch;

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

/// A message of another node that is no packet of a room's member.
#[derive(Clone, Debug)]
pub struct Letter {
    /// The subject that it came on.
    pub subject: String,
    /// What it says.
    pub payload: Bytes,
}

/// What happened behind [`Bus::publish`]'s back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusCounts {
    /// Taken, and dropped to make room for what mattered more.
    pub dropped_full: u64,
    /// Taken, and dropped since they had waited for too long.
    pub dropped_late: u64,
    /// Taken, and dropped since the connection was lost.
    pub dropped_down: u64,
    /// Connections made to a broker, the first included.
    pub connections: u64,
    /// Times that this side was too slow for what the broker sent.
    pub slow: u64,
}

/// What a broker says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerInfo {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it was reached, without user or password.
    pub url: String,
    /// The largest message that it takes, in bytes.
    pub max_payload: usize,
}

/// The stream of what other nodes publish in one room. Dropping it unsubscribes.
pub trait Subscription: Send + 'static {
    /// The next delivery, in each publisher's order; `None` when the bus closed for good. Cancel-safe.
    fn next(&mut self) -> BoxFuture<'_, Option<Delivery>>;

    /// Packets that this subscription lost since the last call because its bounded buffer was full.
    fn take_lost(&mut self) -> u64;
}

/// The stream of what other nodes send on some subjects. Dropping it unsubscribes.
pub trait Inbox: Send + 'static {
    /// The next letter, in each sender's order as far as one subject goes; `None` when the bus closed for good. Cancel-safe.
    fn next(&mut self) -> BoxFuture<'_, Option<Letter>>;

    /// Letters that were lost since the last call because the bounded buffer was full.
    fn take_lost(&mut self) -> u64;
}

/// What carries packets between nodes.
pub trait Bus: Send + Sync + 'static {
    /// Hands a packet to all other nodes with members in the room. Never blocks and never buffers without bound.
    fn publish(&self, room: &RoomId, packet: &Packet) -> Published;

    /// Begins to receive what other nodes publish in the room, once per room and node.
    fn subscribe<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<Box<dyn Subscription>, SubscribeError>>;

    /// Sends what is no packet of a member (presence, rosters, a server's events) on any subject, to all other nodes that
    /// listen there. Never blocks; media makes room for it.
    fn send(&self, subject: &Subject, payload: Bytes) -> Published;

    /// Begins to receive what other nodes send on these subjects, a token of which may be `*`, in one bounded stream.
    fn receive(&self, subjects: Vec<Subject>) -> BoxFuture<'_, Result<Box<dyn Inbox>, SubscribeError>>;

    /// The state and its changes.
    fn state(&self) -> watch::Receiver<BusState>;

    /// What happened since the last call.
    fn take_counts(&self) -> BusCounts;

    /// The broker that carries it, once one was reached.
    fn broker(&self) -> Option<BrokerInfo>;

    /// Begins again whatever task of its own carries the bus, where none runs; then waits until that task dies, which only a
    /// bug makes it do, and says why. Giving up the wait does nothing to the bus.
    fn watch_over(&self) -> BoxFuture<'_, String>;

    /// Leaves the bus: subscriptions end, nothing more is published.
    fn close(&self) -> BoxFuture<'_, ()>;
}
