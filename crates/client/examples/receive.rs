//! Joins a room and writes what the others send to files that any player opens.

mod shared;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use roomcast_client::clip::Codec;
use roomcast_client::media::{self, MediaFrame, NotAFrame};
use roomcast_client::recording::Recording;
use roomcast_client::{Client, ClosedReason, State};
use roomcast_protocol::{Dialect, MediaKind};
use tokio::time::Instant;

/// Join a room and write what the others send to files, one for each sender and kind of media.
///
/// Start a node, then this, then `send_clip`:
///
///   cargo run --release -p roomcast-client --example receive
///
/// It ends when nothing has come for 3 s after something did (--idle), and says how to play what it wrote.
/// A file starts at a key frame; pictures that could not be decoded, since one before them is missing, are left out.
#[derive(Parser, Debug)]
#[command(name = "receive", verbatim_doc_comment, after_help = shared::EXIT_CODES)]
struct Arguments {
    /// Who listens
    #[arg(long, default_value = "bob")]
    user: String,

    #[command(flatten)]
    join: shared::Join,

    /// Where to write; made if it is not there. Existing files are kept
    #[arg(long, value_name = "DIR", default_value = "received")]
    out: PathBuf,

    /// Stop once nothing has come for this long after something did; 0s: never
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    idle: Duration,

    /// Stop after this long, whatever came
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    time: Option<Duration>,

    /// Stop after so many frames of all senders together
    #[arg(long, value_name = "N")]
    frames: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    shared::exit(run(Arguments::parse()).await)
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    fs::create_dir_all(&arguments.out).with_context(|| format!("cannot make {}", arguments.out.display()))?;
    let mut client = Client::connect(arguments.join.options(&arguments.user)?)?;
    let mut files = Files::new(arguments.out.clone());
    let received = receive(&mut client, &mut files, &arguments).await;
    let (reason, _) = client.close().await;
    let written = files.finish(); // also after a failure: what is there plays
    received?;
    let any = written?;
    Ok(match reason {
        ClosedReason::Local | ClosedReason::Done if any => ExitCode::SUCCESS,
        ClosedReason::Local | ClosedReason::Done => ExitCode::from(shared::INCOMPLETE),
        reason => shared::explain(&reason),
    })
}

/// Receives until it is time to stop.
async fn receive(client: &mut Client, files: &mut Files, arguments: &Arguments) -> anyhow::Result<()> {
    let dialect: Dialect = arguments.join.dialect.into();
    let mut states = client.state();
    states.mark_changed();
    let stop = arguments.time.map(|time| Instant::now() + time);
    let mut last = None;
    let mut report = tokio::time::interval(Duration::from_secs(1));
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let idle = last.filter(|_| !arguments.idle.is_zero()).map(|last: Instant| last + arguments.idle);
        tokio::select! {
            _ = &mut interrupted => return Ok(()),
            () = until(stop) => return Ok(()),
            () = until(idle) => return Ok(()),
            changed = states.changed() => {
                let state = states.borrow_and_update().clone();
                if changed.is_err() || !shared::tell_state(&state) {
                    return Ok(());
                }
                if matches!(state, State::Connected { number: 1, .. }) {
                    println!("waiting for media in room {}", arguments.join.room);
                }
            }
            _ = report.tick() => files.report(),
            packet = client.recv() => {
                let Some(packet) = packet else { return Ok(()) };
                match media::unwrap(dialect, &packet.bytes) {
                    Ok(frame) => {
                        last = Some(Instant::now());
                        files.push(&frame).context("cannot write")?;
                    }
                    Err(NotAFrame::Opaque) => files.opaque += 1,
                    Err(NotAFrame::Other) => {} // keys, heartbeats, meeting events: nothing to play
                }
                if arguments.frames.is_some_and(|most| files.frames() >= most) {
                    return Ok(());
                }
            }
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// A sender's stream: who, in which session, and what.
type Key = (String, u64, &'static str);

/// More streams than this in one room are not recorded: each holds an open file.
const MAX_FILES: usize = 64;

#[derive(Default)]
struct Stream {
    recording: Recording<BufWriter<File>>,
    path: Option<PathBuf>,
    codec: Option<Codec>,
}

struct Files {
    directory: PathBuf,
    streams: BTreeMap<Key, Stream>,
    /// Frames that cannot be read.
    opaque: u64,
    /// Frames of more streams than are recorded.
    crowded: u64,
    /// Frames at the last report.
    reported: u64,
}

impl Files {
    fn new(directory: PathBuf) -> Self {
        Self { directory, streams: BTreeMap::new(), opaque: 0, crowded: 0, reported: 0 }
    }

    fn push(&mut self, frame: &MediaFrame) -> io::Result<()> {
        let kind = match frame.kind {
            MediaKind::Audio => "audio",
            MediaKind::Screen => "screen",
            _ => "video",
        };
        let key = (frame.user.clone(), frame.session, kind);
        if self.streams.len() >= MAX_FILES && !self.streams.contains_key(&key) {
            self.crowded += 1;
            return Ok(());
        }
        let name = file_name(&key);
        let Stream { recording, path, codec } = self.streams.entry(key).or_default();
        recording.push(frame, |found| {
            let (file, free) = create(&self.directory, &name, found.extension())?;
            println!("{name}: {} to {}", found.name(), free.display());
            (*path, *codec) = (Some(free), Some(found));
            Ok(BufWriter::new(file))
        })
    }

    fn frames(&self) -> u64 {
        self.streams.values().map(|stream| stream.recording.frames()).sum()
    }

    fn report(&mut self) {
        let frames = self.frames();
        if frames != self.reported {
            let bytes: u64 = self.streams.values().map(|stream| stream.recording.bytes()).sum();
            println!("{frames} frames, {:.1} kB", bytes as f64 / 1000.0);
            self.reported = frames;
        }
    }

    /// Completes all files and says what is in them. Whether there is anything.
    fn finish(self) -> io::Result<bool> {
        let mut any = false;
        for (key, Stream { recording, path, codec }) in self.streams {
            let (frames, left) = (recording.frames(), recording.left());
            recording.finish()?;
            if let (Some(path), Some(codec)) = (path, codec) {
                any = true;
                println!("{}: {frames} frames. Play it: {}", file_name(&key), player(codec, &path));
            }
            if left != Default::default() {
                println!(
                    "  left out: {} before the first key frame, {} after a gap, {} of another codec; {} never came",
                    left.before_key, left.after_gap, left.other_codec, left.missing
                );
            }
        }
        if self.opaque > 0 {
            println!("{} packets of media cannot be read; they may be encrypted", self.opaque);
        }
        if self.crowded > 0 {
            println!("{} frames of more than {MAX_FILES} streams were not written", self.crowded);
        }
        if !any {
            println!("nothing to write came");
        }
        Ok(any)
    }
}

/// A duration as people write it: `500ms`, `10s`, `2m`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| "write a number and a unit, such as 10s".to_owned())?;
    let unit = match &text[digits.len()..] {
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err("the unit is ms, s or m".to_owned()),
    };
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

fn player(codec: Codec, path: &Path) -> String {
    // ffplay plays all of them; so do mpv and VLC, the last not IVF.
    let quiet = if codec.is_audio() { "-nodisp -autoexit " } else { "-autoexit " };
    format!("ffplay {quiet}{}", path.display())
}

/// Safe as a file's name on any system, whatever the sender calls itself.
fn file_name((user, session, kind): &Key) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._@+-".contains(c) { c } else { '_' };
    let user: String = user.trim_start_matches('.').chars().take(64).map(safe).collect();
    if *session == 0 { format!("{user}-{kind}") } else { format!("{user}-{session}-{kind}") }
}

/// Makes a file that was not there: `name.ext`, or else `name-2.ext` and so on.
fn create(directory: &Path, name: &str, extension: &str) -> io::Result<(File, PathBuf)> {
    const MOST: u32 = 1000;
    for number in 1..MOST {
        let number = if number == 1 { String::new() } else { format!("-{number}") };
        let path = directory.join(format!("{name}{number}.{extension}"));
        match File::create_new(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("{} has {MOST} files called {name} already", directory.display())))
}
