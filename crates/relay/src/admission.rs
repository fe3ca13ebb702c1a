//! May this connection in? What lives here: the limits and the count of connections per address. What does not: names and
//! tokens (checked before), the room itself (`membership.rs`), which address a client has (`proxy.rs`).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use roomcast_protocol::CloseCode;

/// The node's limits. Live settings; lowering one turns nobody out who is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Most connections of the node.
    pub max_connections: usize,
    /// Most connections from one address (see [`PerAddress`]); 0: no limit.
    pub max_connections_per_ip: usize,
    /// Most rooms that have a member on this node.
    pub max_rooms: usize,
    /// Most members of one room on this node.
    pub max_room_members: usize,
}

/// How full the node is as the connection arrives, without the connection itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Connections of the node.
    pub connections: usize,
    /// Connections from the same address.
    pub connections_of_ip: usize,
    /// Rooms of the node.
    pub rooms: usize,
    /// Members of the room that it wants to join; `None`: there is no such room yet.
    pub room_members: Option<usize>,
}

/// Why a connection is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The node has as many connections as it may.
    #[error("this node is full")]
    Connections,
    /// The address has as many connections as it may.
    #[error("too many connections from this address")]
    ConnectionsOfIp,
    /// The node has as many rooms as it may, and this would be another.
    #[error("this node has too many rooms")]
    Rooms,
    /// The room has as many members as it may.
    #[error("this room is full")]
    RoomMembers,
}

impl Refused {
    /// What the client is closed with. Each of these passes when somebody leaves, so each says "try again later".
    #[must_use]
    pub const fn close_code(self) -> CloseCode {
        CloseCode::TryAgainLater
    }

    /// The value of the metrics label `reason`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::ConnectionsOfIp => "max_connections_per_ip",
            Self::Rooms => "max_rooms",
            Self::RoomMembers => "max_room_members",
        }
    }
}

/// Whether one more connection may in.
///
/// The counts may be stale by the time it enters; [`crate::Membership::enter`] and [`PerAddress::enter`] check their own
/// again, and exactly.
///
/// # Errors
///
/// The first limit that it would pass.
pub fn admit(limits: &AdmissionLimits, load: &Load) -> Result<(), Refused> {
    if load.connections >= limits.max_connections {
        return Err(Refused::Connections);
    }
    if limits.max_connections_per_ip > 0 && load.connections_of_ip >= limits.max_connections_per_ip {
        return Err(Refused::ConnectionsOfIp);
    }
    match load.room_members {
        None if load.rooms >= limits.max_rooms => Err(Refused::Rooms),
        members if members.unwrap_or(0) >= limits.max_room_members => Err(Refused::RoomMembers),
        _ => Ok(()),
    }
}

/// Connections per client address. An address is forgotten when its last connection leaves, so there are never more entries than
/// connections.
///
/// An IPv6 client commonly has a whole /64 network to choose from, so the first 64 bits count as one address.
#[derive(Clone, Debug, Default)]
pub struct PerAddress {
    connections: HashMap<IpAddr, usize>,
}

impl PerAddress {
    /// No connections.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one more connection; every success is owed one [`Self::leave`] of the same address.
    ///
    /// # Errors
    ///
    /// [`Refused::ConnectionsOfIp`] where `max` (0: no limit) are here already; nothing is counted then.
    pub fn enter(&mut self, address: IpAddr, max: usize) -> Result<(), Refused> {
        let key = network(address);
        if max > 0 && self.connections.get(&key).is_some_and(|count| *count >= max) {
            return Err(Refused::ConnectionsOfIp);
        }
        *self.connections.entry(key).or_insert(0) += 1;
        Ok(())
    }

    /// Counts one connection less.
    pub fn leave(&mut self, address: IpAddr) {
        let key = network(address);
        if let Some(count) = self.connections.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.connections.remove(&key);
            }
        }
        // After a burst of addresses the table would keep its size for good.
        if self.connections.capacity() > 64 && self.connections.len() < self.connections.capacity() / 8 {
            self.connections.shrink_to(self.connections.len() * 2);
        }
    }

    /// Connections from this address.
    #[must_use]
    pub fn count(&self, address: IpAddr) -> usize {
        self.connections.get(&network(address)).copied().unwrap_or(0)
    }

    /// Addresses with a connection.
    #[must_use]
    pub fn addresses(&self) -> usize {
        self.connections.len()
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: AdmissionLimits =
        AdmissionLimits { max_connections: 10, max_connections_per_ip: 3, max_rooms: 2, max_room_members: 4 };
    const LOAD: Load = Load { connections: 9, connections_of_ip: 2, rooms: 1, room_members: None };

    #[test]
    fn the_last_free_place_is_given_and_no_more() {
        assert_eq!(admit(&LIMITS, &LOAD), Ok(()));
        assert_eq!(admit(&LIMITS, &Load { connections: 10, ..LOAD }), Err(Refused::Connections));
        assert_eq!(admit(&LIMITS, &Load { connections_of_ip: 3, ..LOAD }), Err(Refused::ConnectionsOfIp));
        assert_eq!(admit(&LIMITS, &Load { rooms: 2, ..LOAD }), Err(Refused::Rooms));
        assert_eq!(
            admit(&LIMITS, &Load { rooms: 2, room_members: Some(3), ..LOAD }),
            Ok(()),
            "the room is there already"
        );
        assert_eq!(admit(&LIMITS, &Load { room_members: Some(4), ..LOAD }), Err(Refused::RoomMembers));
        let closed = AdmissionLimits { max_room_members: 0, ..LIMITS };
        assert_eq!(admit(&closed, &LOAD), Err(Refused::RoomMembers), "a limit of none lets nobody in");
    }

    #[test]
    fn zero_connections_per_ip_means_no_limit() {
        let limits = AdmissionLimits { max_connections_per_ip: 0, ..LIMITS };
        assert_eq!(admit(&limits, &Load { connections_of_ip: 1_000, ..LOAD }), Ok(()));
        let mut counts = PerAddress::new();
        let address = "192.0.2.1".parse().unwrap();
        for _ in 0..1_000 {
            counts.enter(address, 0).unwrap();
        }
        assert_eq!(counts.count(address), 1_000);
    }

    #[test]
    fn a_refusal_asks_to_try_again_later() {
        for refused in [Refused::Connections, Refused::ConnectionsOfIp, Refused::Rooms, Refused::RoomMembers] {
            assert_eq!(refused.close_code().number(), 1013);
        }
    }

    #[test]
    fn an_address_is_forgotten_with_its_last_connection() {
        let mut counts = PerAddress::new();
        let addresses: Vec<IpAddr> = (0..1_000_u32).map(|n| IpAddr::V4((0x0a00_0000 + n).into())).collect();
        for address in &addresses {
            counts.enter(*address, 2).unwrap();
            counts.enter(*address, 2).unwrap();
            assert_eq!(counts.enter(*address, 2), Err(Refused::ConnectionsOfIp));
        }
        for address in &addresses {
            counts.leave(*address);
            assert_eq!(counts.count(*address), 1);
            counts.leave(*address);
            counts.leave(*address); // one too many changes nothing
            assert_eq!(counts.count(*address), 0);
        }
        assert_eq!(counts.addresses(), 0);
        assert!(counts.connections.capacity() < 200, "{}", counts.connections.capacity());
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_a_mapped_ipv4_its_own() {
        let mut counts = PerAddress::new();
        counts.enter("2001:db8:1:2::1".parse().unwrap(), 1).unwrap();
        assert!(counts.enter("2001:db8:1:2:ffff::9".parse().unwrap(), 1).is_err());
        counts.enter("2001:db8:1:3::1".parse().unwrap(), 1).unwrap();
        counts.enter("::ffff:192.0.2.1".parse().unwrap(), 1).unwrap();
        assert!(counts.enter("192.0.2.1".parse().unwrap(), 1).is_err());
        counts.enter("::ffff:192.0.2.2".parse().unwrap(), 1).unwrap();
    }
}
