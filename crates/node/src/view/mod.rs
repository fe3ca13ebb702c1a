//! What the admin port says of a running node, as types: the server writes them, the command line reads them. And the
//! tree as people read it. Nothing here asks a node anything.

mod cluster;
mod text;
mod tree;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use roomcast_supervision::Entry;
use serde::{Deserialize, Serialize};

pub use text::{Style, ago, clean, count};
pub use tree::{TreeOptions, render};

/// One actor, as `GET /tree` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActorView {
    /// Its path; empty for the root.
    pub path: String,
    /// `worker` or `supervisor`.
    pub kind: String,
    /// `starting`, `running`, `restarting`, `stopping` or `down`.
    pub state: String,
    /// How often it has been started again.
    pub restarts: u64,
    /// Messages in its mailbox.
    pub mailbox_depth: usize,
    /// Since when it is in this state.
    pub since: String,
    /// The same, in milliseconds before the answer was written.
    pub since_ms: u64,
    /// How many incarnations there have been.
    pub generation: u64,
    /// Why the incarnation before ended.
    pub last_reason: Option<String>,
    /// The rest of the wait before it is started again, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_ms: Option<u64>,
    /// Restarts in a row; each makes the next wait longer.
    #[serde(default)]
    pub attempts: u32,
    /// For how many milliseconds it has been busy without ever awaiting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck_ms: Option<u64>,
}

impl ActorView {
    /// What is shown of an entry.
    #[must_use]
    pub fn new(entry: &Entry, now: SystemTime) -> Self {
        Self {
            path: entry.path.as_str().to_owned(),
            kind: entry.kind.as_str().to_owned(),
            state: entry.state.as_str().to_owned(),
            restarts: entry.restarts,
            mailbox_depth: entry.depth,
            since: humantime_serde::re::humantime::format_rfc3339_millis(entry.since).to_string(),
            since_ms: milliseconds(now.duration_since(entry.since).unwrap_or_default()),
            generation: entry.generation,
            last_reason: entry.last_reason.as_ref().map(ToString::to_string),
            backoff_ms: entry.backoff.map(milliseconds),
            attempts: entry.attempts,
            stuck_ms: entry.stuck.map(milliseconds),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What `GET /node` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its unique name.
    pub name: String,
    /// The program's version.
    pub version: String,
    /// As `GET /readyz` says it.
    pub state: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Open connections.
    pub connections: usize,
    /// Rooms.
    pub rooms: usize,
    /// Members of all rooms.
    pub members: usize,
    /// The number of the settings in force, from 1.
    pub config_generation: u64,
    /// Whether faults may be injected.
    pub chaos: bool,
}

/// What `GET /rooms` says: the rooms with most members first, among equals by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomsView {
    /// All rooms of the node.
    pub total: usize,
    /// As many of them as were asked for.
    pub rooms: Vec<RoomView>,
}

/// One room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomView {
    /// Its name.
    pub room: String,
    /// Where its actors are in the tree.
    pub path: String,
    /// Sessions in it.
    pub members: usize,
    /// Incarnations of its actor so far.
    pub generation: u64,
    /// Messages in its actor's mailbox.
    pub mailbox_depth: usize,
    /// Packets that wait in its members' egress queues.
    pub queued_packets: usize,
    /// Their bytes.
    pub queued_bytes: usize,
}

/// What `GET /rooms/{id}` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomDetail {
    /// The room.
    #[serde(flatten)]
    pub room: RoomView,
    /// Who is in it, by session.
    pub sessions: Vec<MemberView>,
}

/// One member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberView {
    /// The identity that it joined with.
    pub user: String,
    /// The connection's number, also in its actor's path.
    pub session: u64,
    /// How it is connected.
    pub transport: String,
    /// Packets that wait for it.
    pub queued_packets: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Packets meant for it that were dropped.
    pub drops: u64,
}

/// What `GET /cluster` says: the nodes as one of them sees them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Whose view it is.
    pub seen_by: String,
    /// The bus's state: `connecting`, `up`, `down` or `closed`. Unless it is `up`, the view is old.
    pub bus: String,
    /// The broker that this node is connected to, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<String>,
    /// Whether this node has heard who else is there; until then it shares no rooms.
    pub settled: bool,
    /// The nodes, by name; this one included.
    pub nodes: Vec<PeerView>,
    /// Rooms of all nodes whose packets are shared with this one, each counted once.
    pub rooms: usize,
    /// Members of these rooms.
    pub members: usize,
    /// What two nodes that know the same members both say, in hexadecimal.
    pub digest: String,
}

/// One node, as another sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerView {
    /// Its name.
    pub name: String,
    /// Its run's number, in hexadecimal: another after each start.
    pub instance: String,
    /// Whether it is the one that was asked.
    pub own: bool,
    /// `starting`, `up`, `draining`, `silent` or `refused` (it speaks the other dialect).
    pub state: String,
    /// What an operator must do something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Its version.
    pub version: String,
    /// Where it runs.
    pub region: String,
    /// Which numbering it speaks.
    pub dialect: String,
    /// When it was heard last, in milliseconds before the answer; 0 for the one that was asked.
    pub heard_ms: u64,
    /// When it started.
    pub started: String,
    /// Where clients reach it, as it says.
    pub listeners: Vec<String>,
    /// Its open connections.
    pub connections: u64,
    /// Its rooms.
    pub rooms: u64,
    /// Their members, as it says.
    pub members: u64,
    /// The members of it that are known here.
    pub known: u64,
    /// Whether all that it said of its members has arrived.
    pub complete: bool,
}

/// What `GET /cluster?room=NAME` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterRoomView {
    /// The room.
    pub room: String,
    /// Whose view it is.
    pub seen_by: String,
    /// Who is in it, by node and session.
    pub members: Vec<ClusterMemberView>,
}

/// One member of a room, on whichever node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterMemberView {
    /// The identity that it joined with.
    pub user: String,
    /// The connection's number.
    pub session: u64,
    /// The node that it is connected to.
    pub node: String,
    /// How.
    pub transport: String,
    /// When it joined, by that node's clock.
    pub joined: String,
}

/// What every refusal says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// What to change.
    pub message: String,
}

/// What `POST /actors/{path}/kill` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KillView {
    /// How many actors were hit.
    pub hit: usize,
    /// Their paths: the first hundred of those that ran just before.
    pub paths: Vec<String>,
}

/// What `POST /drain` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrainView {
    /// Connections that are still open.
    pub connections: usize,
    /// Over how many milliseconds clients are sent away, from its beginning.
    pub window_ms: u64,
    /// Milliseconds since it began.
    pub since_ms: u64,
    /// Whether nobody is waited for.
    pub hurry: bool,
}

/// What `POST /rooms/{id}/end` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndView {
    /// How many members are being closed.
    pub closed: usize,
}

/// The figures of one scrape that the command line shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Reads Prometheus's text format; what it does not understand is left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(
            lines
                .filter_map(|line| {
                    let (name, value) = line.rsplit_once(' ')?;
                    Some((name.to_owned(), value.parse().ok()?))
                })
                .collect(),
        )
    }

    /// The sum of a metric over its labels; of those with `label` only, where one is given (`state="running"`).
    #[must_use]
    pub fn sum(&self, name: &str, label: Option<&str>) -> f64 {
        self.0
            .range(name.to_owned()..)
            .take_while(|(series, _)| series.starts_with(name))
            .filter(|(series, _)| series[name.len()..].is_empty() || series[name.len()..].starts_with('{'))
            .filter(|(series, _)| label.is_none_or(|label| series.contains(label)))
            // Not `sum`: of nothing, that is minus zero.
            .fold(0.0, |sum, (_, value)| sum + value)
    }

    /// The bound that this part of a histogram's samples does not exceed: `None` where there are none, infinite where
    /// they are past the last bound.
    #[must_use]
    pub fn quantile(&self, name: &str, part: f64) -> Option<f64> {
        let prefix = format!("{name}_bucket{{");
        let mut buckets: Vec<(f64, f64)> = self
            .0
            .range(prefix.clone()..)
            .take_while(|(series, _)| series.starts_with(&prefix))
            .filter_map(|(series, count)| {
                let (_, bound) = series.split_once("le=\"")?;
                let bound = bound.split('"').next()?;
                Some((if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? }, *count))
            })
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let all = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0.0)?;
        buckets.iter().find(|(_, count)| *count >= all * part).map(|(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRAPE: &str = "# TYPE roomcast_rooms gauge\nroomcast_rooms 3\n\
        roomcast_drops_total{reason=\"age\"} 2\nroomcast_drops_total{reason=\"closed\"} 5\n\
        roomcast_drops_total_of_another 100\n\
        roomcast_x_seconds_bucket{le=\"0.001\"} 90\nroomcast_x_seconds_bucket{le=\"0.01\"} 99\n\
        roomcast_x_seconds_bucket{le=\"+Inf\"} 100\nroomcast_x_seconds_count 100\nnonsense\n";

    #[test]
    fn a_scrape_is_read() {
        let figures = Figures::parse(SCRAPE);
        assert_eq!(figures.sum("roomcast_rooms", None), 3.0);
        assert_eq!(figures.sum("roomcast_drops_total", None), 7.0);
        assert_eq!(figures.sum("roomcast_drops_total", Some("reason=\"age\"")), 2.0);
        assert_eq!(count(figures.sum("roomcast_nothing", None)), "0");
        assert_eq!(figures.quantile("roomcast_x_seconds", 0.5), Some(0.001));
        assert_eq!(figures.quantile("roomcast_x_seconds", 0.99), Some(0.01));
        assert_eq!(figures.quantile("roomcast_x_seconds", 1.0), Some(f64::INFINITY));
        assert_eq!(figures.quantile("roomcast_y_seconds", 0.5), None);
    }
}
