//! One node's life: bind, start the tree, reload, stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use roomcast_bus::Bus;
use roomcast_supervision::{Event, EventKind, Observer, Slot, System, SystemOptions, Tree};
use roomcast_transport::tls::{Certificate, ServerIdentity, TlsError};
use roomcast_transport::webtransport;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::actors::config::{Message as ConfigMessage, Source};
use crate::config::{ListenerSettings, Settings, Tls, TlsMode};
use crate::store::{Addresses, Sockets, Store, StoreParts};

/// Connections that the kernel completes for us while we are busy.
const BACKLOG: i32 = 1024;

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// An address could not be bound.
    #[error("{key}: {address} cannot be bound: {error}; is another program there? Port 0 lets the system choose one")]
    Bind {
        /// The key in `supervisor.toml`.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// A certificate could not be made or read.
    #[error("{key}: {error}")]
    Tls {
        /// The key in `supervisor.toml`.
        key: &'static str,
        /// What is wrong with it.
        error: TlsError,
    },
    /// The admin token could not be read or written.
    #[error("listen.admin.token_file: {0}: {1}")]
    Token(PathBuf, std::io::Error),
    /// The tree did not start.
    #[error("the tree did not start: {0}")]
    Tree(#[from] roomcast_supervision::StartError),
}

/// Changes the process's log filter; does nothing by default, for nodes in a box.
#[derive(Clone)]
pub struct LogControl(Arc<SetFilter>);

type SetFilter = dyn Fn(&str) -> Result<(), String> + Send + Sync;

impl LogControl {
    /// Wraps what changes the filter.
    pub fn new(set: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(set))
    }

    pub(crate) fn set(&self, filter: &str) -> Result<(), String> {
        (self.0)(filter)
    }
}

impl Default for LogControl {
    fn default() -> Self {
        Self::new(|_| Ok(()))
    }
}

/// What a node is started with.
#[derive(Clone, Default)]
pub struct NodeOptions {
    /// The settings, checked.
    pub settings: Settings,
    /// Where they came from; read again on reload.
    pub config_file: Option<PathBuf>,
    /// `--set` values, laid over the file at each reload.
    pub overrides: Vec<String>,
    /// Changes the log's filter.
    pub log_control: LogControl,
    /// The bus, where it is not to be made from the settings: nodes in one process may share one.
    pub bus: Option<Arc<dyn Bus>>,
    /// Told of all that happens in the tree, in the actors' own tasks: it must be quick.
    pub observer: Option<Observer>,
}

/// A running node.
pub struct Node {
    store: Arc<Store>,
    system: System,
    config: Slot<ConfigMessage>,
}

impl Node {
    /// Binds, then starts the tree. When this returns, clients can connect.
    ///
    /// # Errors
    /// When an address, a certificate or the token is not to be had, or the tree does not start; nothing is left then.
    pub async fn start(options: NodeOptions) -> Result<Self, NodeError> {
        let NodeOptions { settings, config_file, overrides, log_control, bus, observer: also } = options;
        let token = token(&settings)?;
        let sockets = bind(&settings)?;
        let name = match settings.node.name.as_str() {
            "auto" => automatic_name(),
            name => name.to_owned(),
        };
        let bus = bus.unwrap_or_else(|| Arc::new(roomcast_bus::local::Hub::new().join()));
        let store = Store::new(StoreParts { name, settings, bus, sockets, token });
        let source = Arc::new(Source { file: config_file, overrides, log_control });
        let config = Slot::default();
        let observer = Arc::downgrade(&store);
        let system = System::start(
            crate::tree::root(&store, &source, &config),
            SystemOptions {
                label: "roomcast".into(),
                policies: Arc::clone(&store.policies),
                observer: Some(Arc::new(move |event| {
                    if let Some(store) = observer.upgrade() {
                        observe(&store, event);
                    }
                    if let Some(also) = &also {
                        also(event);
                    }
                })),
            },
        )
        .await?;
        store.set_tree(system.tree());
        Ok(Self { store, system, config })
    }

    /// The node's unique name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.store.name
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.store.settings()
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.store.sockets.addresses()
    }

    /// The WebSocket listener's certificate, where it is secured.
    #[must_use]
    pub fn websocket_identity(&self) -> Option<&Arc<ServerIdentity>> {
        self.store.sockets.websocket_identity.as_ref()
    }

    /// The WebTransport listener's certificate.
    #[must_use]
    pub fn webtransport_identity(&self) -> Option<&Arc<ServerIdentity>> {
        self.store.sockets.webtransport_identity.as_ref()
    }

    /// The file that holds the admin token.
    #[must_use]
    pub fn token_file(&self) -> Option<&Path> {
        self.store.token.as_ref().map(|(_, file)| file.as_path())
    }

    /// What its actors share: for tests and embedding.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The tree of its actors.
    #[must_use]
    pub fn tree(&self) -> Tree {
        self.system.tree()
    }

    /// Reads the configuration again, soon.
    pub fn reload(&self) {
        // Lost only while the configuration actor restarts, which takes microseconds.
        if self.config.send(ConfigMessage::Reload).is_err() {
            tracing::warn!("the configuration actor is restarting; ask again");
        }
    }

    /// Waits until the tree ended by itself, and says why.
    pub async fn ended(&self) -> String {
        self.system.wait().await.to_string()
    }

    /// Stops in order: listeners first, then connections with 1001, then the rest. Takes a few seconds at most.
    pub async fn stop(&self) {
        self.store.begin_draining();
        self.system.stop().await;
        self.store.wind_up().await;
        let settings = self.store.settings();
        let made_here = settings.listen.admin.as_ref().is_some_and(|admin| admin.token_file.as_os_str().is_empty());
        if let Some((_, file)) = self.store.token.as_ref().filter(|_| made_here) {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Logs and counts what happens in the tree. Called in the actors' own tasks: it must be quick.
fn observe(store: &Store, event: &Event) {
    let path = event.path.as_str();
    let supervisor = kind_of(event.path.as_str());
    match &event.kind {
        EventKind::Started { generation, after: Some(after) } => {
            store.metrics.recovery.record(after.as_secs_f64());
            tracing::info!(actor = path, generation, after = ?after, "restarted");
        }
        EventKind::Started { .. } => tracing::debug!(actor = path, "started"),
        EventKind::Exited { reason, .. } if reason.is_abnormal() => {
            store.metrics.crashed(&supervisor, reason.kind());
            tracing::warn!(actor = path, %reason, "crashed");
        }
        EventKind::StartFailed { reason, .. } => {
            store.metrics.crashed(&supervisor, reason.kind());
            tracing::warn!(actor = path, %reason, "did not start");
        }
        EventKind::RestartScheduled { .. } => store.metrics.restarted(&supervisor),
        EventKind::Exited { reason, .. } => tracing::debug!(actor = path, %reason, "ended"),
        EventKind::GaveUp => {
            store.metrics.escalated(&supervisor);
            tracing::error!(supervisor = path, "gave up; its parent decides");
            store.rooms.supervisor_gave_up(path);
        }
        EventKind::Abandoned => tracing::error!(actor = path, "does not end: something in it never awaits"),
        other => tracing::debug!(actor = path, event = ?other, "supervision"),
    }
}

/// The supervisor's path with the names of rooms and sessions left out, so that a metrics label stays bounded.
fn kind_of(path: &str) -> String {
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    match parent.split_once('/') {
        Some(("rooms", _)) => "rooms/*".into(),
        _ if parent.is_empty() => "roomcast".into(),
        _ => parent.into(),
    }
}

fn bind(settings: &Settings) -> Result<Sockets, NodeError> {
    let mut sockets = Sockets::default();
    if let (Some(address), Some(listener)) = (settings.listen.websocket_bind(), &settings.listen.websocket) {
        sockets.websocket = Some(tcp("listen.websocket.bind", address)?);
        sockets.websocket_identity = identity("listen.websocket.tls", listener, TlsMode::Off)?;
    }
    if let (Some(address), Some(listener)) = (settings.listen.webtransport_bind(), &settings.listen.webtransport) {
        let key = "listen.webtransport.bind";
        let failed = |error| NodeError::Bind { key, address, error };
        let identity = identity("listen.webtransport.tls", listener, TlsMode::SelfSigned)?;
        if let Some(identity) = &identity {
            let socket = std::net::UdpSocket::bind(address).map_err(failed)?;
            let options = crate::store::webtransport_options(settings);
            sockets.webtransport = Some(webtransport::endpoint(socket, identity, &options).map_err(failed)?);
        }
        sockets.webtransport_identity = identity;
    }
    if let Some(admin) = &settings.listen.admin {
        sockets.admin = Some(tcp("listen.admin.bind", admin.bind)?);
    }
    Ok(sockets)
}

fn tcp(key: &'static str, address: SocketAddr) -> Result<TcpListener, NodeError> {
    let bound = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A restart must not wait for the last run's connections to time out.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bound().map_err(|error| NodeError::Bind { key, address, error })
}

fn identity(
    key: &'static str,
    listener: &ListenerSettings,
    default: TlsMode,
) -> Result<Option<Arc<ServerIdentity>>, NodeError> {
    let certificate = match listener.tls.as_ref().unwrap_or(&Tls::Mode(default)) {
        Tls::Mode(TlsMode::Off) => return Ok(None),
        Tls::Mode(TlsMode::SelfSigned) => Certificate::self_signed(&certificate_names(), SystemTime::now()),
        Tls::Files(files) => Certificate::load_pem(&files.cert, &files.key),
    };
    let identity = certificate.and_then(ServerIdentity::new).map_err(|error| NodeError::Tls { key, error })?;
    Ok(Some(Arc::new(identity)))
}

/// Names in a self-signed certificate besides the loopback ones.
pub(crate) fn certificate_names() -> Vec<String> {
    host_name().into_iter().collect()
}

fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name: String = name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    (!name.is_empty()).then_some(name)
}

fn automatic_name() -> String {
    let host = host_name().unwrap_or_else(|| "node".into());
    format!("{host}-{:06x}", fastrand::u32(..) & 0xff_ffff)
}

/// Reads the admin token, or makes one that only this user can read.
fn token(settings: &Settings) -> Result<Option<(String, PathBuf)>, NodeError> {
    let Some(admin) = &settings.listen.admin else { return Ok(None) };
    if !admin.token_file.as_os_str().is_empty() {
        let file = admin.token_file.clone();
        let failed = |error| NodeError::Token(file.clone(), error);
        let token = std::fs::read_to_string(&file).map_err(failed)?.trim().to_owned();
        if token.len() < 16 {
            return Err(failed(std::io::Error::other("holds fewer than 16 characters, which can be guessed")));
        }
        return Ok(Some((token, file)));
    }
    let mut random = [0; 24];
    let directory = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let file = directory.join(format!("roomcast-{}-{:08x}.token", std::process::id(), fastrand::u32(..)));
    let failed = |error| NodeError::Token(file.clone(), error);
    getrandom::fill(&mut random).map_err(|error| failed(std::io::Error::other(error.to_string())))?;
    let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    write_private(&file, &token).map_err(failed)?;
    Ok(Some((token, file)))
}

fn write_private(file: &Path, token: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    // `create_new` follows no link that somebody else left in a shared directory.
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(file, "{token}")
}
