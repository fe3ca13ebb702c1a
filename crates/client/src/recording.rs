//! What one sender sends, written to a playable file.
//!
//! What lives here: where a recording may start, what is left out of it, and how it is timed. What does not: who the
//! sender is, file names, the containers (`clip`).

use std::io::{self, Seek, Write};
use std::time::Duration;

use crate::clip::{ClipWriter, Codec, Format, Frame, TimeBase, ivf, ogg_opus};
use crate::media::MediaFrame;

/// What a recording left out, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Pictures before the first key frame: nothing could decode them.
    pub before_key: u64,
    /// Pictures after a gap, up to the next key frame: they need one that never came.
    pub after_gap: u64,
    /// Frames of another codec than the recording's.
    pub other_codec: u64,
    /// Frames that never came, by the gaps between their numbers.
    pub missing: u64,
}

/// One stream of one sender on its way to a file. The file is made when the first frame can be written, since only then
/// its kind is known.
#[derive(Debug)]
pub struct Recording<W: Write + Seek> {
    out: Option<(ClipWriter<W>, Codec)>,
    /// The number that the next picture should have.
    next: Option<u64>,
    /// A gap was seen, and no key frame since.
    broken: bool,
    frames: u64,
    bytes: u64,
    left: Left,
}

impl<W: Write + Seek> Default for Recording<W> {
    fn default() -> Self {
        Self { out: None, next: None, broken: false, frames: 0, bytes: 0, left: Left::default() }
    }
}

impl<W: Write + Seek> Recording<W> {
    /// Takes the next frame; writes it, unless it could not be decoded. `create` makes the file and is called at most
    /// once.
    ///
    /// # Errors
    /// The file's.
    pub fn push(&mut self, media: &MediaFrame, create: impl FnOnce(Codec) -> io::Result<W>) -> io::Result<()> {
        let audio = media.codec == Some(Codec::Opus);
        if !audio && !self.follows(media) {
            return Ok(());
        }
        if let Some((_, codec)) = &self.out {
            if media.codec.is_some_and(|other| other != *codec) {
                self.left.other_codec += 1;
                self.broken = true;
                return Ok(());
            }
        } else {
            let Some(format) = format_of(media) else {
                self.left.before_key += 1;
                return Ok(());
            };
            let codec = format.codec();
            self.out = Some((ClipWriter::new(create(codec)?, &format)?, codec));
        }
        if let Some((out, _)) = &mut self.out {
            out.push(&media.frame)?;
            self.frames += 1;
            self.bytes += media.frame.data.len() as u64;
        }
        Ok(())
    }

    /// Whether a picture can be decoded after what was written so far; counts what cannot.
    fn follows(&mut self, media: &MediaFrame) -> bool {
        let MediaFrame { sequence, frame: Frame { key, .. }, .. } = *media;
        let expected = self.next.replace(sequence.wrapping_add(1));
        if self.out.is_none() {
            self.left.before_key += u64::from(!key);
            return key;
        }
        // A number below the expected one is a sender that started over, which loses nothing but needs a key frame too.
        if let Some(expected) = expected
            && sequence != expected
        {
            self.broken = true;
            self.left.missing += sequence.saturating_sub(expected);
        }
        self.broken &= !key;
        self.left.after_gap += u64::from(self.broken);
        !self.broken
    }

    /// Frames written.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Their bytes, without the container's.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What was left out.
    #[must_use]
    pub fn left(&self) -> Left {
        self.left
    }

    /// Completes the file; `None` where none was begun.
    ///
    /// # Errors
    /// The file's.
    pub fn finish(self) -> io::Result<Option<W>> {
        self.out.map(|(out, _)| out.finish()).transpose()
    }
}

/// What a decoder must know, as far as a stream's first frame tells. `None` where its codec cannot be told.
fn format_of(media: &MediaFrame) -> Option<Format> {
    let codec = media.codec?;
    if codec == Codec::Opus {
        let sample_rate = if media.sample_rate == 0 { ogg_opus::SAMPLES_PER_SECOND } else { media.sample_rate };
        return Some(Format::Audio { channels: media.channels, sample_rate, pre_skip: ogg_opus::USUAL_PRE_SKIP });
    }
    let (width, height) = ivf::dimensions(codec, &media.frame.data).unwrap_or_default();
    let time_base = match media.frame.duration {
        Duration::ZERO => TimeBase::MILLISECONDS,
        duration => TimeBase::fitting(duration),
    };
    Some(Format::Video { codec, width, height, time_base })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use roomcast_protocol::{Dialect, UserId};

    use super::*;
    use crate::clip::Clip;
    use crate::media;

    const VP8: &[u8] = include_bytes!("../clips/vp8.ivf");
    const CLIPS: [&[u8]; 3] = [VP8, include_bytes!("../clips/vp9.ivf"), include_bytes!("../clips/h264-baseline.h264")];

    fn parse(file: &[u8]) -> Clip {
        Clip::parse(file, Clip::ANNEX_B_FRAME_RATE).unwrap()
    }

    fn received(file: &[u8]) -> Vec<MediaFrame> {
        let clip = parse(file);
        let user = UserId::parse("alice").unwrap();
        let wrap = |(sequence, frame)| media::wrap(Dialect::Seed, &user, &clip.format, sequence, frame);
        (0..).zip(&clip.frames).map(|at| media::unwrap(Dialect::Seed, &wrap(at)).unwrap()).collect()
    }

    fn recorded<'a>(frames: impl IntoIterator<Item = &'a MediaFrame>) -> (Vec<u8>, Left) {
        let mut recording = Recording::default();
        for frame in frames {
            recording.push(frame, |_| Ok(Cursor::new(Vec::new()))).unwrap();
        }
        let left = recording.left();
        (recording.finish().unwrap().map(Cursor::into_inner).unwrap_or_default(), left)
    }

    #[test]
    fn a_video_received_whole_is_the_clip_byte_for_byte() {
        for file in CLIPS {
            let (out, left) = recorded(&received(file));
            assert!(out == file);
            assert_eq!(left, Left::default());
        }
    }

    #[test]
    fn sound_received_whole_is_the_clip_packet_for_packet() {
        let file = include_bytes!("../clips/opus.ogg");
        let (out, left) = recorded(&received(file));
        assert_eq!(parse(&out), parse(file));
        assert_eq!(left, Left::default());
    }

    #[test]
    fn a_recording_starts_at_a_key_frame() {
        for file in CLIPS {
            let (out, left) = recorded(&received(file)[7..]);
            let (clip, original) = (parse(&out), parse(file));
            assert_eq!(clip.frames.len(), 60);
            assert!(clip.frames.iter().zip(&original.frames[30..]).all(|(got, sent)| got.data == sent.data));
            assert_eq!(left, Left { before_key: 23, ..Left::default() });
        }
    }

    #[test]
    fn after_a_gap_it_goes_on_at_the_next_key_frame() {
        let frames = received(VP8);
        let (out, left) = recorded(frames[..10].iter().chain(&frames[15..]));
        assert_eq!(parse(&out).frames.len(), 10 + 60);
        assert_eq!(left, Left { after_gap: 15, missing: 5, ..Left::default() });
    }

    #[test]
    fn a_sender_that_starts_over_goes_on_in_the_same_file() {
        let frames = received(VP8);
        let (out, left) = recorded(frames.iter().chain(&frames));
        assert_eq!(parse(&out).frames.len(), 180);
        assert_eq!(left, Left::default());
    }

    #[test]
    fn another_codec_is_left_out() {
        let (vp8, vp9) = (received(VP8), received(CLIPS[1]));
        let (out, left) = recorded(vp8.iter().chain(&vp9));
        assert!(out == VP8);
        assert_eq!((left.other_codec, left.after_gap), (3, 87));
    }

    #[test]
    fn nothing_to_decode_makes_no_file() {
        let (out, left) = recorded(&received(VP8)[1..30]);
        assert!(out.is_empty());
        assert_eq!(left.before_key, 29);
    }
}
