//! A node as a process of its own: started on ports that it keeps over restarts, asked over its admin port, and hit with
//! signals. What does not live here: what it is configured to do.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use crate::http;
use crate::node_box::Via;

/// How long a node may take to start or to end on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long its admin port may take to answer.
const ADMIN: Duration = Duration::from_secs(5);
/// Who may change a node: tests only, on loopback.
const TOKEN: &str = "a-token-of-the-tests";
/// How much of the log is shown when a test fails.
const SHOWN_BYTES: usize = 12_000;
/// How often ports are picked anew when somebody else was faster.
const ATTEMPTS: usize = 5;

/// Where a node listens.
#[derive(Clone, Copy, Debug)]
struct Ports {
    websocket: u16,
    webtransport: u16,
    admin: u16,
}

/// A node's process, or what is left of it. It is killed when dropped; its log is shown if a test fails meanwhile.
pub struct NodeProcess {
    program: PathBuf,
    name: String,
    settings: Vec<String>,
    ports: Ports,
    child: Child,
    /// Its log and the token's file.
    home: TempDir,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[error("node {name} did not start ({why}); its log:\n{log}")]
pub struct StartError {
    name: String,
    why: String,
    log: String,
}

impl NodeProcess {
    /// Runs `program`, which must be the node's command line, and waits until its admin port answers. Whether it is ready is
    /// another question: [`ready`](Self::ready).
    ///
    /// # Panics
    /// When it does not start: a test cannot go on.
    pub async fn start(program: &Path, name: &str, settings: &[String]) -> Self {
        for attempt in 1.. {
            match Self::try_start(program, name, settings).await {
                Ok(node) => return node,
                Err(error) if error.log.contains("cannot be bound") && attempt < ATTEMPTS => {}
                Err(error) => panic!("{error}"),
            }
        }
        unreachable!("the last attempt returns or panics")
    }

    async fn try_start(program: &Path, name: &str, settings: &[String]) -> Result<Self, StartError> {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        std::fs::write(home.path().join("token"), TOKEN).expect("a file can be written there");
        let ports = Ports::pick();
        let child = spawn(program, name, settings, ports, home.path());
        let (program, name) = (program.to_owned(), name.to_owned());
        let mut node = Self { program, name, settings: settings.to_vec(), ports, child, home };
        node.answers().await.map(|()| node)
    }

    /// Starts it again on the same ports, once it has ended, and waits until its admin port answers.
    ///
    /// # Panics
    /// When it still runs, or does not start.
    pub async fn restart(&mut self) {
        assert!(self.has_ended(), "node {} still runs", self.name);
        self.child = spawn(&self.program, &self.name, &self.settings, self.ports, self.home.path());
        if let Err(error) = self.answers().await {
            panic!("{error}");
        }
    }

    async fn answers(&mut self) -> Result<(), StartError> {
        let deadline = Instant::now() + PATIENCE;
        let why = loop {
            if self.admin("GET", "/healthz").await.is_ok() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                break format!("it ended with {status}");
            }
            if Instant::now() > deadline {
                break "its admin port does not answer".to_owned();
            }
            sleep(Duration::from_millis(10)).await;
        };
        Err(StartError { name: self.name.clone(), why, log: self.log() })
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where clients connect, without a path.
    #[must_use]
    pub fn endpoint(&self, via: Via) -> Url {
        let (scheme, port) = match via {
            Via::WebSocket => ("ws", self.ports.websocket),
            Via::WebTransport => ("https", self.ports.webtransport),
        };
        format!("{scheme}://127.0.0.1:{port}").parse().expect("an address makes a URL")
    }

    /// Asks the admin port, with the token. Gives the status and the body.
    ///
    /// # Errors
    /// When it does not answer soon, or not as HTTP does.
    pub async fn admin(&self, method: &str, path: &str) -> io::Result<(u16, String)> {
        http::ask(local(self.ports.admin), method, path, TOKEN, ADMIN).await
    }

    /// One metric's value, summed over its labels; `labels` must all occur in a line for it to count.
    ///
    /// # Errors
    /// As [`admin`](Self::admin).
    pub async fn metric(&self, name: &str, labels: &[&str]) -> io::Result<f64> {
        self.admin("GET", "/metrics").await.map(|(_, body)| http::metric(&body, name, labels))
    }

    /// What `/readyz` says: whether it is ready, and its words.
    ///
    /// # Errors
    /// As [`admin`](Self::admin).
    pub async fn ready(&self) -> io::Result<(bool, String)> {
        self.admin("GET", "/readyz").await.map(|(status, body)| (status == 200, body))
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// When it does not become so.
    pub async fn becomes_ready(&self, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let said = self.ready().await;
            if matches!(said, Ok((true, _))) {
                return;
            }
            assert!(Instant::now() < deadline, "node {} is not ready within {within:?}: {said:?}", self.name);
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The process.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it at once, as `kill -9` does, and waits until it is gone.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("a child can be killed");
    }

    /// Stops its clock, as SIGSTOP does: it keeps its sockets and says nothing.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets it go on, as SIGCONT does.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Asks it to drain and end, as SIGTERM does.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by its name.
    ///
    /// # Panics
    /// When it has ended.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().unwrap_or_else(|| panic!("node {} has ended", self.name)).to_string();
        let status = std::process::Command::new("kill").args([&format!("-{name}"), &id]).status();
        assert!(status.is_ok_and(|status| status.success()), "SIG{name} cannot be sent to node {}", self.name);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it goes on.
    pub async fn ends(&mut self, within: Duration) -> ExitStatus {
        let ended = timeout(within, self.child.wait()).await;
        ended
            .unwrap_or_else(|_| panic!("node {} does not end within {within:?}", self.name))
            .expect("a child can be waited for")
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// The end of what it logged since the first start.
    #[must_use]
    pub fn log(&self) -> String {
        let text = std::fs::read(self.home.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(SHOWN_BYTES)..]).into_owned()
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of node {}'s log:\n{}", self.name, self.log());
        }
    }
}

fn spawn(program: &Path, name: &str, settings: &[String], ports: Ports, home: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(home.join("log"));
    let log = log.expect("a file can be written there");
    let mut command = Command::new(program);
    command.current_dir(home).arg("serve").kill_on_drop(true).stdin(Stdio::null());
    command.stdout(log.try_clone().expect("a file's handle can be copied")).stderr(log);
    let own = [
        format!("node.name={name}"),
        format!("listen.websocket.bind={}", local(ports.websocket)),
        format!("listen.webtransport.bind={}", local(ports.webtransport)),
        format!("listen.admin.bind={}", local(ports.admin)),
        format!("listen.admin.token_file={}", home.join("token").display()),
        "chaos.enabled=true".to_owned(),
    ];
    for setting in own.iter().chain(settings) {
        command.arg("--set").arg(setting);
    }
    command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

impl Ports {
    /// Ports that are free now, and below those that the system hands out: nobody gets one by chance while its node is down.
    fn pick() -> Self {
        let websocket = free(|address| TcpListener::bind(address).is_ok());
        let webtransport = free(|address| UdpSocket::bind(address).is_ok());
        // Bound only now and then, so the first would be free a second time.
        let admin = free(|address| address.port() != websocket && TcpListener::bind(address).is_ok());
        Self { websocket, webtransport, admin }
    }
}

fn free(binds: impl Fn(SocketAddr) -> bool) -> u16 {
    const LOWEST: u16 = 10_000;
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let handed_out = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768);
    let ports = LOWEST..handed_out.max(LOWEST + 1_000);
    let picked = std::iter::repeat_with(|| fastrand::u16(ports.clone())).take(1_000).find(|port| binds(local(*port)));
    picked.expect("one of a thousand ports is free")
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
