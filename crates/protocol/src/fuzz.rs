//! What must hold for any bytes: checked by the fuzz targets, and by their bounded runs on a stable toolchain.
//!
//! The measure for the peek is the full decoder, plus a walk for groups, which the full decoder passes over. Each check
//! panics where its invariant is broken. Not for the media path: it decodes and copies everything.

use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};

use crate::{
    Class, ClusterSubject, Dialect, Header, Lobby, LobbyError, Media, MediaKind, PacketBuffer, PacketKind, RoomSubject,
    Sender, ServerSubject, SessionId, Subject, Tag, peek, seed, sessions,
};

/// The peek accepts what the full decoder accepts and reads what it reads, in both dialects.
pub fn check_peek(bytes: &[u8]) {
    for dialect in [Dialect::Seed, Dialect::Sessions] {
        let peeked = peek(dialect, bytes);
        let decoded = decode(dialect, bytes);
        match (&peeked, &decoded) {
            (Ok(header), Some(full)) => {
                assert_eq!(header.kind, PacketKind::from_number(dialect, full.packet_type), "{dialect:?}");
                assert_eq!(header.user, full.user, "{dialect:?}");
                assert_eq!(header.session_id, full.session_id, "{dialect:?}");
                assert_eq!(header.media, full.media, "{dialect:?}");
                check_tag(header, bytes.len());
                check_stamp(dialect, header, bytes);
            }
            (Err(_), None) => {}
            _ => panic!("{dialect:?}: the peek says {peeked:?}, the full decoder {decoded:?}"),
        }
    }
}

/// The parser takes any text, and what it accepts it gives back.
pub fn check_lobby(bytes: &[u8]) {
    let target = String::from_utf8_lossy(bytes);
    match Lobby::parse(&target) {
        Ok(lobby) => {
            assert_eq!(Lobby::parse(&lobby.target()).as_ref(), Ok(&lobby));
            check_room_subjects(&lobby);
        }
        Err(error @ LobbyError::NotLobby) => assert_eq!(error.status(), 404),
        Err(error) => assert_eq!(error.status(), 400),
    }
    // The same text as a subject: what is understood is written back as it was.
    if let Ok(subject) = ServerSubject::parse(&target) {
        let again = match &subject {
            ServerSubject::Health(server) => Subject::health(server),
            ServerSubject::Connections(server) => Subject::connections(server),
        };
        assert_eq!(again.as_str(), target);
    }
    if let Ok(subject) = ClusterSubject::parse(&target) {
        let again = match &subject {
            ClusterSubject::Presence(node) => Subject::presence(node),
            ClusterSubject::Roster(node) => Subject::roster(node),
            ClusterSubject::Sync(node) => Subject::sync(node),
        };
        assert_eq!(again.as_str(), target);
    }
    if let Ok(subject) = RoomSubject::parse(&target)
        && let Ok(room) = subject.room()
    {
        let again = match subject.sender() {
            Sender::Session(session) => Subject::session(&room, session).into_string(),
            Sender::System => Subject::system(&room).into_string(),
            Sender::Foreign(name) => format!("room.{}.{name}", room.key()),
        };
        assert_eq!(again, target);
    }
}

fn check_room_subjects(lobby: &Lobby) {
    let subject = Subject::session(&lobby.room, SessionId(7));
    assert_eq!(subject.as_str().split('.').count(), 3, "a name adds no level");
    assert!(subject.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-%.".contains(&byte)));
    let parsed = RoomSubject::parse(subject.as_str()).expect("what is formatted parses");
    assert!(parsed.is_in(&lobby.room));
    assert_eq!(parsed.room().as_ref(), Ok(&lobby.room));
    assert_eq!(parsed.sender(), Sender::Session(SessionId(7)));
}

/// What is not media is never dropped before media, and only pictures depend on what was before them.
fn check_tag(header: &Header<'_>, len: usize) {
    let tag = header.tag(SessionId(1), len);
    assert_eq!(tag.sender, SessionId(1));
    if header.kind != PacketKind::Media {
        assert_eq!((header.media, tag.class), (Media::None, Class::Control));
    }
    assert_eq!(tag.flow != 0, matches!(tag.class, Class::Delta | Class::KeyFrame));
}

/// A stamp replaces whatever session the client wrote, and changes nothing else.
fn check_stamp(dialect: Dialect, header: &Header<'_>, bytes: &[u8]) {
    let mut buffer = PacketBuffer::new();
    buffer.extend(bytes);
    let stamp = SessionId(0x1f_ffff_ffff_ffff);
    let packet = buffer.seal(Tag { sender: stamp, class: Class::Control, flow: 0 }, Some(stamp));
    let stamped = peek(dialect, packet.payload()).expect("a stamp is one more field");
    let expected = if dialect == Dialect::Sessions { stamp.0 } else { 0 };
    assert_eq!(stamped, Header { session_id: expected, ..*header });
}

#[derive(Debug)]
struct Full {
    packet_type: i32,
    user: Vec<u8>,
    session_id: u64,
    media: Media,
}

/// The header by way of the full decoder; `None` where it refuses or finds a group.
fn decode(dialect: Dialect, bytes: &[u8]) -> Option<Full> {
    let (packet_type, user, session_id, data, hint) = match dialect {
        Dialect::Seed => {
            let wrapper = seed::PacketWrapper::decode(bytes).ok()?;
            let hint = wrapper.hint.map(|hint| (hint.kind, hint.key_frame, hint.stream, hint.layer));
            (wrapper.packet_type, wrapper.email.into_bytes(), 0, wrapper.data, hint)
        }
        Dialect::Sessions => {
            let wrapper = sessions::PacketWrapper::decode(bytes).ok()?;
            let hint = wrapper.hint.map(|hint| (hint.kind, hint.key_frame, hint.stream, hint.layer));
            (wrapper.packet_type, wrapper.user_id, wrapper.session_id, wrapper.data, hint)
        }
    };
    if has_group(bytes, &[15]) {
        return None;
    }
    let media = if PacketKind::from_number(dialect, packet_type) != PacketKind::Media {
        Media::None
    } else if let Some((kind, key_frame, stream, layer)) = hint
        && kind != 0
    {
        let kind = MediaKind::from_hint(kind).expect("not UNSPECIFIED");
        Media::Known { kind, key_frame, stream, layer, hinted: true }
    } else {
        decode_media(dialect, &data)
    };
    Some(Full { packet_type, user, session_id, media })
}

fn decode_media(dialect: Dialect, data: &[u8]) -> Media {
    let decoded = match dialect {
        Dialect::Seed => seed::MediaPacket::decode(data).map(|media| (media.media_type, media.frame_type)),
        Dialect::Sessions => sessions::MediaPacket::decode(data).map(|media| (media.media_type, media.frame_type)),
    };
    let nested: &[u32] = if dialect == Dialect::Seed { &[7, 8] } else { &[7, 8, 9] };
    match decoded {
        Ok((number, frame_type)) if !data.is_empty() && !has_group(data, nested) => {
            let kind = MediaKind::from_number(dialect, number);
            Media::Known { kind, key_frame: frame_type == "key", stream: 0, layer: 0, hinted: false }
        }
        _ => Media::Opaque,
    }
}

/// Whether a message that the full decoder took holds a group, in itself or in a field of `nested`.
fn has_group(mut message: &[u8], nested: &[u32]) -> bool {
    while !message.is_empty() {
        let (number, wire) = decode_key(&mut message).expect("decoded before");
        let length = match wire {
            WireType::StartGroup | WireType::EndGroup => return true,
            WireType::Varint => decode_varint(&mut message).map(|_| 0),
            WireType::SixtyFourBit => Ok(8),
            WireType::ThirtyTwoBit => Ok(4),
            WireType::LengthDelimited => decode_varint(&mut message),
        };
        let length = usize::try_from(length.expect("decoded before")).expect("decoded before");
        let (value, rest) = message.split_at(length);
        if wire == WireType::LengthDelimited && nested.contains(&number) && has_group(value, &[]) {
            return true;
        }
        message = rest;
    }
    false
}
