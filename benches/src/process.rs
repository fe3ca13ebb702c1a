//! The processes that are measured: started on free ports, looked at from outside, ended with their handle.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;

use crate::workload::Transport;

/// How long one may take to say where it listens.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where the release binaries are.
#[derive(Clone, Debug)]
pub(crate) struct Binaries(PathBuf);

impl Binaries {
    /// Beside this program, where cargo puts them.
    pub(crate) fn beside_this() -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        Ok(Self(own.parent().context("a program is in a folder")?.to_owned()))
    }

    pub(crate) fn router(&self) -> PathBuf {
        self.0.join("roomcast")
    }

    fn bare(&self, transport: Transport) -> (PathBuf, &'static [&'static str]) {
        match transport {
            Transport::Plain => (self.0.join("bare-websocket"), &[]),
            Transport::Tls => (self.0.join("bare-websocket"), &["--tls"]),
            Transport::Quic => (self.0.join("bare-quic"), &[]),
        }
    }
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Where clients connect, such as `ws://127.0.0.1:4711`.
    pub(crate) url: String,
}

impl Server {
    /// A router on the defaults, but for `settings`.
    pub(crate) fn router(binaries: &Binaries, transport: Transport, settings: &[String]) -> anyhow::Result<Self> {
        let mut command = Command::new(binaries.router());
        command
            // The file that shows every default, and so changes none.
            .args(["serve", "--config", concat!(env!("CARGO_MANIFEST_DIR"), "/../supervisor.toml")])
            .args(["--set", "listen.websocket.bind=127.0.0.1:0"])
            .args(["--set", "listen.webtransport.bind=127.0.0.1:0", "--set", "listen.admin.bind=127.0.0.1:0"])
            .args(["--set", "telemetry.log=warn"])
            .args(settings.iter().flat_map(|setting| ["--set", setting]));
        if transport == Transport::Tls {
            command.args(["--set", "listen.websocket.tls=self-signed"]);
        }
        Self::start(command, transport)
    }

    /// The bare broadcaster for a transport.
    pub(crate) fn bare(binaries: &Binaries, transport: Transport) -> anyhow::Result<Self> {
        let (binary, arguments) = binaries.bare(transport);
        let mut command = Command::new(binary);
        command.args(arguments);
        Self::start(command, transport)
    }

    fn start(mut command: Command, transport: Transport) -> anyhow::Result<Self> {
        let name = Path::new(command.get_program()).display().to_string();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name} cannot be run; build it for release (scripts/bench does)"))?;
        let output = child.stdout.take().context("its output is piped")?;
        let mut server = Self { child, url: String::new() };
        let scheme = match transport {
            Transport::Plain => "ws://",
            Transport::Tls => "wss://",
            Transport::Quic => "https://",
        };
        let (found, finding) = mpsc::channel();
        // The rest of its output is of no interest, but must have somewhere to go. Ends with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(url) = url(&line, scheme) {
                    let _ = found.send(url);
                }
            }
        });
        server.url = finding.recv_timeout(PATIENCE).with_context(|| format!("{name} does not say where it listens"))?;
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.split_whitespace().next().context("no figure")?.parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The URL in a line, without its path.
fn url(line: &str, scheme: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let address = words.find_map(|word| word.strip_prefix(scheme))?.split('/').next()?;
    Some(format!("{scheme}{address}"))
}

/// User and system time of a process, with its children that have ended and its own time apart, in hundredths of a second.
pub(crate) fn ticks(pid: u32) -> Option<(u64, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let field = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some((field(11)? + field(12)?, field(13)? + field(14)?))
}

/// User and system time of a process.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let (own, _) = ticks(pid).context("the process ended")?;
    Ok(Duration::from_millis(own * 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_taken_from_a_banner_and_from_a_bare_line() {
        let line = "  WebSocket     ws://127.0.0.1:4711/lobby/{user}/{room}";
        assert_eq!(url(line, "ws://").as_deref(), Some("ws://127.0.0.1:4711"));
        assert_eq!(url("https://127.0.0.1:1", "https://").as_deref(), Some("https://127.0.0.1:1"));
        assert_eq!(url("wss://127.0.0.1:1", "ws://"), None);
        assert_eq!(url("  Admin         http://127.0.0.1:9090", "https://"), None);
    }
}
