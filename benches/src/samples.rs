//! Packets as clients send them, in both dialects, with and without a hint.

use prost::Message;
use roomcast_protocol::{Dialect, seed, sessions};

/// Who all of them say they are from.
pub const USER: &str = "ann@example";

/// What a packet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    /// A piece of sound.
    Audio,
    /// A video frame that stands alone.
    KeyFrame,
    /// A video frame that does not.
    Delta,
}

/// A packet of about `bytes` bytes in the clear; with `hint`, its content cannot be read and a MediaHint says what it is.
#[must_use]
pub fn packet(dialect: Dialect, media: Media, bytes: usize, hint: bool) -> Vec<u8> {
    let content = |padding: usize| match dialect {
        Dialect::Seed => seed_packet(media, padding, hint),
        Dialect::Sessions => sessions_packet(media, padding, hint),
    };
    let least = content(0).len();
    content(bytes.saturating_sub(least))
}

/// What encryption leaves: bytes that are no message.
fn opaque(padding: usize) -> Vec<u8> {
    vec![0xff; padding.max(16)]
}

fn seed_packet(media: Media, padding: usize, hint: bool) -> Vec<u8> {
    use seed::media_packet::MediaType;
    let (kind, frame_type) = match media {
        Media::Audio => (MediaType::Audio, "key"),
        Media::KeyFrame => (MediaType::Video, "key"),
        Media::Delta => (MediaType::Video, "delta"),
    };
    let clear = || {
        seed::MediaPacket {
            media_type: kind.into(),
            email: USER.to_owned(),
            data: vec![0x55; padding],
            frame_type: frame_type.to_owned(),
            timestamp: 1.0,
            duration: 20.0,
            ..Default::default()
        }
        .encode_to_vec()
    };
    seed::PacketWrapper {
        packet_type: seed::packet_wrapper::PacketType::Media.into(),
        email: USER.to_owned(),
        data: if hint { opaque(padding) } else { clear() },
        hint: hint.then(|| seed::MediaHint {
            kind: if media == Media::Audio { 1 } else { 2 },
            key_frame: media == Media::KeyFrame,
            stream: 1,
            layer: 0,
        }),
    }
    .encode_to_vec()
}

fn sessions_packet(media: Media, padding: usize, hint: bool) -> Vec<u8> {
    use sessions::media_packet::MediaType;
    let (kind, frame_type) = match media {
        Media::Audio => (MediaType::Audio, "key"),
        Media::KeyFrame => (MediaType::Video, "key"),
        Media::Delta => (MediaType::Video, "delta"),
    };
    let clear = || {
        sessions::MediaPacket {
            media_type: kind.into(),
            data: vec![0x55; padding],
            frame_type: frame_type.to_owned(),
            timestamp: 1.0,
            duration: 20.0,
            ..Default::default()
        }
        .encode_to_vec()
    };
    sessions::PacketWrapper {
        packet_type: sessions::packet_wrapper::PacketType::Media.into(),
        user_id: USER.as_bytes().to_vec(),
        data: if hint { opaque(padding) } else { clear() },
        session_id: 0,
        hint: hint.then(|| sessions::MediaHint {
            kind: if media == Media::Audio { 1 } else { 2 },
            key_frame: media == Media::KeyFrame,
            stream: 1,
            layer: 0,
        }),
    }
    .encode_to_vec()
}

#[cfg(test)]
mod tests {
    use roomcast_protocol::{Class, SessionId, peek};

    use super::*;

    #[test]
    fn each_sample_is_taken_for_what_it_is_and_has_its_size() {
        for dialect in [Dialect::Seed, Dialect::Sessions] {
            for (media, class) in
                [(Media::Audio, Class::Audio), (Media::KeyFrame, Class::KeyFrame), (Media::Delta, Class::Delta)]
            {
                for (hint, bytes) in [(false, 160), (true, 160), (false, 1_200), (true, 30_000)] {
                    let packet = packet(dialect, media, bytes, hint);
                    let header = peek(dialect, &packet).unwrap();
                    assert_eq!(header.user, USER.as_bytes());
                    assert_eq!(header.tag(SessionId(1), packet.len()).class, class);
                    assert!(packet.len().abs_diff(bytes) <= 16, "{} bytes instead of {bytes}", packet.len());
                }
            }
        }
    }
}
