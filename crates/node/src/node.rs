//! One node's life: bind, start the tree, reload, stop.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use roomcast_bus::Bus;
use roomcast_bus::local::Hub;
use roomcast_bus::nats::{NatsBus, NatsError, NatsOptions};
use roomcast_supervision::{Observer, System, SystemOptions, Tree};
use roomcast_transport::tls::{Certificate, ServerIdentity, TlsError};
use roomcast_transport::webtransport;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::actors::config::{Message as ConfigMessage, Source};
use crate::actors::connection::STOPPING;
use crate::config::{BusKind, Settings, Tls, TlsMode};
use crate::observe;
use crate::store::{Addresses, Sessions, Sockets, Store, StoreParts};
use crate::token;

/// Connections that the kernel completes for us while we are busy.
const BACKLOG: i32 = 1024;
/// How long the tree may take to stop in order.
const STOP_TIME: Duration = Duration::from_secs(10);

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
    /// The bus can never work as it is set.
    #[error(transparent)]
    Bus(#[from] NatsError),
    /// The system gave no threads for connections to live on.
    #[error("no threads for connections: {0}")]
    Threads(std::io::Error),
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
}

impl Node {
    /// Binds, then starts the tree. When this returns, clients can connect.
    ///
    /// # Errors
    /// When an address, a certificate or the token is not to be had, or the tree does not start; nothing is left then.
    pub async fn start(options: NodeOptions) -> Result<Self, NodeError> {
        let NodeOptions { settings, config_file, overrides, log_control, bus, observer } = options;
        let sockets = bind(&settings)?;
        let token = token(&settings, &sockets)?;
        let name = match settings.node.name.as_str() {
            "auto" => automatic_name(),
            name => name.to_owned(),
        };
        let sessions: Arc<Sessions> = Arc::default();
        let (bus, settled) = match bus {
            Some(bus) => (bus, true),
            None => make_bus(&settings, &name, &sessions)?,
        };
        let parts = StoreParts { name, settings, sessions, bus, settled, sockets, token };
        let store = Store::new(parts).map_err(NodeError::Threads)?;
        let source = Arc::new(Source { file: config_file, overrides, log_control });
        let system = System::start(
            crate::tree::root(&store, &source),
            SystemOptions {
                label: "roomcast".into(),
                policies: Arc::clone(&store.policies),
                observer: Some(observe::observer(&store, observer)),
            },
        )
        .await?;
        store.set_tree(system.tree());
        Ok(Self { store, system })
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
        self.store.sockets.addresses
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
        // Of what waits there, the watch has sent one at most: so a reload waits already, and will read what this one would.
        if self.store.config.current().is_some_and(|actor| actor.depth() > 1) {
            return;
        }
        // Not lost while the configuration actor restarts: its next incarnation begins with a look at the file.
        if self.store.config.send(ConfigMessage::Reload(None)).is_err() {
            tracing::debug!("the configuration actor is restarting, and will read the file when it is up");
        }
    }

    /// Waits until the tree ended by itself, and says why.
    pub async fn ended(&self) -> String {
        self.system.wait().await.to_string()
    }

    /// Begins to drain, as `POST /drain` does: not ready, nobody is let in, clients are told to go elsewhere, spread over
    /// `timers.drain`.
    pub fn drain(&self) {
        self.store.begin_draining();
    }

    /// Waits for nobody any more: the drain is over at once.
    pub fn hurry(&self) {
        self.store.begin_draining();
        self.store.drain.hurry();
    }

    /// Waits until the node was drained, whoever asked for it. What is left to do then is [`stop`](Self::stop).
    pub async fn drained(&self) {
        self.store.drain.over().await;
    }

    /// Stops in order: listeners first, then connections with 1001, then the rest. Takes a few seconds; where an actor does
    /// not stop, ten, and then the clients are told without it. What is left of the tree dies with this value.
    pub async fn stop(&self) {
        self.store.begin_draining();
        if tokio::time::timeout(STOP_TIME, self.system.stop()).await.is_err() {
            tracing::warn!("some actors do not stop; ending without them");
            let (code, reason) = STOPPING;
            self.store.rooms.close_all(code, reason);
        }
        self.store.wind_up().await;
        let settings = self.store.settings();
        let made_here = settings.listen.admin.as_ref().is_some_and(|admin| admin.token_file.as_os_str().is_empty());
        if let Some((_, file)) = self.store.token.as_ref().filter(|_| made_here) {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// The bus that the settings ask for, and whether rooms can be shared from the beginning: on a bus of its own, with nobody.
fn make_bus(settings: &Settings, name: &str, sessions: &Arc<Sessions>) -> Result<(Arc<dyn Bus>, bool), NodeError> {
    if settings.bus.kind == BusKind::Local {
        return Ok((Arc::new(Hub::new().join()), true));
    }
    let file = |file: &PathBuf| Some(file.clone()).filter(|file| !file.as_os_str().is_empty());
    let nats = &settings.bus.nats;
    let sessions = Arc::clone(sessions);
    let options = NatsOptions {
        credentials_file: file(&nats.credentials_file),
        tls_ca_file: file(&nats.tls_ca_file),
        name: format!("roomcast {name}"),
        own: Arc::new(move |session| sessions.is_own(session)),
        ..NatsOptions::new(nats.urls.clone())
    };
    Ok((NatsBus::start(options)?, false))
}

fn bind(settings: &Settings) -> Result<Sockets, NodeError> {
    let mut sockets = Sockets::default();
    if let Some(listener) = &settings.listen.websocket {
        let listening = tcp("listen.websocket.bind", listener.bind)?;
        sockets.addresses.websocket = listening.local_addr().ok();
        sockets.websocket = ArcSwapOption::from_pointee(listening);
        sockets.websocket_identity = identity("listen.websocket.tls", &listener.tls)?;
    }
    if let Some(listener) = &settings.listen.webtransport {
        let (key, address) = ("listen.webtransport.bind", listener.bind);
        let failed = |error| NodeError::Bind { key, address, error };
        let identity = identity("listen.webtransport.tls", &listener.tls)?;
        if let Some(identity) = &identity {
            let socket = std::net::UdpSocket::bind(address).map_err(failed)?;
            let options = crate::store::webtransport_options(settings);
            let endpoint = webtransport::endpoint(socket, identity, &options).map_err(failed)?;
            sockets.addresses.webtransport = endpoint.local_addr().ok();
            sockets.webtransport = Some(endpoint);
        }
        sockets.webtransport_identity = identity;
    }
    if let Some(admin) = &settings.listen.admin {
        let listening = tcp("listen.admin.bind", admin.bind)?;
        sockets.addresses.admin = listening.local_addr().ok();
        sockets.admin = Some(listening);
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

fn identity(key: &'static str, tls: &Tls) -> Result<Option<Arc<ServerIdentity>>, NodeError> {
    let certificate = match tls {
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
fn token(settings: &Settings, sockets: &Sockets) -> Result<Option<(String, PathBuf)>, NodeError> {
    let (Some(admin), Some(bound)) = (&settings.listen.admin, sockets.addresses.admin) else { return Ok(None) };
    if admin.token_file.as_os_str().is_empty() {
        return token::make(bound.port()).map(Some).map_err(|(file, error)| NodeError::Token(file, error));
    }
    let file = admin.token_file.clone();
    match token::read(&file) {
        Ok(token) => Ok(Some((token, file))),
        Err(error) => Err(NodeError::Token(file, error)),
    }
}
