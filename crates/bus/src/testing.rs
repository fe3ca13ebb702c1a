//! Real brokers for tests: nats-servers of two versions, alone or as a cluster, killed, restarted and frozen at will. What lives here:
//! their processes. What does not: what they count (`testing/monitor.rs`), and any test.
//!
//! A broker dies with the test, its files are in a temporary directory, its ports come from the system and stay its own over
//! a restart. `scripts/setup` installs the programs; without them a test panics and says so.

mod monitor;

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

pub use monitor::{BrokerCounters, ConnectionCounters};

/// The longest that a broker may take for anything on a machine that is busy with other things.
const DEADLINE: Duration = Duration::from_secs(30);

/// How often a condition is looked at again.
const LOOK: Duration = Duration::from_millis(10);

/// Which broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BrokerVersion {
    /// The old one that a stable Linux distribution has: 2.9.
    Debian,
    /// The current release.
    #[default]
    Current,
}

impl BrokerVersion {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Debian, Self::Current];

    /// The program.
    ///
    /// # Panics
    ///
    /// Where `scripts/setup` has not put it there.
    #[must_use]
    pub fn program(self) -> PathBuf {
        let name = match self {
            Self::Debian => "nats-server-debian",
            Self::Current => "nats-server",
        };
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/bin").join(name);
        assert!(program.exists(), "{} is missing: run scripts/setup", program.display());
        program
    }
}

/// How a broker is started.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// Which one.
    pub version: BrokerVersion,
    /// The largest message that it takes, in bytes.
    pub max_payload: usize,
    /// Whether clients must use TLS, with a certificate for `127.0.0.1` and `localhost` of an authority that only
    /// [`Broker::ca_pem`] knows.
    pub tls: bool,
    /// Whether brokers of a cluster tell their clients of each other. Where a test stands between them and their clients, they
    /// must not.
    pub advertise: bool,
    /// More of its configuration: accounts and users, limits.
    pub extra: String,
}

impl Default for BrokerOptions {
    /// The current release, with the room for packets that is recommended.
    fn default() -> Self {
        Self {
            version: BrokerVersion::default(),
            max_payload: 8 * 1024 * 1024,
            tls: false,
            advertise: true,
            extra: String::new(),
        }
    }
}

impl BrokerOptions {
    /// The defaults, of this version.
    #[must_use]
    pub fn of(version: BrokerVersion) -> Self {
        Self { version, ..Self::default() }
    }
}

/// The ports that a broker has, as it writes them down.
#[derive(Clone, Copy, Debug, Default)]
struct Ports {
    clients: u16,
    monitor: u16,
    routes: u16,
}

/// A broker's process.
#[derive(Debug)]
pub struct Broker {
    options: BrokerOptions,
    name: String,
    directory: TempDir,
    ports: Ports,
    /// The ports in the configuration that it was started with: those cannot be changed while it runs.
    configured: Ports,
    /// The ports of the others' routes in a cluster; `None`: alone.
    routes: Option<Vec<u16>>,
    certificate: Option<Certificate>,
    process: Option<Process>,
}

/// What a broker with TLS shows.
#[derive(Clone, Debug)]
struct Certificate {
    ca: String,
    chain: String,
    key: String,
}

impl Broker {
    /// Starts one that stands alone, and waits until it takes clients.
    ///
    /// # Panics
    ///
    /// Where it does not start, as everything here: this is for tests.
    pub async fn start(options: &BrokerOptions) -> Self {
        let certificate = options.tls.then(certificate);
        let mut broker = Self::new("broker-0", options, None, certificate);
        broker.launch().await;
        broker
    }

    fn new(name: &str, options: &BrokerOptions, routes: Option<Vec<u16>>, certificate: Option<Certificate>) -> Self {
        let directory = tempfile::Builder::new().prefix("roomcast-broker-").tempdir().expect("a temporary directory");
        let (options, name) = (options.clone(), name.to_owned());
        Self {
            options,
            name,
            directory,
            ports: Ports::default(),
            configured: Ports::default(),
            routes,
            certificate,
            process: None,
        }
    }

    /// Where clients reach it: `nats://127.0.0.1:{port}`, or `tls://…`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.options.tls { "tls" } else { "nats" }, self.ports.clients)
    }

    /// The same with a user and a password in it.
    #[must_use]
    pub fn url_of(&self, user: &str, password: &str) -> String {
        self.url().replace("://", &format!("://{user}:{password}@"))
    }

    /// The port for clients, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.ports.clients
    }

    /// Its name, as its clients are told it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process, while there is one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.server.id())
    }

    /// The authority that signed its certificate, in PEM.
    ///
    /// # Panics
    ///
    /// Without TLS.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.certificate.as_ref().expect("a broker with TLS").ca
    }

    /// Kills it (SIGKILL, frozen or not) and waits until it is gone.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again on the same ports, after killing it where it still runs, and waits until it takes clients.
    pub async fn restart(&mut self) {
        self.kill();
        self.launch().await;
    }

    /// Stops its process (SIGSTOP) and waits until all of it has stopped: connections stay open, nothing is read or answered.
    pub fn freeze(&self) {
        self.signal("STOP");
        let deadline = std::time::Instant::now() + DEADLINE;
        while self.pid().is_some_and(|pid| !has_stopped(pid)) {
            assert!(std::time::Instant::now() < deadline, "the broker {} does not stop", self.name);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets a frozen one go on.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Makes it announce that it stops, and stop some time later.
    pub fn retire(&self) {
        self.signal("USR2");
    }

    /// Makes it read its configuration again with other `extra` text.
    pub fn reconfigure(&mut self, extra: &str) {
        extra.clone_into(&mut self.options.extra);
        self.write_configuration();
        self.signal("HUP");
    }

    /// What it has written to its log so far.
    #[must_use]
    pub fn log(&self) -> String {
        ["stderr", "log"]
            .map(|file| std::fs::read_to_string(self.directory.path().join(file)).unwrap_or_default())
            .concat()
    }

    /// What it counts, from its monitoring port.
    pub async fn counters(&self) -> BrokerCounters {
        monitor::counters(self.monitor()).await
    }

    fn monitor(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.monitor).into()
    }

    fn signal(&self, signal: &str) {
        let pid = self.pid().expect("a broker that runs");
        // The shell's own `kill` is there even where the program is not.
        let status = Command::new("sh").args(["-c", "kill -\"$1\" \"$2\"", "sh", signal, &pid.to_string()]).status();
        assert!(status.expect("a shell").success(), "the broker {pid} could not be sent SIG{signal}");
    }

    fn configuration(&self) -> String {
        let directory = self.directory.path().display();
        // A port that is not known yet comes from the system.
        let port = |port: u16| if port == 0 { "-1".to_owned() } else { port.to_string() };
        let mut text = format!(
            "server_name: {}\nlisten: \"127.0.0.1:{}\"\nhttp: \"127.0.0.1:{}\"\nmax_payload: {}\n\
             ports_file_dir: \"{directory}\"\nlog_file: \"{directory}/log\"\n",
            self.name,
            port(self.configured.clients),
            port(self.configured.monitor),
            self.options.max_payload,
        );
        if self.options.tls {
            let _ = writeln!(text, "tls {{ cert_file: \"{directory}/chain.pem\", key_file: \"{directory}/key.pem\" }}");
        }
        if let Some(routes) = &self.routes {
            let routes: Vec<String> = routes.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect();
            let _ = writeln!(
                text,
                "cluster {{ name: roomcast, listen: \"127.0.0.1:{}\", no_advertise: {}, routes: [{}] }}",
                port(self.configured.routes),
                !self.options.advertise,
                routes.join(", ")
            );
        }
        text.push_str(&self.options.extra);
        text.push('\n');
        text
    }

    fn write_configuration(&self) {
        self.write("configuration", &self.configuration());
        if let Some(certificate) = &self.certificate {
            self.write("chain.pem", &certificate.chain);
            self.write("key.pem", &certificate.key);
        }
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.directory.path().join(file), text).expect("a writable temporary directory");
    }

    async fn launch(&mut self) {
        self.configured = self.ports;
        self.write_configuration();
        let deadline = Instant::now() + DEADLINE;
        'again: loop {
            let mut process = Process::start(self.options.version, self.directory.path());
            let file = self.directory.path().join(format!("nats-server_{}.ports", process.server.id()));
            loop {
                assert!(Instant::now() < deadline, "the broker {} does not start:\n{}", self.name, self.log());
                if let Some(ports) = read_ports(&file, self.routes.is_some()) {
                    self.ports = ports;
                    self.process = Some(process);
                    break 'again;
                }
                if let Some(status) = process.server.try_wait().expect("a child can be waited for") {
                    // Another socket may have its port for a moment, but only a broker that was there before can have that.
                    assert!(self.ports.clients != 0, "the broker {} ended, {status}:\n{}", self.name, self.log());
                    sleep(LOOK).await;
                    continue 'again;
                }
                sleep(LOOK).await;
            }
        }
        while monitor::is_up(self.monitor()).await.is_none() {
            assert!(Instant::now() < deadline, "the broker {} does not answer:\n{}", self.name, self.log());
            sleep(LOOK).await;
        }
    }
}

/// Whether every thread of a process has stopped, where the system tells.
fn has_stopped(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        // "number (name) state …"; a name may hold anything but is followed by the last parenthesis.
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['T', 't']))
    })
}

/// Reads what a broker writes once it listens; `None` while it is not whole.
fn read_ports(file: &Path, in_cluster: bool) -> Option<Ports> {
    #[derive(Deserialize)]
    struct File {
        nats: Vec<String>,
        monitoring: Vec<String>,
        #[serde(default)]
        cluster: Vec<String>,
    }
    let file: File = serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
    let port = |urls: &[String]| urls.first()?.rsplit(':').next()?.parse().ok();
    let routes = if in_cluster { port(&file.cluster)? } else { 0 };
    Some(Ports { clients: port(&file.nats)?, monitor: port(&file.monitoring)?, routes })
}

/// A running broker, killed when dropped, and also when the test's process dies in a way that drops nothing.
#[derive(Debug)]
struct Process {
    server: Child,
    /// Waits for the end of its input, which comes with the end of this process.
    watchdog: Child,
}

impl Process {
    fn start(version: BrokerVersion, directory: &Path) -> Self {
        // Past links: it names its ports file by how it was called.
        let program = version.program().canonicalize().expect("a program that exists");
        let server = Command::new(program)
            .arg("--config")
            .arg(directory.join("configuration"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            // What is wrong with a configuration is written here, not to the log.
            .stderr(std::fs::File::create(directory.join("stderr")).expect("a writable temporary directory"))
            .spawn()
            .expect("nats-server runs");
        let watchdog = Command::new("sh")
            .args(["-c", "read _; kill -9 \"$1\"", "sh", &server.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell runs");
        Self { server, watchdog }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The watchdog first: once the broker is gone, its number may be another's.
        for child in [&mut self.watchdog, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Brokers that share everything.
#[derive(Debug)]
pub struct BrokerCluster {
    /// All of them, killed ones included.
    pub brokers: Vec<Broker>,
}

impl BrokerCluster {
    /// Starts so many, and waits until each is connected to all others.
    pub async fn start(count: usize, options: &BrokerOptions) -> Self {
        let certificate = options.tls.then(certificate);
        let mut brokers: Vec<Broker> = Vec::new();
        for index in 0..count {
            let routes = brokers.iter().map(|broker| broker.ports.routes).collect();
            let mut broker = Broker::new(&format!("broker-{index}"), options, Some(routes), certificate.clone());
            broker.launch().await;
            brokers.push(broker);
        }
        // From now on each knows all others, whichever of them is restarted.
        let ports: Vec<u16> = brokers.iter().map(|broker| broker.ports.routes).collect();
        for broker in &mut brokers {
            broker.routes = Some(ports.iter().copied().filter(|port| *port != broker.ports.routes).collect());
        }
        let cluster = Self { brokers };
        cluster.formed().await;
        cluster
    }

    /// Where clients reach each.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.brokers.iter().map(Broker::url).collect()
    }

    /// Waits until each broker that runs is connected to all others that run.
    pub async fn formed(&self) {
        let running: Vec<&Broker> = self.brokers.iter().filter(|broker| broker.process.is_some()).collect();
        let deadline = Instant::now() + DEADLINE;
        for broker in &running {
            while monitor::peers(broker.monitor()).await != Some(running.len() - 1) {
                assert!(Instant::now() < deadline, "{} is not connected to all others:\n{}", broker.name, broker.log());
                sleep(LOOK).await;
            }
        }
    }
}

fn certificate() -> Certificate {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let authority_key = KeyPair::generate().expect("a key");
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = authority.self_signed(&authority_key).expect("a certificate").pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("a key");
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let server = CertificateParams::new(names).expect("valid names").signed_by(&key, &issuer).expect("a certificate");
    Certificate { ca, chain: server.pem(), key: key.serialize_pem() }
}
