//! Ranges and contradictions: values that have the right type and are wrong all the same. Pure; knows no text and no lines.

use std::time::Duration;

use roomcast_relay::Network;
use roomcast_supervision::BackoffError;
use tracing_subscriber::EnvFilter;
use url::Url;

use super::listen::{Tls, TlsMode};
use super::settings::{AuthMode, BusKind, DialectName, Settings};
use super::suggest::nearest;
use crate::policy;

/// More connections, rooms or members than any machine holds: a slip of the keyboard.
const MOST: usize = 10_000_000;
/// More bytes than any machine holds.
const MOST_BYTES: usize = 1 << 44;
/// Beyond this no supervisor would ever give up in its period.
const MOST_RESTARTS: u32 = 1_000_000;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// One value that is wrong.
#[derive(Debug)]
pub(super) struct Problem {
    /// The key to change.
    pub(super) key: Vec<String>,
    /// The other keys that it contradicts.
    pub(super) with: Vec<Vec<String>>,
    /// Why.
    pub(super) reason: String,
    /// The nearest valid name.
    pub(super) nearest: Option<String>,
}

/// All that is wrong with the values.
pub(super) fn check(settings: &Settings) -> Vec<Problem> {
    let mut found = Findings(Vec::new());
    found.identity(settings);
    found.listeners(settings);
    found.limits(settings);
    found.times(settings);
    found.supervision(settings);
    found.log(&settings.telemetry.log);
    let mut problems = found.0;
    // What is out of range by itself contradicts others by the way.
    let alone: Vec<_> =
        problems.iter().filter(|problem| problem.with.is_empty()).map(|problem| problem.key.clone()).collect();
    problems.retain(|Problem { key, with, .. }| {
        with.is_empty() || !alone.iter().any(|alone| alone == key || with.contains(alone))
    });
    problems
}

fn path(key: &str) -> Vec<String> {
    key.split('.').map(str::to_owned).collect()
}

struct Findings(Vec<Problem>);

/// Whether a broker can be reached by this.
fn broker_url(text: &str) -> Result<(), &'static str> {
    let url = Url::parse(text).map_err(|_| "is no URL")?;
    match url.scheme() {
        "nats" | "tls" => {}
        _ => return Err("is reached in another way than a broker"),
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("names no host");
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err("has something after the port");
    }
    Ok(())
}

/// A broker's address as it may be shown: without user and password.
pub(crate) fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => url.to_owned(),
    }
}

impl Findings {
    fn add(&mut self, key: &str, reason: impl Into<String>) {
        self.0.push(Problem { key: path(key), with: Vec::new(), reason: reason.into(), nearest: None });
    }

    /// A key that contradicts another one.
    fn contradiction(&mut self, key: &str, with: &str, reason: &str) {
        self.0.push(Problem { key: path(key), with: vec![path(with)], reason: reason.into(), nearest: None });
    }

    fn range(&mut self, key: &str, value: usize, least: usize, most: usize) {
        if value < least {
            self.add(key, format!("must be at least {least}"));
        } else if value > most {
            self.add(key, format!("must be from {least} to {most}"));
        }
    }

    fn identity(&mut self, settings: &Settings) {
        let Settings { node, bus, auth, .. } = settings;
        for (key, name) in [("node.name", &node.name), ("node.region", &node.region), ("node.service", &node.service)] {
            let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            if name.is_empty() || name.len() > 64 || !name.bytes().all(token) {
                self.add(key, "must be 1 to 64 characters out of A-Z a-z 0-9 _ -");
            }
        }
        if node.dialect == DialectName::Sessions {
            self.add("node.dialect", "`sessions` is not served by this version; use `seed`");
        }
        if bus.kind == BusKind::Nats && bus.nats.urls.is_empty() {
            self.contradiction(
                "bus.nats.urls",
                "bus.kind",
                "names no broker; `nats` needs one, like nats://127.0.0.1:4222",
            );
        }
        for url in &bus.nats.urls {
            if let Err(reason) = broker_url(url) {
                self.add(
                    "bus.nats.urls",
                    format!("`{}`: {reason}; write nats://HOST:PORT or tls://HOST:PORT", without_password(url)),
                );
            }
        }
        if auth.mode == AuthMode::Token {
            self.add("auth.mode", "`token` is not served by this version; use `open`");
        }
    }

    fn listeners(&mut self, settings: &Settings) {
        let listen = &settings.listen;
        if listen.websocket.is_none() && listen.webtransport.is_none() {
            self.add("listen", "no client could connect; keep [listen.websocket] or [listen.webtransport]");
        }
        if listen.webtransport.as_ref().is_some_and(|listener| listener.tls == Tls::Mode(TlsMode::Off)) {
            self.add("listen.webtransport.tls", "WebTransport is always encrypted; use `self-signed` or files");
        }
        // WebTransport is UDP, and so in nobody's way.
        if let (Some(websocket), Some(admin)) = (&listen.websocket, &listen.admin)
            && websocket.bind == admin.bind
            && admin.bind.port() != 0
        {
            self.contradiction(
                "listen.admin.bind",
                "listen.websocket.bind",
                "is listen.websocket.bind too; two listeners cannot share a port",
            );
        }
    }

    fn limits(&mut self, settings: &Settings) {
        let Settings { limits, egress, .. } = settings;
        for (key, value, least, most) in [
            ("limits.max_connections", limits.max_connections, 1, MOST),
            ("limits.max_connections_per_ip", limits.max_connections_per_ip, 0, MOST),
            ("limits.max_rooms", limits.max_rooms, 1, MOST),
            ("limits.max_room_members", limits.max_room_members, 1, MOST),
            ("limits.max_buffered_bytes", limits.max_buffered_bytes, 1, MOST_BYTES),
            ("limits.max_packet_bytes", limits.max_packet_bytes, 1, roomcast_protocol::MAX_PACKET_BYTES),
            ("limits.ingress_packets_per_second", limits.ingress_packets_per_second as usize, 1, usize::MAX),
            ("limits.ingress_bytes_per_second", limits.ingress_bytes_per_second as usize, 1, usize::MAX),
            ("egress.queue_packets", egress.queue_packets, 1, MOST),
            ("egress.queue_bytes", egress.queue_bytes, 1, MOST_BYTES),
        ] {
            self.range(key, value, least, most);
        }
        for (key, value, never) in [
            ("limits.ingress_bytes_per_second", limits.ingress_bytes_per_second as usize, "sent"),
            ("egress.queue_bytes", egress.queue_bytes, "delivered"),
            ("limits.max_buffered_bytes", limits.max_buffered_bytes, "delivered"),
        ] {
            if value < limits.max_packet_bytes {
                let reason = format!("is less than limits.max_packet_bytes: the largest packet could never be {never}");
                self.contradiction(key, "limits.max_packet_bytes", &reason);
            }
        }
        for proxy in &limits.trusted_proxies {
            if let Err(bad) = proxy.parse::<Network>() {
                let reason = format!("`{proxy}`: {bad}; write addresses or networks, like 10.0.0.0/8");
                self.add("limits.trusted_proxies", reason);
            }
        }
    }

    fn times(&mut self, settings: &Settings) {
        let Settings { egress, timers, presence, .. } = settings;
        let ms = Duration::from_millis;
        for (key, value, least, most) in [
            ("timers.handshake", timers.handshake, ms(100), HOUR),
            ("timers.ping", timers.ping, ms(100), HOUR),
            ("timers.idle", timers.idle, ms(200), HOUR),
            ("timers.leave_grace", timers.leave_grace, Duration::ZERO, HOUR),
            ("timers.drain", timers.drain, Duration::ZERO, HOUR),
            ("egress.max_delay", egress.max_delay, ms(10), HOUR),
            ("egress.slow_client", egress.slow_client, ms(100), HOUR),
            // The others do not believe in a longer one.
            ("presence.heartbeat", presence.heartbeat, ms(50), MINUTE),
            ("presence.lost_after", presence.lost_after, ms(100), HOUR),
        ] {
            self.time(path(key), value, least, most);
        }
        if egress.coalesce > ms(100) {
            self.add("egress.coalesce", "must be at most 100ms: callers would hear it");
        }
        if timers.idle < timers.ping.saturating_mul(2) {
            let reason = "must be at least twice timers.ping, or one lost pong closes a connection";
            self.contradiction("timers.idle", "timers.ping", reason);
        }
        if presence.lost_after < presence.heartbeat.saturating_mul(2) {
            let reason = "must be at least twice presence.heartbeat";
            self.contradiction("presence.lost_after", "presence.heartbeat", reason);
        }
    }

    fn time(&mut self, key: Vec<String>, value: Duration, least: Duration, most: Duration) {
        if value < least || value > most {
            let written = humantime_serde::re::humantime::format_duration;
            let reason = format!("must be from {} to {}", written(least), written(most));
            self.0.push(Problem { key, with: Vec::new(), reason, nearest: None });
        }
    }

    fn supervision(&mut self, settings: &Settings) {
        for (name, policy) in &settings.supervision {
            let key = |rest: &str| {
                let names =
                    ["supervision", name.as_str()].into_iter().chain(rest.split('.').filter(|part| !part.is_empty()));
                names.map(str::to_owned).collect::<Vec<_>>()
            };
            let mut add = |rest: &str, reason: String, nearest: Option<String>| {
                self.0.push(Problem { key: key(rest), with: Vec::new(), reason, nearest });
            };
            if let Err(error) = policy::check_path(name) {
                add("", error.to_string(), error.nearest());
                continue;
            }
            if let Some(Err(error)) = policy.strategy.map(|strategy| policy::check_strategy(name, strategy)) {
                add("strategy", error.to_string(), None);
            }
            if policy.intensity.is_some_and(|intensity| intensity > MOST_RESTARTS) {
                add(
                    "intensity",
                    format!("must be at most {MOST_RESTARTS}: beyond it nothing would ever give up"),
                    None,
                );
            }
            if let Some(Err(error)) = policy.backoff.as_ref().map(policy::backoff) {
                let rest = match error {
                    BackoffError::Factor(_) => "backoff.factor",
                    BackoffError::Jitter(_) => "backoff.jitter",
                    BackoffError::Max { .. } => "backoff.max",
                };
                add(rest, error.to_string(), None);
            }
            let bounds = [
                ("period", policy.period, Duration::from_millis(1), HOUR * 24),
                ("shutdown", policy.shutdown, Duration::ZERO, HOUR),
                ("backoff.initial", policy.backoff.map(|backoff| backoff.initial), Duration::ZERO, HOUR),
                ("backoff.max", policy.backoff.map(|backoff| backoff.max), Duration::ZERO, HOUR),
            ];
            for (rest, value, least, most) in bounds {
                if let Some(value) = value {
                    self.time(key(rest), value, least, most);
                }
            }
        }
    }

    fn log(&mut self, filter: &str) {
        const KEY: &str = "telemetry.log";
        const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
        if let Err(error) = EnvFilter::try_new(filter) {
            self.add(KEY, format!("is no filter: {error}; use a level ({}) or directives", LEVELS.join(", ")));
            return;
        }
        // A word alone that is no level names a module, and all but that module falls silent.
        let word = filter.trim();
        let alone = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic());
        if alone
            && !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word))
            && let Some(level) = nearest(word, LEVELS)
        {
            let reason = format!("`{word}` is no level; did you mean `{level}`?");
            self.0.push(Problem { key: path(KEY), with: Vec::new(), reason, nearest: Some(level.into()) });
        }
    }
}
