//! This node's own roster and the messages that tell it: the books, and what changed since it was last told.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use roomcast_protocol::cluster as messages;
use roomcast_protocol::{SessionId, Subject};

use super::{OwnNode, OwnStatus, PresenceSettings, RosterEntry, Send, wire};
use crate::Time;

/// Members in one message: at the longest names there are, under a broker's usual bound of 1 MB.
const AT_ONCE: usize = 500;

/// The author's side.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) node: OwnNode,
    entries: BTreeMap<SessionId, RosterEntry>,
    /// How often the roster has changed.
    revision: u64,
    /// The revision that was told last.
    told: u64,
    /// Who came or went since then: at most as many as there are members, and those who left.
    changed: BTreeMap<SessionId, bool>,
    flushed: Option<Time>,
}

impl Own {
    pub(super) fn new(node: OwnNode) -> Self {
        Self { node, entries: BTreeMap::new(), revision: 0, told: 0, changed: BTreeMap::new(), flushed: None }
    }

    pub(super) fn joined(&mut self, entry: RosterEntry) {
        self.revision += 1;
        self.changed.insert(entry.session, true);
        self.entries.insert(entry.session, entry);
    }

    pub(super) fn left(&mut self, session: SessionId) -> Option<RosterEntry> {
        let entry = self.entries.remove(&session)?;
        self.revision += 1;
        self.changed.insert(session, false);
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

    /// Nobody can be told what changed.
    pub(super) fn forget_changes(&mut self) {
        self.told = self.revision;
        self.changed.clear();
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
        let changed: Vec<(SessionId, bool)> = std::mem::take(&mut self.changed).into_iter().collect();
        let parts = changed.chunks(AT_ONCE);
        let last = parts.len() - 1;
        for (index, part) in parts.enumerate() {
            // Each change is at least one revision, so the parts before the last never reach it.
            let to = if index == last { self.revision } else { self.told + part.len() as u64 };
            let mut change = messages::RosterChange {
                instance: self.node.instance,
                from: self.told,
                to,
                ..messages::RosterChange::default()
            };
            for (session, _) in part {
                match self.entries.get(session) {
                    Some(entry) => change.joined.push(wire::member(entry)),
                    None => change.left.push(session.0),
                }
            }
            self.told = to;
            out.push(Send { subject: Subject::roster(&self.node.name), payload: encoded(&change) });
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
        self.sync(to_instance, name, messages::sync::Word::Request(messages::RosterRequest {}))
    }

    /// The whole roster, for one node.
    pub(super) fn whole(&self, to_instance: u64, name: &str, out: &mut Vec<Send>) {
        let members: Vec<messages::Member> = self.entries.values().map(wire::member).collect();
        let count = members.len().div_ceil(AT_ONCE).max(1);
        for index in 0..count {
            let from = index * AT_ONCE;
            let part = messages::RosterPart {
                revision: self.revision,
                index: index as u32,
                count: count as u32,
                members: members[from..members.len().min(from + AT_ONCE)].to_vec(),
            };
            out.push(self.sync(to_instance, name, messages::sync::Word::Part(part)));
        }
    }

    fn sync(&self, to_instance: u64, to: &str, word: messages::sync::Word) -> Send {
        let (instance, name) = (self.node.instance, self.node.name.clone());
        let sync = messages::Sync { instance, to_instance, name, word: Some(word) };
        Send { subject: Subject::sync(to), payload: encoded(&sync) }
    }
}

fn encoded(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}
