//! The cluster as the admin port shows it, out of what the store knows.

use std::time::{Duration, SystemTime};

use humantime_serde::re::humantime::format_rfc3339_seconds;
use roomcast_bus::BusState;
use roomcast_protocol::{Dialect, RoomId};
use roomcast_relay::cluster::{NodeView as Known, Problem, Standing, Via};

use super::{ClusterMemberView, ClusterRoomView, ClusterView, PeerView, milliseconds};
use crate::store::{Presence, Store};

impl ClusterView {
    /// What this node knows now.
    pub(crate) fn new(store: &Store) -> Self {
        let status = Presence::status(store);
        let known = store.presence.lock().cluster.view(store.clock.now(), &status);
        let bus = match *store.bus.state().borrow() {
            BusState::Connecting => "connecting",
            BusState::Up => "up",
            BusState::Down => "down",
            BusState::Closed => "closed",
        };
        Self {
            seen_by: store.name.clone(),
            bus: bus.to_owned(),
            broker: store.bus.broker().map(|broker| format!("{}, NATS {}", broker.url, broker.version)),
            settled: store.presence.is_settled(),
            nodes: known.nodes.into_iter().map(PeerView::from).collect(),
            rooms: known.rooms,
            members: known.members,
            digest: format!("{:016x}", known.digest),
        }
    }
}

impl From<Known> for PeerView {
    fn from(node: Known) -> Self {
        let refused = node.problems.contains(&Problem::OtherDialect);
        let problem = match node.problems.first() {
            None => None,
            Some(Problem::NameTaken) => {
                Some("another node has this name too: give each its own (node.name)".to_owned())
            }
            Some(Problem::OtherDialect) => {
                Some("it speaks the other dialect, so no packets pass (node.dialect)".to_owned())
            }
        };
        let state = match node.standing {
            _ if refused => "refused",
            Standing::Up => "up",
            Standing::Draining => "draining",
            Standing::Silent => "silent",
        };
        let dialect = match node.dialect {
            Some(Dialect::Seed) => "seed",
            Some(Dialect::Sessions) => "sessions",
            None => "unknown",
        };
        Self {
            name: node.name,
            instance: format!("{:016x}", node.instance),
            own: node.own,
            state: state.to_owned(),
            problem,
            version: node.version,
            region: node.region,
            dialect: dialect.to_owned(),
            heard_ms: milliseconds(node.heard),
            started: time(node.started_ms),
            listeners: node.listeners,
            connections: node.connections,
            rooms: node.rooms,
            members: node.members,
            known: node.known,
            complete: node.complete,
        }
    }
}

impl ClusterRoomView {
    /// Who is in a room, as this node knows it now.
    pub(crate) fn new(store: &Store, room: &RoomId) -> Self {
        let inner = store.presence.lock();
        let member = |(node, entry): (&str, &roomcast_relay::cluster::RosterEntry)| ClusterMemberView {
            user: entry.user.to_string(),
            session: entry.session.0,
            node: node.to_owned(),
            transport: match entry.via {
                Via::WebSocket => "websocket",
                Via::WebTransport => "webtransport",
                Via::Other => "other",
            }
            .to_owned(),
            joined: time(entry.joined_ms),
        };
        let mut members: Vec<_> = inner.cluster.room(room).map(member).collect();
        drop(inner);
        members.sort_by(|a, b| (&a.node, a.session).cmp(&(&b.node, b.session)));
        Self { room: room.to_string(), seen_by: store.name.clone(), members }
    }
}

/// As people write it; a time that no clock can have is the last that one can.
fn time(milliseconds: u64) -> String {
    /// The year 9999.
    const LAST: u64 = 253_402_300_799_000;
    format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds.min(LAST))).to_string()
}
