//! Room members that share no code with this project: Python's `websockets` and headless Chromium, as child processes.
//!
//! What lives here: starting the scripts of `peers/`, commands to them, events from them. What does not: nodes, this
//! project's own clients, and any judgement: a test reads the events and judges. A missing tool fails the test; it is
//! never skipped.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Events that wait to be read by the test; with more than these the script waits, and so does its connection.
const EVENTS_WAITING: usize = 16_384;
/// The last lines of a script's standard error that are kept for the message of a failing test.
const ERROR_LINES: usize = 40;
/// After this the script gives up by itself, so that nothing outlives a test that was killed.
const SCRIPT_DEADLINE: Duration = Duration::from_secs(120);
/// How long a script has for going once it was told to.
const FINISH_DEADLINE: Duration = Duration::from_secs(10);

/// Over which of its connections a peer did something; Python has only the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// The WebSocket.
    WebSocket,
    /// The WebTransport session.
    WebTransport,
    /// None of them: the browser itself has something to say.
    Browser,
}

impl Via {
    fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::WebTransport => "webtransport",
            Self::Browser => "browser",
        }
    }
}

/// What a peer saw or did.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum PeerEvent {
    /// Connected.
    Open {
        /// The connection.
        via: Via,
    },
    /// The handshake was answered with an HTTP status instead of a connection (Python only: browsers do not tell).
    Refused {
        /// The connection.
        via: Via,
        /// The HTTP status.
        status: u16,
    },
    /// A command to send was carried out; the packets are written, not necessarily received by anyone.
    Sent {
        /// The connection.
        via: Via,
        /// How many packets.
        count: u32,
    },
    /// A packet came. Those of one connection are in the order of arrival (WebTransport: of opening).
    Packet {
        /// The connection.
        via: Via,
        /// The whole packet.
        #[serde(rename = "hex", deserialize_with = "from_hex")]
        bytes: Vec<u8>,
        /// It came as a datagram.
        datagram: bool,
    },
    /// The connection is closed; every packet that came before has been told.
    Closed {
        /// The connection.
        via: Via,
        /// The close code; `None`: the connection broke or never opened (browsers' WebSockets say 1006 for both).
        code: Option<u32>,
        /// The reason given, or what the peer knows about the break.
        reason: String,
    },
    /// Something went wrong inside the peer; the script ends.
    Failed {
        /// The connection.
        via: Via,
        /// What it was.
        message: String,
    },
}

impl PeerEvent {
    /// The connection that it is about.
    #[must_use]
    pub fn via(&self) -> Via {
        match *self {
            Self::Open { via }
            | Self::Refused { via, .. }
            | Self::Sent { via, .. }
            | Self::Packet { via, .. }
            | Self::Closed { via, .. }
            | Self::Failed { via, .. } => via,
        }
    }

    /// Nothing comes after it on its connection.
    fn is_last(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Closed { .. } | Self::Failed { .. })
    }
}

fn from_hex<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    hex::decode(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Why a peer could not be started or did not do what was waited for.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// A tool of the tests is not installed.
    #[error("{0} is missing: run scripts/setup")]
    ToolMissing(PathBuf),
    /// The script could not be started or talked to.
    #[error("{peer}: {error}{stderr}")]
    Io {
        /// Which peer.
        peer: &'static str,
        /// What the system said.
        error: std::io::Error,
        /// What the script wrote to its standard error.
        stderr: String,
    },
    /// No event, or not the one waited for, came in time.
    #[error("{peer}: no {waited_for} within {deadline:?}{stderr}")]
    Deadline {
        /// Which peer.
        peer: &'static str,
        /// What was waited for.
        waited_for: &'static str,
        /// For how long.
        deadline: Duration,
        /// What the script wrote to its standard error.
        stderr: String,
    },
    /// The script ended, so that there are no more events.
    #[error("{peer}: it ended before {waited_for}{stderr}")]
    Ended {
        /// Which peer.
        peer: &'static str,
        /// What was waited for.
        waited_for: &'static str,
        /// What the script wrote to its standard error.
        stderr: String,
    },
    /// The script reported that it failed, a refusal or a close came where something else was waited for, or a line that is
    /// no event.
    #[error("{peer}: {what} instead of {waited_for}{stderr}")]
    Unexpected {
        /// Which peer.
        peer: &'static str,
        /// What came.
        what: String,
        /// What was waited for.
        waited_for: &'static str,
        /// What the script wrote to its standard error.
        stderr: String,
    },
}

impl PeerError {
    /// Names the whole deadline where only what was left of it had been known.
    fn with_deadline(mut self, whole: Duration) -> Self {
        if let Self::Deadline { deadline, .. } = &mut self {
            *deadline = whole;
        }
        self
    }
}

/// What a browser connects to; each with its URL, such as `https://127.0.0.1:4433/lobby/ana/standup`.
#[derive(Clone, Copy, Debug, Default)]
pub struct BrowserTargets<'a> {
    /// A `ws:` URL.
    pub websocket: Option<&'a str>,
    /// An `https:` URL, and the SHA-256 of the server's certificate (DER) in Base64.
    pub webtransport: Option<(&'a str, &'a str)>,
}

/// A running third-party client. It is killed when this is dropped; [`Peer::finish`] lets it go in order.
#[derive(Debug)]
pub struct Peer {
    name: &'static str,
    child: Child,
    commands: Option<ChildStdin>,
    events: mpsc::Receiver<Result<PeerEvent, String>>,
    /// Events that came while one of another connection was waited for, oldest first.
    aside: VecDeque<PeerEvent>,
    stderr: Arc<Mutex<VecDeque<String>>>,
    readers: [JoinHandle<()>; 2],
    /// The script's TMPDIR: a killed browser leaves its profile behind.
    _scratch: TempDir,
}

impl Peer {
    /// Starts Python's `websockets` on a `ws:` URL, or on a `wss:` URL with the certificate to trust as a PEM file.
    /// Does not wait for the connection: see [`Peer::wait_open`].
    ///
    /// # Errors
    /// [`PeerError::ToolMissing`], [`PeerError::Io`].
    pub fn python(url: &str, trust: Option<&Path>) -> Result<Self, PeerError> {
        let python = tool(root().join(".tools/python/bin/python"))?;
        let mut command = Command::new(python);
        command.arg(root().join("crates/testkit/peers/python_websockets.py")).arg(url);
        if let Some(trust) = trust {
            command.arg("--trust").arg(trust);
        }
        Self::start("Python websockets", command)
    }

    /// Starts headless Chromium with a page that opens what `targets` names, both connections at once where both are named.
    /// Takes about a second until they are open.
    ///
    /// # Errors
    /// [`PeerError::ToolMissing`], [`PeerError::Io`].
    pub fn browser(targets: BrowserTargets<'_>) -> Result<Self, PeerError> {
        tool(root().join(".tools/node/node_modules/playwright-core/package.json"))?;
        let chromium = on_path("chromium")?;
        let mut command = Command::new(on_path("node")?);
        command.arg(root().join("crates/testkit/peers/browser.mjs")).arg("--chromium").arg(chromium);
        if let Some(url) = targets.websocket {
            command.args(["--websocket", url]);
        }
        if let Some((url, hash)) = targets.webtransport {
            command.args(["--webtransport", url, "--hash", hash]);
        }
        Self::start("Chromium", command)
    }

    fn start(name: &'static str, mut command: Command) -> Result<Self, PeerError> {
        let failed = |error| PeerError::Io { peer: name, error, stderr: String::new() };
        let scratch = tempfile::tempdir().map_err(failed)?;
        let mut child = command
            .arg("--deadline")
            .arg(SCRIPT_DEADLINE.as_secs().to_string())
            .env("TMPDIR", scratch.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            unreachable!("both were asked for as pipes above");
        };
        let (to_test, events) = mpsc::channel(EVENTS_WAITING);
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let readers = [
            tokio::spawn(pass_events(BufReader::new(stdout).lines(), to_test)),
            tokio::spawn(keep_tail(BufReader::new(stderr).lines(), Arc::clone(&tail))),
        ];
        let commands = child.stdin.take();
        Ok(Self { name, child, commands, events, aside: VecDeque::new(), stderr: tail, readers, _scratch: scratch })
    }

    /// Has the peer make and send `count` packets, numbered from 0: a `seed` PacketWrapper (MEDIA, from `email`) around a
    /// MediaPacket (AUDIO) whose data is the number in 4 bytes, big end first, then zeros up to `data_bytes`.
    /// [`PeerEvent::Sent`] says when it is done; commands are carried out in order.
    ///
    /// # Errors
    /// [`PeerError::Io`]: the script is gone.
    pub async fn send_numbered(
        &mut self,
        via: Via,
        email: &str,
        count: u32,
        data_bytes: usize,
    ) -> Result<(), PeerError> {
        let command = json!({"do": "send", "via": via.as_str(), "email": email, "count": count, "bytes": data_bytes});
        self.command(&command).await
    }

    /// Has the peer send these bytes as one packet (a message, a stream).
    ///
    /// # Errors
    /// [`PeerError::Io`]: the script is gone.
    pub async fn send(&mut self, via: Via, packet: &[u8]) -> Result<(), PeerError> {
        self.command(&json!({"do": "send_hex", "via": via.as_str(), "hex": hex::encode(packet)})).await
    }

    /// Has the browser send these bytes as one WebTransport datagram.
    ///
    /// # Errors
    /// [`PeerError::Io`]: the script is gone.
    pub async fn send_datagram(&mut self, bytes: &[u8]) -> Result<(), PeerError> {
        let via = Via::WebTransport.as_str();
        self.command(&json!({"do": "send_hex", "via": via, "hex": hex::encode(bytes), "datagram": true})).await
    }

    /// Has the peer close one connection with a code; a browser's WebSocket knows 1000 and 3000 to 4999.
    ///
    /// # Errors
    /// [`PeerError::Io`]: the script is gone.
    pub async fn close(&mut self, via: Via, code: u16) -> Result<(), PeerError> {
        self.command(&json!({"do": "close", "via": via.as_str(), "code": code})).await
    }

    async fn command(&mut self, command: &Value) -> Result<(), PeerError> {
        let line = format!("{command}\n");
        let written = match &mut self.commands {
            Some(commands) => commands.write_all(line.as_bytes()).await,
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        written.map_err(|error| PeerError::Io { peer: self.name, error, stderr: self.stderr() })
    }

    /// The next event, whatever it is.
    ///
    /// # Errors
    /// [`PeerError::Deadline`], [`PeerError::Ended`], [`PeerError::Unexpected`] for a line that is no event.
    pub async fn wait_event(&mut self, deadline: Duration) -> Result<PeerEvent, PeerError> {
        match self.aside.pop_front() {
            Some(event) => Ok(event),
            None => self.next_within(deadline, "event").await,
        }
    }

    /// Takes this connection's events in order until `pick` makes something of one; those before it are dropped, those of
    /// the peer's other connection are kept for later. The deadline is for all of it together.
    ///
    /// # Errors
    /// As [`Peer::wait_event`], and [`PeerError::Unexpected`] when the peer fails or the connection is refused or closes
    /// without being picked.
    pub async fn wait_for<T>(
        &mut self,
        via: Via,
        waited_for: &'static str,
        deadline: Duration,
        mut pick: impl FnMut(&PeerEvent) -> Option<T>,
    ) -> Result<T, PeerError> {
        let end = Instant::now() + deadline;
        loop {
            let event = self.next_on(via, end, waited_for).await.map_err(|error| error.with_deadline(deadline))?;
            if let Some(picked) = pick(&event) {
                return Ok(picked);
            }
            if event.is_last() {
                return Err(self.unexpected(format!("{event:?}"), waited_for));
            }
        }
    }

    /// Waits until the connection is open.
    ///
    /// # Errors
    /// As [`Peer::wait_for`].
    pub async fn wait_open(&mut self, via: Via, deadline: Duration) -> Result<(), PeerError> {
        self.wait_for(via, "open connection", deadline, |event| matches!(event, PeerEvent::Open { .. }).then_some(()))
            .await
    }

    /// Collects packets of one connection until there are `count`.
    ///
    /// # Errors
    /// As [`Peer::wait_for`].
    pub async fn wait_packets(
        &mut self,
        via: Via,
        count: usize,
        deadline: Duration,
    ) -> Result<Vec<Vec<u8>>, PeerError> {
        let end = Instant::now() + deadline;
        let mut packets = Vec::with_capacity(count);
        while packets.len() < count {
            let packet =
                self.wait_for(via, "next packet", end.saturating_duration_since(Instant::now()), |event| match event {
                    PeerEvent::Packet { bytes, .. } => Some(bytes.clone()),
                    _ => None,
                });
            packets.push(packet.await.map_err(|error| error.with_deadline(deadline))?);
        }
        Ok(packets)
    }

    /// Waits until the connection is closed, and returns the code.
    ///
    /// # Errors
    /// As [`Peer::wait_for`].
    pub async fn wait_closed(&mut self, via: Via, deadline: Duration) -> Result<Option<u32>, PeerError> {
        self.wait_for(via, "close", deadline, |event| match event {
            PeerEvent::Closed { code, .. } => Some(*code),
            _ => None,
        })
        .await
    }

    /// Lets the peer close its connections with 1000 and go, and returns the events that were not read yet.
    ///
    /// # Errors
    /// [`PeerError::Deadline`], [`PeerError::Unexpected`] when the peer failed.
    pub async fn finish(mut self) -> Result<Vec<PeerEvent>, PeerError> {
        self.commands = None;
        let waited_for = "end of the peer";
        let mut rest: Vec<_> = self.aside.drain(..).collect();
        let end = Instant::now() + FINISH_DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.next_within(left, waited_for).await.map_err(|error| error.with_deadline(FINISH_DEADLINE)) {
                Ok(event @ PeerEvent::Failed { .. }) => return Err(self.unexpected(format!("{event:?}"), waited_for)),
                Ok(event) => rest.push(event),
                Err(PeerError::Ended { .. }) => break,
                Err(other) => return Err(other),
            }
        }
        match tokio::time::timeout_at(end, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(rest),
            Ok(Ok(status)) => Err(self.unexpected(status.to_string(), waited_for)),
            Ok(Err(error)) => Err(PeerError::Io { peer: self.name, error, stderr: self.stderr() }),
            Err(_) => Err(PeerError::Deadline {
                peer: self.name,
                waited_for,
                deadline: FINISH_DEADLINE,
                stderr: self.stderr(),
            }),
        }
    }

    /// The next event of this connection; a failure of the browser itself counts as one.
    async fn next_on(&mut self, via: Via, end: Instant, waited_for: &'static str) -> Result<PeerEvent, PeerError> {
        let concerns = |event: &PeerEvent| event.via() == via || event.via() == Via::Browser;
        if let Some(event) = self.aside.iter().position(concerns).and_then(|at| self.aside.remove(at)) {
            return Ok(event);
        }
        loop {
            let event = self.next_within(end.saturating_duration_since(Instant::now()), waited_for).await?;
            if concerns(&event) {
                return Ok(event);
            }
            if self.aside.len() == EVENTS_WAITING {
                return Err(self.unexpected(format!("{EVENTS_WAITING} events of the other connection"), waited_for));
            }
            self.aside.push_back(event);
        }
    }

    async fn next_within(&mut self, left: Duration, waited_for: &'static str) -> Result<PeerEvent, PeerError> {
        match tokio::time::timeout(left, self.events.recv()).await {
            Ok(Some(Ok(event))) => Ok(event),
            Ok(Some(Err(line))) => Err(self.unexpected(format!("the line {line:?}"), waited_for)),
            Ok(None) => Err(PeerError::Ended { peer: self.name, waited_for, stderr: self.stderr() }),
            Err(_) => Err(PeerError::Deadline { peer: self.name, waited_for, deadline: left, stderr: self.stderr() }),
        }
    }

    fn unexpected(&self, what: String, waited_for: &'static str) -> PeerError {
        PeerError::Unexpected { peer: self.name, what, waited_for, stderr: self.stderr() }
    }

    fn stderr(&self) -> String {
        let tail = self.stderr.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tail.iter().fold(String::new(), |text, line| text + "\n    " + line)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        for reader in &self.readers {
            reader.abort();
        }
    }
}

async fn pass_events(mut lines: Lines<BufReader<impl AsyncRead + Unpin>>, to: mpsc::Sender<Result<PeerEvent, String>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        if to.send(serde_json::from_str(&line).map_err(|_| line)).await.is_err() {
            return; // the test has let go of the peer
        }
    }
}

async fn keep_tail(mut lines: Lines<BufReader<impl AsyncRead + Unpin>>, tail: Arc<Mutex<VecDeque<String>>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        let mut tail = tail.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if tail.len() == ERROR_LINES {
            tail.pop_front();
        }
        tail.push_back(line);
    }
}

/// The repository, where `scripts/setup` put the tools.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn tool(path: PathBuf) -> Result<PathBuf, PeerError> {
    if path.exists() { Ok(path) } else { Err(PeerError::ToolMissing(path)) }
}

/// A program of the system. The error names the program.
pub(crate) fn on_path(program: &str) -> Result<PathBuf, PeerError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    find_in(&path, program).ok_or_else(|| PeerError::ToolMissing(program.into()))
}

fn find_in(path: &OsStr, program: &str) -> Option<PathBuf> {
    std::env::split_paths(path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
