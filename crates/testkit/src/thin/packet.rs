//! Encrypted media, as far as the router can tell, of which receivers know what it is and when it was sent.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use prost::Message;
use roomcast_protocol::seed::packet_wrapper::PacketType;
use roomcast_protocol::seed::{MediaHint, PacketWrapper, media_hint};

/// No parser takes this for the beginning of a message.
const MARK: [u8; 4] = [0xff; 4];
const HEAD: usize = 4 + 4 + 4 + 1 + 8;

/// What a packet is, as its sender knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sound.
    Audio,
    /// A frame that needs the one before it.
    Delta,
    /// A frame that stands alone.
    Key,
}

/// What the router is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lettering {
    /// A hint says what it is.
    Hinted,
    /// Nothing does but its size.
    BySize,
}

/// One packet of media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Which sender's.
    pub sender: u32,
    /// Counts each sender's packets of all kinds.
    pub number: u32,
    /// What it is.
    pub kind: Kind,
    /// When it was sent, in microseconds of the machine's clock, which all processes on it share.
    pub sent: u64,
}

/// Microseconds of the machine's clock.
///
/// # Panics
/// Before 1970.
#[must_use]
pub fn now_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_micros() as u64
}

/// A packet of this many bytes of data.
#[must_use]
pub fn make(user: &str, picture: Picture, lettering: Lettering, bytes: usize) -> Bytes {
    let mut data = Vec::with_capacity(bytes);
    data.extend(MARK);
    data.extend(picture.sender.to_le_bytes());
    data.extend(picture.number.to_le_bytes());
    data.push(picture.kind as u8);
    data.extend(picture.sent.to_le_bytes());
    data.resize(bytes.max(HEAD), 0xa5);
    let hint = (lettering == Lettering::Hinted).then(|| MediaHint {
        kind: match picture.kind {
            Kind::Audio => media_hint::Kind::Audio,
            Kind::Delta | Kind::Key => media_hint::Kind::Video,
        }
        .into(),
        key_frame: picture.kind == Kind::Key,
        ..MediaHint::default()
    });
    let wrapper = PacketWrapper { packet_type: PacketType::Media.into(), email: user.to_owned(), data, hint };
    wrapper.encode_to_vec().into()
}

/// Reads a packet that was received; `None` where it is none of these.
#[must_use]
pub fn read(bytes: &[u8]) -> Option<Picture> {
    let data = PacketWrapper::decode(bytes).ok()?.data;
    let rest = data.strip_prefix(&MARK)?;
    let number = |at: usize| Some(u32::from_le_bytes(rest.get(at..at + 4)?.try_into().ok()?));
    let kind = match rest.get(8)? {
        0 => Kind::Audio,
        1 => Kind::Delta,
        2 => Kind::Key,
        _ => return None,
    };
    let sent = u64::from_le_bytes(rest.get(9..17)?.try_into().ok()?);
    Some(Picture { sender: number(0)?, number: number(4)?, kind, sent })
}

#[cfg(test)]
mod tests {
    use roomcast_protocol::{Class, Dialect, SessionId, peek};

    use super::*;

    #[test]
    fn a_packet_is_what_the_router_takes_it_for() {
        let tag = |kind, lettering, bytes| {
            let picture = Picture { sender: 2, number: 70_000, kind, sent: 1 << 50 };
            let packet = make("anna", picture, lettering, bytes);
            assert_eq!(read(&packet), Some(picture));
            peek(Dialect::Seed, &packet).unwrap().tag(SessionId(1), packet.len()).class
        };
        assert_eq!(tag(Kind::Audio, Lettering::Hinted, 100), Class::Audio);
        assert_eq!(tag(Kind::Audio, Lettering::BySize, 100), Class::Audio);
        assert_eq!(tag(Kind::Delta, Lettering::Hinted, 2_500), Class::Delta);
        assert_eq!(tag(Kind::Key, Lettering::Hinted, 10_000), Class::KeyFrame);
        assert_eq!(tag(Kind::Delta, Lettering::BySize, 2_500), Class::Opaque);
    }
}
