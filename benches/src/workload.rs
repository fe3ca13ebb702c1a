//! The workloads that are measured, as data, and what they are to reach.

/// What the members of some rooms do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) transport: Transport,
    pub(crate) rooms: u32,
    pub(crate) members: u32,
    /// Of each room; `None`: all.
    pub(crate) senders: Option<u32>,
    /// Bytes of a packet.
    pub(crate) size: u32,
    /// The most that a copy may cost, as a part of what it costs the bare broadcaster.
    pub(crate) target: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// WebSocket.
    Plain,
    /// WebSocket over TLS.
    Tls,
    /// WebTransport.
    Quic,
}

/// Packets a second and sender; at half load, half of it.
pub(crate) const RATE: u32 = 30;

/// The longest that the router may hold back a packet for a batch (`egress.coalesce`), in milliseconds: what its 99th
/// percentile of the delay may be above the bare broadcaster's.
pub(crate) const COALESCE_MS: f64 = 5.0;

/// Idle connections, and the most resident memory that each may take.
pub(crate) const IDLE: [u32; 2] = [2_000, 10_000];
pub(crate) const IDLE_TARGET_KIB: f64 = 12.0;

const W1: Workload = Workload {
    name: "W1",
    what: "one room of 100, 20 send",
    transport: Transport::Plain,
    rooms: 1,
    members: 100,
    senders: Some(20),
    size: 1_200,
    target: Some(0.5),
};

const W2: Workload = Workload {
    name: "W2",
    what: "100 rooms of 5, all send",
    rooms: 100,
    members: 5,
    senders: None,
    target: Some(1.0),
    ..W1
};

/// All, in the order in which they are run.
pub(crate) const WORKLOADS: [Workload; 7] = [
    W1,
    W2,
    Workload { name: "W3", what: "one room of 500, 10 send", members: 500, senders: Some(10), target: Some(0.6), ..W1 },
    Workload {
        name: "W4",
        what: "one room of 1,000, 5 send 4,000 bytes",
        members: 1_000,
        senders: Some(5),
        size: 4_000,
        target: Some(1.0),
        ..W1
    },
    Workload { name: "W1-TLS", what: "W1 over TLS", transport: Transport::Tls, target: None, ..W1 },
    Workload { name: "W2-TLS", what: "W2 over TLS", transport: Transport::Tls, target: None, ..W2 },
    Workload {
        name: "WT",
        what: "WebTransport, 20 rooms of 5, all send",
        transport: Transport::Quic,
        rooms: 20,
        target: Some(1.1),
        ..W2
    },
];

impl Workload {
    /// What `roomcast bench` is told.
    pub(crate) fn arguments(&self, rate: u32) -> Vec<String> {
        let senders = self.senders.map_or_else(|| "all".to_owned(), |count| count.to_string());
        let number = |count: u32| count.to_string();
        [
            ("--rooms", number(self.rooms)),
            ("--members", number(self.members)),
            ("--senders", senders),
            ("--size", number(self.size)),
            ("--rate", number(rate)),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }

    /// Copies that are to be delivered in a second.
    pub(crate) fn offered(&self, rate: u32) -> u32 {
        self.rooms * self.senders.unwrap_or(self.members) * rate * (self.members - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_offer_what_the_table_of_targets_was_made_with() {
        let offered: Vec<u32> = WORKLOADS.iter().map(|workload| workload.offered(RATE)).collect();
        assert_eq!(offered, [59_400, 60_000, 149_700, 149_850, 59_400, 60_000, 12_000]);
        assert_eq!(
            WORKLOADS[3].arguments(RATE).join(" "),
            "--rooms 1 --members 1000 --senders 5 --size 4000 --rate 30"
        );
    }
}
