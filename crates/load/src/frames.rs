//! A walk over a server's WebSocket frames that keeps only the beginning of each: what a packet's stamp needs. Pure.
//!
//! Reads may end anywhere. Whole frames are looked at where they lie in the read buffer; of one that is cut its first bytes
//! are carried over, and the rest is passed over without being kept, so a connection needs the same few bytes whatever the size of
//! its packets.

/// How many bytes of a payload are kept. A ping has at most 125; a packet's stamp ends before.
pub(crate) const HEAD: usize = 128;
/// The longest header of an unmasked frame: two bytes and a length of eight.
const LONGEST_HEADER: usize = 10;

/// A frame whose last byte has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// The first byte: the final flag and the opcode.
    pub(crate) first: u8,
    /// The payload's first bytes, at least [`HEAD`] where there are so many.
    pub(crate) head: &'a [u8],
}

/// A final frame of binary: one packet.
pub(crate) const BINARY: u8 = 0x82;
/// A ping, to be answered with its payload.
pub(crate) const PING: u8 = 0x89;
/// The server closes.
pub(crate) const CLOSE: u8 = 0x88;

/// One connection's place in its stream of frames.
#[derive(Debug)]
pub(crate) struct Frames {
    /// The beginning of a frame that was cut: header and up to [`HEAD`] bytes of payload.
    carried: [u8; LONGEST_HEADER + HEAD],
    length: usize,
    /// Payload bytes still to come behind what is carried, all to be passed over.
    left: u64,
}

impl Default for Frames {
    fn default() -> Self {
        Self { carried: [0; LONGEST_HEADER + HEAD], length: 0, left: 0 }
    }
}

/// The lengths of header and payload, if the bytes say that much.
fn lengths(bytes: &[u8]) -> Option<(usize, u64)> {
    Some(match bytes.get(1)? & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    })
}

impl Frames {
    /// Takes the bytes of one read and tells every frame that they complete.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame<'_>)) {
        while !bytes.is_empty() {
            if self.length > 0 {
                bytes = self.resume(bytes, &mut each);
                continue;
            }
            match lengths(bytes) {
                Some((header, payload)) if payload <= (bytes.len() - header) as u64 => {
                    let end = header + payload as usize;
                    each(Frame { first: bytes[0], head: &bytes[header..end] });
                    bytes = &bytes[end..];
                }
                // Cut: from its first byte on it is gathered.
                _ => bytes = self.resume(bytes, &mut each),
            }
        }
    }

    /// Goes on with a frame that was cut, or is; returns what is behind it.
    fn resume<'a>(&mut self, bytes: &'a [u8], each: &mut impl FnMut(Frame<'_>)) -> &'a [u8] {
        let mut rest = bytes;
        if self.left == 0 {
            // Byte by byte until the header is whole: at most ten.
            let (header, payload) = loop {
                if let Some(lengths) = lengths(&self.carried[..self.length]) {
                    break lengths;
                }
                let Some((byte, behind)) = rest.split_first() else { return rest };
                self.carried[self.length] = *byte;
                self.length += 1;
                rest = behind;
            };
            let whole = header + payload.min(HEAD as u64) as usize;
            let more = (whole - self.length).min(rest.len());
            let (taken, behind) = rest.split_at(more);
            self.carried[self.length..self.length + more].copy_from_slice(taken);
            self.length += more;
            rest = behind;
            if self.length < whole {
                return rest;
            }
            self.left = payload - (whole - header) as u64;
        }
        let skipped = self.left.min(rest.len() as u64);
        rest = &rest[skipped as usize..];
        self.left -= skipped;
        if self.left == 0 {
            let header = lengths(&self.carried[..self.length]).map_or(0, |(header, _)| header);
            each(Frame { first: self.carried[0], head: &self.carried[header..self.length] });
            self.length = 0;
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            short @ 0..126 => bytes.push(short as u8),
            long @ 126..65_536 => {
                bytes.push(126);
                bytes.extend((long as u16).to_be_bytes());
            }
            huge => {
                bytes.push(127);
                bytes.extend((huge as u64).to_be_bytes());
            }
        }
        bytes.extend(payload);
        bytes
    }

    /// Fed in pieces; each frame's first byte and the beginning of its payload.
    fn walk(stream: &[u8], pieces: impl IntoIterator<Item = usize>) -> Vec<(u8, Vec<u8>)> {
        let (mut frames, mut found, mut rest) = (Frames::default(), Vec::new(), stream);
        let mut pieces = pieces.into_iter();
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(pieces.next().unwrap_or(usize::MAX).clamp(1, rest.len()));
            frames.feed(piece, |frame| {
                found.push((frame.first, frame.head[..frame.head.len().min(HEAD)].to_vec()));
            });
            rest = behind;
        }
        found
    }

    fn payload(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index % 251) as u8).collect()
    }

    #[test]
    fn a_frame_is_told_once_its_last_byte_is_there() {
        let stream = frame(BINARY, &payload(200_000));
        let mut frames = Frames::default();
        let mut told = 0;
        for chunk in stream[..stream.len() - 1].chunks(65_536) {
            frames.feed(chunk, |_| told += 1);
        }
        assert_eq!(told, 0);
        frames.feed(&stream[stream.len() - 1..], |frame| {
            told += 1;
            assert_eq!(frame.head, payload(HEAD));
        });
        assert_eq!(told, 1);
    }

    proptest! {
        #[test]
        fn where_reads_end_makes_no_difference(
            lengths in proptest::collection::vec(prop_oneof![0_usize..300, 65_000_usize..70_000], 1..8),
            pieces in proptest::collection::vec(prop_oneof![1_usize..20, 1_usize..50_000], 0..200),
        ) {
            let stream: Vec<u8> = lengths.iter().flat_map(|length| frame(BINARY, &payload(*length))).collect();
            let expected: Vec<_> =
                lengths.iter().map(|length| (BINARY, payload((*length).min(HEAD)))).collect();
            prop_assert_eq!(&walk(&stream, []), &expected);
            prop_assert_eq!(&walk(&stream, pieces), &expected);
            prop_assert_eq!(walk(&stream, std::iter::repeat_n(1, 500)), expected);
        }
    }

    #[test]
    fn control_frames_between_packets_are_told_as_such() {
        let stream = [frame(PING, b"hello"), frame(BINARY, b"x"), frame(CLOSE, &[3, 233])].concat();
        for step in 1..stream.len() {
            let found = walk(&stream, std::iter::repeat(step));
            assert_eq!(found, [(PING, b"hello".to_vec()), (BINARY, b"x".to_vec()), (CLOSE, vec![3, 233])], "{step}");
        }
    }
}
