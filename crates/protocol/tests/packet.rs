//! A sealed packet: its frame, its stamp, and what it costs.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;
use roomcast_protocol::{Class, Dialect, Packet, PacketBuffer, SessionId, Tag, peek, sessions};

const TAG: Tag = Tag { sender: SessionId(7), class: Class::Audio, flow: 3 };

fn seal(payload: &[u8], stamp: Option<SessionId>) -> Packet {
    let mut buffer = PacketBuffer::new();
    buffer.extend(payload);
    assert_eq!(buffer.payload(), payload);
    let packet = buffer.seal(TAG, stamp);
    assert_eq!(buffer.payload(), b"", "the buffer is empty again");
    packet
}

/// Reads a frame as RFC 6455, section 5.2 has it: a whole binary message, unmasked, its length in the shortest form.
fn unframe(frame: &[u8]) -> &[u8] {
    assert_eq!(frame[0], 0x82, "final, binary");
    let (length, payload) = match frame[1] {
        short @ 0..=125 => (usize::from(short), &frame[2..]),
        126 => (usize::from(u16::from_be_bytes(frame[2..4].try_into().unwrap())), &frame[4..]),
        127 => (usize::try_from(u64::from_be_bytes(frame[2..10].try_into().unwrap())).unwrap(), &frame[10..]),
        _ => panic!("masked"),
    };
    let shortest = match length {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => 10,
    };
    assert_eq!(frame.len(), shortest + length);
    payload
}

#[test]
fn a_frame_holds_the_payload_at_every_length_class() {
    for length in [0, 1, 125, 126, 127, 255, 256, 65_535, 65_536, 65_537, roomcast_protocol::MAX_PACKET_BYTES] {
        let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
        let packet = seal(&payload, None);
        assert!(packet.payload() == payload, "{length}");
        assert!(unframe(packet.websocket_frame()) == payload, "{length}");
        assert_eq!(packet.tag(), &TAG);
    }
}

#[test]
fn clones_share_the_bytes() {
    let packet = seal(b"payload", None);
    assert_eq!(packet.clone().payload().as_ptr(), packet.payload().as_ptr());
}

proptest! {
    #[test]
    fn a_frame_holds_the_chunks_and_the_stamp_behind_them(
        chunks in vec(vec(any::<u8>(), 0..200), 0..6),
        stamp in proptest::option::of(any::<u64>()),
    ) {
        let mut buffer = PacketBuffer::new();
        for chunk in &chunks {
            buffer.extend(chunk);
        }
        let packet = buffer.seal(TAG, stamp.map(SessionId));
        let payload = chunks.concat();
        prop_assert!(packet.payload().starts_with(&payload));
        prop_assert_eq!(unframe(packet.websocket_frame()), packet.payload());
        let stamped = packet.payload().len() - payload.len();
        let expected = if stamp.is_some() { 2..=11 } else { 0..=0 };
        prop_assert!(expected.contains(&stamped));
    }

    #[test]
    fn a_stamp_is_the_session_whatever_the_client_wrote(wrote in any::<u64>(), stamp in any::<u64>(), data: Vec<u8>) {
        let mut wrapper = sessions::PacketWrapper { packet_type: 3, session_id: wrote, data, ..Default::default() };
        let packet = seal(&wrapper.encode_to_vec(), Some(SessionId(stamp)));
        wrapper.session_id = stamp;
        prop_assert_eq!(sessions::PacketWrapper::decode(packet.payload()).unwrap(), wrapper);
        prop_assert_eq!(peek(Dialect::Sessions, packet.payload()).unwrap().session_id, stamp);
    }
}

#[test]
fn a_packet_costs_one_allocation_and_its_recipients_none() {
    let payload = hex::decode(
        serde_json::from_str::<serde_json::Value>(include_str!("vectors/sessions.json")).unwrap()[2]["hex"]
            .as_str()
            .unwrap(),
    )
    .unwrap();
    let mut buffer = PacketBuffer::new();
    // The first packet makes the buffer; those after it find it there.
    buffer.extend(&payload);
    drop(buffer.seal(TAG, Some(SessionId(u64::MAX))));
    let mut packet = None;
    let cost = allocation_counter::measure(|| {
        buffer.extend(&payload);
        let tag = peek(Dialect::Sessions, buffer.payload()).unwrap().tag(SessionId(1), payload.len());
        packet = Some(buffer.seal(tag, Some(SessionId(u64::MAX))));
    });
    assert_eq!(cost.count_total, 1);
    let packet = packet.unwrap();
    let share = allocation_counter::measure(|| {
        let copy = packet.clone();
        assert_eq!(copy.websocket_frame().len(), packet.websocket_frame().len());
    });
    assert_eq!(share.count_total, 0);
}

#[test]
fn a_buffer_gives_back_what_a_rare_large_packet_needed() {
    let mut buffer = PacketBuffer::new();
    let kept = allocation_counter::measure(|| {
        buffer.extend(&[0; 1_000_000]);
        drop(buffer.seal(TAG, None));
    });
    assert_eq!(kept.bytes_current, 0);
}
