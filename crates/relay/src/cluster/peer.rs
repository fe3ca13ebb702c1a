//! One other node as it is believed: its last heartbeat, its roster, and what of that is still missing.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use roomcast_protocol::{RoomId, SessionId};

use super::wire::{Change, Part, Said};
use super::{ASK_AFTER, ASK_AGAIN, MAX_ENTRIES, PresenceSettings, Random, RosterEntry};
use crate::Time;

/// Changes that are kept while a whole roster is on its way; what is more is part of the next one.
const MAX_LATER: usize = 64;
/// A node is not lost before it has missed so many of its own heartbeats.
const MISSED_BEATS: u32 = 3;

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
    /// Its sessions were not noted yet.
    pub(super) is_new: bool,
    pub(super) said: Said,
    pub(super) first_heard: Time,
    pub(super) heard: Time,
    /// Heartbeats since a younger run of the same name was heard.
    pub(super) rival_beats: u32,
    /// Another node that lives has its name.
    pub(super) rivalled: bool,
    entries: HashMap<SessionId, RosterEntry>,
    /// The revision of `entries`; `None`: nothing is known yet.
    known: Option<u64>,
    /// A whole roster that has come in part.
    assembly: Option<Assembly>,
    /// Changes that do not fit yet, the oldest first.
    later: VecDeque<Change>,
    ask: Option<Ask>,
}

#[derive(Debug)]
struct Assembly {
    revision: u64,
    parts: Vec<Option<Vec<RosterEntry>>>,
    missing: usize,
    members: usize,
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
            is_new: true,
            said: said.clone(),
            first_heard: now,
            heard: now,
            rival_beats: 0,
            rivalled: false,
            entries: HashMap::new(),
            known: (said.members == 0).then_some(said.revision),
            assembly: None,
            later: VecDeque::new(),
            ask: None,
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

    /// When to ask it for its roster, if anything is missing. Asked for at that time, the next time is later.
    pub(super) fn ask(&mut self, now: Time, random: &mut Random) -> Option<Time> {
        let ask = self.ask.as_mut()?;
        let at = ask.at;
        if at <= now {
            // Up to half as long again, so that those who missed the same thing do not all ask at once.
            ask.at = now.after(ask.patience + random.within(ask.patience / 2));
            ask.patience = (ask.patience * 2).min(ASK_AGAIN.1);
        }
        Some(at)
    }

    /// Takes in a heartbeat.
    pub(super) fn take_presence(&mut self, said: Said, now: Time) {
        self.heard = now;
        let behind = self.known.is_none_or(|known| known < said.revision);
        // The same revision with other members: one of the two counted wrong, and the author is right.
        let differs = self.known == Some(said.revision) && self.entries.len() as u64 != said.members;
        if said.revision >= self.said.revision {
            self.said = said;
        }
        if differs {
            self.known = None;
        }
        // Nobody is there: there is nothing to ask for.
        if self.known.is_none() && self.entries.is_empty() && self.said.members == 0 {
            self.known = Some(self.said.revision);
        } else if behind || differs {
            self.miss(now);
        }
    }

    /// Takes in a change of the roster.
    pub(super) fn take_change(&mut self, change: Change, now: Time, moves: &mut Vec<Move>) {
        self.heard = now;
        match self.known {
            Some(known) if change.from == known => {
                self.apply(change, moves);
                self.apply_later(now, moves);
            }
            Some(known) if change.to <= known => {}
            _ => {
                if self.later.len() >= MAX_LATER {
                    self.later.pop_front();
                }
                self.later.push_back(change);
                self.miss(now);
            }
        }
    }

    /// Takes in a part of the whole roster.
    pub(super) fn take_part(&mut self, part: Part, now: Time, moves: &mut Vec<Move>) {
        self.heard = now;
        if self.known.is_some_and(|known| known >= part.revision) {
            return;
        }
        let fits = |assembly: &Assembly| assembly.revision == part.revision && assembly.parts.len() == part.count;
        if !self.assembly.as_ref().is_some_and(fits) {
            // An older whole that comes late is no use; a newer one begins anew.
            if self.assembly.as_ref().is_some_and(|assembly| assembly.revision > part.revision) {
                return;
            }
            let parts = std::iter::repeat_with(|| None).take(part.count).collect();
            self.assembly = Some(Assembly { revision: part.revision, parts, missing: part.count, members: 0 });
        }
        let Some(assembly) = &mut self.assembly else { return };
        if assembly.parts[part.index].is_some() {
            return;
        }
        assembly.members += part.members.len();
        if assembly.members > MAX_ENTRIES {
            self.assembly = None;
            return;
        }
        assembly.parts[part.index] = Some(part.members);
        assembly.missing -= 1;
        if assembly.missing > 0 {
            return;
        }
        let Some(Assembly { revision, parts, .. }) = self.assembly.take() else { return };
        let whole: HashMap<SessionId, RosterEntry> =
            parts.into_iter().flatten().flatten().map(|entry| (entry.session, entry)).collect();
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
        while let Some(known) = self.known {
            self.later.retain(|change| change.to > known);
            let Some(next) = self.later.iter().position(|change| change.from == known) else { break };
            if let Some(change) = self.later.remove(next) {
                self.apply(change, moves);
            }
        }
        let behind = self.known.is_none_or(|known| known < self.said.revision);
        if self.later.is_empty() && !behind {
            self.ask = None;
        } else {
            self.miss(now);
        }
    }

    fn miss(&mut self, now: Time) {
        self.ask.get_or_insert(Ask { at: now.after(ASK_AFTER), patience: ASK_AGAIN.0 });
    }
}
