//! The table of faults: what is done, for how long, and what it may cost. What does not live here: how it is done (`run`) and
//! measured (`figures`).
//!
//! An expectation that is not met is a finding, to be reported with its figure. Nothing here is widened to hide one.

use std::time::Duration;

use super::proxy::Direction;

/// What is done to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Nothing,
    /// The broker that a node is connected to is killed, and started again after the outage.
    BrokerKilled,
    /// All brokers are killed at once, and started again after the outage.
    BrokersStopped,
    /// A node is killed, and does not come back.
    NodeKilled,
    /// A node is stopped by SIGSTOP for the outage.
    NodeFrozen,
    /// All that goes this way between a node and every broker is lost for the outage; `None`: both ways.
    Cut(Option<Direction>),
    /// What one node sends to its brokers, and gets from them, goes at this rate, in bytes a second and connection.
    Slow(u32),
    /// Brokers take one node's connections and never read what it sends.
    Stalled,
    /// Node after node is drained by SIGTERM and started again, once ready the next.
    RollingRestart,
    /// On every node the actor that watches over the bus is killed, again and again.
    LinkKilled,
}

/// What a kind of pairs may suffer.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Packets that never come; `None`: any number, which is reported.
    pub lost: Option<u64>,
    /// The longest silence beyond a pace; `None`: any, which is reported.
    pub gap: Option<Duration>,
}

/// What a fault may cost.
#[derive(Clone, Copy, Debug)]
pub struct Expectation {
    /// Pairs of members on one node that is not itself hit: they never notice a broker.
    pub local: Bound,
    /// Pairs across nodes neither of which is hit, nor its way to its broker.
    pub bystanders: Bound,
    /// All other pairs.
    pub hit: Bound,
    /// Connections of clients that end without the client's will; `None`: any number, which is reported.
    pub closed: Option<usize>,
    /// Packets that may come after later ones of their sender; `None`: any number, which is reported.
    pub late: Option<u64>,
    /// Packets that may come back to who sent them, from an earlier connection of its own; `None`: any number, reported.
    pub returned: Option<u64>,
    /// How long after it was sent a packet may still be heard: nothing old is replayed.
    pub oldest: Option<Duration>,
    /// From the end of the outage until everybody has heard from everybody what was sent since.
    pub heard_again: Duration,
    /// From the end of the outage until all nodes see each other and know the same members.
    pub agree: Duration,
    /// From the end of the outage until these are exactly those who are there.
    pub truth: Duration,
    /// From the blow until the clients of a dead node notice; `None`: nobody has anything to notice.
    pub notice: Option<Duration>,
    /// From there until 99 of 100 are back; `None`: nobody has to come back.
    pub back: Option<Duration>,
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Its name, which tests and reports use.
    pub name: &'static str,
    /// What is done.
    pub kind: Kind,
    /// For how long at full length.
    pub outage: Duration,
    /// For how long where time is short.
    pub short_outage: Duration,
    /// What it may cost.
    pub expect: Expectation,
}

/// A client's `keep_alive.dead_after` in every run: how long it takes a silent node for alive.
pub const DEAD_AFTER: Duration = Duration::from_secs(4);
/// A client's `keep_alive.every` in every run.
pub const PING_EVERY: Duration = Duration::from_secs(1);
/// The nodes' `presence.lost_after` in every run: the default.
pub const LOST_AFTER: Duration = Duration::from_secs(5);

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What nobody notices. The gap is what a scheduler on two busy cores may add.
const UNNOTICED: Bound = Bound { lost: Some(0), gap: Some(millis(250)) };
/// What is measured and reported, and has no bound of its own: the outage decides it.
const ANY: Bound = Bound { lost: None, gap: None };

/// What costs nobody anything.
const CALM: Expectation = Expectation {
    local: UNNOTICED,
    bystanders: UNNOTICED,
    hit: UNNOTICED,
    closed: Some(0),
    late: Some(0),
    returned: Some(0),
    // What a bus holds for a packet at most, and what two busy cores add.
    oldest: Some(seconds(1)),
    heard_again: seconds(2),
    agree: seconds(2),
    truth: seconds(2),
    notice: None,
    back: None,
};

/// What costs those whose way to the broker is hit packets, and nobody a connection.
const OUTAGE: Expectation = Expectation {
    hit: ANY,
    // Every subscription restored and remote members heard again.
    heard_again: seconds(2),
    // A heartbeat, and a question and its answer, once the bus is back; which is what hearing again is given.
    agree: seconds(4),
    truth: seconds(4),
    ..CALM
};

/// All of them, the calm first.
pub static FAULTS: [Fault; 13] = [
    Fault { name: "baseline", kind: Kind::Nothing, outage: seconds(10), short_outage: seconds(3), expect: CALM },
    Fault {
        name: "broker_killed",
        kind: Kind::BrokerKilled,
        outage: seconds(5),
        short_outage: seconds(2),
        expect: Expectation {
            // At most a short gap: the node notices at once and has two more brokers to go to.
            hit: Bound { lost: None, gap: Some(seconds(2)) },
            ..OUTAGE
        },
    },
    Fault {
        name: "all_brokers_stopped",
        kind: Kind::BrokersStopped,
        outage: seconds(10),
        short_outage: seconds(3),
        expect: OUTAGE,
    },
    Fault {
        name: "node_killed",
        kind: Kind::NodeKilled,
        outage: seconds(0),
        short_outage: seconds(0),
        expect: Expectation {
            hit: ANY,
            closed: None,
            // Nothing ends this outage: it is counted from the blow. Notice, come back, be heard.
            heard_again: seconds(7),
            // The dead node is forgotten when it was silent for `lost_after`; a heartbeat may have been under way.
            agree: seconds(7),
            truth: seconds(7),
            // Its own ping bound, and what a timer and a scheduler add.
            notice: Some(millis(4_500)),
            back: Some(seconds(2)),
            ..CALM
        },
    },
    Fault {
        // Shorter than anybody takes for death: it costs a gap and nothing else.
        name: "node_frozen_briefly",
        kind: Kind::NodeFrozen,
        outage: seconds(3),
        short_outage: seconds(2),
        expect: Expectation {
            hit: Bound { lost: None, gap: Some(seconds(5)) },
            // What its clients and its broker sent meanwhile waits in its sockets, and nobody can tell it the age of that.
            oldest: None,
            ..OUTAGE
        },
    },
    Fault {
        name: "node_frozen_long",
        kind: Kind::NodeFrozen,
        outage: seconds(15),
        short_outage: seconds(8),
        expect: Expectation {
            closed: None,
            // What its clients had sent before they gave it up waits in its sockets. Thawed, it relays that: it comes late to
            // those who hear the same members on other nodes by now, and comes back to these members themselves. Each
            // connection's order holds, and nothing comes twice.
            late: None,
            returned: None,
            oldest: None,
            // A WebTransport client that gave up says nothing any more: its seat is kept for `timers.idle`, 30 s.
            truth: seconds(35),
            notice: Some(millis(4_500)),
            back: Some(seconds(2)),
            ..OUTAGE
        },
    },
    Fault {
        name: "cut_to_the_broker",
        kind: Kind::Cut(Some(Direction::Up)),
        outage: seconds(10),
        short_outage: seconds(5),
        expect: OUTAGE,
    },
    Fault {
        name: "cut_from_the_broker",
        kind: Kind::Cut(Some(Direction::Down)),
        outage: seconds(10),
        short_outage: seconds(5),
        expect: OUTAGE,
    },
    Fault {
        name: "cut_both_ways",
        kind: Kind::Cut(None),
        outage: seconds(10),
        short_outage: seconds(5),
        expect: OUTAGE,
    },
    Fault {
        name: "broker_slow",
        kind: Kind::Slow(20_000),
        outage: seconds(10),
        short_outage: seconds(4),
        // What was written to a slow network is under way; what is not yet written goes by age.
        expect: Expectation { oldest: None, ..OUTAGE },
    },
    Fault {
        name: "broker_stalled",
        kind: Kind::Stalled,
        outage: seconds(10),
        short_outage: seconds(5),
        // A broker that does not answer is given up within three seconds, with all that it was to be told.
        expect: Expectation { oldest: Some(seconds(4)), ..OUTAGE },
    },
    Fault {
        name: "rolling_restart",
        kind: Kind::RollingRestart,
        // Of each node's drain.
        outage: seconds(10),
        short_outage: seconds(2),
        expect: Expectation {
            // A drain loses nothing, for clients of ours, and closes none uncleanly.
            hit: Bound { lost: Some(0), gap: Some(millis(500)) },
            ..CALM
        },
    },
    Fault { name: "link_killed", kind: Kind::LinkKilled, outage: seconds(10), short_outage: seconds(3), expect: CALM },
];

/// The line of that name.
#[must_use]
pub fn fault(name: &str) -> Option<&'static Fault> {
    FAULTS.iter().find(|fault| fault.name == name)
}
