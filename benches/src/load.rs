//! One run of `roomcast bench`, and its report.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::process::{Binaries, Server};

/// What is used of the report; its fields are described in `roomcast bench`'s own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) seconds: f64,
    pub(crate) sent: u64,
    pub(crate) offered: u64,
    pub(crate) delivered: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) leaked: u64,
    pub(crate) delay_ms: Delays,
    pub(crate) generator: Generator,
    pub(crate) routers: Option<Routers>,
    pub(crate) connections: u64,
    pub(crate) disconnected: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Delays {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Generator {
    pub(crate) us_per_copy: f64,
    pub(crate) busy: f64,
    pub(crate) bottleneck: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Routers {
    pub(crate) cpu_seconds: f64,
    pub(crate) us_per_copy: f64,
    pub(crate) resident_bytes: u64,
    pub(crate) peak_bytes: u64,
    pub(crate) switches_voluntary: u64,
    pub(crate) switches_involuntary: u64,
}

impl Report {
    pub(crate) fn routers(&self) -> anyhow::Result<&Routers> {
        self.routers.as_ref().context("the server ended while it was measured")
    }

    /// What must never happen, in words; empty where nothing did.
    pub(crate) fn faults(&self) -> String {
        let counts = [
            (self.duplicated, "duplicated"),
            (self.reordered, "reordered"),
            (self.leaked, "leaked"),
            (self.disconnected, "disconnected"),
        ];
        let said: Vec<String> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        said.join(", ")
    }
}

/// Runs a load on servers until its report; calls `begun` when the measured window begins.
pub(crate) fn run(
    binaries: &Binaries,
    servers: &[&Server],
    arguments: &[String],
    window: Duration,
    mut begun: impl FnMut(),
) -> anyhow::Result<Report> {
    let mut command = Command::new(binaries.router());
    command.arg("bench").args(servers.iter().map(|server| &server.url)).args(arguments);
    command.args(["--json", "--duration", &format!("{}ms", window.as_millis())]);
    for server in servers {
        command.args(["--pid", &server.pid().to_string()]);
        if !server.url.starts_with("ws:") && !arguments.iter().any(|argument| argument == "--insecure") {
            command.arg("--insecure");
        }
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut output = child.stdout.take().context("its output is piped")?;
    let progress = child.stderr.take().context("its progress is piped")?;
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        output.read_to_string(&mut text).map(|_| text)
    });
    let (mut last, mut measuring) = (String::new(), false);
    for line in BufReader::new(progress).lines().map_while(Result::ok) {
        if line.starts_with("measuring") && !measuring {
            measuring = true;
            begun();
        }
        last = line;
    }
    let status = child.wait()?;
    let text = reading.join().map_err(|_| anyhow::anyhow!("its output cannot be read"))??;
    ensure!(status.success(), "roomcast bench failed: {last}");
    serde_json::from_str(&text).with_context(|| format!("roomcast bench says what is not understood: {text}"))
}
