//! What `roomcast bench` can be told, and how it is written on the command line. What it means is decided in `plan`.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, ValueEnum};

/// Shown behind the list of options.
const EXAMPLES: &str = "\
Examples (a router runs on this machine: roomcast serve):
  roomcast bench ws://127.0.0.1:8080
        two members, both send 30 packets of 1,200 bytes a second, for ten seconds
  roomcast bench ws://127.0.0.1:8080 --members 100 --senders 20 --pid $(pgrep -x roomcast)
        one room of 100 of whom 20 send; with the router's CPU per copy and memory
  roomcast bench ws://127.0.0.1:8080 --rooms 20 --members 5 --mix call --plot bench.svg
        20 calls of five with sound and picture; delays and CPU drawn into bench.svg
  roomcast bench https://127.0.0.1:4433 --insecure --members 10
        over WebTransport, whatever the certificate; --cert-sha256 HASH takes one only
  roomcast bench ws://10.0.0.1:8080 ws://10.0.0.2:8080 --members 6
        every room's members spread over two nodes of a cluster
  roomcast bench ws://127.0.0.1:8080 --rooms 2000 --members 5 --idle --ramp 500/s
        10,000 connections on which nothing is sent
  roomcast bench ws://127.0.0.1:8080 --members 50 --churn 20
        a quarter of the room leaves and joins again, 20 times a second in all

What is counted: a copy is owed for each packet that was sent within the measured time and each other member of its room
that does not churn. A copy is lost when it has not come after a last wait; a member that the router disconnects loses what it is
owed. Members that churn only listen; what they miss is not held against the router, what they get wrongly is.
Delays are from just before a packet is written to when its last byte has been read.
The load is made by few threads on purpose, and the tool says when it, and not the router, was the bottleneck.";

/// The arguments of `roomcast bench`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Where to connect: ws://HOST:PORT, wss://HOST:PORT or https://HOST:PORT (WebTransport); members are spread over several
    #[arg(value_name = "URL", required = true)]
    pub urls: Vec<String>,
    /// Rooms
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Who")]
    pub rooms: u32,
    /// Members of each room
    #[arg(long, value_name = "N", default_value_t = 2, help_heading = "Who")]
    pub members: u32,
    /// How many of each room's members send: all, or a number
    #[arg(long, value_name = "all|N", default_value = "all", value_parser = senders, help_heading = "Who")]
    pub senders: Senders,
    /// Joins a second, such as 200 or 200/s; 0: as fast as possible
    #[arg(long, value_name = "N", default_value = "200/s", value_parser = per_second, help_heading = "Who")]
    pub ramp: u32,
    /// How often a second a member leaves and joins again, in all: a quarter of each room takes turns
    #[arg(long, value_name = "N", default_value = "0", value_parser = per_second, help_heading = "Who")]
    pub churn: u32,
    /// What is sent
    #[arg(long, value_enum, default_value_t = Mix::Fixed, help_heading = "What")]
    pub mix: Mix,
    /// Packets a second and sender, for --mix fixed
    #[arg(long, value_name = "N", default_value = "30", value_parser = per_second, help_heading = "What")]
    pub rate: u32,
    /// Bytes of a whole packet, for --mix fixed
    #[arg(long, value_name = "BYTES", default_value_t = 1_200, help_heading = "What")]
    pub size: usize,
    /// Bits a second of one video, such as 1500k or 2M, for --mix video and call
    #[arg(long, value_name = "BITS", default_value = "1500k", value_parser = bits, help_heading = "What")]
    pub bitrate: u64,
    /// Between two key frames of one video
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time, help_heading = "What")]
    pub key_interval: Duration,
    /// Nobody sends: holds the connections, for the memory they take
    #[arg(long, help_heading = "What")]
    pub idle: bool,
    /// After all have joined and before it is measured
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time, help_heading = "How long")]
    pub warmup: Duration,
    /// How long it is measured
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time, help_heading = "How long")]
    pub duration: Duration,
    /// Take any certificate: for routers of one's own
    #[arg(long, conflicts_with = "cert_sha256", help_heading = "Trust")]
    pub insecure: bool,
    /// Take the certificate with this SHA-256 and no other: as `roomcast serve` prints it, or in hexadecimal
    #[arg(long, value_name = "HASH", value_parser = hash, help_heading = "Trust")]
    pub cert_sha256: Option<[u8; 32]>,
    /// A router's process on this machine, for its CPU and memory; may be given many times
    #[arg(long = "pid", value_name = "PID", help_heading = "Report")]
    pub pids: Vec<u32>,
    /// Print the report as JSON
    #[arg(long, help_heading = "Report")]
    pub json: bool,
    /// Draw the delays and the CPU over time into this file
    #[arg(long, value_name = "FILE.svg", help_heading = "Report")]
    pub plot: Option<PathBuf>,
    /// No progress while it runs
    #[arg(long, help_heading = "Report")]
    pub quiet: bool,
    /// Threads that make the load [default: half of the cores, at least one]
    #[arg(long, value_name = "N", help_heading = "Report")]
    pub threads: Option<u32>,
}

/// How many members of each room send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Senders {
    /// All that do not churn.
    All,
    /// So many.
    Some(u32),
}

/// What each sender sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mix {
    /// Packets of one size at one rate, as audio
    Fixed,
    /// Audio: 50 packets a second with 80 to 160 bytes of sound
    Audio,
    /// Video: 30 frames a second at --bitrate, a key frame every --key-interval
    Video,
    /// Audio and video
    Call,
}

fn senders(text: &str) -> Result<Senders, String> {
    match text {
        "all" => Ok(Senders::All),
        number => number.parse().map(Senders::Some).map_err(|_| "write a number, or all".to_owned()),
    }
}

fn per_second(text: &str) -> Result<u32, String> {
    text.strip_suffix("/s").unwrap_or(text).parse().map_err(|_| "write a whole number a second, such as 200".to_owned())
}

fn bits(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1e3),
        Some((at, 'm' | 'M')) => (&text[..at], 1e6),
        _ => (text, 1.0),
    };
    match number.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok((number * unit) as u64),
        _ => Err("write bits a second, such as 1500k or 2M".to_owned()),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "write a time with its unit, such as 500ms or 10s".to_owned())
}

/// A hash as `roomcast serve` prints it (base64) or as other tools do (hexadecimal, also with colons).
fn hash(text: &str) -> Result<[u8; 32], String> {
    let digits = text.replace(':', "");
    let bytes = hex::decode(digits).ok().or_else(|| BASE64_STANDARD.decode(text).ok());
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| "write the SHA-256 as `roomcast serve` prints it, or its 64 hexadecimal digits".to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// The arguments of a command line.
    pub(crate) fn parse(line: &str) -> Result<Arguments, String> {
        Cli::try_parse_from(std::iter::once("bench").chain(line.split_whitespace()))
            .map(|cli| cli.arguments)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn values_are_read_as_people_write_them() {
        let given =
            parse("ws://a:1 --ramp 50/s --churn 7 --bitrate 2.5M --key-interval 500ms --senders 3 --mix call").unwrap();
        assert_eq!((given.ramp, given.churn, given.bitrate), (50, 7, 2_500_000));
        assert_eq!((given.key_interval, given.senders), (Duration::from_millis(500), Senders::Some(3)));
        assert_eq!((given.mix, given.rate, given.size), (Mix::Call, 30, 1_200));
        assert_eq!(parse("ws://a:1 --bitrate 64000").unwrap().bitrate, 64_000);
        let digits = "ab".repeat(32);
        for text in [digits, vec!["AB"; 32].join(":"), BASE64_STANDARD.encode([0xab; 32])] {
            assert_eq!(parse(&format!("ws://a:1 --cert-sha256 {text}")).unwrap().cert_sha256, Some([0xab; 32]));
        }
    }

    #[test]
    fn what_is_not_understood_is_answered_with_what_to_write() {
        for (line, advice) in [
            ("", "URL"),
            ("ws://a:1 --senders some", "write a number, or all"),
            ("ws://a:1 --ramp fast", "whole number a second"),
            ("ws://a:1 --bitrate=-3k", "such as 1500k"),
            ("ws://a:1 --duration 10", "such as 500ms or 10s"),
            ("ws://a:1 --cert-sha256 abc", "64 hexadecimal digits"),
            ("ws://a:1 --insecure --cert-sha256 abc", "64 hexadecimal digits"),
            ("ws://a:1 --mix speech", "fixed, audio, video, call"),
        ] {
            let said = parse(line).unwrap_err();
            assert!(said.contains(advice), "{line}: {said}");
        }
    }
}
