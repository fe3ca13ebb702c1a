//! Messages to what they mean, and back: every bound on what another node may say is checked here.

use std::ops::Range;
use std::time::Duration;

use prost::{Message, encoding};
use roomcast_protocol::cluster as messages;
use roomcast_protocol::{Dialect, RoomId, SessionId, UserId};

use super::{MAX_ENTRIES, NodeState, RosterEntry, Via};

/// The longest name, version or region, in bytes.
pub(super) const MAX_TEXT: usize = 128;
/// What comes with a member in a list of them: a key, and a length or a number.
pub(super) const MOST_AROUND_A_MEMBER: usize = 11;
/// The longest address of a listener, and how many there may be.
const MAX_LISTENER: usize = 256;
const MAX_LISTENERS: usize = 16;
/// Ranges of sessions that one node may have.
const MAX_RANGES: usize = 16;
/// Parts of one roster.
const MAX_PARTS: usize = 4_096;
/// The longest heartbeat that is believed: who says a longer one is waited for as if it were this.
const MAX_HEARTBEAT: Duration = Duration::from_secs(60);

/// A heartbeat, checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    pub(super) instance: u64,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) region: String,
    /// `None`: one that this version does not know.
    pub(super) dialect: Option<Dialect>,
    pub(super) state: NodeState,
    pub(super) leaving: bool,
    pub(super) started_ms: u64,
    pub(super) listeners: Vec<String>,
    pub(super) connections: u64,
    pub(super) rooms: u64,
    pub(super) heartbeat: Duration,
    pub(super) revision: u64,
    pub(super) members: u64,
    pub(super) hello: bool,
    pub(super) sessions: Vec<Range<u64>>,
}

/// A change of a roster, checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) instance: u64,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) joined: Vec<RosterEntry>,
    pub(super) left: Vec<SessionId>,
}

impl Change {
    /// How many members it is about.
    pub(super) fn members(&self) -> usize {
        self.joined.len() + self.left.len()
    }
}

/// What one node says to another, checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sync {
    pub(super) instance: u64,
    pub(super) to_instance: u64,
    pub(super) name: String,
    pub(super) word: Word,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Word {
    Request,
    Part(Part),
}

/// A part of a roster, checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) revision: u64,
    pub(super) index: usize,
    pub(super) count: usize,
    pub(super) members: Vec<RosterEntry>,
}

/// A heartbeat that came on that node's subject; `None`: it makes no sense.
pub(super) fn presence(payload: &[u8], node: &str) -> Option<Said> {
    let said = messages::Presence::decode(payload).ok()?;
    let texts = [&said.name, &said.version, &said.region];
    let listeners_fit =
        said.listeners.len() <= MAX_LISTENERS && said.listeners.iter().all(|listener| listener.len() <= MAX_LISTENER);
    let named = said.instance != 0 && said.name == node && texts.iter().all(|text| text.len() <= MAX_TEXT);
    let counted = said.members <= MAX_ENTRIES as u64
        && said.sessions.len() <= 2 * MAX_RANGES
        && said.sessions.len().is_multiple_of(2);
    if !(named && counted && listeners_fit) {
        return None;
    }
    let (dialect, state) = (said.dialect(), said.state());
    Some(Said {
        instance: said.instance,
        dialect: match dialect {
            messages::Dialect::Unspecified => None,
            messages::Dialect::Seed => Some(Dialect::Seed),
            messages::Dialect::Sessions => Some(Dialect::Sessions),
        },
        // A state that a later version has added is one of a node that lives.
        state: if state == messages::NodeState::Draining { NodeState::Draining } else { NodeState::Up },
        leaving: state == messages::NodeState::Leaving,
        started_ms: said.started_ms,
        connections: said.connections,
        rooms: said.rooms,
        heartbeat: Duration::from_millis(said.heartbeat_ms).min(MAX_HEARTBEAT),
        revision: said.revision,
        members: said.members,
        hello: said.hello,
        sessions: said.sessions.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect(),
        name: said.name,
        version: said.version,
        region: said.region,
        listeners: said.listeners,
    })
}

/// A change; `None`: it makes no sense.
pub(super) fn change(payload: &[u8]) -> Option<Change> {
    let change = messages::RosterChange::decode(payload).ok()?;
    if change.from >= change.to || change.joined.len() + change.left.len() > MAX_ENTRIES {
        return None;
    }
    Some(Change {
        instance: change.instance,
        from: change.from,
        to: change.to,
        joined: change.joined.iter().map(entry).collect::<Option<_>>()?,
        left: change.left.into_iter().map(SessionId).collect(),
    })
}

/// What one node says to another; `None`: it makes no sense.
pub(super) fn sync(payload: &[u8]) -> Option<Sync> {
    let sync = messages::Sync::decode(payload).ok()?;
    if sync.name.is_empty() || sync.name.len() > MAX_TEXT || sync.instance == 0 {
        return None;
    }
    let word = match sync.word? {
        messages::sync::Word::Request(_) => Word::Request,
        messages::sync::Word::Part(part) => {
            let (index, count) = (part.index as usize, part.count as usize);
            if index >= count || count > MAX_PARTS || part.members.len() > MAX_ENTRIES {
                return None;
            }
            let members = part.members.iter().map(entry).collect::<Option<_>>()?;
            Word::Part(Part { revision: part.revision, index, count, members })
        }
    };
    Some(Sync { instance: sync.instance, to_instance: sync.to_instance, name: sync.name, word })
}

fn entry(member: &messages::Member) -> Option<RosterEntry> {
    let via = match member.transport() {
        messages::Transport::Websocket => Via::WebSocket,
        messages::Transport::Webtransport => Via::WebTransport,
        messages::Transport::Unspecified => Via::Other,
    };
    Some(RosterEntry {
        session: SessionId(member.session),
        user: UserId::parse(&member.user).ok()?,
        room: RoomId::parse(&member.room).ok()?,
        via,
        joined_ms: member.joined_ms,
    })
}

/// A member as it is told.
pub(super) fn member(entry: &RosterEntry) -> messages::Member {
    let mut member = messages::Member::default();
    member_into(entry, &mut member);
    member
}

/// The same into what was another: a whole roster needs no more memory than one member.
pub(super) fn member_into(entry: &RosterEntry, member: &mut messages::Member) {
    let transport = match entry.via {
        Via::WebSocket => messages::Transport::Websocket,
        Via::WebTransport => messages::Transport::Webtransport,
        Via::Other => messages::Transport::Unspecified,
    };
    (member.session, member.joined_ms, member.transport) = (entry.session.0, entry.joined_ms, transport.into());
    member.user.clear();
    member.user.push_str(entry.user.as_str());
    member.room.clear();
    member.room.push_str(entry.room.as_str());
}

/// Appends a member to the encoded members of a `RosterPart`.
pub(super) fn append_member(member: &messages::Member, members: &mut Vec<u8>) {
    const MEMBERS: u32 = 4;
    encoding::message::encode(MEMBERS, member, members);
}

/// Appends an encoded `RosterPart` to an encoded `Sync` as its word.
pub(super) fn append_part(part: &[u8], sync: &mut Vec<u8>) {
    const PART: u32 = 5;
    encoding::encode_key(PART, encoding::WireType::LengthDelimited, sync);
    encoding::encode_varint(part.len() as u64, sync);
    sync.extend_from_slice(part);
}

/// A dialect as it is told.
pub(super) fn dialect(dialect: Dialect) -> messages::Dialect {
    match dialect {
        Dialect::Seed => messages::Dialect::Seed,
        Dialect::Sessions => messages::Dialect::Sessions,
    }
}

impl From<NodeState> for messages::NodeState {
    fn from(state: NodeState) -> Self {
        match state {
            NodeState::Up => Self::Up,
            NodeState::Draining => Self::Draining,
        }
    }
}
