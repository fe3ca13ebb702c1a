//! Frames as they travel: a frame in a MediaPacket in a PacketWrapper, and back.
//!
//! What lives here: the conventions that the messages leave open. What does not: containers (`clip`), and encryption.
//!
//! - Times are microseconds, as browsers count them. On the way in, a duration of at most 1,000 is taken for milliseconds
//!   (some clients send those): no frame lasts longer than a second, none as little as a millisecond.
//! - The `seed` dialect has no field for the codec of pictures. A receiver tells it from the key frames, whose first bytes
//!   cannot be mistaken ([`Codec::of_key_frame`]). In the `sessions` dialect the field is set for VP8 and VP9, believed
//!   where set, and otherwise treated as in `seed`.
//! - Sound is always Opus. What `audio_format` says is not looked at: browsers write the raw samples' format there.
//! - Every packet of sound is a `key`.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use roomcast_protocol::{Dialect, MediaKind, PacketKind, UserId, peek, seed, sessions};

use crate::clip::{Codec, Format, Frame, ogg_opus};

/// Units of `timestamp` and `duration` in a second.
const UNITS_PER_SECOND: f64 = 1e6;
/// The longest duration that is taken for milliseconds.
const LONGEST_MILLISECONDS: f64 = 1000.0;

/// One frame as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct MediaFrame {
    /// Who sent it, as the packet says; what is not UTF-8 is replaced.
    pub user: String,
    /// The sender's session; 0 in the `seed` dialect.
    pub session: u64,
    /// Camera, sound or screen.
    pub kind: MediaKind,
    /// How it is coded, where that can be told: of pictures in the `seed` dialect only from a key frame.
    pub codec: Option<Codec>,
    /// The frame's number in its stream; 0 for sound in the `seed` dialect, which does not number it.
    pub sequence: u64,
    /// Channels of sound; 0 for pictures.
    pub channels: u8,
    /// Samples per second of sound before it was coded; 0 for pictures.
    pub sample_rate: u32,
    /// The frame.
    pub frame: Frame,
}

/// Why a packet holds no frame that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAFrame {
    /// The packet is no media, or media without a frame, such as a heartbeat.
    #[error("not a frame")]
    Other,
    /// Its inside cannot be read: encrypted, most likely.
    #[error("the frame cannot be read; it may be encrypted")]
    Opaque,
}

/// Makes a packet of a frame: VIDEO or AUDIO, by the format. `sequence` counts the frames of one stream from 0.
#[must_use]
pub fn wrap(dialect: Dialect, user: &UserId, format: &Format, sequence: u64, frame: &Frame) -> Bytes {
    let frame_type = if frame.key { "key" } else { "delta" }.to_owned();
    let timestamp = frame.timestamp.as_secs_f64() * UNITS_PER_SECOND;
    let duration = frame.duration.as_secs_f64() * UNITS_PER_SECOND;
    let samples = ogg_opus::packet_samples(&frame.data).unwrap_or_default();
    let data = frame.data.to_vec();
    let bytes = match dialect {
        Dialect::Seed => {
            use seed::{
                AudioMetadata, MediaPacket, VideoMetadata, media_packet::MediaType, packet_wrapper::PacketType,
            };
            let mut media = MediaPacket { data, frame_type, timestamp, duration, ..MediaPacket::default() };
            media.email = user.as_str().to_owned();
            match *format {
                Format::Audio { channels, sample_rate, .. } => {
                    media.set_media_type(MediaType::Audio);
                    media.audio_metadata = Some(AudioMetadata {
                        audio_format: Codec::Opus.name().to_owned(),
                        audio_number_of_channels: channels.into(),
                        audio_number_of_frames: samples,
                        audio_sample_rate: sample_rate as f32,
                    });
                }
                Format::Video { .. } => {
                    media.set_media_type(MediaType::Video);
                    media.video_metadata = Some(VideoMetadata { sequence });
                }
            }
            let mut packet = seed::PacketWrapper { email: user.as_str().to_owned(), ..seed::PacketWrapper::default() };
            packet.set_packet_type(PacketType::Media);
            packet.data = media.encode_to_vec();
            packet.encode_to_vec()
        }
        Dialect::Sessions => {
            use sessions::{
                AudioMetadata, MediaPacket, VideoMetadata, media_packet::MediaType, packet_wrapper::PacketType,
            };
            let mut media = MediaPacket { data, frame_type, timestamp, duration, ..MediaPacket::default() };
            media.user_id = user.as_str().into();
            match *format {
                Format::Audio { channels, sample_rate, .. } => {
                    media.set_media_type(MediaType::Audio);
                    media.audio_metadata = Some(AudioMetadata {
                        audio_format: Codec::Opus.name().to_owned(),
                        audio_number_of_channels: channels.into(),
                        audio_number_of_frames: samples,
                        audio_sample_rate: sample_rate as f32,
                        sequence,
                    });
                }
                Format::Video { codec, .. } => {
                    media.set_media_type(MediaType::Video);
                    media.video_metadata = Some(VideoMetadata { sequence, codec: codec_number(codec) });
                }
            }
            let mut packet =
                sessions::PacketWrapper { user_id: user.as_str().into(), ..sessions::PacketWrapper::default() };
            packet.set_packet_type(PacketType::Media);
            packet.data = media.encode_to_vec();
            packet.encode_to_vec()
        }
    };
    Bytes::from(bytes)
}

fn codec_number(codec: Codec) -> i32 {
    use sessions::video_metadata::VideoCodec;
    match codec {
        Codec::Vp8 => VideoCodec::Vp8 as i32,
        Codec::Vp9 => VideoCodec::Vp9Profile0Level108bit as i32,
        Codec::H264 | Codec::Opus => VideoCodec::Unspecified as i32,
    }
}

/// Reads the frame out of a packet.
///
/// # Errors
/// Why there is none.
pub fn unwrap(dialect: Dialect, packet: &[u8]) -> Result<MediaFrame, NotAFrame> {
    let header = peek(dialect, packet).map_err(|_| NotAFrame::Other)?;
    if header.kind != PacketKind::Media {
        return Err(NotAFrame::Other);
    }
    let user = String::from_utf8_lossy(header.user).into_owned();
    let session = header.session_id;
    let parts = match dialect {
        Dialect::Seed => seed_parts(packet),
        Dialect::Sessions => sessions_parts(packet),
    }?;
    let frame = parts.frame();
    if frame.data.is_empty() {
        return Err(NotAFrame::Other);
    }
    let (codec, channels, sample_rate) = match parts.kind {
        MediaKind::Audio => (Some(Codec::Opus), parts.channels.clamp(1, 2), parts.sample_rate),
        MediaKind::Video | MediaKind::Screen => (parts.codec.or_else(|| Codec::of_key_frame(&frame.data)), 0, 0),
        _ => return Err(NotAFrame::Other),
    };
    Ok(MediaFrame { user, session, kind: parts.kind, codec, sequence: parts.sequence, channels, sample_rate, frame })
}

/// What both dialects' messages say.
struct Parts {
    kind: MediaKind,
    data: Vec<u8>,
    frame_type: String,
    timestamp: f64,
    duration: f64,
    sequence: u64,
    codec: Option<Codec>,
    channels: u8,
    sample_rate: u32,
}

impl Parts {
    fn frame(&self) -> Frame {
        let unit = if self.duration > 0.0 && self.duration <= LONGEST_MILLISECONDS { 1000.0 } else { UNITS_PER_SECOND };
        // What is negative, no number, or beyond 584 years is no time; a file then counts frames instead.
        let time = |value: f64| Duration::try_from_secs_f64(value / unit).unwrap_or_default();
        Frame {
            data: Bytes::copy_from_slice(&self.data),
            timestamp: time(self.timestamp),
            duration: time(self.duration),
            key: self.kind == MediaKind::Audio || self.frame_type == "key",
        }
    }
}

fn seed_parts(packet: &[u8]) -> Result<Parts, NotAFrame> {
    let packet = seed::PacketWrapper::decode(packet).map_err(|_| NotAFrame::Other)?;
    let media = seed::MediaPacket::decode(packet.data.as_slice()).map_err(|_| NotAFrame::Opaque)?;
    let audio = media.audio_metadata.unwrap_or_default();
    Ok(Parts {
        kind: MediaKind::from_number(Dialect::Seed, media.media_type),
        data: media.data,
        frame_type: media.frame_type,
        timestamp: media.timestamp,
        duration: media.duration,
        sequence: media.video_metadata.unwrap_or_default().sequence,
        codec: None,
        channels: u8::try_from(audio.audio_number_of_channels).unwrap_or(2),
        sample_rate: audio.audio_sample_rate as u32,
    })
}

fn sessions_parts(packet: &[u8]) -> Result<Parts, NotAFrame> {
    let packet = sessions::PacketWrapper::decode(packet).map_err(|_| NotAFrame::Other)?;
    let media = sessions::MediaPacket::decode(packet.data.as_slice()).map_err(|_| NotAFrame::Opaque)?;
    let audio = media.audio_metadata.unwrap_or_default();
    let video = media.video_metadata.unwrap_or_default();
    let codec = [Codec::Vp8, Codec::Vp9].into_iter().find(|codec| codec_number(*codec) == video.codec);
    let kind = MediaKind::from_number(Dialect::Sessions, media.media_type);
    Ok(Parts {
        kind,
        data: media.data,
        frame_type: media.frame_type,
        timestamp: media.timestamp,
        duration: media.duration,
        sequence: if kind == MediaKind::Audio { audio.sequence } else { video.sequence },
        codec,
        channels: u8::try_from(audio.audio_number_of_channels).unwrap_or(2),
        sample_rate: audio.audio_sample_rate as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip::Clip;

    const CLIPS: [&[u8]; 4] = [
        include_bytes!("../clips/vp8.ivf"),
        include_bytes!("../clips/vp9.ivf"),
        include_bytes!("../clips/h264-baseline.h264"),
        include_bytes!("../clips/opus.ogg"),
    ];

    fn alice() -> UserId {
        UserId::parse("alice@example.com").unwrap()
    }

    #[test]
    fn every_frame_of_every_clip_comes_out_as_it_went_in() {
        for dialect in [Dialect::Seed, Dialect::Sessions] {
            for file in CLIPS {
                let clip = Clip::parse(file, Clip::ANNEX_B_FRAME_RATE).unwrap();
                let codec = clip.format.codec();
                for (sequence, frame) in (0..).zip(&clip.frames) {
                    let packet = wrap(dialect, &alice(), &clip.format, sequence, frame);
                    let media = unwrap(dialect, &packet).unwrap();
                    assert_eq!(media.user, "alice@example.com");
                    assert_eq!(media.frame.data, frame.data);
                    assert_eq!(media.frame.key, frame.key);
                    let off = media.frame.timestamp.abs_diff(frame.timestamp);
                    assert!(off < Duration::from_micros(1), "{off:?}");
                    assert_eq!(media.kind, if codec.is_audio() { MediaKind::Audio } else { MediaKind::Video });
                    if codec.is_audio() {
                        assert_eq!((media.channels, media.sample_rate), (2, 48_000));
                    } else {
                        assert_eq!(media.sequence, sequence);
                    }
                    let told = dialect == Dialect::Sessions && codec != Codec::H264;
                    assert_eq!(media.codec, (frame.key || told).then_some(codec));
                }
            }
        }
    }

    #[test]
    fn the_router_reads_the_same_of_it() {
        let clip = Clip::parse(CLIPS[0], Clip::ANNEX_B_FRAME_RATE).unwrap();
        for dialect in [Dialect::Seed, Dialect::Sessions] {
            for at in [0, 1] {
                let packet = wrap(dialect, &alice(), &clip.format, at as u64, &clip.frames[at]);
                let header = peek(dialect, &packet).unwrap();
                assert_eq!(header.user, b"alice@example.com");
                assert!(matches!(
                    header.media,
                    roomcast_protocol::Media::Known { kind: MediaKind::Video, key_frame, .. } if key_frame == (at == 0)
                ));
            }
        }
    }

    #[test]
    fn milliseconds_are_understood() {
        let media = seed::MediaPacket {
            data: vec![1],
            frame_type: "delta".into(),
            timestamp: 1000.5,
            duration: 66.0,
            ..seed::MediaPacket::default()
        };
        let packet = seed::PacketWrapper { packet_type: 2, data: media.encode_to_vec(), ..Default::default() };
        let media = unwrap(Dialect::Seed, &packet.encode_to_vec()).unwrap();
        assert_eq!(media.frame.timestamp, Duration::from_micros(1_000_500));
        assert_eq!(media.frame.duration, Duration::from_millis(66));
    }

    #[test]
    fn what_holds_no_frame_says_so() {
        let wrapper = |packet_type, data: Vec<u8>| {
            seed::PacketWrapper { packet_type, data, ..Default::default() }.encode_to_vec()
        };
        let heartbeat = seed::MediaPacket { media_type: 3, data: vec![1], ..Default::default() }.encode_to_vec();
        for (packet, error) in [
            (vec![0xff], NotAFrame::Other),
            (wrapper(1, vec![]), NotAFrame::Other),
            (wrapper(2, vec![]), NotAFrame::Other),
            (wrapper(2, heartbeat), NotAFrame::Other),
            (wrapper(2, vec![0xff; 64]), NotAFrame::Opaque),
        ] {
            assert_eq!(unwrap(Dialect::Seed, &packet), Err(error), "{packet:?}");
        }
        let odd_times = seed::MediaPacket { data: vec![1], timestamp: f64::NAN, duration: -1.0, ..Default::default() };
        let media = unwrap(Dialect::Seed, &wrapper(2, odd_times.encode_to_vec())).unwrap();
        assert_eq!((media.frame.timestamp, media.frame.duration), (Duration::ZERO, Duration::ZERO));
    }
}
