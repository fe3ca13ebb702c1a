//! What the router reads of a packet: its kind, who it says it is from, and what media it carries.
//!
//! Nothing is copied and nothing is allocated. What follows from it (drop, relay, stamp) is decided elsewhere. The whole
//! packet is checked on the way, so that no other node or client has to cope with one that does not parse.

use crate::wire::{Malformed, Reader};
use crate::{Class, Dialect, SessionId, Tag};

/// The largest packet whose unreadable media is taken for audio, in bytes.
///
/// 20 ms of Opus at 128 kbit/s are 320 bytes; what stands around them (its metadata, padding, two names of usual length)
/// is under 190. A picture that small is worth as little as it costs to keep.
pub const MAX_OPAQUE_AUDIO_BYTES: usize = 512;

/// What a packet is, in either dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketKind {
    /// A public key, in the clear.
    RsaPubKey,
    /// A symmetric key, for one receiver.
    AesKey,
    /// Media and what is sent like it: see [`Media`].
    Media,
    /// A client's wish to join.
    Connection,
    /// How well one client receives another.
    Diagnostics,
    /// A client's report to the server.
    Health,
    /// An event of the room, made by a server.
    Meeting,
    /// A client's own session, told by a server.
    SessionAssigned,
    /// A sender's packets were dropped for a receiver.
    Congestion,
    /// A number that the dialect does not have, or that says "unknown" (`sessions`: 0).
    Unknown(i32),
}

impl PacketKind {
    /// What a number in `PacketWrapper.packet_type` means.
    #[must_use]
    pub const fn from_number(dialect: Dialect, number: i32) -> Self {
        match (dialect, number) {
            (Dialect::Seed, 0) | (Dialect::Sessions, 1) => Self::RsaPubKey,
            (Dialect::Seed, 1) | (Dialect::Sessions, 2) => Self::AesKey,
            (Dialect::Seed, 2) | (Dialect::Sessions, 3) => Self::Media,
            (Dialect::Seed, 3) | (Dialect::Sessions, 4) => Self::Connection,
            (Dialect::Sessions, 5) => Self::Diagnostics,
            (Dialect::Sessions, 6) => Self::Health,
            (Dialect::Sessions, 7) => Self::Meeting,
            (Dialect::Sessions, 8) => Self::SessionAssigned,
            (Dialect::Sessions, 9) => Self::Congestion,
            (_, number) => Self::Unknown(number),
        }
    }
}

/// What a piece of media is, in either dialect or by its hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaKind {
    /// A camera's frame.
    Video,
    /// Sound.
    Audio,
    /// A shared screen's frame.
    Screen,
    /// A sign of life.
    Heartbeat,
    /// A probe that the server echoes.
    Rtt,
    /// A wish for a key frame.
    KeyframeRequest,
    /// By its hint only: something that is neither sound nor picture.
    Control,
    /// A number that the dialect does not have, or that says "unknown" (`sessions`: 0).
    Unknown(i32),
}

impl MediaKind {
    /// What a number in `MediaPacket.media_type` means.
    #[must_use]
    pub const fn from_number(dialect: Dialect, number: i32) -> Self {
        match (dialect, number) {
            (Dialect::Seed, 0) | (Dialect::Sessions, 1) => Self::Video,
            (Dialect::Seed, 1) | (Dialect::Sessions, 2) => Self::Audio,
            (Dialect::Seed, 2) | (Dialect::Sessions, 3) => Self::Screen,
            (Dialect::Seed, 3) | (Dialect::Sessions, 4) => Self::Heartbeat,
            (Dialect::Sessions, 5) => Self::Rtt,
            (Dialect::Sessions, 6) => Self::KeyframeRequest,
            (_, number) => Self::Unknown(number),
        }
    }

    /// What a number in `MediaHint.kind` means; `None` for UNSPECIFIED.
    #[must_use]
    pub const fn from_hint(number: i32) -> Option<Self> {
        Some(match number {
            0 => return None,
            1 => Self::Audio,
            2 => Self::Video,
            3 => Self::Screen,
            4 => Self::Control,
            number => Self::Unknown(number),
        })
    }
}

/// What media a packet carries, as far as the router can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Media {
    /// The packet is not of kind [`PacketKind::Media`].
    None,
    /// No hint, and `data` is empty or does not parse: encrypted, most likely.
    Opaque,
    /// The hint tells, or else `data` parses.
    Known {
        /// What it is.
        kind: MediaKind,
        /// Whether it says that it stands alone: the hint's flag, or a `frame_type` of exactly `key`. Audio may say so too.
        key_frame: bool,
        /// The hint's stream; 0 without a hint.
        stream: u32,
        /// The hint's layer; 0 without a hint.
        layer: u32,
        /// Told by the hint; `data` was not looked at.
        hinted: bool,
    },
}

/// What the router reads of a packet, borrowed from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// What the packet is.
    pub kind: PacketKind,
    /// Who the packet says it is from; UTF-8 in the `seed` dialect, any bytes in `sessions`. Empty where absent.
    pub user: &'a [u8],
    /// `PacketWrapper.session_id` as the client wrote it; 0 where absent, and always in the `seed` dialect.
    pub session_id: u64,
    /// What media it carries.
    pub media: Media,
}

impl Header<'_> {
    /// What the media path must know of this packet. `len` is the packet's size in bytes.
    #[must_use]
    pub fn tag(&self, sender: SessionId, len: usize) -> Tag {
        let by_size = if len <= MAX_OPAQUE_AUDIO_BYTES { Class::Audio } else { Class::Opaque };
        let (class, flow) = match self.media {
            Media::None => (Class::Control, 0),
            Media::Opaque => (by_size, 0),
            Media::Known { kind, key_frame, stream, layer, .. } => {
                let picture = if key_frame { Class::KeyFrame } else { Class::Delta };
                match kind {
                    MediaKind::Video => (picture, flow(1, stream, layer)),
                    MediaKind::Screen => (picture, flow(2, stream, layer)),
                    MediaKind::Audio => (Class::Audio, 0),
                    MediaKind::Heartbeat | MediaKind::Rtt | MediaKind::KeyframeRequest | MediaKind::Control => {
                        (Class::Control, 0)
                    }
                    // Not control: a number that nobody knows must not be a way around the drops.
                    MediaKind::Unknown(_) => (by_size, 0),
                }
            }
        };
        Tag { sender, class, flow }
    }
}

/// Names one of a sender's video streams in 32 bits: 2 of the kind, 8 of the layer, 22 of the stream. Numbers too large
/// wrap around; two streams that then share a flow lose their deltas together, which costs quality and nothing else. 0 is
/// no picture.
const fn flow(kind: u32, stream: u32, layer: u32) -> u32 {
    kind << 30 | (layer & 0xff) << 22 | stream & 0x3f_ffff
}

/// Reads a packet's header.
///
/// # Errors
///
/// [`Malformed`] where the wrapper does not parse to its last byte, by the rules of every protobuf parser, or holds a
/// group. `data` may be anything.
pub fn peek(dialect: Dialect, packet: &[u8]) -> Result<Header<'_>, Malformed> {
    let mut reader = Reader::new(packet);
    let mut number = 0;
    let mut user: &[u8] = &[];
    let mut data: &[u8] = &[];
    let mut session_id = 0;
    let mut hint = Hint::default();
    // Of a repeated field the last one counts, but a repeated message is merged field by field.
    while let Some(field) = reader.field()? {
        match field.number {
            1 => number = reader.varint(field)? as i32,
            2 => {
                user = match dialect {
                    Dialect::Seed => reader.text(field)?.as_bytes(),
                    Dialect::Sessions => reader.bytes(field)?,
                }
            }
            3 => data = reader.bytes(field)?,
            4 if dialect == Dialect::Sessions => session_id = reader.varint(field)?,
            15 => hint.merge(reader.bytes(field)?)?,
            _ => reader.skip(field)?,
        }
    }
    let kind = PacketKind::from_number(dialect, number);
    let media = if kind == PacketKind::Media { media(dialect, data, hint) } else { Media::None };
    Ok(Header { kind, user, session_id, media })
}

/// `MediaHint`, field by field.
#[derive(Clone, Copy, Default)]
struct Hint {
    kind: i32,
    key_frame: bool,
    stream: u32,
    layer: u32,
}

impl Hint {
    fn merge(&mut self, message: &[u8]) -> Result<(), Malformed> {
        let mut reader = Reader::new(message);
        while let Some(field) = reader.field()? {
            match field.number {
                1 => self.kind = reader.varint(field)? as i32,
                2 => self.key_frame = reader.varint(field)? != 0,
                3 => self.stream = reader.varint(field)? as u32,
                4 => self.layer = reader.varint(field)? as u32,
                _ => reader.skip(field)?,
            }
        }
        Ok(())
    }
}

fn media(dialect: Dialect, data: &[u8], hint: Hint) -> Media {
    if let Some(kind) = MediaKind::from_hint(hint.kind) {
        let Hint { key_frame, stream, layer, .. } = hint;
        return Media::Known { kind, key_frame, stream, layer, hinted: true };
    }
    // No bytes at all would parse as the zero value, which is VIDEO in one dialect; but they tell nothing.
    if data.is_empty() {
        return Media::Opaque;
    }
    match media_packet(dialect, data) {
        Ok((number, key_frame)) => {
            let kind = MediaKind::from_number(dialect, number);
            Media::Known { kind, key_frame, stream: 0, layer: 0, hinted: false }
        }
        Err(_) => Media::Opaque,
    }
}

/// `MediaPacket`'s type and whether it says that it is a key frame. All of it is checked, since ciphertext can begin like a message.
fn media_packet(dialect: Dialect, data: &[u8]) -> Result<(i32, bool), Malformed> {
    let mut reader = Reader::new(data);
    let mut number = 0;
    let mut key_frame = false;
    while let Some(field) = reader.field()? {
        match field.number {
            1 => number = reader.varint(field)? as i32,
            2 if dialect == Dialect::Seed => _ = reader.text(field)?,
            2 | 3 => _ = reader.bytes(field)?,
            4 => key_frame = reader.text(field)? == "key",
            5 | 6 => reader.double(field)?,
            7 => audio_metadata(dialect, reader.bytes(field)?)?,
            8 => varints(reader.bytes(field)?, if dialect == Dialect::Seed { 1 } else { 2 })?,
            9 if dialect == Dialect::Sessions => varints(reader.bytes(field)?, 4)?,
            _ => reader.skip(field)?,
        }
    }
    Ok((number, key_frame))
}

/// Checks an `AudioMetadata`.
fn audio_metadata(dialect: Dialect, message: &[u8]) -> Result<(), Malformed> {
    let mut reader = Reader::new(message);
    while let Some(field) = reader.field()? {
        match field.number {
            1 => _ = reader.text(field)?,
            2 | 3 => _ = reader.varint(field)?,
            4 => reader.float(field)?,
            5 if dialect == Dialect::Sessions => _ = reader.varint(field)?,
            _ => reader.skip(field)?,
        }
    }
    Ok(())
}

/// Checks a message whose fields 1 to `last` are all integers: `VideoMetadata`, `HeartbeatMetadata`.
fn varints(message: &[u8], last: u32) -> Result<(), Malformed> {
    let mut reader = Reader::new(message);
    while let Some(field) = reader.field()? {
        match field.number <= last {
            true => _ = reader.varint(field)?,
            false => reader.skip(field)?,
        }
    }
    Ok(())
}
