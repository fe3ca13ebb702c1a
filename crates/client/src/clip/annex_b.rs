//! H.264 with start codes: split into access units, one per picture, and which of them stand alone.
//!
//! What lives here: the split, by the first slice of each picture. What does not: parameter sets and slice data, whose
//! inside is not read. Streams with arbitrary slice order (nobody's camera makes them) would be split wrongly.

use bytes::Bytes;

use super::{Clip, Codec, Format, Frame, TimeBase};

const SLICE: u8 = 1;
const SLICE_PART_A: u8 = 2;
const SLICE_IDR: u8 = 5;
const SEI: u8 = 6;
const ACCESS_UNIT_DELIMITER: u8 = 9;

/// Whether the bytes start with a start code of three or four bytes.
#[must_use]
pub fn starts_with_start_code(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0, 0, 1]) || bytes.starts_with(&[0, 0, 0, 1])
}

/// Where each unit starts: the place of its start code (with the zero byte before it, where there is one), and of its
/// first byte.
fn units(stream: &[u8]) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(window) = stream.get(at..at + 3) {
            if window == [0, 0, 1] {
                let start = if at > 0 && stream[at - 1] == 0 { at - 1 } else { at };
                at += 3;
                return Some((start, at));
            }
            at += 1;
        }
        None
    })
}

/// Splits a stream into access units, start codes included: put together again they are the stream, byte for byte.
/// Bytes before the first start code go with the first unit.
#[must_use]
pub fn access_units(stream: &[u8]) -> Vec<&[u8]> {
    let mut cuts = vec![0];
    let mut picture_seen = false; // in the access unit that is being gathered
    for (start, body) in units(stream) {
        let kind = stream.get(body).map_or(0, |byte| byte & 0x1f);
        let starts_unit = match kind {
            // The first bit of a slice header is 1 exactly when it starts at macroblock 0.
            SLICE | SLICE_PART_A | SLICE_IDR => stream.get(body + 1).is_some_and(|byte| byte & 0x80 != 0),
            SEI..=ACCESS_UNIT_DELIMITER | 14..=18 => true, // delimiter, SEI, parameter sets: they come before a picture
            _ => false,
        };
        if starts_unit && picture_seen {
            cuts.push(start);
            picture_seen = false;
        }
        picture_seen |= matches!(kind, SLICE | SLICE_PART_A | SLICE_IDR);
    }
    cuts.push(stream.len());
    cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).filter(|unit| !unit.is_empty()).collect()
}

/// Whether an access unit holds a picture that resets the decoder (IDR).
#[must_use]
pub fn is_key(access_unit: &[u8]) -> bool {
    units(access_unit).any(|(_, body)| access_unit.get(body).is_some_and(|byte| byte & 0x1f == SLICE_IDR))
}

/// Reads a stream as a clip at a constant frame rate, one access unit per tick.
#[must_use]
pub fn read(stream: &[u8], rate: TimeBase) -> Clip {
    let frames = access_units(stream).into_iter().zip(0_u64..).map(|(unit, tick)| {
        let timestamp = rate.time(tick);
        Frame {
            data: Bytes::copy_from_slice(unit),
            timestamp,
            duration: rate.time(tick + 1).saturating_sub(timestamp),
            key: is_key(unit),
        }
    });
    let format = Format::Video { codec: Codec::H264, width: 0, height: 0, time_base: rate };
    Clip { format, frames: frames.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIP: &[u8] = include_bytes!("../../clips/h264-baseline.h264");
    const IDR: [u8; 6] = [0, 0, 1, 0x65, 0x88, 7];
    const DELTA: [u8; 6] = [0, 0, 1, 0x41, 0x9a, 7];
    const SECOND_SLICE: [u8; 6] = [0, 0, 1, 0x41, 0x02, 7];
    const SPS: [u8; 5] = [0, 0, 0, 1, 0x67];
    const DELIMITER: [u8; 5] = [0, 0, 0, 1, 0x09];

    #[test]
    fn the_units_of_a_clip_are_the_clip() {
        let units = access_units(CLIP);
        assert_eq!(units.len(), 90);
        assert_eq!(units.concat(), CLIP);
        assert!(units.iter().all(|unit| starts_with_start_code(unit)));
    }

    #[test]
    fn a_unit_is_cut_before_the_first_slice_or_what_belongs_to_the_next_picture() {
        let parts: [&[u8]; 7] = [&SPS, &IDR, &DELTA, &SECOND_SLICE, &DELIMITER, &DELTA, &DELTA];
        let stream = parts.concat();
        let units = access_units(&stream);
        let lengths: Vec<usize> = units.iter().map(|unit| unit.len()).collect();
        assert_eq!(lengths, [11, 12, 11, 6]);
        assert_eq!(units.iter().map(|unit| is_key(unit)).collect::<Vec<_>>(), [true, false, false, false]);
    }

    #[test]
    fn odd_ends_do_not_panic_and_lose_nothing() {
        for stream in
            [&[][..], &[0], &[0, 0, 1], &[0, 0, 0, 1], &[7, 7, 0, 0, 1, 0x65], &[0, 0, 1, 0x65, 0x88, 0, 0, 1]]
        {
            assert_eq!(access_units(stream).concat(), stream);
        }
    }
}
