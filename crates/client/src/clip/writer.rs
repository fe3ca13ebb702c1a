//! Frames into a playable file, container by codec, as they come.
//!
//! What lives here: the order of writes. What does not: where frames come from, and what to do about missing ones.

use std::io::{self, Seek, SeekFrom, Write};
use std::time::Duration;

use ogg::{PacketWriteEndInfo, PacketWriter};

use super::{Codec, Format, Frame, TimeBase, ivf, ogg_opus};

/// After so many packets of sound a page of Ogg is closed, so that a file that was cut short loses at most a second of
/// packets of 20 ms.
const PACKETS_PER_PAGE: u32 = 50;

/// Writes one clip. Times are counted from the first frame written. `finish` completes the file; one that was not
/// finished (a crash) still plays up to its last frames.
#[derive(Debug)]
pub struct ClipWriter<W: Write + Seek>(Kind<W>);

#[derive(Debug)]
enum Kind<W: Write + Seek> {
    Ivf { out: W, time_base: TimeBase, start: Option<Duration>, next_tick: u64, frames: u32 },
    AnnexB { out: W },
    Ogg(Box<OggState<W>>),
}

struct OggState<W: Write> {
    out: PacketWriter<'static, W>,
    samples: u64,
    in_page: u32,
    /// The packet that came last: held back, since only the very last one ends the stream.
    held: Option<Vec<u8>>,
}

impl<W: Write> std::fmt::Debug for OggState<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OggState").field("samples", &self.samples).finish_non_exhaustive()
    }
}

/// The number of the one stream in a file of sound; any number would do.
const SERIAL: u32 = 1;

impl<W: Write + Seek> ClipWriter<W> {
    /// Starts a file.
    pub fn new(mut out: W, format: &Format) -> io::Result<Self> {
        let kind = match *format {
            Format::Video { codec: Codec::H264 | Codec::Opus, .. } => Kind::AnnexB { out },
            Format::Video { codec, width, height, time_base } => {
                out.write_all(&ivf::header(codec, width, height, time_base, 0))?;
                Kind::Ivf { out, time_base, start: None, next_tick: 0, frames: 0 }
            }
            Format::Audio { channels, sample_rate, pre_skip } => {
                let mut out = PacketWriter::new(out);
                let end_page = PacketWriteEndInfo::EndPage; // RFC 7845: each header has its own page
                out.write_packet(ogg_opus::head(channels, sample_rate, pre_skip), SERIAL, end_page, 0)?;
                out.write_packet(ogg_opus::tags(), SERIAL, end_page, 0)?;
                Kind::Ogg(Box::new(OggState { out, samples: 0, in_page: 0, held: None }))
            }
        };
        Ok(Self(kind))
    }

    /// Appends a frame. A video frame that is not later than the one before (a sender that started over) is put one
    /// tick after it; a packet of sound that is no Opus is an error.
    pub fn push(&mut self, frame: &Frame) -> io::Result<()> {
        match &mut self.0 {
            Kind::Ivf { out, time_base, start, next_tick, frames } => {
                let length = u32::try_from(frame.data.len()).map_err(io::Error::other)?;
                let start = *start.get_or_insert(frame.timestamp);
                let tick = time_base.tick(frame.timestamp.saturating_sub(start)).max(*next_tick);
                out.write_all(&ivf::frame_header(length, tick))?;
                out.write_all(&frame.data)?;
                *next_tick = tick + 1;
                *frames += 1;
                Ok(())
            }
            Kind::AnnexB { out } => out.write_all(&frame.data),
            Kind::Ogg(state) => state.push(&frame.data),
        }
    }

    /// Completes the file and gives it back.
    pub fn finish(self) -> io::Result<W> {
        let mut out = match self.0 {
            Kind::Ivf { mut out, frames, .. } => {
                out.seek(SeekFrom::Start(ivf::FRAME_COUNT_OFFSET))?;
                out.write_all(&frames.to_le_bytes())?;
                out.seek(SeekFrom::End(0))?;
                out
            }
            Kind::AnnexB { out } => out,
            Kind::Ogg(mut state) => {
                state.write_held(PacketWriteEndInfo::EndStream)?;
                state.out.into_inner()
            }
        };
        out.flush()?;
        Ok(out)
    }
}

impl<W: Write> OggState<W> {
    fn push(&mut self, packet: &[u8]) -> io::Result<()> {
        if ogg_opus::packet_samples(packet).is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a packet of sound is not Opus"));
        }
        let end = if self.in_page >= PACKETS_PER_PAGE {
            PacketWriteEndInfo::EndPage
        } else {
            PacketWriteEndInfo::NormalPacket
        };
        self.write_held(end)?;
        self.held = Some(packet.to_vec());
        Ok(())
    }

    fn write_held(&mut self, end: PacketWriteEndInfo) -> io::Result<()> {
        let Some(packet) = self.held.take() else { return Ok(()) };
        self.samples += u64::from(ogg_opus::packet_samples(&packet).unwrap_or_default());
        self.in_page = if matches!(end, PacketWriteEndInfo::NormalPacket) { self.in_page + 1 } else { 0 };
        self.out.write_packet(packet, SERIAL, end, self.samples)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::Clip;
    use super::*;

    fn rewritten(clip: &Clip, frames: &[Frame]) -> Vec<u8> {
        let mut writer = ClipWriter::new(Cursor::new(Vec::new()), &clip.format).unwrap();
        for frame in frames {
            writer.push(frame).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn parse(file: &[u8]) -> Clip {
        Clip::parse(file, Clip::ANNEX_B_FRAME_RATE).unwrap()
    }

    #[test]
    fn video_clips_are_written_back_byte_for_byte() {
        for file in [
            include_bytes!("../../clips/vp8.ivf").as_slice(),
            include_bytes!("../../clips/vp9.ivf").as_slice(),
            include_bytes!("../../clips/h264-baseline.h264").as_slice(),
        ] {
            let clip = parse(file);
            assert!(rewritten(&clip, &clip.frames) == file);
        }
    }

    #[test]
    fn sound_is_written_back_packet_for_packet() {
        let clip = parse(include_bytes!("../../clips/opus.ogg"));
        assert_eq!(parse(&rewritten(&clip, &clip.frames)), clip);
        for few in [1, 2, 50, 51, 52, 101] {
            assert_eq!(parse(&rewritten(&clip, &clip.frames[..few])).frames, clip.frames[..few]);
        }
    }

    #[test]
    fn a_clip_that_starts_late_is_timed_from_its_first_frame() {
        let clip = parse(include_bytes!("../../clips/vp8.ivf"));
        let late = parse(&rewritten(&clip, &clip.frames[30..]));
        assert_eq!(late.frames.len(), 60);
        assert_eq!(late.frames[0].timestamp, Duration::ZERO);
        assert_eq!(late.frames[59].timestamp, clip.frames[59].timestamp);
    }

    #[test]
    fn a_sender_that_starts_over_does_not_go_back_in_time() {
        let clip = parse(include_bytes!("../../clips/vp8.ivf"));
        let twice = [&clip.frames[..], &clip.frames[..]].concat();
        assert_eq!(parse(&rewritten(&clip, &twice)).frames.len(), 180);
    }

    #[test]
    fn what_is_no_opus_is_an_error() {
        let clip = parse(include_bytes!("../../clips/opus.ogg"));
        let mut writer = ClipWriter::new(Cursor::new(Vec::new()), &clip.format).unwrap();
        let mut frame = clip.frames[0].clone();
        frame.data = bytes::Bytes::new();
        assert_eq!(writer.push(&frame).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
