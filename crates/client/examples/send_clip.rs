//! Sends a clip into a room as MediaPackets, each frame at its time.

mod shared;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use roomcast_client::clip::{Clip, TimeBase};
use roomcast_client::{Client, media};
use tokio::time::{Instant, sleep_until};

/// Send a clip into a room, each frame at its time, as a camera would.
///
/// Start a node, then `receive`, then this:
///
///   cargo run --release -p roomcast-client --example send_clip
///
/// By WebTransport, with the hash that the node prints:
///
///   … send_clip -- --url https://127.0.0.1:4433 --hash HASH
#[derive(Parser, Debug)]
#[command(name = "send_clip", verbatim_doc_comment, after_help = shared::EXIT_CODES)]
struct Arguments {
    /// What to send: vp8, vp9, h264, opus (clips of 3 s that come with this), or a file: IVF, H.264 Annex B, Ogg Opus
    #[arg(default_value = "vp8")]
    clip: String,

    /// Who sends
    #[arg(long, default_value = "alice")]
    user: String,

    #[command(flatten)]
    join: shared::Join,

    /// Send it so many times; 0: until stopped with Ctrl-C
    #[arg(long, value_name = "N", default_value_t = 1)]
    times: u64,

    /// Frames per second of H.264 Annex B, which does not say so itself
    #[arg(long, value_name = "N", default_value = "30")]
    fps: std::num::NonZeroU32,
}

#[tokio::main]
async fn main() -> ExitCode {
    shared::exit(run(Arguments::parse()).await)
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let clip = read_clip(&arguments.clip, arguments.fps.get())?;
    let client = Client::connect(arguments.join.options(&arguments.user)?)?;
    let outcome = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Ok(()),
        result = send(&client, &clip, &arguments) => result,
        () = shared::tell(&client) => Ok(()),
    };
    let (reason, stats) = client.close().await;
    if let Err(reason) = outcome {
        return Ok(shared::explain(&reason));
    }
    let missing = stats.refused + stats.dropped + stats.unconfirmed;
    println!("sent {} frames in {}; {missing} not sent", stats.sent, size(stats.sent_bytes));
    Ok(if reason != roomcast_client::ClosedReason::Local {
        shared::explain(&reason)
    } else if missing > 0 || stats.sent == 0 {
        ExitCode::from(shared::INCOMPLETE)
    } else {
        ExitCode::SUCCESS
    })
}

fn read_clip(name: &str, fps: u32) -> anyhow::Result<Clip> {
    let file = match name {
        "vp8" => include_bytes!("../clips/vp8.ivf").to_vec(),
        "vp9" => include_bytes!("../clips/vp9.ivf").to_vec(),
        "h264" => include_bytes!("../clips/h264-baseline.h264").to_vec(),
        "opus" => include_bytes!("../clips/opus.ogg").to_vec(),
        path => {
            let path = PathBuf::from(path);
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?
        }
    };
    let rate = TimeBase::new(fps, 1).context("--fps is zero")?;
    Clip::parse(&file, rate).with_context(|| format!("{name} cannot be sent"))
}

/// Sends the clip as often as wanted. A frame that is not taken (no connection, a full queue) is left out, as a camera
/// would: the client counts it.
async fn send(client: &Client, clip: &Clip, arguments: &Arguments) -> Result<(), roomcast_client::ClosedReason> {
    let dialect = arguments.join.dialect.into();
    let user = roomcast_protocol::UserId::parse(&arguments.user).expect("it was checked when the options were made");
    client.joined().await?;
    let (codec, length) = (clip.format.codec(), clip.duration());
    println!(
        "sending {} frames of {} as {user}, {:.1} s each time",
        clip.frames.len(),
        codec.name(),
        length.as_secs_f64()
    );
    let start = Instant::now();
    let mut next_report = start + REPORT;
    let mut sequence = 0;
    let mut turn = 0;
    while arguments.times == 0 || turn < arguments.times {
        let offset = length.saturating_mul(u32::try_from(turn).unwrap_or(u32::MAX));
        for frame in &clip.frames {
            let mut frame = frame.clone();
            frame.timestamp = frame.timestamp.saturating_add(offset);
            sleep_until(start + frame.timestamp).await;
            // A refusal is counted by the client; one for good ends this with its reason.
            if client.try_send(media::wrap(dialect, &user, &clip.format, sequence, &frame))
                == Err(roomcast_client::SendError::Closed)
            {
                return client.joined().await;
            }
            sequence += 1;
            if Instant::now() >= next_report {
                next_report += REPORT;
                let stats = client.stats();
                println!("{:4.0} s  {} frames, {}", start.elapsed().as_secs_f64(), stats.sent, size(stats.sent_bytes));
            }
        }
        turn += 1;
    }
    sleep_until(start + length.saturating_mul(u32::try_from(turn).unwrap_or(u32::MAX))).await; // the last frame's own time
    Ok(())
}

const REPORT: Duration = Duration::from_secs(1);

fn size(bytes: u64) -> String {
    format!("{:.1} kB", bytes as f64 / 1000.0)
}
