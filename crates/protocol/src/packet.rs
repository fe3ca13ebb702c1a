//! A packet on its way through the node: allocated once, framed once, shared by all recipients.
//!
//! What lives here: the bytes and the little that the media path must know of them. What does not: any decision.

use std::sync::Arc;

use crate::SessionId;

/// Room before the payload for a server's WebSocket header (2, 4 or 10 bytes: a server's frames are unmasked).
pub const HEADROOM: usize = 10;

/// What the media path calls a packet when it must choose. Ordered: what compares lower is dropped first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// A video or screen frame that needs those before it.
    Delta,
    /// Media that the router cannot read and that is too large for audio.
    Opaque,
    /// A video or screen frame that stands alone.
    KeyFrame,
    /// Audio, or unreadable media small enough to be audio.
    Audio,
    /// Everything else: key exchange, meeting events, heartbeats.
    Control,
}

impl Class {
    /// All classes, in the order of their discriminants; `ALL[c as usize] == c`.
    pub const ALL: [Self; 5] = [Self::Delta, Self::Opaque, Self::KeyFrame, Self::Audio, Self::Control];

    /// The value of the metrics label `class`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Delta => "delta",
            Self::Opaque => "opaque",
            Self::KeyFrame => "key_frame",
            Self::Audio => "audio",
            Self::Control => "control",
        }
    }
}

/// What the media path remembers of a packet besides its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The session it came from; never delivered back to it.
    pub sender: SessionId,
    /// What goes first when a queue is full.
    pub class: Class,
    /// Which of the sender's video streams this belongs to: deltas depend on earlier packets of the same flow only.
    pub flow: u32,
}

/// An immutable packet, framed for WebSocket. Cloning shares the bytes.
#[derive(Clone)]
pub struct Packet {
    bytes: Arc<[u8]>,
    /// Where the WebSocket frame starts in `bytes`.
    frame: u8,
    tag: Tag,
}

impl Packet {
    /// What the media path knows of it.
    #[must_use]
    pub fn tag(&self) -> &Tag {
        &self.tag
    }

    /// The serialized `PacketWrapper`.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADROOM..]
    }

    /// The payload behind an unmasked binary WebSocket header, ready to be written.
    #[must_use]
    pub fn websocket_frame(&self) -> &[u8] {
        &self.bytes[usize::from(self.frame)..]
    }
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packet").field("tag", &self.tag).field("len", &self.payload().len()).finish()
    }
}

/// Where a reader gathers one packet's bytes; kept per connection and used again.
#[derive(Debug)]
pub struct PacketBuffer {
    bytes: Vec<u8>,
}

impl Default for PacketBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl PacketBuffer {
    /// An empty buffer, which allocates on first use.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Forgets the content; gives back memory that only a rare large packet needed.
    pub fn clear(&mut self) {
        const KEEP: usize = 16 * 1024;
        if self.bytes.capacity() > KEEP {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
    }

    /// Appends payload bytes.
    pub fn extend(&mut self, chunk: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes.reserve(HEADROOM + chunk.len());
            self.bytes.extend_from_slice(&[0; HEADROOM]);
        }
        self.bytes.extend_from_slice(chunk);
    }

    /// Appends payload bytes and lets `change` work on their copy, such as to unmask them.
    pub fn extend_with(&mut self, chunk: &[u8], change: impl FnOnce(&mut [u8])) {
        self.extend(chunk);
        let start = self.bytes.len() - chunk.len();
        change(&mut self.bytes[start..]);
    }

    /// The payload gathered so far.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(HEADROOM..).unwrap_or_default()
    }

    /// Makes the packet, with one allocation, and clears the buffer. `stamp`, where given, is appended as
    /// `PacketWrapper.session_id` (field 4): protobuf takes a field's last value. It adds at most 11 bytes, which are not
    /// counted against [`MAX_PACKET_BYTES`](crate::MAX_PACKET_BYTES).
    ///
    /// The buffer's own memory stays with it, so the allocation here is the packet's and holds not a byte too many.
    pub fn seal(&mut self, tag: Tag, stamp: Option<SessionId>) -> Packet {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&[0; HEADROOM]);
        }
        if let Some(SessionId(mut rest)) = stamp {
            self.bytes.push(4 << 3);
            while rest >= 0x80 {
                self.bytes.push((rest as u8) | 0x80);
                rest >>= 7;
            }
            self.bytes.push(rest as u8);
        }
        let length = self.bytes.len() - HEADROOM;
        let frame = match length {
            0..=125 => {
                self.bytes[8..HEADROOM].copy_from_slice(&[0x82, length as u8]);
                8
            }
            126..=65_535 => {
                self.bytes[6..8].copy_from_slice(&[0x82, 126]);
                self.bytes[8..HEADROOM].copy_from_slice(&(length as u16).to_be_bytes());
                6
            }
            _ => {
                self.bytes[0..2].copy_from_slice(&[0x82, 127]);
                self.bytes[2..HEADROOM].copy_from_slice(&(length as u64).to_be_bytes());
                0
            }
        };
        let packet = Packet { bytes: Arc::from(self.bytes.as_slice()), frame, tag };
        self.clear();
        packet
    }
}
