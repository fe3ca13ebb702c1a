//! Who is in the cluster and who is in its rooms, as one node knows it: what it tells the others, and what it believes of
//! what they tell. Pure: messages in, messages out; time is an argument, randomness a seed.
//!
//! Each node is the only author of its own roster, whose revision counts its changes. It says both in each heartbeat; so
//! whoever missed something notices within a heartbeat and asks for the whole. Nothing is ever merged from two authors, and
//! so there is nothing to disagree about: once messages pass again, all views agree.
//!
//! With N nodes, M members and J joins and leaves a second in the whole cluster, a node takes in N heartbeats (some 200 bytes
//! each) in a period and J changes (some 60 bytes each, batched) a second, and holds M entries.

mod answers;
mod data;
mod later;
mod own;
mod peer;
mod sessions;
mod view;
mod wire;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use roomcast_protocol::cluster as messages;
use roomcast_protocol::{ClusterSubject, RoomId, SessionId};

use crate::Time;
use answers::Answers;
pub use data::{NodeState, OwnNode, OwnStatus, PresenceSettings, RosterEntry, Send, Via};
use own::Own;
use peer::Peer;
use sessions::Sessions;
pub use view::{ClusterEvent, ClusterView, NodeView, Problem, Standing};

/// The most nodes that are remembered; one more is not seen.
pub const MAX_PEERS: usize = 4_096;
/// The most members of one node that are remembered. A node that has more is seen, and its members are not known.
pub const MAX_ENTRIES: usize = 65_536;
/// The longest message that is read, in bytes: four times the longest that a node of this version sends. What a message becomes
/// in memory is some 36 times as long at worst.
pub const MAX_MESSAGE: usize = 256 << 10;
/// Events that wait to be taken; the oldest make room.
const MAX_EVENTS: usize = 1_024;
/// How long after the bus came up it is clear who else is there.
const SETTLE: Duration = Duration::from_millis(500);
/// Who says hello is answered within this time, not by all at the same moment.
const ANSWERS: Duration = Duration::from_millis(100);
/// Between two requests to the same node that does not answer, at first and at most; up to half as long again.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));
/// A change may overtake the heartbeat that announces it, or come right after: so long is waited before asking.
const ASK_AFTER: Duration = Duration::from_millis(30);
/// Between two turns while something waits.
const TURN: Duration = Duration::from_millis(50);

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
    /// Nodes that speak the other dialect, and their sessions.
    refused: usize,
    refused_sessions: Sessions,
    /// Whether the bus is up, and since when first.
    up: bool,
    first_up: Option<Time>,
    next_heartbeat: Time,
    last_heartbeat: Option<Time>,
    /// When the next turn is due at the latest, while the bus is up.
    due: Option<Time>,
    hello: bool,
    last_state: NodeState,
    answers: Answers,
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
            refused: 0,
            refused_sessions: Sessions::default(),
            up: false,
            first_up: None,
            next_heartbeat: Time::ZERO,
            last_heartbeat: None,
            due: None,
            hello: false,
            last_state: NodeState::Up,
            answers: Answers::default(),
            events: VecDeque::new(),
            malformed: 0,
            random: Random(seed | 1),
        }
    }

    /// A session of this node is a member of a room. One that was a member of another room is that no more.
    pub fn joined(&mut self, entry: RosterEntry) {
        let (instance, session, room) = (self.own.node.instance, entry.session, entry.room.clone());
        self.members += usize::from(self.rooms.entry(entry.room.clone()).or_default().insert((instance, session)));
        if let Some(old) = self.own.joined(entry).filter(|old| old.room != room) {
            self.leave_room(&old.room, instance, session);
        }
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
            peer.is_heard(now);
            peer.ask_anew(now.after(self.random.within(ANSWERS)));
        }
    }

    /// The bus is down. What is known stays, as what was known.
    pub fn bus_is_down(&mut self, _now: Time) {
        self.up = false;
        self.due = None;
        self.answers.clear();
    }

    /// Does what is due, and says when to call again at the latest. To be called after any other call that changes
    /// something, too: what was heard or joined may be due at once.
    pub fn tick(&mut self, now: Time, settings: &PresenceSettings, status: &OwnStatus, out: &mut Vec<Send>) -> Time {
        const SOON: Duration = Duration::from_millis(1);
        if !self.up {
            return now.after(settings.heartbeat.max(SOON));
        }
        self.excuse(now, settings);
        self.forget_lost(now, settings);
        if let Some(last) = self.last_heartbeat {
            // The settings may have changed.
            self.next_heartbeat = self.next_heartbeat.min(last.after(settings.heartbeat));
        }
        let changed = std::mem::replace(&mut self.last_state, status.state) != status.state;
        if changed || now >= self.next_heartbeat {
            self.own.flush(now, out);
            let hello = std::mem::take(&mut self.hello);
            out.push(self.own.presence(status, messages::NodeState::from(status.state), settings, hello));
            self.last_heartbeat = Some(now);
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
        if let Some(again) = self.answers.answer(now, &mut self.own, out) {
            next = next.min(again);
        }
        for peer in self.peers.values_mut() {
            if peer.ask(now, &mut self.random) {
                out.push(self.own.request(peer.instance, &peer.name));
            }
            next = next.min(peer.lost_at(settings)).min(peer.asks_at().unwrap_or(next));
        }
        let next = next.max(now.after(SOON));
        self.due = Some(next);
        next
    }

    /// The last word, when the node ends in order: everybody forgets it at once.
    pub fn leave(&mut self, status: &OwnStatus, out: &mut Vec<Send>) {
        let never = PresenceSettings { heartbeat: Duration::ZERO, lost_after: Duration::ZERO };
        out.push(self.own.presence(status, messages::NodeState::Leaving, &never, false));
    }

    /// Takes in a message of another node. What makes no sense is counted and does nothing.
    pub fn receive(&mut self, now: Time, subject: &str, payload: &[u8]) {
        let understood = match ClusterSubject::parse(subject) {
            _ if payload.len() > MAX_MESSAGE => None,
            Ok(ClusterSubject::Presence(node)) => wire::presence(payload, &node).map(|said| self.presence(now, said)),
            Ok(ClusterSubject::Roster(node)) => wire::change(payload).map(|change| self.change(now, &node, change)),
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
        self.refused > 0
    }

    /// Whether a session belongs to a node that speaks the other dialect.
    #[must_use]
    pub fn is_foreign_session(&self, session: SessionId) -> bool {
        self.refused_sessions.contain(session)
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
        let known = self.peers.get(&said.instance);
        // A run has one name, and there is a bound to how many runs are remembered.
        if known.map_or(self.peers.len() >= MAX_PEERS, |peer| peer.name != said.name) {
            self.malformed += 1;
            return;
        }
        if said.leaving {
            if let Some((name, _)) = self.forget(said.instance) {
                self.event(ClusterEvent::Left { name });
            }
            return;
        }
        // One heartbeat answers all who asked meanwhile.
        if said.hello && self.next_heartbeat > now.after(ANSWERS) {
            let soonest = self.last_heartbeat.map_or(now, |last| last.after(TURN));
            self.next_heartbeat = now.after(self.random.within(ANSWERS)).max(soonest);
        }
        let is_new = known.is_none();
        if is_new {
            self.remember(&said, now);
        }
        let Some(peer) = self.peers.get_mut(&said.instance) else { return };
        let draining = peer.said.state == NodeState::Up && said.state == NodeState::Draining;
        let sessions_changed = peer.refused && (is_new || peer.said.sessions != said.sessions);
        let (instance, name) = (said.instance, said.name.clone());
        let (refused, mut moves) = (peer.refused, Vec::new());
        peer.take_presence(said, now, &mut moves);
        self.apply(instance, refused, moves);
        if sessions_changed {
            self.note_refused();
        }
        self.look_for_rivals(instance);
        if draining {
            self.event(ClusterEvent::Draining { name });
        }
    }

    fn remember(&mut self, said: &wire::Said, now: Time) {
        let refused = said.dialect != Some(self.own.node.dialect);
        self.peers.insert(said.instance, Peer::new(said, refused, now));
        self.names.entry(said.name.clone()).or_default().push(said.instance);
        self.event(ClusterEvent::Seen { name: said.name.clone(), region: said.region.clone() });
        if refused {
            self.refused += 1;
            self.event(ClusterEvent::OtherDialect { name: said.name.clone() });
        }
    }

    /// Two runs under one name live if either is heard a heartbeat after both were known: the last words of a node that was
    /// restarted do not come so late.
    fn look_for_rivals(&mut self, instance: u64) {
        let Some(peer) = self.peers.get(&instance) else { return };
        let own = peer.name == self.own.node.name;
        let mut rivals: Vec<u64> = Vec::new();
        if own && peer.lives_after(peer.first_heard) {
            rivals.push(instance);
        }
        for run in self.names.get(&peer.name).into_iter().flatten().filter(|run| **run != instance) {
            let Some(other) = self.peers.get(run) else { continue };
            let both = peer.first_heard.max(other.first_heard);
            if peer.lives_after(both) && other.lives_after(both) {
                rivals.extend([instance, *run]);
            }
        }
        let mut news = false;
        for run in rivals {
            if let Some(peer) = self.peers.get_mut(&run) {
                news |= !std::mem::replace(&mut peer.rivalled, true);
            }
        }
        if news && let Some(peer) = self.peers.get(&instance) {
            self.event(ClusterEvent::NameTaken { name: peer.name.clone(), own });
        }
    }

    /// Whether another node that lives has this one's name.
    fn is_rivalled(&self) -> bool {
        let runs = self.names.get(&self.own.node.name).into_iter().flatten();
        runs.filter_map(|run| self.peers.get(run)).any(|peer| peer.rivalled)
    }

    fn change(&mut self, now: Time, node: &str, change: wire::Change) {
        // Before its first heartbeat nobody is anybody; the heartbeat tells what was missed.
        let Some(peer) = self.peers.get_mut(&change.instance) else { return };
        // Nobody speaks on another's subject: a broker can be told to see to that.
        if peer.name != node {
            self.malformed += 1;
            return;
        }
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
            wire::Word::Request => self.answers.ask(sync.instance, sync.name),
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

    /// A node that did not run for a while heard nobody meanwhile: that is nobody else's fault.
    fn excuse(&mut self, now: Time, settings: &PresenceSettings) {
        let late = self.due.map_or(Duration::ZERO, |due| now.since(due));
        if late >= settings.heartbeat / 2 {
            self.peers.values_mut().for_each(|peer| peer.excuse(late, now));
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
    }

    /// Forgets a node, and says its name and how many members it had.
    fn forget(&mut self, instance: u64) -> Option<(String, usize)> {
        let peer = self.peers.remove(&instance)?;
        if peer.refused {
            self.refused -= 1;
            self.note_refused();
        } else {
            for entry in peer.entries() {
                self.leave_room(&entry.room, instance, entry.session);
            }
        }
        if let Some(runs) = self.names.get_mut(&peer.name) {
            runs.retain(|run| *run != instance);
            match runs.as_slice() {
                [] => drop(self.names.remove(&peer.name)),
                // Nobody else has its name any more.
                [last] if peer.name != self.own.node.name => {
                    if let Some(last) = self.peers.get_mut(last) {
                        last.rivalled = false;
                    }
                }
                _ => {}
            }
        }
        Some((peer.name.clone(), peer.len()))
    }

    fn note_refused(&mut self) {
        let refused = self.peers.values().filter(|peer| peer.refused);
        self.refused_sessions = Sessions::of(refused.flat_map(|peer| peer.said.sessions.iter().cloned()));
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
