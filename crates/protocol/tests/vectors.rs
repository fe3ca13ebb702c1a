//! Every packet of an independent implementation decodes to the fields that it names, and serializes to the same bytes.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use prost::Message;
use roomcast_protocol::{Dialect, Media, MediaKind, PacketKind, peek, seed, sessions};
use serde_json::Value;

/// The fields that a vector may name, however the dialect spells them.
#[derive(Default)]
struct View {
    packet_type: &'static str,
    user: Vec<u8>,
    session_id: u64,
    media_type: Option<&'static str>,
    frame_type: Option<String>,
    sequence: Option<u64>,
    meeting_id: Option<String>,
    event_type: Option<&'static str>,
}

/// Decodes `data` and checks that it serializes to the same bytes.
fn content<M: Message + Default>(data: &[u8]) -> M {
    let message = M::decode(data).expect("the content decodes");
    assert_eq!(message.encode_to_vec(), data, "the content serializes to the same bytes");
    message
}

fn view_seed(bytes: &[u8]) -> View {
    use seed::packet_wrapper::PacketType;
    let wrapper: seed::PacketWrapper = content(bytes);
    let kind = PacketType::try_from(wrapper.packet_type).unwrap();
    let data = wrapper.data.as_slice();
    let mut view = View { packet_type: kind.as_str_name(), user: wrapper.email.into_bytes(), ..View::default() };
    match kind {
        PacketType::RsaPubKey => _ = content::<seed::RsaPacket>(data),
        PacketType::AesKey => {} // encrypted
        PacketType::Connection => view.meeting_id = Some(content::<seed::ConnectionPacket>(data).meeting_id),
        PacketType::Media if data.is_empty() => {}
        PacketType::Media => {
            if let Ok(media) = seed::MediaPacket::decode(data) {
                assert_eq!(media.encode_to_vec(), data);
                view.media_type = Some(media.media_type().as_str_name());
                view.frame_type = Some(media.frame_type);
                view.sequence = media.video_metadata.map(|metadata| metadata.sequence);
            }
        }
    }
    view
}

fn view_sessions(bytes: &[u8]) -> View {
    use sessions::packet_wrapper::PacketType;
    let wrapper: sessions::PacketWrapper = content(bytes);
    let kind = PacketType::try_from(wrapper.packet_type).unwrap();
    let data = wrapper.data.as_slice();
    let mut view = View {
        packet_type: kind.as_str_name(),
        user: wrapper.user_id,
        session_id: wrapper.session_id,
        ..View::default()
    };
    match kind {
        PacketType::RsaPubKey => _ = content::<sessions::RsaPacket>(data),
        PacketType::AesKey => {} // encrypted
        PacketType::Connection => view.meeting_id = Some(content::<sessions::ConnectionPacket>(data).meeting_id),
        PacketType::Meeting => {
            view.event_type = Some(content::<sessions::MeetingPacket>(data).event_type().as_str_name());
        }
        PacketType::Diagnostics => _ = content::<sessions::DiagnosticsPacket>(data),
        PacketType::Health => _ = content::<sessions::HealthPacket>(data),
        PacketType::Media if !data.is_empty() => {
            if let Ok(media) = sessions::MediaPacket::decode(data) {
                assert_eq!(media.encode_to_vec(), data);
                view.media_type = Some(media.media_type().as_str_name());
                view.frame_type = Some(media.frame_type);
                view.sequence = media.video_metadata.map(|metadata| metadata.sequence);
            }
        }
        PacketType::Media | PacketType::SessionAssigned | PacketType::Congestion => assert!(data.is_empty()),
        PacketType::Unknown => panic!("no vector is of an unknown kind"),
    }
    view
}

fn vectors(dialect: Dialect) -> Vec<(String, Vec<u8>, serde_json::Map<String, Value>)> {
    let text = match dialect {
        Dialect::Seed => include_str!("vectors/seed.json"),
        Dialect::Sessions => include_str!("vectors/sessions.json"),
    };
    let vectors: Vec<serde_json::Map<String, Value>> = serde_json::from_str(text).unwrap();
    assert!(vectors.len() >= 10);
    let parts = |vector: serde_json::Map<String, Value>| {
        let name = vector["name"].as_str().unwrap().to_owned();
        let bytes = hex::decode(vector["hex"].as_str().unwrap()).unwrap();
        (name, bytes, vector)
    };
    vectors.into_iter().map(parts).collect()
}

fn check(dialect: Dialect, view: fn(&[u8]) -> View) {
    for (name, bytes, fields) in vectors(dialect) {
        let view = view(&bytes);
        for (field, expected) in &fields {
            let actual = match field.as_str() {
                "name" | "hex" => continue,
                "packet_type" => Value::from(view.packet_type),
                "user" => Value::from(std::str::from_utf8(&view.user).unwrap()),
                "session_id" => Value::from(view.session_id.to_string()), // a string: JSON numbers end at 2^53
                "media_type" => Value::from(view.media_type),
                "frame_type" => Value::from(view.frame_type.clone()),
                "sequence" => Value::from(view.sequence),
                "meeting_id" => Value::from(view.meeting_id.clone()),
                "event_type" => Value::from(view.event_type),
                unknown => panic!("{name}: the field {unknown} is not checked"),
            };
            assert_eq!(&actual, expected, "{dialect:?}, {name}, {field}");
        }
        check_peek(dialect, &name, &bytes, &view);
        roomcast_protocol::fuzz::check_peek(&bytes);
    }
}

/// The peek against the names of the full decoder, by a table of its own.
fn check_peek(dialect: Dialect, name: &str, bytes: &[u8], view: &View) {
    let header = peek(dialect, bytes).unwrap();
    let kind = match view.packet_type {
        "RSA_PUB_KEY" => PacketKind::RsaPubKey,
        "AES_KEY" => PacketKind::AesKey,
        "MEDIA" => PacketKind::Media,
        "CONNECTION" => PacketKind::Connection,
        "DIAGNOSTICS" => PacketKind::Diagnostics,
        "HEALTH" => PacketKind::Health,
        "MEETING" => PacketKind::Meeting,
        "SESSION_ASSIGNED" => PacketKind::SessionAssigned,
        "CONGESTION" => PacketKind::Congestion,
        other => panic!("{name}: {other}"),
    };
    let media = match view.media_type {
        None if kind == PacketKind::Media => Media::Opaque,
        None => Media::None,
        Some(media_type) => Media::Known {
            kind: match media_type {
                "VIDEO" => MediaKind::Video,
                "AUDIO" => MediaKind::Audio,
                "SCREEN" => MediaKind::Screen,
                "HEARTBEAT" => MediaKind::Heartbeat,
                "RTT" => MediaKind::Rtt,
                "KEYFRAME_REQUEST" => MediaKind::KeyframeRequest,
                other => panic!("{name}: {other}"),
            },
            key_frame: view.frame_type.as_deref() == Some("key"),
            stream: 0,
            layer: 0,
            hinted: false,
        },
    };
    assert_eq!((header.kind, header.media), (kind, media), "{dialect:?}, {name}");
    assert_eq!((header.user, header.session_id), (view.user.as_slice(), view.session_id), "{dialect:?}, {name}");
}

#[test]
fn the_seed_vectors_decode_and_serialize() {
    check(Dialect::Seed, view_seed);
}

#[test]
fn the_sessions_vectors_decode_and_serialize() {
    check(Dialect::Sessions, view_sessions);
}

/// What the vectors hold but do not name: read from their bytes once.
#[test]
fn the_fields_that_the_vectors_do_not_name_are_where_they_belong() {
    let packet = |name: &str| {
        let vectors = vectors(Dialect::Sessions);
        let (_, bytes, _) = vectors.into_iter().find(|vector| vector.0 == name).unwrap();
        sessions::PacketWrapper::decode(bytes.as_slice()).unwrap().data
    };

    let audio: sessions::MediaPacket = content(&packet("audio"));
    let metadata = audio.audio_metadata.unwrap();
    assert_eq!((metadata.audio_format.as_str(), metadata.audio_number_of_channels), ("f32", 1));
    assert_eq!((metadata.audio_number_of_frames, metadata.audio_sample_rate), (960, 48_000.0));
    assert_eq!((audio.timestamp, audio.duration), (20.0, 20.0));

    let joined: sessions::MeetingPacket = content(&packet("participant-joined"));
    assert_eq!(joined.room_id, "standup");
    assert_eq!(joined.message, "alice@example.com has joined the meeting");
    assert_eq!((joined.target_user_id.as_slice(), joined.session_id), (b"alice@example.com".as_slice(), 99));
    assert_eq!(joined.display_name, b"Alice");

    let started: sessions::MeetingPacket = content(&packet("meeting-started"));
    assert_eq!(
        (started.creator_id.as_slice(), started.start_time_ms),
        (b"alice@example.com".as_slice(), 1_700_000_000_000)
    );

    let health: sessions::HealthPacket = content(&packet("health"));
    assert_eq!((health.session_id.as_str(), health.meeting_id.as_str()), ("1", "standup"));
    assert_eq!((health.timestamp_ms, health.reporting_audio_enabled), (5, true));
    let bob = &health.peer_stats["bob"];
    assert!(bob.can_listen && !bob.can_see);
    assert_eq!(bob.video_stats.as_ref().unwrap().fps_received, 29.5);

    let diagnostics: sessions::DiagnosticsPacket = content(&packet("diagnostics"));
    assert_eq!((diagnostics.stream_id.as_str(), diagnostics.target_id.as_str()), ("s", "bob"));
    assert_eq!(diagnostics.media_type(), sessions::media_packet::MediaType::Video);
    let video = diagnostics.video_metrics.unwrap();
    assert_eq!((video.fps_received, video.bitrate_kbps), (30.0, 800));
}
