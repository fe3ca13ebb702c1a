//! Subjects on the bus: the only place where one is formatted or parsed.
//!
//! ```text
//! room.{room}.{sender}                              a packet; {sender} is a session's number, or `system`
//! room.{room}.*                                     what a node subscribes to, once per room
//! health.diagnostics.{region}.{service}.{server}    a client's health report
//! server.connections.{region}.{service}.{server}    a connection event
//! roomcast.v1.presence.{node}                       a node's heartbeat
//! roomcast.v1.roster.{node}                         what changed among a node's members
//! roomcast.v1.sync.{node}                           to one node: a request for a roster, or a part of one
//! ```
//!
//! A token that stands for a name holds only `[A-Za-z0-9_-]` and `%XX`, so a name can neither add a level nor be a
//! wildcard.

use std::fmt;

use crate::token;
use crate::{RoomId, SessionId};

const SYSTEM: &str = "system";
const HEALTH: &str = "health.diagnostics";
const CONNECTIONS: &str = "server.connections";
const CLUSTER: &str = "roomcast.v1";

/// A well-formed subject, to publish on or to subscribe to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject(String);

impl Subject {
    /// Where a session's packets go.
    #[must_use]
    pub fn session(room: &RoomId, sender: SessionId) -> Self {
        Self(format!("room.{}.{sender}", room.key()))
    }

    /// Where events go that a server makes for a room.
    #[must_use]
    pub fn system(room: &RoomId) -> Self {
        Self(format!("room.{}.{SYSTEM}", room.key()))
    }

    /// Everything of one room: for subscribing only.
    #[must_use]
    pub fn room(room: &RoomId) -> Self {
        Self(format!("room.{}.*", room.key()))
    }

    /// Where clients' health reports go.
    #[must_use]
    pub fn health(server: &ServerName) -> Self {
        Self(format!("{HEALTH}.{}", server.token()))
    }

    /// The health reports of all servers' clients: for subscribing only.
    #[must_use]
    pub fn all_health() -> Self {
        Self(format!("{HEALTH}.*.*.*"))
    }

    /// Where events of a server's connections go.
    #[must_use]
    pub fn connections(server: &ServerName) -> Self {
        Self(format!("{CONNECTIONS}.{}", server.token()))
    }

    /// Where a node says that it is here.
    #[must_use]
    pub fn presence(node: &str) -> Self {
        Self(format!("{CLUSTER}.presence.{}", token::escape(node)))
    }

    /// Where a node says what changed among its members.
    #[must_use]
    pub fn roster(node: &str) -> Self {
        Self(format!("{CLUSTER}.roster.{}", token::escape(node)))
    }

    /// Where one node is spoken to.
    #[must_use]
    pub fn sync(node: &str) -> Self {
        Self(format!("{CLUSTER}.sync.{}", token::escape(node)))
    }

    /// All that a node listens to besides its rooms: for subscribing only.
    #[must_use]
    pub fn cluster(node: &str) -> Vec<Self> {
        vec![Self(format!("{CLUSTER}.presence.*")), Self(format!("{CLUSTER}.roster.*")), Self::sync(node)]
    }

    /// The subject as the broker takes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The subject as the broker takes it.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Subject {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Why a subject could not be understood. A message on it is dropped and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Not a subject of this kind: other words, more or fewer tokens, an empty token or a wildcard.
    #[error("not a subject of this kind")]
    Shape,
    /// A token is not what a valid name is written as.
    #[error("a token does not stand for a valid name")]
    Name,
}

/// Who published in a room, as the subject tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sender<'a> {
    /// A session of any node. A foreign server's user whose name is a number looks the same.
    Session(SessionId),
    /// A server: an event.
    System,
    /// A foreign server that names its user here.
    Foreign(&'a str),
}

/// A subject of a room, taken apart without copying: for every message that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoomSubject<'a> {
    room: &'a str,
    sender: Sender<'a>,
}

impl<'a> RoomSubject<'a> {
    /// Takes a subject apart that a message came on.
    ///
    /// # Errors
    ///
    /// [`SubjectError::Shape`] unless it is `room.` and two more tokens without wildcards.
    pub fn parse(subject: &'a str) -> Result<Self, SubjectError> {
        let tokens = subject.strip_prefix("room.").ok_or(SubjectError::Shape)?;
        let (room, sender) = tokens.split_once('.').ok_or(SubjectError::Shape)?;
        if !is_token(room) || !is_token(sender) {
            return Err(SubjectError::Shape);
        }
        let sender = match sender {
            SYSTEM => Sender::System,
            _ => session(sender).map_or(Sender::Foreign(sender), Sender::Session),
        };
        Ok(Self { room, sender })
    }

    /// Who published.
    #[must_use]
    pub fn sender(&self) -> Sender<'a> {
        self.sender
    }

    /// Whether the subject is one of `room`'s; copies nothing.
    #[must_use]
    pub fn is_in(&self, room: &RoomId) -> bool {
        self.room == room.key()
    }

    /// The room. A space was written as `_` and stays one: the room is equal all the same.
    ///
    /// # Errors
    ///
    /// [`SubjectError::Name`] where no room's key is written so.
    pub fn room(&self) -> Result<RoomId, SubjectError> {
        let name = token::unescape(self.room).ok_or(SubjectError::Name)?;
        let room = RoomId::parse(&name).map_err(|_| SubjectError::Name)?;
        if self.is_in(&room) { Ok(room) } else { Err(SubjectError::Name) }
    }
}

/// Which server a report is of: three names, each of any text that is not empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerName {
    region: String,
    service: String,
    server: String,
}

impl ServerName {
    /// Longest name, in bytes; three of them with every byte escaped stay well under a broker's bound for a subject.
    pub const MAX_BYTES: usize = 128;

    /// Checks the three names: the node's region, its service and its own name.
    ///
    /// # Errors
    ///
    /// [`NameError`](crate::NameError) where one is empty or over [`MAX_BYTES`](Self::MAX_BYTES).
    pub fn new(region: &str, service: &str, server: &str) -> Result<Self, crate::NameError> {
        for name in [region, service, server] {
            match name.len() {
                0 => return Err(crate::NameError::Empty),
                1..=Self::MAX_BYTES => {}
                _ => return Err(crate::NameError::TooLong(Self::MAX_BYTES)),
            }
        }
        Ok(Self { region: region.into(), service: service.into(), server: server.into() })
    }

    /// Where the node runs.
    #[must_use]
    pub fn region(&self) -> &str {
        &self.region
    }

    /// What the node belongs to.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The node.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    fn token(&self) -> String {
        [&self.region, &self.service, &self.server].map(|name| token::escape(name)).join(".")
    }
}

/// A subject of a server's reports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerSubject {
    /// A client's health report.
    Health(ServerName),
    /// A connection event.
    Connections(ServerName),
}

impl ServerSubject {
    /// Takes a subject apart that a message came on.
    ///
    /// # Errors
    ///
    /// [`SubjectError`] where it is not one that [`Subject::health`] or [`Subject::connections`] makes.
    pub fn parse(subject: &str) -> Result<Self, SubjectError> {
        let mut tokens = subject.splitn(3, '.');
        let (Some(first), Some(second), Some(server)) = (tokens.next(), tokens.next(), tokens.next()) else {
            return Err(SubjectError::Shape);
        };
        let kind = match (first, second) {
            ("health", "diagnostics") => Self::Health,
            ("server", "connections") => Self::Connections,
            _ => return Err(SubjectError::Shape),
        };
        let names: Vec<&str> = server.splitn(4, '.').collect();
        let &[region, service, node] = names.as_slice() else { return Err(SubjectError::Shape) };
        let name = |token| token::unescape(token).ok_or(SubjectError::Name);
        let parsed = ServerName::new(&name(region)?, &name(service)?, &name(node)?).map_err(|_| SubjectError::Name)?;
        // Only the one spelling that this project writes: what is parsed is what was formatted.
        if parsed.token() == server { Ok(kind(parsed)) } else { Err(SubjectError::Name) }
    }
}

/// A subject of a node's, with the node's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClusterSubject {
    /// Its heartbeats.
    Presence(String),
    /// The changes of its roster.
    Roster(String),
    /// What it is told itself.
    Sync(String),
}

impl ClusterSubject {
    /// Takes a subject apart that a message came on.
    ///
    /// # Errors
    ///
    /// [`SubjectError`] where it is not one that [`Subject::presence`], [`Subject::roster`] or [`Subject::sync`] makes.
    pub fn parse(subject: &str) -> Result<Self, SubjectError> {
        let rest = subject.strip_prefix(CLUSTER).and_then(|rest| rest.strip_prefix('.')).ok_or(SubjectError::Shape)?;
        let (kind, node) = rest.split_once('.').ok_or(SubjectError::Shape)?;
        let kind = match kind {
            "presence" => Self::Presence,
            "roster" => Self::Roster,
            "sync" => Self::Sync,
            _ => return Err(SubjectError::Shape),
        };
        let name = token::unescape(node).filter(|name| !name.is_empty()).ok_or(SubjectError::Name)?;
        // Only the one spelling that this project writes.
        if token::escape(&name) == node { Ok(kind(name)) } else { Err(SubjectError::Name) }
    }
}

/// One level of a subject that a message can come on.
fn is_token(token: &str) -> bool {
    !token.is_empty() && !token.bytes().any(|byte| matches!(byte, b'.' | b'*' | b'>') || byte <= b' ' || byte == 0x7f)
}

/// A session's number, spelt as [`Subject::session`] spells it: no sign, no leading zero.
fn session(token: &str) -> Option<SessionId> {
    let digits = token.bytes().all(|byte| byte.is_ascii_digit()) && (token == "0" || !token.starts_with('0'));
    if digits { token.parse().ok().map(SessionId) } else { None }
}
