//! One other node as it is believed: its last heartbeat, its roster, and what of that is still missing.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use roomcast_protocol::{RoomId, SessionId};

use super::later::Later;
use super::wire::{Change, Part, Said};
use super::{ASK_AFTER, ASK_AGAIN, MAX_ENTRIES, PresenceSettings, Random, RosterEntry};
use crate::Time;

/// A node is not lost before it has missed so many of its own heartbeats.
const MISSED_BEATS: u32 = 3;
/// A whole roster of which nothing more came for so long gives way to any other.
const STALE: Duration = Duration::from_secs(2);

/// What a roster's change means for a room.
pub(super) enum Move {
    In(RoomId, SessionId),
    Out(RoomId, SessionId),
}

/// Another node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) instance: u64,
    /// It speaks the other dialect: its rooms are not ours.
    pub(super) refused: bool,
    pub(super) said: Said,
    pub(super) first_heard: Time,
    pub(super) heard: Time,
    last_beat: Time,
    /// It has been excused since it was heard.
    excused: bool,
    /// Another node that lives has its name.
    pub(super) rivalled: bool,
    entries: HashMap<SessionId, RosterEntry>,
    /// The revision of `entries`; `None`: nothing is known yet.
    known: Option<u64>,
    /// A whole roster that has come in part.
    assembly: Option<Assembly>,
    /// Changes that do not fit yet.
    later: Later,
    ask: Option<Ask>,
    /// Since when its heartbeats have told of less than the revision that was known then.
    ahead: Option<(Time, u64)>,
}

#[derive(Debug)]
struct Assembly {
    revision: u64,
    /// How many there are in all.
    count: usize,
    /// Which have come.
    parts: HashSet<usize>,
    /// What was in them: put together as they come, so that the last one costs little more than the others.
    entries: HashMap<SessionId, RosterEntry>,
    /// When the last part came.
    touched: Time,
}

/// Something is missing.
#[derive(Clone, Copy, Debug)]
struct Ask {
    at: Time,
    /// How long to wait after it.
    patience: Duration,
}

impl Peer {
    pub(super) fn new(said: &Said, refused: bool, now: Time) -> Self {
        Self {
            name: said.name.clone(),
            instance: said.instance,
            refused,
            said: said.clone(),
            first_heard: now,
            heard: now,
            last_beat: now,
            excused: false,
            rivalled: false,
            entries: HashMap::new(),
            known: (said.members == 0).then_some(said.revision),
            assembly: None,
            later: Later::default(),
            ask: None,
            ahead: None,
        }
    }

    pub(super) fn entry(&self, session: SessionId) -> Option<&RosterEntry> {
        self.entries.get(&session)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &RosterEntry> {
        self.entries.values()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether all that it said of its members has come.
    pub(super) fn is_complete(&self) -> bool {
        self.known == Some(self.said.revision) && self.entries.len() as u64 == self.said.members
            || self.known.is_some_and(|known| known > self.said.revision)
    }

    /// When it is lost, if it is not heard until then.
    pub(super) fn lost_at(&self, settings: &PresenceSettings) -> Time {
        let patience = settings.lost_after.max(self.said.heartbeat.saturating_mul(MISSED_BEATS));
        self.heard.after(patience)
    }

    pub(super) fn is_heard(&mut self, now: Time) {
        (self.heard, self.excused) = (now, false);
    }

    /// It could not be heard for so long: once, so that a node that is always late does not keep the dead for ever.
    pub(super) fn excuse(&mut self, late: Duration, now: Time) {
        if !self.excused {
            (self.heard, self.excused) = (self.heard.after(late).min(now), true);
        }
    }

    /// Whether it was heard a heartbeat of its own after that.
    pub(super) fn lives_after(&self, that: Time) -> bool {
        self.last_beat >= that.after(self.said.heartbeat)
    }

    /// Whether something of its roster is missing, as far as can be told.
    fn is_behind(&self) -> bool {
        self.known.is_none_or(|known| known < self.said.revision) || !self.later.is_empty()
    }

    /// When to ask it for its roster, if anything is missing.
    pub(super) fn asks_at(&self) -> Option<Time> {
        self.ask.map(|ask| ask.at)
    }

    /// Whether to ask it for its roster now. The next time is later.
    pub(super) fn ask(&mut self, now: Time, random: &mut Random) -> bool {
        let Some(ask) = self.ask.as_mut().filter(|ask| ask.at <= now) else { return false };
        // Up to half as long again, so that those who missed the same thing do not all ask at once.
        ask.at = now.after(ask.patience + random.within(ask.patience / 2));
        ask.patience = (ask.patience * 2).min(ASK_AGAIN.1);
        true
    }

    /// What was asked in vain is asked anew, with the patience of the first time.
    pub(super) fn ask_anew(&mut self, from: Time) {
        if self.ask.take().is_some() {
            self.miss(from);
        }
    }

    /// Whether it has more members than are remembered. Then none are: what is known in part could not be kept true.
    fn is_too_big(&self) -> bool {
        self.said.members > MAX_ENTRIES as u64
    }

    /// Takes in a heartbeat.
    pub(super) fn take_presence(&mut self, said: Said, now: Time, moves: &mut Vec<Move>) {
        // It was away, or this node was: what was asked meanwhile may not have been heard.
        if now.since(self.heard) > said.heartbeat.saturating_mul(2) {
            self.ask_anew(now);
        }
        self.is_heard(now);
        self.last_beat = now;
        self.later.forget_old(now);
        if self.has_fallen_back(&said, now) {
            (self.known, self.assembly, self.ahead) = (None, None, None);
            self.later = Later::default();
            self.said = said;
        } else {
            // The same revision with other members: one of the two counted wrong, and the author is right.
            if self.known == Some(said.revision) && self.entries.len() as u64 != said.members {
                self.known = None;
            }
            if said.revision >= self.said.revision {
                self.said = said;
            }
        }
        if self.is_too_big() {
            moves.extend(self.entries.drain().map(|(session, entry)| Move::Out(entry.room, session)));
            (self.known, self.assembly, self.ask, self.ahead) = (None, None, None, None);
            self.later = Later::default();
            return;
        }
        // Nobody is there: there is nothing to ask for.
        if self.known.is_none() && self.entries.is_empty() && self.said.members == 0 {
            self.known = Some(self.said.revision);
        }
        if self.is_behind() {
            self.miss(now);
        } else {
            self.ask = None;
        }
    }

    /// Whether its roster's revision has become less: a heartbeat may be overtaken by a change, but not for as long as there
    /// is between two of them. Then what is known was told by nobody, or it has begun anew.
    fn has_fallen_back(&mut self, said: &Said, now: Time) -> bool {
        let newest = self.known.map_or(self.said.revision, |known| known.max(self.said.revision));
        match self.ahead {
            _ if said.revision >= newest => self.ahead = None,
            Some((since, then)) if said.revision < then => return now >= since.after(said.heartbeat.max(ASK_AGAIN.0)),
            _ => self.ahead = Some((now, newest)),
        }
        false
    }

    /// Takes in a change of the roster.
    pub(super) fn take_change(&mut self, change: Change, now: Time, moves: &mut Vec<Move>) {
        self.is_heard(now);
        if self.is_too_big() {
            return;
        }
        match self.known {
            Some(known) if change.from == known => {
                self.apply(change, moves);
                self.apply_later(now, moves);
            }
            Some(known) if change.to <= known => {}
            _ => {
                self.later.keep(change, now);
                self.miss(now);
            }
        }
    }

    /// Takes in a part of the whole roster.
    pub(super) fn take_part(&mut self, part: Part, now: Time, moves: &mut Vec<Move>) {
        self.is_heard(now);
        if self.is_too_big() || self.known.is_some_and(|known| known >= part.revision) {
            return;
        }
        let fits = |assembly: &Assembly| assembly.revision == part.revision && assembly.count == part.count;
        if !self.assembly.as_ref().is_some_and(fits) {
            // An older whole that comes late is no use; a newer one begins anew.
            let newer = |assembly: &Assembly| assembly.revision > part.revision && now.since(assembly.touched) < STALE;
            if self.assembly.as_ref().is_some_and(newer) {
                return;
            }
            let (revision, count) = (part.revision, part.count);
            let (parts, entries) = (HashSet::new(), HashMap::new());
            self.assembly = Some(Assembly { revision, count, parts, entries, touched: now });
        }
        let Some(assembly) = &mut self.assembly else { return };
        if !assembly.parts.insert(part.index) {
            return;
        }
        assembly.touched = now;
        if assembly.entries.len() + part.members.len() > MAX_ENTRIES {
            self.assembly = None;
            return;
        }
        assembly.entries.extend(part.members.into_iter().map(|entry| (entry.session, entry)));
        if assembly.parts.len() < assembly.count {
            // The rest is on its way.
            if let Some(ask) = &mut self.ask {
                ask.at = ask.at.max(now.after(ASK_AGAIN.0));
            }
            return;
        }
        let Some(Assembly { revision, entries: whole, .. }) = self.assembly.take() else { return };
        for (session, entry) in &self.entries {
            if whole.get(session).is_none_or(|new| new.room != entry.room) {
                moves.push(Move::Out(entry.room.clone(), *session));
            }
        }
        for (session, entry) in &whole {
            if self.entries.get(session).is_none_or(|old| old.room != entry.room) {
                moves.push(Move::In(entry.room.clone(), *session));
            }
        }
        self.entries = whole;
        self.known = Some(revision);
        self.ask = None;
        self.apply_later(now, moves);
    }

    fn apply(&mut self, change: Change, moves: &mut Vec<Move>) {
        self.known = Some(change.to);
        for session in change.left {
            if let Some(entry) = self.entries.remove(&session) {
                moves.push(Move::Out(entry.room, session));
            }
        }
        for entry in change.joined {
            if self.entries.len() >= MAX_ENTRIES {
                break;
            }
            let session = entry.session;
            moves.push(Move::In(entry.room.clone(), session));
            if let Some(old) = self.entries.insert(session, entry.clone()).filter(|old| old.room != entry.room) {
                moves.push(Move::Out(old.room, session));
            }
        }
    }

    /// Applies what was kept and fits now; what is missing still is asked for again.
    fn apply_later(&mut self, now: Time, moves: &mut Vec<Move>) {
        while let Some(change) = self.known.and_then(|known| self.later.take(known)) {
            self.apply(change, moves);
        }
        if self.is_behind() {
            self.miss(now);
        } else {
            self.ask = None;
        }
    }

    fn miss(&mut self, now: Time) {
        self.ask.get_or_insert(Ask { at: now.after(ASK_AFTER), patience: ASK_AGAIN.0 });
    }
}
