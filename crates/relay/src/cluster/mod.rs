//! Who is in the cluster and who is in its rooms, as one node knows it: what it tells the others, and what it believes of
//! what they tell. Pure: messages in, messages out; time is an argument, randomness a seed.
//!
//! Each node is the only author of its own roster, whose revision counts its changes. It says both in each heartbeat; so
//! whoever missed something notices within a heartbeat and asks for the whole. Nothing is ever merged from two authors, and
//! so there is nothing to disagree about: once messages pass again, all views agree.
//!
//! With N nodes, M members and J joins and leaves a second in the whole cluster, a node takes in N heartbeats (some 200 bytes
//! each) in a period and J changes (some 60 bytes each, batched) a second, and holds M entries.

mod own;
mod peer;
mod view;
mod wire;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::cluster as messages;
use roomcast_protocol::{ClusterSubject, Dialect, RoomId, SessionId, Subject, UserId};

use crate::Time;
use own::Own;
use peer::Peer;
pub use view::{ClusterEvent, ClusterView, NodeView, Problem, Standing};

/// The most nodes that are remembered; one more is not seen.
pub const MAX_PEERS: usize = 4_096;
/// The most members of one node; a node that claims more is not believed.
pub const MAX_ENTRIES: usize = 65_536;
/// Events that wait to be taken; the oldest make room.
const MAX_EVENTS: usize = 1_024;
/// How long after the bus came up it is clear who else is there.
const SETTLE: Duration = Duration::from_millis(500);
/// Who says hello is answered within this time, not by all at the same moment.
const ANSWERS: Duration = Duration::from_millis(100);
/// Between two requests to the same node that does not answer, at first and at most.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));
/// A change may overtake the heartbeat that announces it, or come right after: so long is waited before asking.
const ASK_AFTER: Duration = Duration::from_millis(30);
/// Rosters sent in one turn; more wait for the next.
const ANSWERS_AT_ONCE: usize = 4;
/// Nodes that wait for this one's roster.
const MAX_ASKERS: usize = MAX_PEERS;
/// Between two turns while something waits.
const TURN: Duration = Duration::from_millis(50);
/// A name that is heard from another run so often after this run began is taken by a node that lives.
const RIVAL_BEATS: u32 = 2;

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

/// The cluster as one node knows it.
#[derive(Debug)]
pub struct Cluster {
    own: Own,
    peers: HashMap<u64, Peer>,
    /// Runs by name: more than one only for a moment, or by a mistake.
    names: HashMap<String, Vec<u64>>,
    /// Members by room, of this node and of those whose packets are passed on.
    rooms: HashMap<RoomId, BTreeSet<(u64, SessionId)>>,
    /// Members in `rooms`.
    members: usize,
    /// Sessions of nodes that speak the other dialect.
    refused: Vec<Range<u64>>,
    /// Whether the bus is up, and since when first.
    up: bool,
    first_up: Option<Time>,
    next_heartbeat: Time,
    hello: bool,
    last_state: NodeState,
    /// Who waits for this node's roster.
    askers: VecDeque<(u64, String)>,
    /// Heartbeats of another run under this node's name.
    rival_beats: u32,
    rival_heard: Option<Time>,
    events: VecDeque<ClusterEvent>,
    malformed: u64,
    random: Random,
}

impl Cluster {
    /// A node that has heard nobody.
    #[must_use]
    pub fn new(own: OwnNode, seed: u64) -> Self {
        Self {
            own: Own::new(own),
            peers: HashMap::new(),
            names: HashMap::new(),
            rooms: HashMap::new(),
            members: 0,
            refused: Vec::new(),
            up: false,
            first_up: None,
            next_heartbeat: Time::ZERO,
            hello: false,
            last_state: NodeState::Up,
            askers: VecDeque::new(),
            rival_beats: 0,
            rival_heard: None,
            events: VecDeque::new(),
            malformed: 0,
            random: Random(seed | 1),
        }
    }

    /// A session of this node is a member of a room.
    pub fn joined(&mut self, entry: RosterEntry) {
        let key = (self.own.node.instance, entry.session);
        self.members += usize::from(self.rooms.entry(entry.room.clone()).or_default().insert(key));
        self.own.joined(entry);
    }

    /// It is none any more.
    pub fn left(&mut self, session: SessionId) {
        if let Some(entry) = self.own.left(session) {
            let instance = self.own.node.instance;
            self.leave_room(&entry.room, instance, session);
        }
    }

    /// The bus is up, for the first time or again: everybody is given time anew, and asked to say that they are here.
    pub fn bus_is_up(&mut self, now: Time) {
        self.up = true;
        self.first_up.get_or_insert(now);
        self.hello = true;
        self.next_heartbeat = now;
        for peer in self.peers.values_mut() {
            peer.heard = now;
        }
    }

    /// The bus is down. What is known stays, as what was known.
    pub fn bus_is_down(&mut self, _now: Time) {
        self.up = false;
        // Who was away meanwhile asks for the whole.
        self.own.forget_changes();
        self.askers.clear();
    }

    /// Does what is due, and says when to call again at the latest.
    pub fn tick(&mut self, now: Time, settings: &PresenceSettings, status: &OwnStatus, out: &mut Vec<Send>) -> Time {
        if !self.up {
            return now.after(settings.heartbeat);
        }
        self.forget_lost(now, settings);
        let changed = std::mem::replace(&mut self.last_state, status.state) != status.state;
        if changed || now >= self.next_heartbeat {
            self.own.flush(now, out);
            let hello = std::mem::take(&mut self.hello);
            out.push(self.own.presence(status, messages::NodeState::from(status.state), settings, hello));
            self.next_heartbeat = now.after(settings.heartbeat);
        }
        let mut next = self.next_heartbeat;
        if let Some(due) = self.own.flush_due(now, TURN) {
            if due <= now {
                self.own.flush(now, out);
            } else {
                next = next.min(due);
            }
        }
        for _ in 0..ANSWERS_AT_ONCE {
            let Some((instance, name)) = self.askers.pop_front() else { break };
            self.own.whole(instance, &name, out);
        }
        if !self.askers.is_empty() {
            next = next.min(now.after(TURN));
        }
        for peer in self.peers.values_mut() {
            if let Some(at) = peer.ask(now, &mut self.random) {
                if at <= now {
                    out.push(self.own.request(peer.instance, &peer.name));
                } else {
                    next = next.min(at);
                }
            }
            next = next.min(peer.lost_at(settings));
        }
        next.max(now.after(Duration::from_millis(1)))
    }

    /// The last word, when the node ends in order: everybody forgets it at once.
    pub fn leave(&mut self, status: &OwnStatus, out: &mut Vec<Send>) {
        let never = PresenceSettings { heartbeat: Duration::ZERO, lost_after: Duration::ZERO };
        out.push(self.own.presence(status, messages::NodeState::Leaving, &never, false));
    }

    /// Takes in a message of another node. What makes no sense is counted and does nothing.
    pub fn receive(&mut self, now: Time, subject: &str, payload: &[u8]) {
        let understood = match ClusterSubject::parse(subject) {
            Ok(ClusterSubject::Presence(node)) => wire::presence(payload, &node).map(|said| self.presence(now, said)),
            Ok(ClusterSubject::Roster(_)) => wire::change(payload).map(|change| self.change(now, change)),
            Ok(ClusterSubject::Sync(_)) => wire::sync(payload).map(|sync| self.sync(now, sync)),
            Err(_) => None,
        };
        if understood.is_none() {
            self.malformed += 1;
        }
    }

    /// What happened since the last call, the oldest first.
    pub fn take_events(&mut self) -> Vec<ClusterEvent> {
        self.events.drain(..).collect()
    }

    /// Messages that made no sense since the last call.
    pub fn take_malformed(&mut self) -> u64 {
        std::mem::take(&mut self.malformed)
    }

    /// Whether it is clear who else is there: packets may pass between nodes.
    #[must_use]
    pub fn settled(&self, now: Time) -> bool {
        self.first_up.is_some_and(|since| now >= since.after(SETTLE))
    }

    /// When it will be, if it is not and the bus is up.
    #[must_use]
    pub fn settles_at(&self) -> Option<Time> {
        self.first_up.map(|since| since.after(SETTLE))
    }

    /// Whether any node speaks the other dialect.
    #[must_use]
    pub fn is_divided(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Whether a session belongs to a node that speaks the other dialect.
    #[must_use]
    pub fn is_foreign_session(&self, session: SessionId) -> bool {
        self.refused.iter().any(|sessions| sessions.contains(&session.0))
    }

    /// Who is in a room, on which node, by node's name and session: those on this node, and those on nodes whose packets are
    /// passed on. Members on servers of other kinds are not known.
    pub fn room(&self, room: &RoomId) -> impl Iterator<Item = (&str, &RosterEntry)> {
        self.rooms.get(room).into_iter().flatten().filter_map(|(instance, session)| {
            if *instance == self.own.node.instance {
                return Some((self.own.node.name.as_str(), self.own.entry(*session)?));
            }
            let peer = self.peers.get(instance)?;
            Some((peer.name.as_str(), peer.entry(*session)?))
        })
    }

    /// All members of the rooms that `room` knows, in no order.
    pub fn everybody(&self) -> impl Iterator<Item = (&str, &RosterEntry)> {
        let own = self.own.entries().map(|entry| (self.own.node.name.as_str(), entry));
        let theirs = self.peers.values().filter(|peer| !peer.refused);
        own.chain(theirs.flat_map(|peer| peer.entries().map(|entry| (peer.name.as_str(), entry))))
    }

    fn presence(&mut self, now: Time, said: wire::Said) {
        if said.instance == self.own.node.instance {
            return;
        }
        if said.leaving {
            if self.peers.contains_key(&said.instance) {
                self.forget(said.instance);
                self.event(ClusterEvent::Left { name: said.name });
            }
            return;
        }
        if said.hello {
            let answer = now.after(self.random.within(ANSWERS));
            self.next_heartbeat = self.next_heartbeat.min(answer);
        }
        if said.name == self.own.node.name {
            self.rival(now);
        }
        if !self.peers.contains_key(&said.instance) {
            if self.peers.len() >= MAX_PEERS {
                self.malformed += 1;
                return;
            }
            let refused = said.dialect != Some(self.own.node.dialect);
            self.peers.insert(said.instance, Peer::new(&said, refused, now));
            self.names.entry(said.name.clone()).or_default().push(said.instance);
            self.event(ClusterEvent::Seen { name: said.name.clone(), region: said.region.clone() });
            if refused {
                self.event(ClusterEvent::OtherDialect { name: said.name.clone() });
            }
        }
        self.beat(&said);
        let Some(peer) = self.peers.get_mut(&said.instance) else { return };
        let draining = peer.said.state == NodeState::Up && said.state == NodeState::Draining;
        let sessions_changed = peer.refused && peer.said.sessions != said.sessions;
        let name = said.name.clone();
        if sessions_changed || (peer.refused && peer.is_new) {
            peer.is_new = false;
            peer.take_presence(said, now);
            self.refused = self.refused_sessions();
        } else {
            peer.take_presence(said, now);
        }
        if draining {
            self.event(ClusterEvent::Draining { name });
        }
    }

    /// Counts a heartbeat of a run that is older than another under its name: a restarted node's is heard no more.
    fn beat(&mut self, said: &wire::Said) {
        let Some(runs) = self.names.get(&said.name).filter(|runs| runs.len() > 1) else { return };
        let first = |instance: &u64| self.peers.get(instance).map(|peer| peer.first_heard);
        let own = first(&said.instance);
        let rivals: Vec<u64> = runs.iter().copied().filter(|run| *run != said.instance && first(run) > own).collect();
        if rivals.is_empty() {
            return;
        }
        let Some(peer) = self.peers.get_mut(&said.instance) else { return };
        peer.rival_beats += 1;
        if peer.rival_beats != RIVAL_BEATS {
            return;
        }
        for run in rivals.iter().chain([&said.instance]) {
            if let Some(peer) = self.peers.get_mut(run) {
                peer.rivalled = true;
            }
        }
        self.event(ClusterEvent::NameTaken { name: said.name.clone(), own: false });
    }

    /// Another run under this node's own name was heard: its predecessor's last word, or a node that lives.
    fn rival(&mut self, now: Time) {
        self.rival_beats = self.rival_beats.saturating_add(1);
        self.rival_heard = Some(now);
        if self.rival_beats == RIVAL_BEATS {
            let name = self.own.node.name.clone();
            self.event(ClusterEvent::NameTaken { name, own: true });
        }
    }

    fn change(&mut self, now: Time, change: wire::Change) {
        // Before its first heartbeat nobody is anybody; the heartbeat tells what was missed.
        let Some(peer) = self.peers.get_mut(&change.instance) else { return };
        let mut moves = Vec::new();
        peer.take_change(change, now, &mut moves);
        let (instance, refused) = (peer.instance, peer.refused);
        self.apply(instance, refused, moves);
    }

    fn sync(&mut self, now: Time, sync: wire::Sync) {
        if sync.to_instance != self.own.node.instance {
            return;
        }
        match sync.word {
            wire::Word::Request => {
                let asker = (sync.instance, sync.name);
                if self.askers.len() < MAX_ASKERS && !self.askers.contains(&asker) {
                    self.askers.push_back(asker);
                }
            }
            wire::Word::Part(part) => {
                let Some(peer) = self.peers.get_mut(&sync.instance) else { return };
                let mut moves = Vec::new();
                peer.take_part(part, now, &mut moves);
                let (instance, refused) = (peer.instance, peer.refused);
                self.apply(instance, refused, moves);
            }
        }
    }

    /// Brings the rooms up to what a peer's roster has become.
    fn apply(&mut self, instance: u64, refused: bool, moves: Vec<peer::Move>) {
        if refused {
            return;
        }
        for step in moves {
            match step {
                peer::Move::In(room, session) => {
                    self.members += usize::from(self.rooms.entry(room).or_default().insert((instance, session)));
                }
                peer::Move::Out(room, session) => self.leave_room(&room, instance, session),
            }
        }
    }

    fn leave_room(&mut self, room: &RoomId, instance: u64, session: SessionId) {
        let Some(members) = self.rooms.get_mut(room) else { return };
        self.members -= usize::from(members.remove(&(instance, session)));
        if members.is_empty() {
            self.rooms.remove(room);
        }
    }

    fn forget_lost(&mut self, now: Time, settings: &PresenceSettings) {
        let lost: Vec<u64> =
            self.peers.values().filter(|peer| peer.lost_at(settings) <= now).map(|peer| peer.instance).collect();
        for instance in lost {
            if let Some((name, members)) = self.forget(instance) {
                self.event(ClusterEvent::Lost { name, members });
            }
        }
        if self.rival_heard.is_some_and(|heard| now >= heard.after(settings.lost_after)) {
            (self.rival_heard, self.rival_beats) = (None, 0);
        }
    }

    /// Forgets a node, and says its name and how many members it had.
    fn forget(&mut self, instance: u64) -> Option<(String, usize)> {
        let peer = self.peers.remove(&instance)?;
        if !peer.refused {
            for entry in peer.entries() {
                self.leave_room(&entry.room, instance, entry.session);
            }
        }
        if let Some(runs) = self.names.get_mut(&peer.name) {
            runs.retain(|run| *run != instance);
            match runs.as_slice() {
                [] => drop(self.names.remove(&peer.name)),
                // Nobody else has its name any more.
                [last] => {
                    if let Some(last) = self.peers.get_mut(last) {
                        (last.rivalled, last.rival_beats) = (false, 0);
                    }
                }
                _ => {}
            }
        }
        if peer.refused {
            self.refused = self.refused_sessions();
        }
        Some((peer.name.clone(), peer.len()))
    }

    fn refused_sessions(&self) -> Vec<Range<u64>> {
        self.peers.values().filter(|peer| peer.refused).flat_map(|peer| peer.said.sessions.iter().cloned()).collect()
    }

    fn event(&mut self, event: ClusterEvent) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

/// A small generator for jitter; never for secrets.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn within(&mut self, most: Duration) -> Duration {
        // xorshift64: never zero, since the seed is not.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        most.mul_f64((self.0 >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
