//! What is told of a node and its members: plain data, and how nodes are to see each other.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::{Dialect, RoomId, SessionId, Subject, UserId};

/// How a member is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// Over WebSocket.
    WebSocket,
    /// Over WebTransport.
    WebTransport,
    /// In a way that this version does not know.
    Other,
}

/// One member of a room, as its node tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterEntry {
    /// The connection's number.
    pub session: SessionId,
    /// Who it is.
    pub user: UserId,
    /// The room.
    pub room: RoomId,
    /// How it is connected.
    pub via: Via,
    /// When it joined, in milliseconds since 1970 by its node's clock.
    pub joined_ms: u64,
}

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NodeState {
    /// It takes clients.
    #[default]
    Up,
    /// It sends its clients elsewhere.
    Draining,
}

/// What does not change while a node runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnNode {
    /// Unique in the cluster; at most 128 bytes.
    pub name: String,
    /// A number that no other run of any node has.
    pub instance: u64,
    /// The program's version.
    pub version: String,
    /// Where it runs.
    pub region: String,
    /// Which numbering it speaks.
    pub dialect: Dialect,
    /// When it started, in milliseconds since 1970.
    pub started_ms: u64,
    /// Where clients connect, as URLs without a path.
    pub listeners: Vec<String>,
}

/// What is said of this node in its next heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnStatus {
    /// Where it is in its life.
    pub state: NodeState,
    /// Open connections.
    pub connections: u64,
    /// Rooms with members.
    pub rooms: u64,
    /// The numbers of its sessions.
    pub sessions: Vec<Range<u64>>,
}

/// How nodes see each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PresenceSettings {
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// Silent for so long: lost.
    pub lost_after: Duration,
}

/// A message to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// Where.
    pub subject: Subject,
    /// What.
    pub payload: Bytes,
}
