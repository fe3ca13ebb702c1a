//! Ogg Opus (RFC 7845): the two headers, the packets, and how long each one lasts.
//!
//! What lives here: reading a whole file, the headers as bytes, the length of a packet from its first byte. What does
//! not: the pages of Ogg (crate `ogg`) and files (`writer`).

use std::io::Cursor;
use std::time::Duration;

use bytes::Bytes;
use ogg::PacketReader;

use super::{Clip, ClipError, Format, Frame};

/// How a file starts.
pub const MAGIC: &[u8] = b"OggS";
/// Opus always counts samples at this rate.
pub const SAMPLES_PER_SECOND: u32 = 48_000;
/// The samples to skip where nobody said: the look-ahead of the usual encoder, 6.5 ms.
pub const USUAL_PRE_SKIP: u16 = 312;

fn damaged(what: impl Into<String>) -> ClipError {
    ClipError::Damaged { container: "Ogg", what: what.into() }
}

/// Reads a whole file: its first Opus stream.
pub fn read(file: &[u8]) -> Result<Clip, ClipError> {
    let mut packets = PacketReader::new(Cursor::new(file));
    let mut next = || packets.read_packet().map_err(|error| damaged(error.to_string()));

    let head = next()?.ok_or_else(|| damaged("it has no packets"))?;
    let serial = head.stream_serial();
    let format = parse_head(&head.data)?;
    let mut tags_seen = false;
    let mut frames = Vec::new();
    let mut samples = 0_u64;
    while let Some(packet) = next()? {
        if packet.stream_serial() != serial {
            continue;
        }
        if !tags_seen {
            if !packet.data.starts_with(b"OpusTags") {
                return Err(damaged("the second packet is not OpusTags"));
            }
            tags_seen = true;
            continue;
        }
        let length =
            packet_samples(&packet.data).ok_or_else(|| damaged(format!("packet {} is no Opus", frames.len())))?;
        frames.push(Frame {
            timestamp: time(samples),
            duration: time(u64::from(length)),
            data: Bytes::from(packet.data),
            key: true,
        });
        samples += u64::from(length);
    }
    Ok(Clip { format, frames })
}

/// How long so many samples last.
fn time(samples: u64) -> Duration {
    // One sample is 62,500 / 3 nanoseconds; a file's samples stay far below the overflow at 584 years.
    Duration::from_nanos(samples.saturating_mul(62_500) / 3)
}

fn parse_head(head: &[u8]) -> Result<Format, ClipError> {
    if !head.starts_with(b"OpusHead") {
        return Err(ClipError::Codec(head.iter().take(8).copied().collect::<Vec<u8>>().escape_ascii().to_string()));
    }
    if head.len() < 19 || head[8] >> 4 != 0 {
        return Err(damaged("its OpusHead is of an unknown version or too short"));
    }
    let (channels, mapping) = (head[9], head[18]);
    if mapping != 0 || !(1..=2).contains(&channels) {
        return Err(damaged(format!("{channels} channels with mapping {mapping}: only mono and stereo are supported")));
    }
    Ok(Format::Audio {
        channels,
        pre_skip: u16::from_le_bytes([head[10], head[11]]),
        sample_rate: u32::from_le_bytes([head[12], head[13], head[14], head[15]]),
    })
}

/// The first packet of a file.
pub(super) fn head(channels: u8, sample_rate: u32, pre_skip: u16) -> Vec<u8> {
    let mut head = b"OpusHead\x01".to_vec();
    head.push(channels);
    head.extend_from_slice(&pre_skip.to_le_bytes());
    head.extend_from_slice(&sample_rate.to_le_bytes());
    head.extend_from_slice(&[0, 0, 0]); // gain, mapping family
    head
}

/// The second packet of a file: who made it, and no comments.
pub(super) fn tags() -> Vec<u8> {
    const VENDOR: &[u8] = b"roomcast";
    let mut tags = b"OpusTags".to_vec();
    tags.extend_from_slice(&(VENDOR.len() as u32).to_le_bytes());
    tags.extend_from_slice(VENDOR);
    tags.extend_from_slice(&0_u32.to_le_bytes());
    tags
}

/// How many samples (at 48,000 Hz) an Opus packet holds, from its table of contents (RFC 6716, section 3.1). `None` for
/// what cannot be Opus: no bytes, no frames, or more than 120 ms.
#[must_use]
pub fn packet_samples(packet: &[u8]) -> Option<u32> {
    let (&toc, rest) = packet.split_first()?;
    let step = u32::from(toc >> 3);
    let frame = match step {
        0..=11 => [480, 960, 1920, 2880][step as usize % 4], // SILK: 10, 20, 40, 60 ms
        12..=15 => [480, 960][step as usize % 2],            // hybrid: 10, 20 ms
        _ => [120, 240, 480, 960][step as usize % 4],        // CELT: 2.5, 5, 10, 20 ms
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(rest.first()? & 0x3f),
    };
    let samples = frame * frames;
    (1..=SAMPLES_PER_SECOND * 120 / 1000).contains(&samples).then_some(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIP: &[u8] = include_bytes!("../../clips/opus.ogg");

    #[test]
    fn the_committed_clip_is_stereo_in_packets_of_20_ms() {
        let clip = read(CLIP).unwrap();
        assert_eq!(clip.format, Format::Audio { channels: 2, sample_rate: 48_000, pre_skip: 312 });
        for (at, frame) in (0..).zip(&clip.frames) {
            assert_eq!(frame.timestamp, Duration::from_millis(20 * at));
            assert_eq!(frame.duration, Duration::from_millis(20));
        }
    }

    #[test]
    fn the_length_of_a_packet_follows_from_its_first_bytes() {
        for (packet, milliseconds_times_10) in [
            (&[0 << 3][..], 100),
            (&[3 << 3], 600),
            (&[1 << 3 | 1], 400),
            (&[13 << 3], 200),
            (&[16 << 3], 25),
            (&[19 << 3 | 2], 400),
            (&[19 << 3 | 3, 6], 1200),
            (&[31 << 3 | 3, 0xc3], 600),
        ] {
            assert_eq!(packet_samples(packet), Some(milliseconds_times_10 * 48 / 10), "{packet:?}");
        }
        for packet in [&[][..], &[3], &[3, 0], &[31 << 3 | 3, 7], &[3 << 3 | 3, 3]] {
            assert_eq!(packet_samples(packet), None, "{packet:?}");
        }
    }

    #[test]
    fn a_damaged_file_is_refused() {
        let mut flipped = CLIP.to_vec();
        flipped[200] ^= 1; // the page's checksum no longer holds
        assert!(matches!(read(&flipped), Err(ClipError::Damaged { container: "Ogg", .. })));
        assert!(matches!(read(&CLIP[..4]), Err(ClipError::Damaged { .. })));
        assert!(matches!(parse_head(b"\x80theora "), Err(ClipError::Codec(_))));
        assert!(parse_head(&head(3, 48_000, 0)).is_err());
        assert!(parse_head(b"OpusHead\x01\x02").is_err());
        let mono = Format::Audio { channels: 1, sample_rate: 16_000, pre_skip: 5 };
        assert_eq!(parse_head(&head(1, 16_000, 5)), Ok(mono));
    }
}
