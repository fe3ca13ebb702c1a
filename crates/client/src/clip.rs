//! Clips: encoded media in files, taken apart into frames and put together again.
//!
//! What lives here: the containers (IVF, H.264 Annex B, Ogg Opus), what a frame is, and which frames stand alone. What
//! does not: coding or decoding of pictures and sound, and how a frame travels (`media`).

use std::time::Duration;

use bytes::Bytes;

pub mod annex_b;
pub mod ivf;
pub mod ogg_opus;
mod writer;

pub use writer::ClipWriter;

/// How the frames of a clip are coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// VP8 (RFC 6386); kept in IVF.
    Vp8,
    /// VP9; kept in IVF.
    Vp9,
    /// H.264 with start codes (Annex B), parameter sets in the stream.
    H264,
    /// Opus (RFC 6716); kept in Ogg (RFC 7845).
    Opus,
}

impl Codec {
    /// The short name, as used in messages and file names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vp8 => "vp8",
            Self::Vp9 => "vp9",
            Self::H264 => "h264",
            Self::Opus => "opus",
        }
    }

    /// The usual ending of a file that holds it.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Vp8 | Self::Vp9 => "ivf",
            Self::H264 => "h264",
            Self::Opus => "ogg",
        }
    }

    /// Whether this is sound.
    #[must_use]
    pub const fn is_audio(self) -> bool {
        matches!(self, Self::Opus)
    }

    /// Tells the codec of a video frame that stands alone from its first bytes. `None` for a frame that does not stand
    /// alone or is of another codec: only key frames carry marks that cannot be mistaken for one another.
    #[must_use]
    pub fn of_key_frame(data: &[u8]) -> Option<Self> {
        if annex_b::starts_with_start_code(data) && annex_b::is_key(data) {
            Some(Self::H264)
        } else if data.len() >= 10 && data[0] & 1 == 0 && data[3..6] == [0x9d, 0x01, 0x2a] {
            Some(Self::Vp8)
        } else if ivf::vp9_is_key(data) && data.len() >= 4 && data[1..4] == [0x49, 0x83, 0x42] {
            Some(Self::Vp9)
        } else {
            None
        }
    }

    /// Whether a frame of this codec can be decoded without those before it.
    #[must_use]
    pub fn is_key(self, data: &[u8]) -> bool {
        match self {
            Self::Vp8 => ivf::vp8_is_key(data),
            Self::Vp9 => ivf::vp9_is_key(data),
            Self::H264 => annex_b::is_key(data),
            Self::Opus => true,
        }
    }
}

/// What a decoder must know besides the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Pictures.
    Video {
        /// How they are coded.
        codec: Codec,
        /// Width in pixels; 0 where the container does not say (Annex B).
        width: u16,
        /// Height in pixels; 0 where the container does not say (Annex B).
        height: u16,
        /// The unit of time that the container counts in.
        time_base: TimeBase,
    },
    /// Sound, always Opus.
    Audio {
        /// 1 or 2.
        channels: u8,
        /// The rate of the original in hertz; Opus itself always counts 48,000 a second.
        sample_rate: u32,
        /// Samples (at 48,000 Hz) to throw away at the start.
        pre_skip: u16,
    },
}

impl Format {
    /// How the frames are coded.
    #[must_use]
    pub const fn codec(&self) -> Codec {
        match self {
            Self::Video { codec, .. } => *codec,
            Self::Audio { .. } => Codec::Opus,
        }
    }
}

/// `scale / rate` seconds: one tick of a container's clock. A constant frame rate of 30 is `{ rate: 30, scale: 1 }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeBase {
    rate: u32,
    scale: u32,
}

impl TimeBase {
    /// A thousand ticks a second, for frames that come at no constant rate.
    pub const MILLISECONDS: Self = Self { rate: 1000, scale: 1 };

    /// `None` where either is 0.
    #[must_use]
    pub const fn new(rate: u32, scale: u32) -> Option<Self> {
        if rate == 0 || scale == 0 { None } else { Some(Self { rate, scale }) }
    }

    /// The clock of a constant frame rate that fits a frame's duration: a whole number of frames per second where the
    /// duration is within 2 % of one, else milliseconds.
    #[must_use]
    pub fn fitting(frame: Duration) -> Self {
        let per_second = 1.0 / frame.as_secs_f64();
        let whole = per_second.round();
        if (1.0..=240.0).contains(&whole) && (per_second / whole - 1.0).abs() < 0.02 {
            Self { rate: whole as u32, scale: 1 }
        } else {
            Self::MILLISECONDS
        }
    }

    /// Ticks per `scale` seconds.
    #[must_use]
    pub const fn rate(self) -> u32 {
        self.rate
    }

    /// Seconds per `rate` ticks.
    #[must_use]
    pub const fn scale(self) -> u32 {
        self.scale
    }

    /// When a tick is. Saturates after 584 years.
    #[must_use]
    pub fn time(self, tick: u64) -> Duration {
        let nanos = u128::from(tick) * u128::from(self.scale) * 1_000_000_000 / u128::from(self.rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The tick nearest to a time.
    #[must_use]
    pub fn tick(self, time: Duration) -> u64 {
        let unit = u128::from(self.scale) * 1_000_000_000;
        let ticks = (time.as_nanos() * u128::from(self.rate) + unit / 2) / unit;
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

/// One picture, or one packet of sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The coded bytes, without anything of the container.
    pub data: Bytes,
    /// When it is shown or heard, from the start of the clip.
    pub timestamp: Duration,
    /// For how long.
    pub duration: Duration,
    /// Whether it stands alone.
    pub key: bool,
}

/// A whole clip in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clip {
    /// What a decoder must know.
    pub format: Format,
    /// The frames in the order of the file.
    pub frames: Vec<Frame>,
}

/// Why a file is not a clip.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClipError {
    /// None of the containers known here.
    #[error("not a clip: neither IVF (DKIF), Ogg (OggS) nor H.264 Annex B (a start code)")]
    Unknown,
    /// A codec that is not known here.
    #[error("the codec {0} is not supported: VP80, VP90, H.264 and Opus are")]
    Codec(String),
    /// The container broke its own rules.
    #[error("the {container} file is damaged: {what}")]
    Damaged {
        /// Which container.
        container: &'static str,
        /// What is wrong, and where.
        what: String,
    },
    /// Nothing to play.
    #[error("the clip has no frames")]
    Empty,
}

impl Clip {
    /// The frame rate given to an Annex B stream, which carries no times of its own.
    pub const ANNEX_B_FRAME_RATE: TimeBase = TimeBase { rate: 30, scale: 1 };

    /// Reads a clip, telling the container from the content. `rate` is used for H.264 Annex B only.
    pub fn parse(file: &[u8], rate: TimeBase) -> Result<Self, ClipError> {
        let clip = if file.starts_with(ivf::MAGIC) {
            ivf::read(file)?
        } else if file.starts_with(ogg_opus::MAGIC) {
            ogg_opus::read(file)?
        } else if annex_b::starts_with_start_code(file) {
            annex_b::read(file, rate)
        } else {
            return Err(ClipError::Unknown);
        };
        if clip.frames.is_empty() { Err(ClipError::Empty) } else { Ok(clip) }
    }

    /// How long it plays: to the end of the frame that ends last.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.frames.iter().map(|frame| frame.timestamp.saturating_add(frame.duration)).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_frame_rate_is_found_from_a_duration() {
        for fps in [1_u32, 15, 24, 25, 30, 50, 60] {
            let exact = Duration::from_secs(1) / fps;
            assert_eq!(TimeBase::fitting(exact), TimeBase::new(fps, 1).unwrap());
            let whole_milliseconds = Duration::from_millis(u64::try_from(exact.as_millis()).unwrap());
            if fps <= 30 {
                assert_eq!(TimeBase::fitting(whole_milliseconds), TimeBase::new(fps, 1).unwrap(), "{fps}");
            }
        }
        for odd in [Duration::ZERO, Duration::from_secs(3), Duration::from_micros(400_000), Duration::from_nanos(1)] {
            assert_eq!(TimeBase::fitting(odd), TimeBase::MILLISECONDS, "{odd:?}");
        }
    }

    #[test]
    fn ticks_and_times_are_inverse() {
        for base in [TimeBase::new(30, 1).unwrap(), TimeBase::new(30_000, 1001).unwrap(), TimeBase::MILLISECONDS] {
            for tick in (0..2000).chain([1 << 38]) {
                assert_eq!(base.tick(base.time(tick)), tick, "{base:?}");
            }
        }
        assert_eq!(TimeBase::new(0, 1), None);
        assert_eq!(TimeBase::new(1, 0), None);
        assert_eq!(TimeBase::new(1, u32::MAX).unwrap().time(u64::MAX), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn the_codec_of_a_key_frame_is_told_from_its_bytes() {
        for (file, codec) in [
            (include_bytes!("../clips/vp8.ivf").as_slice(), Codec::Vp8),
            (include_bytes!("../clips/vp9.ivf").as_slice(), Codec::Vp9),
            (include_bytes!("../clips/h264-baseline.h264").as_slice(), Codec::H264),
        ] {
            let clip = Clip::parse(file, Clip::ANNEX_B_FRAME_RATE).unwrap();
            assert_eq!(clip.format.codec(), codec);
            for frame in &clip.frames {
                assert_eq!(Codec::of_key_frame(&frame.data), frame.key.then_some(codec));
                assert_eq!(codec.is_key(&frame.data), frame.key);
            }
        }
        for short in [&[][..], &[0], &[0x82], &[0, 0, 1], &[0, 0, 0, 1]] {
            assert_eq!(Codec::of_key_frame(short), None);
            for codec in [Codec::Vp8, Codec::Vp9, Codec::H264] {
                let _ = codec.is_key(short); // must not panic
            }
        }
    }

    #[test]
    fn the_committed_clips_are_three_seconds_with_a_key_frame_each_second() {
        for file in [
            include_bytes!("../clips/vp8.ivf").as_slice(),
            include_bytes!("../clips/vp9.ivf").as_slice(),
            include_bytes!("../clips/h264-baseline.h264").as_slice(),
        ] {
            let clip = Clip::parse(file, Clip::ANNEX_B_FRAME_RATE).unwrap();
            assert_eq!(clip.frames.len(), 90);
            let keys: Vec<usize> = (0..90).filter(|&at| clip.frames[at].key).collect();
            assert_eq!(keys, [0, 30, 60]);
            assert_eq!(clip.duration().as_millis(), 3000 - u128::from(clip.duration() < Duration::from_secs(3)));
        }
        let opus = Clip::parse(include_bytes!("../clips/opus.ogg"), Clip::ANNEX_B_FRAME_RATE).unwrap();
        assert_eq!(opus.frames.len(), 151);
        assert_eq!(opus.duration(), Duration::from_millis(3020));
        assert!(opus.frames.iter().all(|frame| frame.key));
    }

    #[test]
    fn what_is_no_clip_says_so() {
        for bytes in [&b""[..], b"RIFF", b"hello", &[0, 0]] {
            assert_eq!(Clip::parse(bytes, Clip::ANNEX_B_FRAME_RATE), Err(ClipError::Unknown));
        }
    }
}
