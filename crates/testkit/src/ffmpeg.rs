//! What an ordinary decoder makes of a file: frames and their checksums, by ffmpeg.
//!
//! What lives here: decoding a whole media file and comparing two of them. What does not: containers and codecs of our own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::peers::on_path;

/// A short clip takes a fraction of a second; with more than this something hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// Why a file could not be decoded, or is not what another file is.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// ffmpeg is not installed.
    #[error("ffmpeg is missing: run scripts/setup")]
    ToolMissing,
    /// ffmpeg could not be run.
    #[error("running ffmpeg: {0}")]
    Io(#[from] io::Error),
    /// ffmpeg took too long.
    #[error("{0}: not decoded within {DEADLINE:?}")]
    Deadline(PathBuf),
    /// ffmpeg complained, be it only about one frame.
    #[error("{file}: {complaint}")]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What ffmpeg said.
        complaint: String,
    },
    /// Two files decode to different frames.
    #[error("frame {index} differs ({left_frames} and {right_frames} frames)")]
    Different {
        /// The first frame that differs or that only one of them has, from 0.
        index: usize,
        /// How many frames the one has.
        left_frames: usize,
        /// How many frames the other has.
        right_frames: usize,
    },
}

/// Decodes the first stream of a file (video, or audio where there is no video) and returns the MD5 of each decoded frame,
/// in the order of the file, none repeated or left out for the sake of timing.
///
/// # Errors
/// Every complaint of the decoder is one: a file passes only when all of it decodes.
pub async fn frame_checksums(file: &Path) -> Result<Vec<String>, DecodeError> {
    let ffmpeg = on_path("ffmpeg").map_err(|_| DecodeError::ToolMissing)?;
    let mut command = Command::new(ffmpeg);
    command.args(["-nostdin", "-hide_banner", "-loglevel", "error", "-err_detect", "explode", "-i"]).arg(file);
    command.args(["-map", "0:0", "-fps_mode", "passthrough", "-f", "framemd5", "-"]);
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(DEADLINE, running).await.map_err(|_| DecodeError::Deadline(file.into()))??;
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if !output.status.success() || !complaint.is_empty() {
        return Err(DecodeError::Damaged { file: file.into(), complaint });
    }
    Ok(checksums_of(&String::from_utf8_lossy(&output.stdout)))
}

/// Decodes both files and returns how many frames they have, which are the same.
///
/// # Errors
/// As [`frame_checksums`], and [`DecodeError::Different`].
pub async fn same_frames(left: &Path, right: &Path) -> Result<usize, DecodeError> {
    compare(&frame_checksums(left).await?, &frame_checksums(right).await?)
}

fn compare(left: &[String], right: &[String]) -> Result<usize, DecodeError> {
    let same = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    if same == left.len() && same == right.len() {
        return Ok(same);
    }
    Err(DecodeError::Different { index: same, left_frames: left.len(), right_frames: right.len() })
}

/// Lines of `framemd5`: `stream, dts, pts, duration, size, hash`; comments start with `#`.
fn checksums_of(listing: &str) -> Vec<String> {
    let frames = listing.lines().filter(|line| !line.starts_with('#'));
    frames.filter_map(|line| line.rsplit(',').next()).map(|hash| hash.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two seconds of a test picture as VP8.
    async fn clip(folder: &Path, name: &str, picture: &str) -> PathBuf {
        let file = folder.join(name);
        let source = format!("{picture}=size=160x120:rate=15:duration=2");
        let made = Command::new(on_path("ffmpeg").unwrap())
            .args(["-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", &source, "-c:v", "libvpx", "-f", "ivf"])
            .arg(&file)
            .status()
            .await
            .unwrap();
        assert!(made.success());
        file
    }

    #[tokio::test]
    async fn a_file_equals_its_copy_frame_for_frame() {
        let folder = tempfile::tempdir().unwrap();
        let file = clip(folder.path(), "a.ivf", "testsrc").await;
        let copy = folder.path().join("copy.ivf");
        std::fs::copy(&file, &copy).unwrap();
        assert_eq!(same_frames(&file, &copy).await.unwrap(), 30);
    }

    #[tokio::test]
    async fn another_picture_and_a_lost_frame_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = clip(folder.path(), "a.ivf", "testsrc").await;
        let other = clip(folder.path(), "b.ivf", "testsrc2").await;
        let error = same_frames(&file, &other).await.unwrap_err();
        assert!(matches!(error, DecodeError::Different { index: 0, .. }), "{error}");

        let frames = frame_checksums(&file).await.unwrap();
        let error = compare(&frames, &frames[..29]).unwrap_err();
        assert_eq!(error.to_string(), "frame 29 differs (30 and 29 frames)");
    }

    #[tokio::test]
    async fn a_damaged_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = clip(folder.path(), "a.ivf", "testsrc").await;
        let mut bytes = std::fs::read(&file).unwrap();
        let start_code = 32 + 12 + 3; // file header, frame header, frame tag: a key frame's start code follows
        bytes[start_code] ^= 0xff;
        std::fs::write(&file, &bytes).unwrap();
        let error = frame_checksums(&file).await.unwrap_err();
        assert!(matches!(error, DecodeError::Damaged { .. }), "{error}");
    }
}
