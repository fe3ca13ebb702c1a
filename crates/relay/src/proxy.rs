//! Whose address is it? Behind trusted proxies, the one that the nearest of them vouches for. What lives here: networks as
//! configured, and the reading of `X-Forwarded-For`. What does not: what is done with the address.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// How many entries of `X-Forwarded-For` are believed at most. No chain of proxies is longer; a header may be.
const MAX_HOPS: usize = 32;

/// One address, or a network in CIDR notation: `10.0.0.1`, `10.0.0.0/8`, `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a network could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// What stands before the `/` is not an IP address.
    #[error("not an IP address; write `10.0.0.1` or `10.0.0.0/8`")]
    Address,
    /// What stands behind the `/` is not a number of bits, or more than the address has.
    #[error("the prefix must be a number from 0 to 32 for IPv4, from 0 to 128 for IPv6")]
    Prefix,
}

impl Network {
    /// Whether the address is in the network. An IPv4 address mapped to IPv6 counts as itself.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(own.to_bits().into(), other.to_bits().into(), 32, self.prefix),
            (IpAddr::V6(own), IpAddr::V6(other)) => same(own.to_bits(), other.to_bits(), 128, self.prefix),
            _ => false,
        }
    }
}

/// Whether the first `prefix` of `width` bits agree.
fn same(left: u128, right: u128, width: u32, prefix: u8) -> bool {
    let rest = width.saturating_sub(u32::from(prefix));
    (left ^ right).checked_shr(rest).unwrap_or(0) == 0
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| NetworkError::Address)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.trim().parse().ok().filter(|bits| *bits <= width).ok_or(NetworkError::Prefix)?,
            None => width,
        };
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The address that a connection is counted under: the peer's own, unless that is a trusted proxy; then the one that the proxy
/// wrote last into `X-Forwarded-For`, and so on leftwards while that is a trusted proxy, too.
///
/// Only trusted proxies are believed, so a client cannot choose its address by sending the header. Where an entry cannot be read, it
/// is the proxy's own that counts.
#[must_use]
pub fn client_ip(remote: IpAddr, forwarded_for: Option<&str>, trusted: &[Network]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = remote.to_canonical();
    for entry in forwarded_for.unwrap_or_default().rsplit(',').take(MAX_HOPS) {
        if !is_trusted(client) {
            break;
        }
        match hop(entry) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// An entry as proxies write them: an address, with or without a port, brackets or quotes.
fn hop(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim().trim_matches('"');
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    let address = bare.parse().ok().or_else(|| entry.parse::<SocketAddr>().ok().map(|socket| socket.ip()))?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn networks(list: &[&str]) -> Vec<Network> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn networks_are_read_and_compared_by_their_prefix() {
        let net: Network = "10.1.2.3/8".parse().unwrap();
        assert!(net.contains(ip("10.255.0.1")) && net.contains(ip("::ffff:10.0.0.1")) && !net.contains(ip("11.0.0.1")));
        let one: Network = "192.0.2.1".parse().unwrap();
        assert!(one.contains(ip("192.0.2.1")) && !one.contains(ip("192.0.2.2")));
        let six: Network = "fd00::/8".parse().unwrap();
        assert!(six.contains(ip("fdff::1")) && !six.contains(ip("fe00::1")) && !six.contains(ip("10.0.0.1")));
        let (all4, all6): (Network, Network) = ("0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap());
        assert!(all4.contains(ip("203.0.113.9")) && !all4.contains(ip("::1")) && all6.contains(ip("::1")));
        assert_eq!(six.to_string(), "fd00::/8");
        for (text, error) in [
            ("", NetworkError::Address),
            ("proxy.example", NetworkError::Address),
            ("10.0.0/8", NetworkError::Address),
            ("10.0.0.0/33", NetworkError::Prefix),
            ("::/129", NetworkError::Prefix),
            ("10.0.0.0/", NetworkError::Prefix),
            ("10.0.0.0/-1", NetworkError::Prefix),
        ] {
            assert_eq!(text.parse::<Network>(), Err(error), "{text}");
        }
    }

    #[test]
    fn the_rightmost_untrusted_hop_is_the_client() {
        let trusted = networks(&["10.0.0.0/8", "192.0.2.7"]);
        let cases = [
            // A client without a proxy is not believed.
            ("203.0.113.5", Some("198.51.100.1"), "203.0.113.5"),
            ("10.0.0.1", Some("198.51.100.1"), "198.51.100.1"),
            // What the client itself sent stands to the left.
            ("10.0.0.1", Some("1.1.1.1, 198.51.100.1"), "198.51.100.1"),
            ("10.0.0.1", Some("198.51.100.1, 192.0.2.7,10.9.9.9"), "198.51.100.1"),
            // All hops trusted: the farthest.
            ("10.0.0.1", Some("10.0.0.3, 10.0.0.2"), "10.0.0.3"),
            // Nothing or garbage: the proxy's own.
            ("10.0.0.1", None, "10.0.0.1"),
            ("10.0.0.1", Some(""), "10.0.0.1"),
            ("10.0.0.1", Some("198.51.100.1, unknown"), "10.0.0.1"),
            ("10.0.0.1", Some("198.51.100.1, , 10.0.0.2"), "10.0.0.2"),
            // The shapes that proxies write.
            ("10.0.0.1", Some("198.51.100.1:4711"), "198.51.100.1"),
            ("10.0.0.1", Some("\"[2001:db8::1]:4711\""), "2001:db8::1"),
            ("10.0.0.1", Some("[2001:db8::1]"), "2001:db8::1"),
            ("::ffff:10.0.0.1", Some("::ffff:198.51.100.1"), "198.51.100.1"),
        ];
        for (remote, header, client) in cases {
            assert_eq!(client_ip(ip(remote), header, &trusted), ip(client), "{remote} {header:?}");
        }
        assert_eq!(client_ip(ip("10.0.0.1"), Some("198.51.100.1"), &[]), ip("10.0.0.1"), "no proxy is trusted");
    }

    #[test]
    fn an_endless_chain_is_read_for_a_bounded_length() {
        let header = vec!["10.0.0.1"; 100_000].join(",");
        assert_eq!(client_ip(ip("10.0.0.1"), Some(&header), &networks(&["10.0.0.0/8"])), ip("10.0.0.1"));
        let header = format!("198.51.100.1,{}", vec!["10.0.0.1"; MAX_HOPS].join(","));
        assert_eq!(client_ip(ip("10.0.0.1"), Some(&header), &networks(&["10.0.0.0/8"])), ip("10.0.0.1"));
    }

    proptest! {
        #[test]
        fn any_header_and_any_network_is_survived(header in ".{0,200}", network in ".{0,40}") {
            let trusted = networks(&["0.0.0.0/0", "::/0"]);
            let _ = client_ip(ip("10.0.0.1"), Some(&header), &trusted);
            let _ = network.parse::<Network>();
        }

        #[test]
        fn a_network_of_n_bits_holds_what_agrees_in_n_bits(own: u32, other: u32, prefix in 0_u8..=32) {
            let network: Network = format!("{}/{prefix}", std::net::Ipv4Addr::from(own)).parse().unwrap();
            let agree = (0..u32::from(prefix)).all(|bit| (own ^ other) & (0x8000_0000 >> bit) == 0);
            prop_assert_eq!(network.contains(IpAddr::V4(other.into())), agree);
        }
    }
}
