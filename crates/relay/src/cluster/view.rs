//! What a person or a program is told of the cluster, and what happened in it.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use roomcast_protocol::Dialect;

use super::{Cluster, NodeState, OwnStatus};
use crate::Time;

/// Something that an operator may want to know as it happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterEvent {
    /// A node was heard first.
    Seen {
        /// Its name.
        name: String,
        /// Where it runs.
        region: String,
    },
    /// A node ended in order.
    Left {
        /// Its name.
        name: String,
    },
    /// A node fell silent for too long; its members are forgotten.
    Lost {
        /// Its name.
        name: String,
        /// How many members it had.
        members: usize,
    },
    /// A node sends its clients elsewhere.
    Draining {
        /// Its name.
        name: String,
    },
    /// Two nodes that live have one name.
    NameTaken {
        /// The name.
        name: String,
        /// Whether one of them is this node.
        own: bool,
    },
    /// A node speaks the other dialect: its packets are not passed on.
    OtherDialect {
        /// Its name.
        name: String,
    },
}

/// What is wrong with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Problem {
    /// Another node that lives has its name.
    NameTaken,
    /// It speaks the other dialect.
    OtherDialect,
}

/// How a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It takes clients.
    Up,
    /// It sends its clients elsewhere.
    Draining,
    /// It has missed heartbeats, and is not lost yet.
    Silent,
}

/// One node, as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its run.
    pub instance: u64,
    /// Whether it is this one.
    pub own: bool,
    /// How it stands.
    pub standing: Standing,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// Its version.
    pub version: String,
    /// Where it runs.
    pub region: String,
    /// What it speaks; `None`: something that this version does not know.
    pub dialect: Option<Dialect>,
    /// How long ago it was heard.
    pub heard: Duration,
    /// When it started, in milliseconds since 1970 by its own clock.
    pub started_ms: u64,
    /// Where clients reach it.
    pub listeners: Vec<String>,
    /// Its open connections.
    pub connections: u64,
    /// Its rooms.
    pub rooms: u64,
    /// Its members, as it says.
    pub members: u64,
    /// Its members that are known here.
    pub known: u64,
    /// Whether all that it said of them has come.
    pub complete: bool,
}

/// The cluster, as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// Its nodes by name and run, this one included.
    pub nodes: Vec<NodeView>,
    /// Rooms of all nodes whose packets are passed on, each counted once.
    pub rooms: usize,
    /// Their members.
    pub members: usize,
    /// Two nodes that know the same members have the same one.
    pub digest: u64,
}

impl Cluster {
    /// All that is known, at a cost of everything that is known: for people and tests.
    #[must_use]
    pub fn view(&self, now: Time, status: &OwnStatus) -> ClusterView {
        let node = &self.own.node;
        let own = NodeView {
            name: node.name.clone(),
            instance: node.instance,
            own: true,
            standing: if status.state == NodeState::Draining { Standing::Draining } else { Standing::Up },
            problems: Vec::from_iter(self.is_rivalled().then_some(Problem::NameTaken)),
            version: node.version.clone(),
            region: node.region.clone(),
            dialect: Some(node.dialect),
            heard: Duration::ZERO,
            started_ms: node.started_ms,
            listeners: node.listeners.clone(),
            connections: status.connections,
            rooms: status.rooms,
            members: self.own.len() as u64,
            known: self.own.len() as u64,
            complete: true,
        };
        let mut nodes: Vec<NodeView> = self.peers.values().map(|peer| self.peer_view(peer, now)).collect();
        nodes.push(own);
        nodes.sort_by(|a, b| (&a.name, a.instance).cmp(&(&b.name, b.instance)));
        ClusterView { nodes, rooms: self.rooms.len(), members: self.members, digest: self.digest() }
    }

    /// Nodes known, this one included; of those, how many speak the other dialect, and how many share a name.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let rivalled = self.peers.values().filter(|peer| peer.rivalled).count();
        (self.peers.len() + 1, self.refused, rivalled + usize::from(self.is_rivalled()))
    }

    /// Members of the rooms of all nodes whose packets are passed on.
    #[must_use]
    pub fn members(&self) -> usize {
        self.members
    }

    /// How often this node's own roster has changed.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.own.revision()
    }

    fn peer_view(&self, peer: &super::peer::Peer, now: Time) -> NodeView {
        let heard = now.since(peer.heard);
        let problems = [peer.rivalled.then_some(Problem::NameTaken), peer.refused.then_some(Problem::OtherDialect)];
        let silent = heard > peer.said.heartbeat.saturating_mul(2).max(Duration::from_millis(100));
        NodeView {
            name: peer.name.clone(),
            instance: peer.instance,
            own: false,
            standing: match peer.said.state {
                _ if silent => Standing::Silent,
                NodeState::Up => Standing::Up,
                NodeState::Draining => Standing::Draining,
            },
            problems: problems.into_iter().flatten().collect(),
            version: peer.said.version.clone(),
            region: peer.said.region.clone(),
            dialect: peer.said.dialect,
            heard,
            started_ms: peer.said.started_ms,
            listeners: peer.said.listeners.clone(),
            connections: peer.said.connections,
            rooms: peer.said.rooms,
            members: peer.said.members,
            known: peer.len() as u64,
            complete: peer.is_complete(),
        }
    }

    /// The same for the same members, in whatever order they became known.
    fn digest(&self) -> u64 {
        self.everybody().fold(0, |digest, (node, entry)| {
            let mut hasher = DefaultHasher::new();
            (node, entry.session, &entry.user, &entry.room).hash(&mut hasher);
            digest ^ hasher.finish()
        })
    }
}
