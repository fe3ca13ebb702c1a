//! WebSocket frames in a buffer: where one ends, what it holds, and the same frame as a server sends it.
//!
//! What does not live here: sockets, and rules of the protocol beyond what is needed to find the next frame.

/// A frame as a client sends it: found in a buffer, not yet unmasked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The first byte: FIN, reserved bits, opcode.
    pub first: u8,
    /// Bytes before the payload, the masking key included.
    pub header: usize,
    /// Bytes of payload.
    pub payload: usize,
    /// The masking key; zero where the frame is not masked.
    pub key: [u8; 4],
}

impl Frame {
    /// Finds the frame at the front of `bytes`; `None` while its header is not all there.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [first, second, rest @ ..] = bytes else { return None };
        let (payload, extra) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 2),
            127 => (u64::from_be_bytes(*rest.first_chunk()?), 8),
            short => (u64::from(short), 0),
        };
        let payload = usize::try_from(payload).unwrap_or(usize::MAX / 2).min(usize::MAX / 2);
        let mut frame = Self { first: *first, header: 2 + extra, payload, key: [0; 4] };
        if second & 0x80 != 0 {
            frame.key = *rest.get(extra..)?.first_chunk()?;
            frame.header += 4;
        }
        Some(frame)
    }

    /// Bytes of the whole frame.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.header + self.payload
    }

    /// Whether it is a ping, a pong or a close.
    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.first & 0x08 != 0
    }
}

/// Writes a server's header for `payload` bytes to the front of `out`, which has room for ten; returns the header's length.
pub fn put_header(out: &mut [u8], first: u8, payload: usize) -> usize {
    out[0] = first;
    match payload {
        0..=125 => {
            out[1] = payload as u8;
            2
        }
        126..=65_535 => {
            out[1] = 126;
            out[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
            4
        }
        _ => {
            out[1] = 127;
            out[2..10].copy_from_slice(&(payload as u64).to_be_bytes());
            10
        }
    }
}

/// Writes the unmasked bytes of `masked` to `out`, which is as long, eight bytes at a time.
pub fn unmask(out: &mut [u8], masked: &[u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = masked.chunks_exact(8);
    let mut into = out.chunks_exact_mut(8);
    for (word, out) in (&mut words).zip(&mut into) {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        out.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
    }
    let rest = words.remainder().iter().zip(into.into_remainder());
    for (index, (byte, out)) in rest.enumerate() {
        *out = byte ^ key[index % 4];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame as a client makes it.
    fn masked(payload: &[u8], key: [u8; 4]) -> Vec<u8> {
        let mut header = [0; 10];
        let length = put_header(&mut header, 0x82, payload.len());
        header[1] |= 0x80;
        let mut bytes = header[..length].to_vec();
        bytes.extend_from_slice(&key);
        bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ key[index % 4]));
        bytes
    }

    #[test]
    fn a_masked_frame_of_any_length_comes_out_as_a_servers_frame() {
        for length in [0, 1, 7, 8, 9, 125, 126, 1_200, 65_535, 65_536, 100_003] {
            let payload: Vec<u8> = (0..length).map(|index: usize| (index * 31 + 7) as u8).collect();
            let bytes = masked(&payload, [1, 2, 3, 4]);
            let frame = Frame::parse(&bytes).unwrap();
            assert_eq!(frame.length(), bytes.len());
            assert_eq!((frame.first, frame.payload, frame.is_control()), (0x82, length, false));
            let mut out = vec![0; 10 + length];
            let header = put_header(&mut out, frame.first, frame.payload);
            unmask(&mut out[header..header + length], &bytes[frame.header..], frame.key);
            assert_eq!(out[header..header + length], payload[..]);
            let again = Frame::parse(&out).unwrap();
            assert_eq!((again.header, again.payload, again.key), (header, length, [0; 4]));
        }
    }

    #[test]
    fn a_header_that_is_not_all_there_is_no_frame_yet() {
        for length in [5, 1_000, 70_000] {
            let bytes = masked(&vec![9; length], [1, 2, 3, 4]);
            let header = Frame::parse(&bytes).unwrap().header;
            for cut in 0..header {
                assert_eq!(Frame::parse(&bytes[..cut]), None, "{cut} bytes of a header of {header}");
            }
        }
    }
}
