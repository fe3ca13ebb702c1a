//! The packets that are sent: as a client of the seed dialect makes them, with a stamp at a known place. Pure.
//!
//! A template is a whole packet in its transport's wrapping. Senders share it and write their name and stamp over the last
//! one's, so that sending costs no allocation and memory does not grow with senders.

use prost::Message;
use roomcast_protocol::seed::media_hint::Kind as HintKind;
use roomcast_protocol::seed::media_packet::MediaType;
use roomcast_protocol::seed::packet_wrapper::PacketType;
use roomcast_protocol::seed::{MediaHint, MediaPacket, PacketWrapper, VideoMetadata};

use crate::frames::HEAD;

/// The stamp: mark and run (four bytes each), the time in microseconds (eight), room and sender (four each), the packet's
/// number (eight), all big-endian.
pub(crate) const STAMP: usize = 32;
/// The stamp's first bytes. The run's number follows, so that two runs at once do not take each other's packets for their own.
const MARK: [u8; 4] = *b"RCST";
/// Names have one length, so that all packets of a kind are laid out alike. A million members are more than one system can
/// connect.
const NAME: &str = "m000000";

/// The name of a member, the same in every room.
pub(crate) fn name(member: u32) -> String {
    format!("m{member:06}")
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Audio,
    KeyFrame,
    DeltaFrame,
}

/// How packets are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrapping {
    /// A masked binary frame (its key is zero, so the bytes are the packet's own).
    WebSocket,
    /// The header of a WebTransport stream of session 0.
    WebTransport,
}

/// The header of a packet's stream: the type, and the session, which is the connection's first bidirectional stream.
pub(crate) const STREAM_HEADER: [u8; 3] = [0x40, 0x54, 0x00];

/// A `PacketWrapper` whose media has `payload` bytes (at least [`STAMP`]).
fn wrapper(kind: Kind, payload: usize) -> Vec<u8> {
    let mut data = vec![0; STAMP];
    data.resize(payload.max(STAMP), 0x55);
    let (media_type, hint, frame_type, duration) = match kind {
        Kind::Audio => (MediaType::Audio, HintKind::Audio, "key", 20_000.0),
        Kind::KeyFrame => (MediaType::Video, HintKind::Video, "key", 33_333.0),
        Kind::DeltaFrame => (MediaType::Video, HintKind::Video, "delta", 33_333.0),
    };
    let media = MediaPacket {
        media_type: media_type.into(),
        email: NAME.to_owned(),
        data,
        frame_type: frame_type.to_owned(),
        timestamp: 1.0,
        duration,
        video_metadata: (kind != Kind::Audio).then_some(VideoMetadata { sequence: 1 }),
        ..MediaPacket::default()
    };
    PacketWrapper {
        packet_type: PacketType::Media.into(),
        email: NAME.to_owned(),
        data: media.encode_to_vec(),
        hint: Some(MediaHint { kind: hint.into(), key_frame: kind == Kind::KeyFrame, ..MediaHint::default() }),
    }
    .encode_to_vec()
}

/// The size of the smallest packet.
pub(crate) fn smallest() -> usize {
    wrapper(Kind::Audio, STAMP).len()
}

/// The media payload with which a packet of audio has `size` bytes, or one less: a length that needs another byte can leave a gap.
/// `size` is at least [`smallest`].
pub(crate) fn payload_for(size: usize) -> usize {
    let mut payload = STAMP + size.saturating_sub(smallest());
    while payload > STAMP && wrapper(Kind::Audio, payload).len() > size {
        payload -= 1;
    }
    payload
}

/// What is written into a template for each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// When it was sent, in microseconds of the run.
    pub(crate) time: u64,
    pub(crate) room: u32,
    pub(crate) sender: u32,
    /// Counts from 1 for each sender.
    pub(crate) number: u64,
}

/// A packet that only lacks its sender's name and stamp.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    wrapped: usize,
    names: [usize; 2],
    stamp: usize,
}

impl Template {
    /// A packet whose media has `payload` bytes.
    pub(crate) fn new(wrapping: Wrapping, kind: Kind, payload: usize, run: u32) -> Self {
        let packet = wrapper(kind, payload);
        let mut bytes = match wrapping {
            Wrapping::WebTransport => STREAM_HEADER.to_vec(),
            Wrapping::WebSocket => {
                let mut header = vec![0x82];
                match packet.len() {
                    short @ 0..126 => header.push(0x80 | short as u8),
                    long @ 126..65_536 => {
                        header.push(0x80 | 126);
                        header.extend((long as u16).to_be_bytes());
                    }
                    huge => {
                        header.push(0x80 | 127);
                        header.extend((huge as u64).to_be_bytes());
                    }
                }
                header.extend([0; 4]);
                header
            }
        };
        let wrapped = bytes.len();
        bytes.extend(packet);
        let mut names = bytes.windows(NAME.len()).enumerate().filter(|(_, window)| *window == NAME.as_bytes());
        let mut next = || names.next().map(|(at, _)| at).expect("both messages hold the name");
        let names = [next(), next()];
        // The media's bytes come right behind its sender's name, after a tag and a length of one to four bytes.
        let stamp = names[1] + NAME.len();
        let stamp = stamp
            + bytes[stamp..]
                .windows(STAMP)
                .position(|window| window == [0; STAMP])
                .expect("the stamp is all zeros yet");
        bytes[stamp..stamp + 4].copy_from_slice(&MARK);
        bytes[stamp + 4..stamp + 8].copy_from_slice(&run.to_be_bytes());
        Self { bytes, wrapped, names, stamp }
    }

    /// Where the stamp begins in the packet, without its wrapping.
    pub(crate) const fn place(&self) -> usize {
        self.stamp - self.wrapped
    }

    #[cfg(test)]
    /// The packet's size without its wrapping.
    pub(crate) const fn size(&self) -> usize {
        self.bytes.len() - self.wrapped
    }

    /// The whole packet, wrapped, as `name` sends it.
    pub(crate) fn stamped(&mut self, name: &str, stamp: Stamp) -> &[u8] {
        debug_assert_eq!(name.len(), NAME.len(), "names have one length");
        for at in self.names {
            self.bytes[at..at + NAME.len()].copy_from_slice(name.as_bytes());
        }
        let out = &mut self.bytes[self.stamp + 8..self.stamp + STAMP];
        out[..8].copy_from_slice(&stamp.time.to_be_bytes());
        out[8..12].copy_from_slice(&stamp.room.to_be_bytes());
        out[12..16].copy_from_slice(&stamp.sender.to_be_bytes());
        out[16..].copy_from_slice(&stamp.number.to_be_bytes());
        &self.bytes
    }
}

/// Finds stamps in the beginnings of packets.
#[derive(Clone, Debug)]
pub(crate) struct Finder {
    mark: [u8; 8],
    /// Where a stamp may begin: it depends on a packet's kind, and on how many bytes its lengths take.
    places: Vec<usize>,
}

impl Finder {
    /// For the packets of these templates.
    pub(crate) fn new(templates: &[Template], run: u32) -> Self {
        let mut places: Vec<usize> = templates.iter().map(Template::place).collect();
        places.sort_unstable();
        places.dedup();
        debug_assert!(places.iter().all(|place| place + STAMP <= HEAD), "a stamp is in what is kept of a frame");
        let mut mark = [0; 8];
        mark[..4].copy_from_slice(&MARK);
        mark[4..].copy_from_slice(&run.to_be_bytes());
        Self { mark, places }
    }

    /// The stamp of a packet; `None` where it has none of this run.
    pub(crate) fn find(&self, head: &[u8]) -> Option<Stamp> {
        self.places.iter().find_map(|place| {
            let stamp = head.get(*place..place + STAMP)?;
            (stamp[..8] == self.mark).then(|| Stamp {
                time: u64::from_be_bytes(word(stamp, 8)),
                room: u32::from_be_bytes(word(stamp, 16)),
                sender: u32::from_be_bytes(word(stamp, 20)),
                number: u64::from_be_bytes(word(stamp, 24)),
            })
        })
    }
}

/// The bytes of a stamp's field.
fn word<const N: usize>(stamp: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&stamp[at..at + N]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use roomcast_protocol::{Class, Dialect, SessionId, peek};

    const SAMPLE: Stamp = Stamp { time: 123_456_789, room: 3, sender: 41, number: 77 };

    #[test]
    fn the_router_takes_them_for_what_they_are_and_the_finder_reads_them_back() {
        for wrapping in [Wrapping::WebSocket, Wrapping::WebTransport] {
            for (kind, class) in
                [(Kind::Audio, Class::Audio), (Kind::KeyFrame, Class::KeyFrame), (Kind::DeltaFrame, Class::Delta)]
            {
                for payload in [STAMP, 80, 127, 128, 200, 1_100, 16_383, 16_384, 200_000, 3_000_000] {
                    let mut template = Template::new(wrapping, kind, payload, 9);
                    let (wrapped, size) = (template.wrapped, template.size());
                    let bytes = template.stamped(&name(41), SAMPLE).to_vec();
                    let packet = &bytes[wrapped..];
                    assert_eq!(packet.len(), size);
                    let header = peek(Dialect::Seed, packet).unwrap();
                    assert_eq!(header.user, b"m000041");
                    assert_eq!(header.tag(SessionId(1), size).class, class);
                    let decoded = PacketWrapper::decode(packet).unwrap();
                    let media = MediaPacket::decode(&decoded.data[..]).unwrap();
                    assert_eq!((media.data.len(), media.email.as_str()), (payload, "m000041"));
                    let finder = Finder::new(std::slice::from_ref(&template), 9);
                    assert_eq!(finder.find(&packet[..size.min(HEAD)]), Some(SAMPLE), "{kind:?} {payload}");
                    assert_eq!(Finder::new(&[template], 10).find(packet), None, "another run's");
                }
            }
        }
    }

    #[test]
    fn a_websocket_frame_says_its_length_and_has_a_mask_that_changes_nothing() {
        for (payload, header) in [(STAMP, 6), (1_000, 8), (70_000, 14)] {
            let template = Template::new(Wrapping::WebSocket, Kind::Audio, payload, 1);
            assert_eq!(template.wrapped, header);
            assert_eq!(template.bytes[0], 0x82);
            assert_eq!(template.bytes[1] & 0x80, 0x80);
            assert_eq!(template.bytes[header - 4..header], [0; 4]);
        }
    }

    #[test]
    fn a_size_that_is_asked_for_is_met_to_the_byte_or_one_less() {
        for size in (smallest()..400).chain([1_200, 4_000, 16_384, 65_536, 200_000]) {
            let got = wrapper(Kind::Audio, payload_for(size)).len();
            assert!(got == size || got + 1 == size || got + 2 == size, "{size}: {got}");
        }
        assert_eq!(wrapper(Kind::Audio, payload_for(1_200)).len(), 1_200);
        assert_eq!(wrapper(Kind::Audio, payload_for(4_000)).len(), 4_000);
    }

    #[test]
    fn what_has_no_stamp_is_not_found() {
        let finder = Finder::new(&[Template::new(Wrapping::WebSocket, Kind::Audio, 100, 1)], 1);
        assert_eq!(finder.find(&[]), None);
        assert_eq!(finder.find(&[0; HEAD]), None);
    }
}
