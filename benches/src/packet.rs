//! The packet that is sent: audio as a client of the seed dialect sends it, with a time stamp and a number at a known
//! place.

use prost::Message;
use roomcast_protocol::seed::media_packet::MediaType;
use roomcast_protocol::seed::packet_wrapper::PacketType;
use roomcast_protocol::seed::{MediaPacket, PacketWrapper};

/// The size of every packet.
pub(crate) const BYTES: usize = 1_200;
/// Stands before the time stamp, the sender and the number.
pub(crate) const MARK: [u8; 8] = *b"ROOMCAST";
/// The mark, then the time in microseconds, the sender and the number, eight bytes each.
pub(crate) const STAMP: usize = 32;

/// A masked WebSocket frame with the packet in it (the masking key is zero, so the bytes are the packet's own), and
/// where the stamp's mark is.
pub(crate) fn frame(user: &str) -> (Vec<u8>, usize) {
    let packet = |padding: usize| {
        let mut data = MARK.to_vec();
        data.resize(STAMP + padding, 0x55);
        let media = MediaPacket {
            media_type: MediaType::Audio.into(),
            email: user.to_owned(),
            data,
            frame_type: "key".to_owned(),
            timestamp: 1.0,
            duration: 20.0,
            ..MediaPacket::default()
        };
        PacketWrapper {
            packet_type: PacketType::Media.into(),
            email: user.to_owned(),
            data: media.encode_to_vec(),
            ..PacketWrapper::default()
        }
        .encode_to_vec()
    };
    let mut padding = BYTES - packet(0).len();
    while packet(padding).len() > BYTES {
        padding -= 1;
    }
    let packet = packet(padding);
    let mut frame = vec![0x82, 0x80 | 126];
    frame.extend_from_slice(&u16::try_from(packet.len()).expect("a packet is about 1,200 bytes").to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&packet);
    let mark = frame.windows(MARK.len()).position(|window| window == MARK).expect("the mark was put in just above");
    (frame, mark)
}
