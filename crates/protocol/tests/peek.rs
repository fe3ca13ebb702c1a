//! The peek against the full decoder: on arbitrary bytes, on messages made of arbitrary fields, and on valid packets that
//! were changed a little.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use roomcast_protocol::fuzz::check_peek;
use roomcast_protocol::peek::MAX_OPAQUE_AUDIO_BYTES;
use roomcast_protocol::{
    Class, Dialect, Malformed, Media, MediaKind, PacketKind, SessionId, Tag, peek, seed, sessions,
};

/// A number in as many bytes as wanted: `padding` adds bytes that say nothing.
fn varint(mut value: u64, padding: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    for _ in 0..padding {
        *bytes.last_mut().unwrap() |= 0x80;
        bytes.push(0);
    }
    bytes
}

fn field(number: u64, wire: u64, value: &[u8]) -> Vec<u8> {
    [varint(number << 3 | wire, 0), value.to_vec()].concat()
}

fn lengthed(number: u64, value: &[u8]) -> Vec<u8> {
    field(number, 2, &[varint(value.len() as u64, 0), value.to_vec()].concat())
}

fn group(number: u64, content: &[u8]) -> Vec<u8> {
    [field(number, 3, content), field(number, 4, &[])].concat()
}

/// Numbers as a message may hold them, mostly small, sometimes padded, sometimes not a number at all.
fn any_varint() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => (0..12_u64, 0..3_usize).prop_map(|(value, padding)| varint(value, padding)),
        2 => (any::<u64>(), 0..3_usize).prop_map(|(value, padding)| varint(value, padding)),
        1 => vec(any::<u8>(), 0..12),
    ]
}

fn any_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => Just(b"key".to_vec()),
        2 => Just(b"delta".to_vec()),
        4 => "[a-z@.]{0,12}".prop_map(String::into_bytes),
        1 => "\\PC{0,4}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..6),
    ]
}

/// One field of a message whose length-delimited fields hold `inner`: the right wire type twice as often as a wrong one.
fn any_field(inner: BoxedStrategy<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![10 => 1..=9_u64, 2 => Just(15_u64), 1 => 0..=40_u64, 1 => Just((1 << 29) - 1)];
    let value = prop_oneof![
        8 => any_varint().prop_map(|value| (0, value)),
        1 => any::<[u8; 8]>().prop_map(|value| (1, value.to_vec())),
        1 => any::<[u8; 4]>().prop_map(|value| (5, value.to_vec())),
        12 => inner.prop_map(|value| (2, [varint(value.len() as u64, 0), value].concat())),
        1 => (3..8_u64, vec(any::<u8>(), 0..4)),
    ];
    (number, value).prop_map(|(number, (wire, value))| field(number, wire, &value))
}

fn any_message(inner: BoxedStrategy<Vec<u8>>) -> BoxedStrategy<Vec<u8>> {
    let group = vec(any_field(inner.clone()), 0..2).prop_map(|fields| group(6, &fields.concat()));
    let part = prop_oneof![24 => any_field(inner), 1 => group];
    vec(part, 0..6).prop_map(|fields| fields.concat()).boxed()
}

/// A field with the wire type that it has in the contract, so that most such messages decode.
fn fitting(number: u64, value: impl Strategy<Value = Vec<u8>> + 'static) -> BoxedStrategy<Vec<u8>> {
    value.prop_map(move |value| lengthed(number, &value)).boxed()
}

fn numbered(numbers: std::ops::RangeInclusive<u64>) -> BoxedStrategy<Vec<u8>> {
    (numbers, any_varint()).prop_map(|(number, value)| field(number, 0, &value)).boxed()
}

/// A MediaPacket, mostly well-formed.
fn any_media() -> BoxedStrategy<Vec<u8>> {
    let metadata = vec(any_field(any_text().boxed()), 0..3).prop_map(|fields| fields.concat());
    let part = prop_oneof![
        4 => numbered(1..=1),
        2 => fitting(2, any_text()),
        1 => fitting(3, vec(any::<u8>(), 0..20)),
        4 => fitting(4, any_text()),
        1 => any::<[u8; 8]>().prop_map(|value| field(5, 1, &value)),
        1 => fitting(8, vec(numbered(1..=5), 0..3).prop_map(|fields| fields.concat())),
        1 => fitting(9, vec(numbered(1..=6), 0..3).prop_map(|fields| fields.concat())),
        1 => (7..=9_u64, metadata).prop_map(|(number, value)| lengthed(number, &value)),
        1 => any_field(any_text().boxed()),
    ];
    vec(part, 0..5).prop_map(|fields| fields.concat()).boxed()
}

/// A wrapper, mostly well-formed, with its fields in any order and number.
fn any_wrapper() -> impl Strategy<Value = Vec<u8>> {
    let kind = (0..6_u64).prop_map(|kind| field(1, 0, &varint(kind, 0)));
    let hint = vec(prop_oneof![4 => kind, 4 => numbered(1..=5), 1 => any_field(any_text().boxed())], 0..4);
    let part = prop_oneof![
        6 => (2..=3_u64).prop_map(|value| field(1, 0, &varint(value, 0))),
        1 => numbered(1..=1),
        2 => fitting(2, any_text()),
        5 => fitting(3, any_media()),
        1 => numbered(4..=5),
        4 => fitting(15, hint.prop_map(|fields| fields.concat())),
        1 => any_field(any_media()),
    ];
    vec(part, 0..6).prop_map(|fields| fields.concat())
}

fn vectors() -> Vec<Vec<u8>> {
    [include_str!("vectors/seed.json"), include_str!("vectors/sessions.json")]
        .into_iter()
        .flat_map(|text| serde_json::from_str::<Vec<serde_json::Value>>(text).unwrap())
        .map(|vector| hex::decode(vector["hex"].as_str().unwrap()).unwrap())
        .collect()
}

#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Cut(prop::sample::Index),
    Append(Vec<u8>),
}

fn any_change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        2 => at().prop_map(Change::Remove),
        1 => at().prop_map(Change::Cut),
        3 => any_field(any_media()).prop_map(Change::Append),
    ]
}

fn apply(packet: &mut Vec<u8>, change: Change) {
    // Structure is at the front of a packet; further back there is mostly content that may be anything.
    let front = packet.len().min(80);
    match change {
        Change::Append(field) => packet.extend(field),
        Change::Insert(at, byte) => packet.insert(at.index(packet.len() + 1), byte),
        _ if packet.is_empty() => {}
        Change::Set(at, byte) => packet[at.index(front)] = byte,
        Change::Remove(at) => _ = packet.remove(at.index(front)),
        Change::Cut(at) => packet.truncate(at.index(packet.len())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_are_read_as_the_full_decoder_reads_them(bytes in vec(any::<u8>(), 0..40)) {
        check_peek(&bytes);
    }

    #[test]
    fn any_fields_are_read_as_the_full_decoder_reads_them(
        bytes in any_message(any_message(any_message(any_text().boxed()))),
    ) {
        check_peek(&bytes);
    }

    #[test]
    fn any_wrapper_is_read_as_the_full_decoder_reads_it(bytes in any_wrapper()) {
        check_peek(&bytes);
    }

    #[test]
    fn changed_packets_are_read_as_the_full_decoder_reads_them(
        mut packet in prop::sample::select(vectors()),
        changes in vec(any_change(), 1..4),
    ) {
        for change in changes {
            apply(&mut packet, change);
        }
        check_peek(&packet);
    }
}

/// The properties above are worth little if their packets are all refused, or all taken.
#[test]
fn the_generated_wrappers_reach_every_outcome() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let strategy = any_wrapper();
    let (mut refused, mut opaque, mut hinted, mut read) = (0, 0, 0, 0);
    for _ in 0..2_000 {
        let bytes = strategy.new_tree(&mut runner).unwrap().current();
        match peek(Dialect::Seed, &bytes).map(|header| header.media) {
            Err(_) => refused += 1,
            Ok(Media::None) => {}
            Ok(Media::Opaque) => opaque += 1,
            Ok(Media::Known { hinted: true, .. }) => hinted += 1,
            Ok(Media::Known { hinted: false, .. }) => read += 1,
        }
    }
    for count in [refused, opaque, hinted, read] {
        assert!(count >= 50, "refused {refused}, opaque {opaque}, hinted {hinted}, read {read}");
    }
}

fn header_of(wrapper: &seed::PacketWrapper) -> (PacketKind, Media) {
    let bytes = wrapper.encode_to_vec();
    let header = peek(Dialect::Seed, &bytes).unwrap();
    (header.kind, header.media)
}

/// Chance rarely makes each of these: every field of every message that is read, with every wire type.
#[test]
fn each_field_with_each_wire_type_is_read_as_the_full_decoder_reads_it() {
    let values: [(u64, &[u8]); 8] = [
        (0, &[1]),
        (1, &[0; 8]),
        (2, &[0]),
        (2, &[1, 0xff]), // neither a message nor text
        (3, &[]),
        (4, &[]),
        (5, &[0; 4]),
        (6, &[]),
    ];
    for number in 0..17 {
        for (wire, value) in values {
            let odd = field(number, wire, value);
            check_peek(&odd);
            check_peek(&lengthed(15, &odd));
            for packet_type in [2, 3] {
                let media = |data: &[u8]| check_peek(&[field(1, 0, &[packet_type]), lengthed(3, data)].concat());
                media(&odd);
                for nested in 1..10 {
                    media(&lengthed(nested, &odd));
                }
            }
        }
    }
}

#[test]
fn a_key_packet_without_its_first_field_is_a_key_packet() {
    let wrapper = seed::PacketWrapper { email: "a".into(), data: vec![1, 2], ..Default::default() };
    assert_eq!(wrapper.encode_to_vec()[0], 2 << 3 | 2, "a zero value is absent");
    assert_eq!(header_of(&wrapper), (PacketKind::RsaPubKey, Media::None));
}

#[test]
fn a_hint_wins_over_readable_data() {
    let media = seed::MediaPacket { media_type: 1, frame_type: "delta".into(), ..Default::default() };
    let hint = seed::MediaHint { kind: 3, key_frame: true, stream: 5, layer: 2 };
    let mut wrapper =
        seed::PacketWrapper { packet_type: 2, data: media.encode_to_vec(), hint: Some(hint), ..Default::default() };
    let hinted = Media::Known { kind: MediaKind::Screen, key_frame: true, stream: 5, layer: 2, hinted: true };
    assert_eq!(header_of(&wrapper).1, hinted);
    wrapper.hint.as_mut().unwrap().kind = 0;
    let read = Media::Known { kind: MediaKind::Audio, key_frame: false, stream: 0, layer: 0, hinted: false };
    assert_eq!(header_of(&wrapper).1, read);
}

#[test]
fn of_a_repeated_field_the_last_counts_and_a_hint_is_merged() {
    let packet = [
        field(1, 0, &[0]),
        lengthed(2, b"mallory"),
        lengthed(15, &[8, 2]),
        field(1, 0, &[2]),
        lengthed(2, b"alice"),
        lengthed(15, &[16, 1, 24, 9]),
    ]
    .concat();
    let header = peek(Dialect::Seed, &packet).unwrap();
    assert_eq!((header.kind, header.user), (PacketKind::Media, b"alice".as_slice()));
    let merged = Media::Known { kind: MediaKind::Video, key_frame: true, stream: 9, layer: 0, hinted: true };
    assert_eq!(header.media, merged);
}

#[test]
fn each_way_to_be_malformed_is_told() {
    let cases: [(&[u8], Malformed); 9] = [
        (&[0x08], Malformed::Truncated),
        (&[0x1a, 5, 1], Malformed::Truncated),
        (&[0x21, 0, 0, 0], Malformed::Truncated),
        (&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], Malformed::Number),
        (&[0x00, 0], Malformed::Key),
        (&[0x0f], Malformed::Key),
        (&[0x0d, 0, 0, 0, 0], Malformed::WireType),
        (&[0x33, 0x34], Malformed::Group),
        (&[0x12, 1, 0xff], Malformed::Text),
    ];
    for (bytes, error) in cases {
        assert_eq!(peek(Dialect::Seed, bytes), Err(error), "{bytes:x?}");
    }
    assert_eq!(peek(Dialect::Sessions, &[0x12, 1, 0xff]).unwrap().user, [0xff], "a user id is bytes there");
    assert_eq!(peek(Dialect::Seed, &[]).unwrap().kind, PacketKind::RsaPubKey);
}

fn tag_of(dialect: Dialect, media_type: i32, frame_type: &str, len: usize) -> Tag {
    let data = match dialect {
        Dialect::Seed => {
            seed::MediaPacket { media_type, frame_type: frame_type.into(), ..Default::default() }.encode_to_vec()
        }
        Dialect::Sessions => {
            sessions::MediaPacket { media_type, frame_type: frame_type.into(), ..Default::default() }.encode_to_vec()
        }
    };
    let packet_type = if dialect == Dialect::Seed { 2 } else { 3 };
    let packet = [field(1, 0, &varint(packet_type, 0)), lengthed(3, &data)].concat();
    peek(dialect, &packet).unwrap().tag(SessionId(1), len)
}

#[test]
fn packets_are_classed_by_what_their_loss_costs() {
    use Dialect::{Seed, Sessions};
    let class = |dialect, media_type, frame_type| tag_of(dialect, media_type, frame_type, 4_000).class;
    // The timestamp-less VIDEO of `seed` with no frame type is the one that has no bytes at all.
    for (dialect, video, audio, screen, heartbeat) in [(Seed, 0, 1, 2, 3), (Sessions, 1, 2, 3, 4)] {
        for picture in [video, screen] {
            assert_eq!(class(dialect, picture, "key"), Class::KeyFrame);
            assert_eq!(class(dialect, picture, "delta"), Class::Delta);
            for other in ["Key", "keys", "ke", "key ", "unknown"] {
                assert_eq!(class(dialect, picture, other), Class::Delta, "{other}");
            }
        }
        assert_eq!(class(dialect, audio, "key"), Class::Audio);
        assert_eq!(class(dialect, heartbeat, ""), Class::Control);
        assert_eq!(class(dialect, 99, "key"), Class::Opaque);
    }
    assert_eq!(class(Sessions, 5, ""), Class::Control);
    assert_eq!(class(Sessions, 6, ""), Class::Control);
    assert_eq!(class(Seed, 0, ""), Class::Opaque);
}

#[test]
fn unreadable_media_is_classed_by_its_size() {
    let packet = [field(1, 0, &[2]), lengthed(3, &[0xff; 40])].concat();
    let header = peek(Dialect::Seed, &packet).unwrap();
    assert_eq!(header.media, Media::Opaque);
    assert_eq!(header.tag(SessionId(1), MAX_OPAQUE_AUDIO_BYTES).class, Class::Audio);
    assert_eq!(header.tag(SessionId(1), MAX_OPAQUE_AUDIO_BYTES + 1).class, Class::Opaque);
}

#[test]
fn a_flow_is_one_picture_stream() {
    let flow = |kind, stream, layer| {
        let hint = seed::MediaHint { kind, key_frame: false, stream, layer };
        let wrapper = seed::PacketWrapper { packet_type: 2, hint: Some(hint), ..Default::default() };
        peek(Dialect::Seed, &wrapper.encode_to_vec()).unwrap().tag(SessionId(1), 100).flow
    };
    let mut flows = vec![flow(1, 3, 3)]; // audio, whatever its hint
    assert_eq!(flows[0], 0);
    for kind in [2, 3] {
        for (stream, layer) in [(0, 0), (1, 0), (0, 1), (1, 1), (0x3f_ffff, 0xff)] {
            flows.push(flow(kind, stream, layer));
        }
    }
    let count = flows.len();
    flows.sort_unstable();
    flows.dedup();
    assert_eq!(flows.len(), count, "all are told apart");
    assert_ne!(flow(2, u32::MAX, u32::MAX), 0);
    assert_eq!(flow(2, 0, 0), tag_of(Dialect::Seed, 0, "delta", 100).flow, "no hint is stream 0, layer 0");
}
