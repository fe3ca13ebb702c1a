//! Why a packet was dropped: one list for the whole node, so that no drop is silent and no label is invented elsewhere.

/// Why a packet did not go on. Every drop in the node is counted under exactly one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// Egress: the receiver's queue held as many packets as it may.
    QueuePackets,
    /// Egress: the receiver's queue held as many bytes as it may.
    QueueBytes,
    /// The node-wide budget of bytes that wait had no more: for this egress queue, or for a packet that was still arriving
    /// (whose sender is then closed).
    Budget,
    /// Egress: it waited in the queue for longer than its kind may.
    Late,
    /// Egress: video or unreadable media that would have made audio late on the receiver's link.
    Congested,
    /// Egress: a delta frame whose stream lost a frame before it; its receiver could not decode it.
    WaitingForKeyFrame,
    /// Egress: the queue's connection ended with this packet still in it, or before it could be queued.
    Closed,
    /// Ingress: not a packet of this protocol to its last byte.
    Malformed,
    /// Ingress: it names another user than the connection's.
    Identity,
    /// Ingress: over the connection's packets per second.
    RatePackets,
    /// Ingress: over the connection's bytes per second.
    RateBytes,
    /// Ingress: its sender is not, or no longer, a member of the room.
    UnknownMember,
    /// Ingress: a packet that did not become whole within the time that it may take: a stream that was abandoned, or a
    /// message whose sender was closed.
    Stalled,
    /// Bus: not published, the bus is not up.
    BusDown,
    /// Bus: not published, the outgoing buffer is full.
    BusFull,
    /// Bus: not published, it had waited for the broker for too long.
    BusLate,
    /// Bus: published by another node, lost here because the subscription's buffer was full.
    BusLost,
    /// Bus: published by a node that speaks the other dialect, whose packets nobody here could read.
    Dialect,
}

impl DropReason {
    /// Every reason, in the order of the discriminants: `ALL[reason as usize] == reason`.
    pub const ALL: [Self; 18] = [
        Self::QueuePackets,
        Self::QueueBytes,
        Self::Budget,
        Self::Late,
        Self::Congested,
        Self::WaitingForKeyFrame,
        Self::Closed,
        Self::Malformed,
        Self::Identity,
        Self::RatePackets,
        Self::RateBytes,
        Self::UnknownMember,
        Self::Stalled,
        Self::BusDown,
        Self::BusFull,
        Self::BusLate,
        Self::BusLost,
        Self::Dialect,
    ];

    /// The value of the metrics label `reason`. Stable: dashboards depend on it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::QueuePackets => "queue_packets",
            Self::QueueBytes => "queue_bytes",
            Self::Budget => "budget",
            Self::Late => "late",
            Self::Congested => "congested",
            Self::WaitingForKeyFrame => "waiting_for_key_frame",
            Self::Closed => "closed",
            Self::Malformed => "malformed",
            Self::Identity => "identity",
            Self::RatePackets => "rate_packets",
            Self::RateBytes => "rate_bytes",
            Self::UnknownMember => "unknown_member",
            Self::Stalled => "stalled",
            Self::BusDown => "bus_down",
            Self::BusFull => "bus_full",
            Self::BusLate => "bus_late",
            Self::BusLost => "bus_lost",
            Self::Dialect => "dialect",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn all_holds_every_reason_at_its_index_with_its_own_label() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        let labels: HashSet<_> = DropReason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(labels.len(), DropReason::ALL.len());
        assert_eq!(DropReason::Dialect as usize, DropReason::ALL.len() - 1, "a new reason must be in ALL");
    }
}
