//! What happened on this node, for whoever watches: a bounded ring of the last events, and subscribers that follow it.
//!
//! It is in the store, so it outlives the actors that write to it and those that show it: who was cut off by a crash of
//! `admin` goes on where it was. Publishing never waits and serializes nothing; a subscriber that is too slow for the
//! ring is told how much it missed. The media path never comes here.

use std::collections::VecDeque;
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use roomcast_protocol::{RoomId, SessionId, UserId};
use roomcast_supervision::ActorPath;
use serde::{Serialize, Serializer};
use tokio::sync::watch;

use crate::config::{ReloadOutcome, Verdict};
use crate::metrics::Transport;

/// How many events are kept. At a kilobyte each, which is rare, 4 MB.
pub const EVENTS_KEPT: usize = 4096;
/// How many a subscriber is given at once.
const AT_ONCE: usize = 64;
/// The longest text that an event carries, in bytes: a panic may say anything.
const MAX_TEXT: usize = 500;
/// The most texts in one event's list.
const MAX_TEXTS: usize = 20;

/// Something that an operator may want to know as it happens.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum NodeEvent {
    /// An actor that was up has ended, and not in order.
    Crashed {
        /// Which.
        #[serde(serialize_with = "actor")]
        path: ActorPath,
        /// Why.
        reason: Text,
    },
    /// A further incarnation is up.
    Restarted {
        /// Which actor.
        #[serde(serialize_with = "actor")]
        path: ActorPath,
        /// Which incarnation, from 1.
        generation: u64,
        /// Milliseconds since the incarnation before had ended.
        #[serde(rename = "after_ms", serialize_with = "milliseconds")]
        after: Duration,
    },
    /// An incarnation ended before it was up.
    StartFailed {
        /// Which actor.
        #[serde(serialize_with = "actor")]
        path: ActorPath,
        /// Why.
        reason: Text,
    },
    /// A supervisor saw more restarts than its intensity allows; its parent decides.
    GaveUp {
        /// Which.
        #[serde(serialize_with = "actor")]
        path: ActorPath,
    },
    /// An actor did not end though killed; its supervisor goes on without it.
    Abandoned {
        /// Which.
        #[serde(serialize_with = "actor")]
        path: ActorPath,
    },
    /// An actor has been running for a second without an await: it serves nothing and can be neither stopped nor killed.
    Stuck {
        /// Which.
        #[serde(serialize_with = "actor")]
        path: ActorPath,
        /// Milliseconds since it began, so far.
        #[serde(rename = "busy_ms", serialize_with = "milliseconds")]
        busy: Duration,
    },
    /// An actor that was stuck goes on.
    Unstuck {
        /// Which.
        #[serde(serialize_with = "actor")]
        path: ActorPath,
        /// For how many milliseconds it was stuck.
        #[serde(rename = "busy_ms", serialize_with = "milliseconds")]
        busy: Duration,
    },
    /// The configuration was read again.
    Reload(Reload),
    /// A session is a member of a room.
    Join(Member),
    /// A session is no member of a room any more.
    Leave(Member),
    /// A room has its first member.
    RoomBegun {
        /// Which.
        #[serde(serialize_with = "shown")]
        room: RoomId,
    },
    /// A room is over.
    RoomEnded {
        /// Which.
        #[serde(serialize_with = "shown")]
        room: RoomId,
        /// `empty`, or `failed`: its supervisor gave up.
        why: &'static str,
    },
    /// The node is on its way out.
    Draining,
    /// Another node was heard first.
    NodeSeen {
        /// Its name.
        node: Text,
    },
    /// Another node ended in order.
    NodeLeft {
        /// Its name.
        node: Text,
    },
    /// Another node fell silent for too long.
    NodeLost {
        /// Its name.
        node: Text,
        /// How many members it had.
        members: usize,
    },
    /// Another node sends its clients elsewhere.
    NodeDraining {
        /// Its name.
        node: Text,
    },
    /// Two nodes that live have one name.
    NameTaken {
        /// The name.
        node: Text,
        /// Whether it is this node's.
        own: bool,
    },
    /// A node speaks the other dialect.
    OtherDialect {
        /// Its name.
        node: Text,
    },
}

/// What became of a reload. Published by the configuration actor, whoever asked for it.
#[derive(Clone, Debug, Serialize)]
pub struct Reload {
    /// In one word: `applied`, `unchanged` or `refused`.
    pub outcome: Verdict,
    /// The number of the settings in force after it, from 1.
    pub generation: u64,
    /// The live keys that changed.
    pub changed: Texts,
    /// The keys that wait for a restart.
    pub waiting: Texts,
    /// Why it was refused, with file, line and key.
    pub errors: Texts,
}

impl From<&ReloadOutcome> for Reload {
    fn from(outcome: &ReloadOutcome) -> Self {
        let keys =
            |live| outcome.changed.iter().filter(|change| change.live == live).map(|change| &change.key).collect();
        Self {
            outcome: outcome.verdict,
            generation: outcome.generation,
            changed: keys(true),
            waiting: keys(false),
            errors: outcome.errors.iter().collect(),
        }
    }
}

/// Who joined or left.
#[derive(Clone, Debug, Serialize)]
pub struct Member {
    /// The room.
    #[serde(serialize_with = "shown")]
    pub room: RoomId,
    /// The identity that it joined with.
    #[serde(serialize_with = "shown")]
    pub user: UserId,
    /// The connection's number.
    #[serde(serialize_with = "number")]
    pub session: SessionId,
    /// How it is connected.
    #[serde(serialize_with = "connected")]
    pub transport: Transport,
}

/// A text of at most 500 bytes; what is longer was cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Text(Box<str>);

impl Text {
    /// Takes what fits.
    pub fn new(text: impl fmt::Display) -> Self {
        let mut text = text.to_string();
        if text.len() > MAX_TEXT {
            let mut end = MAX_TEXT - '…'.len_utf8();
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push('…');
        }
        Self(text.into())
    }
}

/// At most 20 texts; of what is more, the last one says how much.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Texts(Box<[Text]>);

impl<T: fmt::Display> FromIterator<T> for Texts {
    fn from_iter<I: IntoIterator<Item = T>>(texts: I) -> Self {
        let mut texts = texts.into_iter();
        let mut kept: Vec<Text> = texts.by_ref().take(MAX_TEXTS).map(Text::new).collect();
        let more = texts.count();
        if more > 0 {
            kept.pop();
            kept.push(Text::new(format_args!("and {} more", more + 1)));
        }
        Self(kept.into())
    }
}

impl NodeEvent {
    /// All types, as they are serialized and asked for.
    pub const TYPES: [&str; 19] = [
        "crashed",
        "restarted",
        "start_failed",
        "gave_up",
        "abandoned",
        "stuck",
        "unstuck",
        "reload",
        "join",
        "leave",
        "room_begun",
        "room_ended",
        "draining",
        "node_seen",
        "node_left",
        "node_lost",
        "node_draining",
        "name_taken",
        "other_dialect",
    ];

    /// Its type.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Crashed { .. } => "crashed",
            Self::Restarted { .. } => "restarted",
            Self::StartFailed { .. } => "start_failed",
            Self::GaveUp { .. } => "gave_up",
            Self::Abandoned { .. } => "abandoned",
            Self::Stuck { .. } => "stuck",
            Self::Unstuck { .. } => "unstuck",
            Self::Reload(_) => "reload",
            Self::Join(_) => "join",
            Self::Leave(_) => "leave",
            Self::RoomBegun { .. } => "room_begun",
            Self::RoomEnded { .. } => "room_ended",
            Self::Draining => "draining",
            Self::NodeSeen { .. } => "node_seen",
            Self::NodeLeft { .. } => "node_left",
            Self::NodeLost { .. } => "node_lost",
            Self::NodeDraining { .. } => "node_draining",
            Self::NameTaken { .. } => "name_taken",
            Self::OtherDialect { .. } => "other_dialect",
        }
    }
}

/// An event as it is kept.
#[derive(Debug, Serialize)]
pub struct Recorded {
    /// Counted from 1 since the node started, without gaps.
    pub sequence: u64,
    /// When it was published.
    #[serde(serialize_with = "time")]
    pub at: SystemTime,
    /// What happened.
    #[serde(flatten)]
    pub event: NodeEvent,
}

/// A place in the sequence of one run of a node, written `5f3c2a1b-17`: another run counts from 1 again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventId {
    run: u32,
    /// The event's.
    pub sequence: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.run, self.sequence)
    }
}

/// This is no event's id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event's id is written like 5f3c2a1b-17")]
pub struct EventIdError;

impl From<ParseIntError> for EventIdError {
    fn from(_: ParseIntError) -> Self {
        Self
    }
}

impl FromStr for EventId {
    type Err = EventIdError;

    fn from_str(text: &str) -> Result<Self, EventIdError> {
        let (run, sequence) = text.split_once('-').ok_or(EventIdError)?;
        Ok(Self { run: u32::from_str_radix(run, 16)?, sequence: sequence.parse()? })
    }
}

/// The node's events.
pub struct Events {
    run: u32,
    kept: Mutex<VecDeque<Arc<Recorded>>>,
    /// The newest sequence number; wakes subscribers.
    newest: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        Self { run: fastrand::u32(..), kept: Mutex::default(), newest: watch::Sender::new(0) }
    }
}

impl Events {
    /// Tells all who follow. Never waits for any of them.
    pub fn publish(&self, event: NodeEvent) {
        let mut kept = self.lock();
        let sequence = *self.newest.borrow() + 1;
        if kept.len() == EVENTS_KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::new(Recorded { sequence, at: SystemTime::now(), event }));
        // Under the lock, so that numbers come in order.
        self.newest.send_replace(sequence);
    }

    /// Follows from now on.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>) -> Subscriber {
        let wake = self.newest.subscribe();
        let next = *wake.borrow() + 1;
        Subscriber { events: Arc::clone(self), next, another_run: false, wake }
    }

    /// Follows from after that event, as far back as the ring reaches. An id of another run means: all that is kept.
    #[must_use]
    pub fn subscribe_after(self: &Arc<Self>, id: EventId) -> Subscriber {
        let wake = self.newest.subscribe();
        // What has not been yet cannot have been seen either.
        let another_run = id.run != self.run || id.sequence > *wake.borrow();
        let next = if another_run { 1 } else { id.sequence + 1 };
        Subscriber { events: Arc::clone(self), next, another_run, wake }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Recorded>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a subscriber is given.
#[derive(Debug)]
pub enum Next {
    /// At least one event, in order, none left out since the last call.
    Events(Vec<Arc<Recorded>>),
    /// So many events are not to be had any more: the subscriber was too slow. `None`: it came from another run of the
    /// node, and nobody knows how many.
    Missed(Option<u64>),
}

/// Follows the events of a node.
pub struct Subscriber {
    events: Arc<Events>,
    next: u64,
    another_run: bool,
    wake: watch::Receiver<u64>,
}

impl Subscriber {
    /// What comes next; waits for it. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Next {
        loop {
            if let Some(next) = self.take() {
                return next;
            }
            let next = self.next;
            if self.wake.wait_for(|newest| *newest >= next).await.is_err() {
                // The sender is in `self.events`.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Where it stands: what resumes after it sees what this one would see next.
    #[must_use]
    pub fn position(&self) -> EventId {
        EventId { run: self.events.run, sequence: self.next - 1 }
    }

    /// The id of an event that it was given.
    #[must_use]
    pub fn id(&self, recorded: &Recorded) -> EventId {
        EventId { run: self.events.run, sequence: recorded.sequence }
    }

    fn take(&mut self) -> Option<Next> {
        let kept = self.events.lock();
        let oldest = kept.front().map_or(*self.events.newest.borrow() + 1, |recorded| recorded.sequence);
        if std::mem::take(&mut self.another_run) {
            self.next = oldest;
            return Some(Next::Missed(None));
        }
        if self.next < oldest {
            let missed = oldest - self.next;
            self.next = oldest;
            return Some(Next::Missed(Some(missed)));
        }
        let skip = usize::try_from(self.next - oldest).unwrap_or(usize::MAX);
        let events: Vec<_> = kept.iter().skip(skip).take(AT_ONCE).cloned().collect();
        self.next += events.len() as u64;
        (!events.is_empty()).then_some(Next::Events(events))
    }
}

fn actor<S: Serializer>(path: &ActorPath, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(path.as_str())
}

fn shown<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn number<S: Serializer>(session: &SessionId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(session.0)
}

fn connected<S: Serializer>(transport: &Transport, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(transport.label())
}

fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_micros() as f64 / 1000.0)
}

fn time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime_serde::re::humantime::format_rfc3339_millis(*time))
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
