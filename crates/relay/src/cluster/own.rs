//! This node's own roster and the messages that tell it: the books, and what changed since it was last told.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use roomcast_protocol::cluster as messages;
use roomcast_protocol::{SessionId, Subject};

use super::{OwnNode, OwnStatus, PresenceSettings, RosterEntry, Send, wire};
use crate::Time;

/// Members in one message, and their bytes: the message stays under 64 KiB.
const AT_ONCE: usize = 500;
const BYTES_AT_ONCE: usize = 60_000;

/// The author's side.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) node: OwnNode,
    entries: BTreeMap<SessionId, RosterEntry>,
    /// How often the roster has changed.
    revision: u64,
    /// The revision that was told last.
    told: u64,
    /// Who came or went since then, and whether it had been told before that the session is there. One that came and went
    /// untold is none of these, so they are no more than the members then and now.
    changed: BTreeMap<SessionId, bool>,
    flushed: Option<Time>,
}

impl Own {
    pub(super) fn new(node: OwnNode) -> Self {
        Self { node, entries: BTreeMap::new(), revision: 0, told: 0, changed: BTreeMap::new(), flushed: None }
    }

    /// A session is there; as what it was there before.
    pub(super) fn joined(&mut self, entry: RosterEntry) -> Option<RosterEntry> {
        self.revision += 1;
        let session = entry.session;
        let old = self.entries.insert(session, entry);
        self.changed.entry(session).or_insert(old.is_some());
        old
    }

    pub(super) fn left(&mut self, session: SessionId) -> Option<RosterEntry> {
        let entry = self.entries.remove(&session)?;
        self.revision += 1;
        if self.changed.get(&session) == Some(&false) {
            self.changed.remove(&session);
        } else {
            self.changed.insert(session, true);
        }
        Some(entry)
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

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// When what changed is to be told, if anything is: the first at once, then one message in each `gap`.
    pub(super) fn flush_due(&self, now: Time, gap: Duration) -> Option<Time> {
        (!self.changed.is_empty()).then(|| self.flushed.map_or(now, |last| last.after(gap)))
    }

    /// Tells what changed.
    pub(super) fn flush(&mut self, now: Time, out: &mut Vec<Send>) {
        if self.changed.is_empty() {
            return;
        }
        self.flushed = Some(now);
        let (mut change, mut bytes) = (messages::RosterChange::default(), 0);
        let mut changed = std::mem::take(&mut self.changed).into_keys().peekable();
        while let Some(session) = changed.next() {
            match self.entries.get(&session) {
                Some(entry) => {
                    let member = wire::member(entry);
                    bytes += wire::MOST_AROUND_A_MEMBER + member.encoded_len();
                    change.joined.push(member);
                }
                None => {
                    bytes += wire::MOST_AROUND_A_MEMBER;
                    change.left.push(session.0);
                }
            }
            let members = change.joined.len() + change.left.len();
            let is_last = changed.peek().is_none();
            if is_last || members == AT_ONCE || bytes >= BYTES_AT_ONCE {
                // Each session that changed is at least one revision, so what comes before the last never reaches it.
                let to = if is_last { self.revision } else { self.told + members as u64 };
                (change.instance, change.from, change.to) = (self.node.instance, self.told, to);
                out.push(Send { subject: Subject::roster(&self.node.name), payload: encoded(&change) });
                self.told = to;
                (change, bytes) = (messages::RosterChange::default(), 0);
            }
        }
    }

    /// A heartbeat.
    pub(super) fn presence(
        &self,
        status: &OwnStatus,
        state: messages::NodeState,
        settings: &PresenceSettings,
        hello: bool,
    ) -> Send {
        let node = &self.node;
        let said = messages::Presence {
            instance: node.instance,
            name: node.name.clone(),
            version: node.version.clone(),
            region: node.region.clone(),
            dialect: wire::dialect(node.dialect).into(),
            state: state.into(),
            started_ms: node.started_ms,
            listeners: node.listeners.clone(),
            connections: status.connections,
            rooms: status.rooms,
            heartbeat_ms: u64::try_from(settings.heartbeat.as_millis()).unwrap_or(u64::MAX),
            // What was told: a change that is still to be told comes after this.
            revision: self.told,
            members: self.entries.len() as u64,
            hello,
            sessions: status.sessions.iter().flat_map(|sessions| [sessions.start, sessions.end]).collect(),
        };
        Send { subject: Subject::presence(&node.name), payload: encoded(&said) }
    }

    /// Asks a node for its roster.
    pub(super) fn request(&self, to_instance: u64, name: &str) -> Send {
        let word = messages::sync::Word::Request(messages::RosterRequest {});
        Send { subject: Subject::sync(name), payload: encoded(&self.sync(to_instance, Some(word))) }
    }

    /// The whole roster, encoded in parts, each of them to be sent with [`part`](Self::part). What has changed is told to all
    /// before, so that the roster is one between two changes.
    pub(super) fn whole(&mut self, now: Time, out: &mut Vec<Send>) -> Vec<Bytes> {
        self.flush(now, out);
        let mut chunks = vec![Vec::new()];
        let (mut member, mut members) = (messages::Member::default(), 0);
        for entry in self.entries.values() {
            wire::member_into(entry, &mut member);
            if chunks.last().is_some_and(|chunk| members == AT_ONCE || chunk.len() >= BYTES_AT_ONCE) {
                chunks.push(Vec::new());
                members = 0;
            }
            if let Some(chunk) = chunks.last_mut() {
                wire::append_member(&member, chunk);
                members += 1;
            }
        }
        let count = chunks.len() as u32;
        let part = |(index, members): (usize, Vec<u8>)| {
            let head = messages::RosterPart { revision: self.told, index: index as u32, count, members: vec![] };
            // Fields of a message may follow each other in any order, and so in pieces.
            Bytes::from([head.encode_to_vec(), members].concat())
        };
        chunks.into_iter().enumerate().map(part).collect()
    }

    /// A part of a whole roster, for one node.
    pub(super) fn part(&self, to_instance: u64, to: &str, part: &Bytes) -> Send {
        let mut payload = Vec::with_capacity(part.len() + 2 * wire::MAX_TEXT);
        payload.extend(self.sync(to_instance, None).encode_to_vec());
        wire::append_part(part, &mut payload);
        Send { subject: Subject::sync(to), payload: payload.into() }
    }

    /// The sender's name is its own, to be answered to.
    fn sync(&self, to_instance: u64, word: Option<messages::sync::Word>) -> messages::Sync {
        messages::Sync { instance: self.node.instance, to_instance, name: self.node.name.clone(), word }
    }
}

fn encoded(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}
