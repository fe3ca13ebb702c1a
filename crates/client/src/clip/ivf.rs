//! IVF: a 32-byte header, then each frame behind its length and its time. Little-endian throughout.
//!
//! What lives here: reading it, its two headers as bytes, and which VP8 and VP9 frames stand alone. What does not:
//! files (`writer`).

use bytes::Bytes;

use super::{Clip, ClipError, Codec, Format, Frame, TimeBase};

/// How a file starts.
pub const MAGIC: &[u8] = b"DKIF";
/// Length of the file's header, in bytes.
pub const HEADER_BYTES: usize = 32;
/// Where the file's header holds the number of frames (4 bytes).
pub(super) const FRAME_COUNT_OFFSET: u64 = 24;
/// Length of the header before each frame, in bytes.
const FRAME_HEADER_BYTES: usize = 12;

fn damaged(what: impl Into<String>) -> ClipError {
    ClipError::Damaged { container: "IVF", what: what.into() }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Reads a whole file. The number of frames in the header is not believed: writers that were interrupted leave 0 there.
pub fn read(file: &[u8]) -> Result<Clip, ClipError> {
    if file.len() < HEADER_BYTES || !file.starts_with(MAGIC) {
        return Err(damaged("it is shorter than its header"));
    }
    let version = u16_at(file, 4);
    if version != 0 {
        return Err(damaged(format!("version {version} is unknown")));
    }
    let header = usize::from(u16_at(file, 6));
    if header < HEADER_BYTES || header > file.len() {
        return Err(damaged(format!("its header is {header} bytes long")));
    }
    let codec = match &file[8..12] {
        b"VP80" => Codec::Vp8,
        b"VP90" => Codec::Vp9,
        other => return Err(ClipError::Codec(other.escape_ascii().to_string())),
    };
    let time_base =
        TimeBase::new(u32_at(file, 16), u32_at(file, 20)).ok_or_else(|| damaged("its frame rate has a zero"))?;

    let mut frames: Vec<(u64, Bytes)> = Vec::new();
    let mut rest = &file[header..];
    while !rest.is_empty() {
        let number = frames.len();
        if rest.len() < FRAME_HEADER_BYTES {
            return Err(damaged(format!("it ends within the header of frame {number}")));
        }
        let length = u32_at(rest, 0) as usize;
        let tick = u64::from(u32_at(rest, 4)) | u64::from(u32_at(rest, 8)) << 32;
        let data = rest[FRAME_HEADER_BYTES..]
            .get(..length)
            .ok_or_else(|| damaged(format!("it ends within frame {number}, which is {length} bytes long")))?;
        if frames.last().is_some_and(|(before, _)| *before >= tick) {
            return Err(damaged(format!("frame {number} is not later than the one before")));
        }
        frames.push((tick, Bytes::copy_from_slice(data)));
        rest = &rest[FRAME_HEADER_BYTES + length..];
    }
    let format = Format::Video { codec, width: u16_at(file, 12), height: u16_at(file, 14), time_base };
    Ok(Clip { format, frames: timed(frames, codec, time_base) })
}

/// A frame lasts until the next; the last as long as the one before it, a lone one for one tick.
fn timed(frames: Vec<(u64, Bytes)>, codec: Codec, time_base: TimeBase) -> Vec<Frame> {
    let ticks: Vec<u64> = frames.iter().map(|(tick, _)| *tick).collect();
    let last_gap = match ticks.as_slice() {
        [.., before, last] => last - before,
        _ => 1,
    };
    frames
        .into_iter()
        .enumerate()
        .map(|(at, (tick, data))| {
            let timestamp = time_base.time(tick);
            let end = time_base.time(ticks.get(at + 1).copied().unwrap_or_else(|| tick.saturating_add(last_gap)));
            let key = codec.is_key(&data);
            Frame { data, timestamp, duration: end.saturating_sub(timestamp), key }
        })
        .collect()
}

/// The file's header. `frames` may be corrected later, at byte 24.
pub(super) fn header(codec: Codec, width: u16, height: u16, time_base: TimeBase, frames: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0..4].copy_from_slice(MAGIC);
    header[6..8].copy_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
    header[8..12].copy_from_slice(if codec == Codec::Vp9 { b"VP90" } else { b"VP80" });
    header[12..14].copy_from_slice(&width.to_le_bytes());
    header[14..16].copy_from_slice(&height.to_le_bytes());
    header[16..20].copy_from_slice(&time_base.rate().to_le_bytes());
    header[20..24].copy_from_slice(&time_base.scale().to_le_bytes());
    header[24..28].copy_from_slice(&frames.to_le_bytes());
    header
}

/// The header before a frame of `length` bytes.
pub(super) fn frame_header(length: u32, tick: u64) -> [u8; FRAME_HEADER_BYTES] {
    let mut header = [0; FRAME_HEADER_BYTES];
    header[0..4].copy_from_slice(&length.to_le_bytes());
    header[4..12].copy_from_slice(&tick.to_le_bytes());
    header
}

/// Whether a VP8 frame is a key frame (RFC 6386, section 9.1).
#[must_use]
pub fn vp8_is_key(data: &[u8]) -> bool {
    data.first().is_some_and(|first| first & 1 == 0)
}

/// Whether a VP9 frame is a key frame: marker `10`, two bits of profile (and a reserved one in profile 3), then
/// `show_existing_frame` and `frame_type`, both 0.
#[must_use]
pub fn vp9_is_key(data: &[u8]) -> bool {
    let Some(&first) = data.first() else { return false };
    let profile_3 = first & 0b0011_0000 == 0b0011_0000;
    let (show_existing, frame_type) =
        if profile_3 { (first & 0b0000_0100, first & 0b0000_0010) } else { (first & 0b0000_1000, first & 0b0000_0100) };
    first >> 6 == 0b10 && show_existing == 0 && frame_type == 0
}

/// Width and height of a VP8 key frame, or of a VP9 key frame of profile 0 (the only one that the clients of this
/// protocol send). `None` for anything else.
#[must_use]
pub fn dimensions(codec: Codec, data: &[u8]) -> Option<(u16, u16)> {
    match codec {
        Codec::Vp8 if vp8_is_key(data) && data.len() >= 10 => {
            Some((u16_at(data, 6) & 0x3fff, u16_at(data, 8) & 0x3fff))
        }
        Codec::Vp9 if vp9_is_key(data) && data.len() >= 9 && data[0] & 0b0011_0000 == 0 => {
            // After the sync code: 3 bits of colour space, 1 of range, then width - 1 and height - 1, 16 bits each. An
            // RGB colour space (7) has no such place in profile 0.
            let bits = data[4..9].iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
            let field = |from_top: u32| (bits >> (40 - from_top - 16)) as u16;
            (bits >> 37 != 7).then(|| (field(4).saturating_add(1), field(20).saturating_add(1)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const VP8: &[u8] = include_bytes!("../../clips/vp8.ivf");
    const VP9: &[u8] = include_bytes!("../../clips/vp9.ivf");

    #[test]
    fn the_committed_clips_have_their_size_and_rate() {
        for (file, codec) in [(VP8, Codec::Vp8), (VP9, Codec::Vp9)] {
            let clip = read(file).unwrap();
            let time_base = TimeBase::new(30, 1).unwrap();
            assert_eq!(clip.format, Format::Video { codec, width: 320, height: 240, time_base });
            assert_eq!(clip.frames[1].timestamp, Duration::from_nanos(33_333_333));
            assert_eq!(dimensions(codec, &clip.frames[0].data), Some((320, 240)));
            assert_eq!(dimensions(codec, &clip.frames[1].data), None);
        }
    }

    #[test]
    fn a_cut_file_is_damaged_and_says_where() {
        let clip = read(VP8).unwrap();
        let first = HEADER_BYTES + FRAME_HEADER_BYTES + clip.frames[0].data.len();
        assert!(read(&VP8[..HEADER_BYTES]).unwrap().frames.is_empty());
        assert_eq!(read(&VP8[..first]).unwrap().frames.len(), 1);
        for (cut, what) in [
            (HEADER_BYTES - 1, "shorter than its header"),
            (HEADER_BYTES + 1, "header of frame 0"),
            (first - 1, "within frame 0"),
            (first + 11, "header of frame 1"),
        ] {
            let error = read(&VP8[..cut]).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn a_wrong_header_is_refused() {
        for (at, bytes) in [(4, &[1][..]), (6, &[0]), (8, b"AV01"), (16, &[0; 4]), (20, &[0; 4])] {
            let mut file = VP8.to_vec();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            assert!(read(&file).is_err(), "byte {at}");
        }
    }

    #[test]
    fn frames_that_go_back_in_time_are_refused() {
        let mut file = header(Codec::Vp8, 16, 16, TimeBase::MILLISECONDS, 2).to_vec();
        for tick in [u64::MAX, 5] {
            file.extend_from_slice(&frame_header(1, tick));
            file.push(0);
        }
        assert!(read(&file).unwrap_err().to_string().contains("not later"));
        let lone = read(&file[..HEADER_BYTES + FRAME_HEADER_BYTES + 1]).unwrap();
        assert_eq!(lone.frames[0].timestamp, Duration::from_nanos(u64::MAX)); // saturated
    }
}
