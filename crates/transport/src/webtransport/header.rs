//! The bytes in front of a unidirectional stream, which say whose it is. Pure.

use bytes::Bytes;
use web_transport_quinn::proto::{StreamUni, VarInt};

/// The session's id: the number of the stream of its CONNECT request. Each connection carries one session, opened on the
/// client's first bidirectional stream, and that is number 0 (the server side of the handshake takes no other).
const SESSION: u64 = 0;

/// The longest header: two variable-length integers.
pub(super) const MAX_BYTES: usize = 16;

/// What the bytes so far say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// Not enough yet.
    Incomplete,
    /// A packet's stream; the payload starts after so many bytes.
    Packet(usize),
    /// A stream that HTTP/3 keeps open as long as the connection lives.
    Critical,
    /// A stream of a kind or a session that is not served here.
    Foreign,
}

/// Reads what there is of a header.
pub(super) fn parse(mut bytes: &[u8]) -> Header {
    let length = bytes.len();
    let Ok(kind) = StreamUni::decode(&mut bytes) else { return Header::Incomplete };
    match kind {
        StreamUni::WEBTRANSPORT => match VarInt::decode(&mut bytes) {
            Err(_) => Header::Incomplete,
            Ok(session) if session.into_inner() == SESSION => Header::Packet(length - bytes.len()),
            Ok(_) => Header::Foreign,
        },
        StreamUni::QPACK_ENCODER | StreamUni::QPACK_DECODER => Header::Critical,
        _ => Header::Foreign,
    }
}

/// The header of the streams that this side opens.
pub(super) fn encoded() -> Bytes {
    let mut bytes = Vec::with_capacity(MAX_BYTES);
    StreamUni::WEBTRANSPORT.encode(&mut bytes);
    VarInt::try_from(SESSION).expect("a small constant").encode(&mut bytes);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn its_own_header_is_a_packets() {
        let header = encoded();
        assert_eq!(&header[..], [0x40, 0x54, 0x00]);
        assert_eq!(parse(&header), Header::Packet(3));
        for length in 0..header.len() {
            assert_eq!(parse(&header[..length]), Header::Incomplete, "{length} bytes");
        }
    }

    #[test]
    fn other_kinds_and_sessions_are_told_apart() {
        assert_eq!(parse(&[0x40, 0x54, 0x40, 0x00, 1, 2]), Header::Packet(4), "a longer form of the same number");
        assert_eq!(parse(&[0x40, 0x54, 0x04]), Header::Foreign, "another session");
        assert_eq!(parse(&[0x02]), Header::Critical);
        assert_eq!(parse(&[0x03, 0xff]), Header::Critical);
        assert_eq!(parse(&[0x00]), Header::Foreign, "a second control stream");
        assert_eq!(parse(&[0x21]), Header::Foreign, "a stream without meaning");
    }

    proptest! {
        #[test]
        fn sixteen_bytes_always_suffice(bytes in any::<[u8; MAX_BYTES]>()) {
            prop_assert_ne!(parse(&bytes), Header::Incomplete);
        }

        #[test]
        fn more_bytes_change_no_verdict(bytes in proptest::collection::vec(any::<u8>(), 0..32)) {
            let whole = parse(&bytes);
            for length in 0..bytes.len() {
                let part = parse(&bytes[..length]);
                prop_assert!(part == Header::Incomplete || part == whole);
            }
        }
    }
}
