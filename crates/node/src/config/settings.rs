//! The values of `supervisor.toml` and their defaults, but for `[listen]` and `[supervision]`, which have their own files.
//! Keys, meaning and units are those of the annotated file at the top of the repository; a test holds the two together.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use roomcast_protocol::Dialect;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::HumanDuration;
use super::listen::ListenSettings;
use super::supervision::{PolicySettings, policies_schema};

/// Everything that an operator may set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
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
    #[schemars(schema_with = "policies_schema")]
    pub supervision: BTreeMap<String, PolicySettings>,
    /// Faults on purpose (live).
    pub chaos: ChaosSettings,
    /// Logs.
    pub telemetry: TelemetrySettings,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSettings {
    /// Unique in the cluster; `auto` makes one from the host's name and a random suffix.
    #[schemars(regex(pattern = "^[A-Za-z0-9_-]{1,64}$"))]
    pub name: String,
    /// Where it runs, as the health and connection subjects say it.
    #[schemars(regex(pattern = "^[A-Za-z0-9_-]{1,64}$"))]
    pub region: String,
    /// Which numbering it speaks.
    pub dialect: DialectName,
    /// The service name in the health and connection subjects.
    #[schemars(regex(pattern = "^[A-Za-z0-9_-]{1,64}$"))]
    pub service: String,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self { name: "auto".into(), region: "local".into(), dialect: DialectName::Seed, service: "roomcast".into() }
    }
}

/// The dialect's name in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
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

/// `[bus]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BusKind {
    /// Inside this process: a node alone.
    Local,
    /// A NATS broker: many nodes.
    Nats,
}

/// `[bus.nats]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// Where identity comes from.
    pub mode: AuthMode,
    /// The only signature algorithm that tokens may use.
    pub algorithm: Algorithm,
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
            algorithm: Algorithm::Hs256,
            key_file: PathBuf::new(),
            issuer: "videocall-meeting-backend".into(),
            origins: Vec::new(),
        }
    }
}

/// Where identity comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// From the path.
    Open,
    /// From a signed token.
    Token,
}

/// Signature algorithms of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Algorithm {
    /// A shared secret.
    #[serde(rename = "HS256")]
    Hs256,
    /// An Ed25519 key.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// A key on the curve P-256.
    #[serde(rename = "ES256")]
    Es256,
    /// An RSA key.
    #[serde(rename = "RS256")]
    Rs256,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitSettings {
    /// Open connections on this node.
    #[schemars(range(min = 1))]
    pub max_connections: usize,
    /// Open connections from one address; 0: no limit.
    pub max_connections_per_ip: usize,
    /// Addresses or networks whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<String>,
    /// All egress queues of the node together, bytes.
    #[schemars(range(min = 1))]
    pub max_buffered_bytes: usize,
    /// Rooms on this node.
    #[schemars(range(min = 1))]
    pub max_rooms: usize,
    /// Members of one room on this node.
    #[schemars(range(min = 1))]
    pub max_room_members: usize,
    /// The largest packet, bytes.
    #[schemars(range(min = 1, max = 4_000_000))]
    pub max_packet_bytes: usize,
    /// Packets that one connection may send each second.
    #[schemars(range(min = 1))]
    pub ingress_packets_per_second: u32,
    /// Bytes that one connection may send each second.
    #[schemars(range(min = 1))]
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
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EgressSettings {
    /// Packets that may wait for one receiver.
    #[schemars(range(min = 1))]
    pub queue_packets: usize,
    /// Bytes that may wait for one receiver.
    #[schemars(range(min = 1))]
    pub queue_bytes: usize,
    /// Video older than this in a queue goes first.
    #[serde(with = "HumanDuration")]
    pub max_delay: Duration,
    /// The most that a dense connection waits for a batch.
    #[serde(with = "HumanDuration")]
    pub coalesce: Duration,
    /// A queue full of control for this long: the client is disconnected.
    #[serde(with = "HumanDuration")]
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
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TimerSettings {
    /// From accept to joined.
    #[serde(with = "HumanDuration")]
    pub handshake: Duration,
    /// Between pings.
    #[serde(with = "HumanDuration")]
    pub ping: Duration,
    /// Without a sign of life for this long: gone.
    #[serde(with = "HumanDuration")]
    pub idle: Duration,
    /// How long a leave may be undone by a return (sessions dialect).
    #[serde(with = "HumanDuration")]
    pub leave_grace: Duration,
    /// Over how long a drain is spread.
    #[serde(with = "HumanDuration")]
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
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PresenceSettings {
    /// Between this node's signs of life.
    #[serde(with = "HumanDuration")]
    pub heartbeat: Duration,
    /// A node unheard for this long is lost.
    #[serde(with = "HumanDuration")]
    pub lost_after: Duration,
}

impl Default for PresenceSettings {
    fn default() -> Self {
        Self { heartbeat: Duration::from_secs(1), lost_after: Duration::from_secs(5) }
    }
}

/// `[chaos]`
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ChaosSettings {
    /// Whether `kill` works.
    pub enabled: bool,
}

/// `[telemetry]`
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
