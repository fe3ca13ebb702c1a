//! Notices: what a node and a client that understands them say to each other about the connection itself, as packets that are no
//! `PacketWrapper`. An extension of this project; `docs/decisions/0008-make-before-break.md` says why.
//!
//! A client asks for them with the request header [`HEADER`]; without it none is ever sent, and none is understood.

/// The request header of a client that understands notices; its value is [`VERSION`].
pub const HEADER: &str = "roomcast-notices";

/// The value of [`HEADER`]: the notices of this version.
pub const VERSION: &str = "1";

/// A notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// From the node: it is draining. Join another, then say [`Done`](Self::Done) here.
    Leave,
    /// From the client: this was its last packet here. The node writes what waits for it and closes with 1000.
    Done,
}

impl Notice {
    /// The notice as a packet. It begins with a zero byte, which no `PacketWrapper` can: there is no field 0.
    #[must_use]
    pub const fn bytes(self) -> &'static [u8] {
        match self {
            Self::Leave => b"\0roomcast leave",
            Self::Done => b"\0roomcast done",
        }
    }

    /// The notice that a packet is, if it is one. For all other packets it costs a look at the first byte.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        if packet.first() != Some(&0) {
            return None;
        }
        [Self::Leave, Self::Done].into_iter().find(|notice| notice.bytes() == packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dialect, peek};

    #[test]
    fn a_notice_is_itself_and_no_packet_of_either_dialect() {
        for notice in [Notice::Leave, Notice::Done] {
            assert_eq!(Notice::parse(notice.bytes()), Some(notice));
            for dialect in [Dialect::Seed, Dialect::Sessions] {
                assert!(peek(dialect, notice.bytes()).is_err());
            }
        }
        for other in [&b""[..], b"\0", b"\0roomcast leav", b"\0roomcast leave ", b"roomcast leave"] {
            assert_eq!(Notice::parse(other), None);
        }
    }
}
