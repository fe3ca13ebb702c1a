//! What one WebSocket frame may be, and what may follow it: RFC 6455 as pure decisions over announced headers.
//!
//! What does not live here: sockets, payloads but for their mask, time.

use crate::ReadError;

/// The longest header: two bytes, eight of length, four of mask.
pub(super) const MAX_HEADER: usize = 14;

/// The longest payload of a control frame (RFC 6455, section 5.5).
pub(super) const MAX_CONTROL: usize = 125;

/// Frames of one message. Without a bound, empty fragments would keep a message open for ever, at our cost and below
/// every limit that counts packets or their bytes; the largest packet in pieces of 1,000 bytes still passes.
pub(super) const MAX_FRAGMENTS: u32 = 4_096;

/// Which end of the connection is reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Reads what clients send: every frame masked.
    Server,
    /// Reads what a server sends: no frame masked.
    Client,
}

/// A frame's header, as announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    fin: bool,
    reserved_bits: bool,
    opcode: u8,
    masked: bool,
    minimal: bool,
    /// What the payload is masked with; zero where it is not.
    pub(super) mask: [u8; 4],
    /// Bytes of payload that follow.
    pub(super) length: u64,
    /// Bytes of the header itself, at most [`MAX_HEADER`].
    pub(super) size: usize,
}

impl Header {
    /// Reads a header from the front of `bytes`; `None` while it is not all there.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let [first, second, rest @ ..] = bytes else { return None };
        let masked = second & 0x80 != 0;
        let (length, extra, minimal) = match second & 0x7f {
            126 => {
                let length = u16::from_be_bytes(*rest.first_chunk()?);
                (u64::from(length), 2, length > 125)
            }
            127 => {
                let length = u64::from_be_bytes(*rest.first_chunk()?);
                (length, 8, length > u64::from(u16::MAX))
            }
            short => (u64::from(short), 0, true),
        };
        let size = 2 + extra + if masked { 4 } else { 0 };
        let mask = if masked { *bytes.get(2 + extra..)?.first_chunk()? } else { [0; 4] };
        (bytes.len() >= size).then_some(Self {
            mask,
            fin: first & 0x80 != 0,
            reserved_bits: first & 0x70 != 0,
            opcode: first & 0x0f,
            masked,
            minimal,
            length,
            size,
        })
    }
}

/// What an announced frame is, once it is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A piece of a packet; the last one where true.
    Data(bool),
    Ping,
    Pong,
    Close,
}

/// Holds a connection's incoming frames to the rules, before their payload is read or room is made for it.
#[derive(Debug)]
pub(super) struct Rules {
    side: Side,
    /// Bytes announced of the message under way.
    bytes: usize,
    /// Frames of the message under way; zero between messages.
    fragments: u32,
    closed: bool,
}

impl Rules {
    pub(super) const fn new(side: Side) -> Self {
        Self { side, bytes: 0, fragments: 0, closed: false }
    }

    pub(super) const fn side(&self) -> Side {
        self.side
    }

    /// Whether a fragmented message has begun and not ended.
    pub(super) const fn amid_message(&self) -> bool {
        self.fragments > 0
    }

    /// Judges the next frame by its header alone; `max_bytes` is for its whole message. After an error the connection is to
    /// be closed.
    pub(super) fn announce(&mut self, header: &Header, max_bytes: usize) -> Result<Kind, ReadError> {
        if self.closed {
            return Err(ReadError::Gone("a frame after the close frame".into()));
        }
        if header.reserved_bits {
            return Err(broken("reserved bits are set, and no extension was agreed on"));
        }
        match (self.side, header.masked) {
            (Side::Server, false) => return Err(broken("a client's frame is not masked")),
            (Side::Client, true) => return Err(broken("a server's frame is masked")),
            _ => {}
        }
        if !header.minimal || header.length > i64::MAX as u64 {
            return Err(broken("a frame's length is not encoded in the shortest form"));
        }
        match header.opcode {
            0x0 if self.fragments == 0 => Err(broken("a continuation of nothing")),
            0x1 | 0x2 if self.fragments > 0 => Err(broken("a new message inside a fragmented one")),
            0x1 => Err(ReadError::Unsupported("text messages are not accepted: send packets as binary messages")),
            0x0 | 0x2 => self.data(header, max_bytes),
            opcode @ 0x8..=0xa => {
                if !header.fin {
                    return Err(broken("a control frame is fragmented"));
                }
                if header.length > MAX_CONTROL as u64 {
                    return Err(broken("a control frame is longer than 125 bytes"));
                }
                Ok(match opcode {
                    0x8 => {
                        self.closed = true;
                        Kind::Close
                    }
                    0x9 => Kind::Ping,
                    _ => Kind::Pong,
                })
            }
            _ => Err(broken("a reserved opcode")),
        }
    }

    fn data(&mut self, header: &Header, max_bytes: usize) -> Result<Kind, ReadError> {
        // The bound may have been lowered since the message began.
        if self.bytes as u64 + header.length > max_bytes as u64 {
            return Err(ReadError::TooLarge(max_bytes));
        }
        if self.fragments == MAX_FRAGMENTS {
            return Err(broken("a message in too many fragments"));
        }
        if header.fin {
            (self.bytes, self.fragments) = (0, 0);
        } else {
            self.bytes += header.length as usize; // at most `max_bytes`, checked above
            self.fragments += 1;
        }
        Ok(Kind::Data(header.fin))
    }
}

fn broken(what: &str) -> ReadError {
    ReadError::Protocol(what.into())
}

/// The code in a close frame's payload, or what is wrong with it (RFC 6455, sections 5.5.1 and 7.4).
pub(super) fn close_code(payload: &[u8]) -> Result<Option<u16>, ReadError> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(broken("a close frame with half a code")),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(broken("a close frame with a code that must not be sent"));
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(broken("a close frame whose reason is not UTF-8"));
    }
    Ok(Some(code))
}

/// The payload of a close frame; the reason is cut at a character's edge to what fits.
pub(super) fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let mut end = reason.len().min(MAX_CONTROL - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = Vec::with_capacity(2 + end);
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    payload
}

/// Opcodes that this side writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

/// Appends one whole frame to `out`; a client passes its masking key, a server `None`.
pub(super) fn encode(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    out.reserve(MAX_HEADER + payload.len());
    out.push(0x80 | opcode as u8);
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        length @ 0..=125 => out.push(mask_bit | length as u8),
        length @ 126..=65_535 => {
            out.push(mask_bit | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(mask_bit | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if let Some(mask) = mask {
        out.extend_from_slice(&mask);
    }
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        unmask(&mut out[start..], mask); // masking is its own inverse
    }
}

/// Takes the mask off a payload, or puts it on (RFC 6455, section 5.3): eight bytes at a time, which the compiler makes more.
pub fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
