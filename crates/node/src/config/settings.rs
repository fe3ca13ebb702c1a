//! The values of `supervisor.toml` and their defaults. Keys, meaning and units are those of the annotated file at the
//! top of the repository, and a test holds the two together.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use roomcast_protocol::Dialect;
use serde::{Deserialize, Serialize};

/// Everything that an operator may set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Who this node is.
    pub node: NodeSettings,
    /// Where it listens.
    pub listen: ListenSettings,
    /// How it reaches other nodes.
    pub bus: BusSettings,
    /// Who may join.
    pub auth: AuthSettings,
    /// How much of everything (live).
    pub limits: LimitSettings,
    /// Egress queues (live).
    pub egress: EgressSettings,
    /// How long things may take (live).
    pub timers: TimerSettings,
    /// How nodes see each other (live).
    pub presence: PresenceSettings,
    /// Restart policy by supervisor path or pattern; `defaults` is for all others (live).
    pub supervision: BTreeMap<String, PolicySettings>,
    /// Faults on purpose (live).
    pub chaos: ChaosSettings,
    /// Logs.
    pub telemetry: TelemetrySettings,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSettings {
    /// Unique in the cluster; `auto` makes one from the host's name and a random suffix.
    pub name: String,
    /// Where it runs, as the health and connection subjects say it.
    pub region: String,
    /// Which numbering it speaks.
    pub dialect: DialectName,
    /// The service name in the health and connection subjects.
    pub service: String,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self { name: "auto".into(), region: "local".into(), dialect: DialectName::Seed, service: "roomcast".into() }
    }
}

/// The dialect's name in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DialectName {
    /// The numbering of the seed document.
    Seed,
    /// The numbering with server-assigned sessions.
    Sessions,
}

impl From<DialectName> for Dialect {
    fn from(name: DialectName) -> Self {
        match name {
            DialectName::Seed => Self::Seed,
            DialectName::Sessions => Self::Sessions,
        }
    }
}

/// `[listen]`: with no table below it, all three listeners run on their defaults; with any, only those that are there.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ListenSettings {
    /// The WebSocket listener.
    #[serde(default)]
    pub websocket: Option<WebSocketSettings>,
    /// The WebTransport listener.
    #[serde(default)]
    pub webtransport: Option<WebTransportSettings>,
    /// The operator's listener.
    #[serde(default)]
    pub admin: Option<AdminSettings>,
}

impl Default for ListenSettings {
    fn default() -> Self {
        Self {
            websocket: Some(WebSocketSettings::default()),
            webtransport: Some(WebTransportSettings::default()),
            admin: Some(AdminSettings::default()),
        }
    }
}

/// `[listen.websocket]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebSocketSettings {
    /// Address and port; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// How it is secured.
    pub tls: Tls,
}

impl Default for WebSocketSettings {
    fn default() -> Self {
        Self { bind: SocketAddr::from(([127, 0, 0, 1], 8080)), tls: Tls::Mode(TlsMode::Off) }
    }
}

/// `[listen.webtransport]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebTransportSettings {
    /// Address and port; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// How it is secured; never off.
    pub tls: Tls,
}

impl Default for WebTransportSettings {
    fn default() -> Self {
        Self { bind: SocketAddr::from(([127, 0, 0, 1], 4433)), tls: Tls::Mode(TlsMode::SelfSigned) }
    }
}

/// How a listener is secured.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Tls {
    /// `"off"` or `"self-signed"`.
    Mode(TlsMode),
    /// Files in PEM, read again when they change.
    Files(TlsFiles),
}

impl<'de> Deserialize<'de> for Tls {
    /// By hand, so that an error says what may stand there (an untagged enum only says that nothing matched).
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Tls;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(r#""off", "self-signed" or { cert = "FILE", key = "FILE" }"#)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Tls, E> {
                TlsMode::deserialize(serde::de::value::StrDeserializer::new(text)).map(Tls::Mode)
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Tls, A::Error> {
                TlsFiles::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Tls::Files)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// `{ cert = "…", key = "…" }`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Security that needs no files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Plain TCP: for loopback, or behind a proxy that ends TLS.
    Off,
    /// A certificate made at start, at most 14 days old, whose hash browsers pin.
    SelfSigned,
}

/// `[listen.admin]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// Address and port; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// Holds the token that changing calls need; empty: a random one is made and its file printed.
    pub token_file: PathBuf,
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { bind: SocketAddr::from(([127, 0, 0, 1], 9090)), token_file: PathBuf::new() }
    }
}

/// `[bus]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BusSettings {
    /// Which bus.
    pub kind: BusKind,
    /// Where the broker is, for `kind = "nats"`.
    pub nats: NatsSettings,
}

impl Default for BusSettings {
    fn default() -> Self {
        Self { kind: BusKind::Local, nats: NatsSettings::default() }
    }
}

/// The kinds of bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BusKind {
    /// Inside this process: a node alone.
    Local,
    /// A NATS broker: many nodes.
    Nats,
}

/// `[bus.nats]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsSettings {
    /// The brokers' addresses.
    pub urls: Vec<String>,
    /// A credentials file; empty: none.
    pub credentials_file: PathBuf,
    /// A certificate authority for the broker's certificate; empty: the system's.
    pub tls_ca_file: PathBuf,
}

impl Default for NatsSettings {
    fn default() -> Self {
        Self {
            urls: vec!["nats://127.0.0.1:4222".into()],
            credentials_file: PathBuf::new(),
            tls_ca_file: PathBuf::new(),
        }
    }
}

/// `[auth]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// Where identity comes from.
    pub mode: AuthMode,
    /// The only signature algorithm that tokens may use.
    pub algorithm: String,
    /// The secret or public key that tokens are checked with.
    pub key_file: PathBuf,
    /// The issuer that tokens must name.
    pub issuer: String,
    /// Browsers' `Origin` values that may connect; empty: any.
    pub origins: Vec<String>,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            mode: AuthMode::Open,
            algorithm: "HS256".into(),
            key_file: PathBuf::new(),
            issuer: "videocall-meeting-backend".into(),
            origins: Vec::new(),
        }
    }
}

/// Where identity comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// From the path.
    Open,
    /// From a signed token.
    Token,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Open connections on this node.
    pub max_connections: usize,
    /// Open connections from one address; 0: no limit.
    pub max_connections_per_ip: usize,
    /// Addresses or networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<String>,
    /// All egress queues of the node together, bytes.
    pub max_buffered_bytes: usize,
    /// Rooms on this node.
    pub max_rooms: usize,
    /// Members of one room on this node.
    pub max_room_members: usize,
    /// The largest packet, bytes.
    pub max_packet_bytes: usize,
    /// Packets that one connection may send each second.
    pub ingress_packets_per_second: u32,
    /// Bytes that one connection may send each second.
    pub ingress_bytes_per_second: u32,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            max_connections_per_ip: 0,
            trusted_proxies: Vec::new(),
            max_buffered_bytes: 1_073_741_824,
            max_rooms: 10_000,
            max_room_members: 1_000,
            max_packet_bytes: roomcast_protocol::MAX_PACKET_BYTES,
            ingress_packets_per_second: 1_000,
            ingress_bytes_per_second: 20_000_000,
        }
    }
}

/// `[egress]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EgressSettings {
    /// Packets that may wait for one receiver.
    pub queue_packets: usize,
    /// Bytes that may wait for one receiver.
    pub queue_bytes: usize,
    /// Video older than this in a queue goes first.
    #[serde(with = "humantime_serde")]
    pub max_delay: Duration,
    /// The most that a dense connection waits for a batch.
    #[serde(with = "humantime_serde")]
    pub coalesce: Duration,
    /// A queue full of control for this long: the client is disconnected.
    #[serde(with = "humantime_serde")]
    pub slow_client: Duration,
}

impl Default for EgressSettings {
    fn default() -> Self {
        Self {
            queue_packets: 1024,
            queue_bytes: 8_388_608,
            max_delay: Duration::from_millis(500),
            coalesce: Duration::from_millis(5),
            slow_client: Duration::from_secs(10),
        }
    }
}

/// `[timers]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimerSettings {
    /// From accept to joined.
    #[serde(with = "humantime_serde")]
    pub handshake: Duration,
    /// Between pings.
    #[serde(with = "humantime_serde")]
    pub ping: Duration,
    /// Without a sign of life for this long: gone.
    #[serde(with = "humantime_serde")]
    pub idle: Duration,
    /// How long a leave may be undone by a return (sessions dialect).
    #[serde(with = "humantime_serde")]
    pub leave_grace: Duration,
    /// Over how long a drain is spread.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
}

impl Default for TimerSettings {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            ping: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            leave_grace: Duration::from_secs(2),
            drain: Duration::from_secs(30),
        }
    }
}

/// `[presence]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PresenceSettings {
    /// Between this node's signs of life.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// A node unheard for this long is lost.
    #[serde(with = "humantime_serde")]
    pub lost_after: Duration,
}

impl Default for PresenceSettings {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(1), lost_after: Duration::from_secs(5) }
    }
}

/// `[supervision.…]`: what is left out comes from `[supervision.defaults]`, and there from the built-in policy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicySettings {
    /// More restarts than this within the period: the supervisor gives up and its parent decides.
    pub intensity: Option<u32>,
    /// The window in which restarts are counted.
    #[serde(with = "humantime_serde")]
    pub period: Option<Duration>,
    /// How long a child may take to stop before it is killed.
    #[serde(with = "humantime_serde")]
    pub shutdown: Option<Duration>,
    /// The wait between restarts; the first is immediate.
    pub backoff: Option<BackoffSettings>,
}

/// `backoff = { initial, factor, max, jitter }`
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BackoffSettings {
    /// The wait before the second restart.
    #[serde(with = "humantime_serde")]
    pub initial: Duration,
    /// What each further wait is multiplied by.
    pub factor: f64,
    /// The longest wait.
    #[serde(with = "humantime_serde")]
    pub max: Duration,
    /// By how much a wait may differ at random, as a part of it: 0 to 1.
    pub jitter: f64,
}

/// `[chaos]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChaosSettings {
    /// Whether `kill` works.
    pub enabled: bool,
}

/// `[telemetry]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetrySettings {
    /// A level (`error` … `trace`) or filter directives (live).
    pub log: String,
    /// How a line looks.
    pub format: LogFormat,
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self { log: "info".into(), format: LogFormat::Text }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
