//! Text to settings: syntax, types, unknown keys with a suggestion, then ranges and contradictions. Pure but for `load`,
//! which reads the file.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use roomcast_relay::Network;
use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigErrors};
use super::settings::{AuthMode, BusKind, DialectName, Settings};

/// Reads and checks a file, then lays `--set` values over it. Without a file the defaults are the base.
///
/// # Errors
/// The first thing that is wrong with either.
pub fn load(file: Option<&Path>, overrides: &[String]) -> Result<Settings, ConfigErrors> {
    let Some(path) = file else { return parse("defaults", "", overrides) };
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
        source_name: name.clone(),
        line: None,
        key: String::new(),
        reason: format!("cannot be read: {error}"),
        nearest: None,
    })?;
    parse(&name, &text, overrides)
}

/// Checks a configuration's text, then lays `--set` values over it.
///
/// # Errors
/// The first thing that is wrong with either.
pub fn parse(source_name: &str, text: &str, overrides: &[String]) -> Result<Settings, ConfigErrors> {
    let settings = deserialize(source_name, text)?;
    check(&settings).map_err(|problem| problem.locate(source_name, text))?;
    if overrides.is_empty() {
        return Ok(settings);
    }
    let mut merged: toml::Table = text.parse().expect("the same text was parsed just above");
    let mut settings = settings;
    let mut keys = Vec::new();
    for entry in overrides {
        let refused = |key: String, reason| ConfigError {
            source_name: format!("--set {entry}"),
            line: None,
            key,
            reason,
            nearest: None,
        };
        let (key, value) = split_override(entry).map_err(|reason| refused(String::new(), reason))?;
        if key.first().map(String::as_str) == Some("listen") && !merged.contains_key("listen") {
            // A file without [listen] means all three listeners; a --set for one of them must not switch the others off.
            let all = ["websocket", "webtransport", "admin"].map(|l| (l.to_owned(), toml::Table::new().into()));
            merged.insert("listen".into(), toml::Table::from_iter(all).into());
        }
        insert(&mut merged, &key, value).map_err(|reason| refused(key.join("."), reason))?;
        settings = deserialize(source_name, &merged.to_string()).map_err(|error| refused(error.key, error.reason))?;
        keys.push(key);
    }
    // Once all are laid over: what contradicts the file may agree with a later --set.
    check(&settings).map_err(|Problem { key, reason }| {
        let blamed = keys.iter().rposition(|set| *set == key).map_or(overrides, |at| &overrides[at..=at]);
        ConfigError {
            source_name: format!("--set {}", blamed.join(" --set ")),
            line: None,
            key: key.join("."),
            reason,
            nearest: None,
        }
    })?;
    Ok(settings)
}

/// `a.b.c=value`: the value is TOML where it parses as such, else a string, so that `--set node.name=one` needs no quotes.
fn split_override(entry: &str) -> Result<(Vec<String>, toml::Value), String> {
    let Some((key, value)) = entry.split_once('=') else {
        return Err("has no `=`; write it as key=value, for example --set limits.max_rooms=100".into());
    };
    let mut path = Vec::new();
    let mut rest = key.trim();
    while !rest.is_empty() {
        let (part, tail) = if let Some(quoted) = rest.strip_prefix('"') {
            let Some((part, tail)) = quoted.split_once('"') else { return Err("has a quote without its end".into()) };
            (part, tail.strip_prefix('.').unwrap_or(tail))
        } else {
            rest.split_once('.').unwrap_or((rest, ""))
        };
        if part.is_empty() {
            return Err("has an empty part in its key".into());
        }
        path.push(part.to_owned());
        rest = tail;
    }
    if path.is_empty() {
        return Err("has no key before `=`".into());
    }
    let value = value.trim();
    let parsed = format!("value = {value}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
    Ok((path, parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()))))
}

fn insert(table: &mut toml::Table, path: &[String], value: toml::Value) -> Result<(), String> {
    let (last, parents) = path.split_last().ok_or_else(|| "has no key before `=`".to_owned())?;
    let mut table = table;
    for parent in parents {
        let entry = table.entry(parent.clone()).or_insert_with(|| toml::Table::new().into());
        table = entry.as_table_mut().ok_or_else(|| format!("`{parent}` is a value, not a table"))?;
    }
    table.insert(last.clone(), value);
    Ok(())
}

fn deserialize(source_name: &str, text: &str) -> Result<Settings, ConfigError> {
    let deserializer = toml::Deserializer::parse(text).map_err(|error| ConfigError {
        source_name: source_name.to_owned(),
        line: error.span().map(|span| line_of(text, span.start)),
        key: String::new(),
        reason: format!("is not valid TOML: {}", error.message().trim()),
        nearest: None,
    })?;
    Settings::deserialize(deserializer).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let mut key = DeTable::parse(text).map(|table| key_at(table.get_ref(), &span)).unwrap_or_default();
        let message = error.message().trim();
        let reason = explain(message);
        if let Some(unknown) = quoted(message, "unknown field ")
            && key.rsplit('.').next() != Some(unknown)
        {
            key = if key.is_empty() { unknown.to_owned() } else { format!("{key}.{unknown}") };
        }
        ConfigError {
            source_name: source_name.to_owned(),
            line: Some(line_of(text, span.start)),
            key,
            reason,
            nearest: None,
        }
    })
}

/// Makes serde's sentence one that says what to do.
fn explain(message: &str) -> String {
    let Some(unknown) = quoted(message, "unknown field ").or_else(|| quoted(message, "unknown variant ")) else {
        return message.to_owned();
    };
    let known = message.split("expected").nth(1).unwrap_or_default();
    let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
    let nearest = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(unknown, candidate), *candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3);
    let what = if message.starts_with("unknown field") { "unknown key" } else { "unknown value" };
    match nearest {
        Some((_, nearest)) => format!("{what} `{unknown}`; did you mean `{nearest}`?"),
        None if known.is_empty() => format!("{what} `{unknown}`; nothing may stand here"),
        None => format!("{what} `{unknown}`; known here: {}", known.join(", ")),
    }
}

fn quoted<'a>(message: &'a str, before: &str) -> Option<&'a str> {
    message.strip_prefix(before)?.strip_prefix('`')?.split('`').next()
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

/// The path of the innermost key whose key or value covers the span.
fn key_at(table: &DeTable<'_>, span: &Range<usize>) -> String {
    let covers = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    for (key, value) in table {
        if covers(key.span()) {
            return key.get_ref().to_string();
        }
        let inner = match value.get_ref() {
            DeValue::Table(inner) => key_at(inner, span),
            _ => String::new(),
        };
        if !inner.is_empty() {
            return format!("{}.{inner}", key.get_ref());
        }
        if covers(value.span()) {
            return key.get_ref().to_string();
        }
    }
    String::new()
}

/// A value that has the right type and is wrong all the same.
struct Problem {
    key: Vec<String>,
    reason: String,
}

impl Problem {
    fn locate(self, source_name: &str, text: &str) -> ConfigError {
        let line = DeTable::parse(text).ok().and_then(|table| {
            let mut table = table.into_inner();
            let mut line = None;
            for part in &self.key {
                let (key, value) = table.into_iter().find(|(key, _)| key.get_ref() == part.as_str())?;
                line = Some(line_of(text, key.span().start));
                match value.into_inner() {
                    DeValue::Table(inner) => table = inner,
                    _ => break,
                }
            }
            line
        });
        ConfigError {
            source_name: source_name.to_owned(),
            line,
            key: self.key.join("."),
            reason: self.reason,
            nearest: None,
        }
    }
}

fn problem(key: &str, reason: impl Into<String>) -> Problem {
    Problem { key: key.split('.').map(str::to_owned).collect(), reason: reason.into() }
}

/// Ranges and contradictions.
fn check(settings: &Settings) -> Result<(), Problem> {
    let Settings { node, listen, bus, auth, limits, egress, timers, presence, supervision, .. } = settings;
    for (key, name) in [("node.name", &node.name), ("node.region", &node.region), ("node.service", &node.service)] {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(token) {
            return Err(problem(key, "must be 1 to 64 characters out of A-Z a-z 0-9 _ -"));
        }
    }
    if listen.websocket.is_none() && listen.webtransport.is_none() {
        return Err(problem("listen", "no client could connect; keep [listen.websocket] or [listen.webtransport]"));
    }
    if node.dialect == DialectName::Sessions {
        return Err(problem("node.dialect", "`sessions` is not served by this version; use `seed`"));
    }
    if bus.kind == BusKind::Nats {
        return Err(problem("bus.kind", "`nats` is not served by this version; use `local`"));
    }
    if auth.mode == AuthMode::Token {
        return Err(problem("auth.mode", "`token` is not served by this version; use `open`"));
    }
    let plain = super::Tls::Mode(super::TlsMode::Off);
    if listen.webtransport.as_ref().is_some_and(|listener| listener.tls == plain) {
        return Err(problem("listen.webtransport.tls", "WebTransport is always encrypted; use `self-signed` or files"));
    }
    let positive: [(&str, usize); 7] = [
        ("limits.max_connections", limits.max_connections),
        ("limits.max_rooms", limits.max_rooms),
        ("limits.max_room_members", limits.max_room_members),
        ("limits.ingress_packets_per_second", limits.ingress_packets_per_second as usize),
        ("limits.ingress_bytes_per_second", limits.ingress_bytes_per_second as usize),
        ("egress.queue_packets", egress.queue_packets),
        ("limits.max_buffered_bytes", limits.max_buffered_bytes),
    ];
    if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
        return Err(problem(key, "must be at least 1"));
    }
    if !(1..=roomcast_protocol::MAX_PACKET_BYTES).contains(&limits.max_packet_bytes) {
        return Err(problem("limits.max_packet_bytes", "must be from 1 to 4000000"));
    }
    if (limits.ingress_bytes_per_second as usize) < limits.max_packet_bytes {
        return Err(problem(
            "limits.ingress_bytes_per_second",
            "is less than limits.max_packet_bytes: the largest packet could never be sent",
        ));
    }
    if egress.queue_bytes < limits.max_packet_bytes {
        return Err(problem(
            "egress.queue_bytes",
            "is less than limits.max_packet_bytes: the largest packet could never be delivered",
        ));
    }
    for proxy in &limits.trusted_proxies {
        if let Err(bad) = proxy.parse::<Network>() {
            let reason = format!("`{proxy}`: {bad}; write addresses or networks, like 10.0.0.0/8");
            return Err(problem("limits.trusted_proxies", reason));
        }
    }
    let hour = Duration::from_secs(3600);
    for (key, value, least) in [
        ("timers.handshake", timers.handshake, Duration::from_millis(100)),
        ("timers.ping", timers.ping, Duration::from_millis(100)),
        ("timers.idle", timers.idle, Duration::from_millis(200)),
        ("timers.leave_grace", timers.leave_grace, Duration::ZERO),
        ("timers.drain", timers.drain, Duration::ZERO),
        ("egress.max_delay", egress.max_delay, Duration::from_millis(10)),
        ("egress.coalesce", egress.coalesce, Duration::ZERO),
        ("egress.slow_client", egress.slow_client, Duration::from_millis(100)),
        ("presence.heartbeat", presence.heartbeat, Duration::from_millis(50)),
        ("presence.lost_after", presence.lost_after, Duration::from_millis(100)),
    ] {
        if value < least || value > hour {
            return Err(problem(key, format!("must be from {least:?} to 1h")));
        }
    }
    if egress.coalesce > Duration::from_millis(100) {
        return Err(problem("egress.coalesce", "must be at most 100ms: callers would hear it"));
    }
    if timers.idle < timers.ping * 2 {
        return Err(problem("timers.idle", "must be at least twice timers.ping, or one lost pong closes a connection"));
    }
    if presence.lost_after < presence.heartbeat * 2 {
        return Err(problem("presence.lost_after", "must be at least twice presence.heartbeat"));
    }
    for (path, policy) in supervision {
        if let Err(error) = crate::policy::check_path(path) {
            return Err(Problem { key: vec!["supervision".into(), path.into()], reason: error.to_string() });
        }
        if policy.period == Some(Duration::ZERO) {
            return Err(policy_problem(path, "period", "must be longer than 0s"));
        }
        if let Some(Err(error)) = policy.backoff.as_ref().map(crate::policy::backoff) {
            return Err(policy_problem(path, "backoff", &error.to_string()));
        }
    }
    Ok(())
}

fn policy_problem(path: &str, key: &str, reason: &str) -> Problem {
    Problem { key: vec!["supervision".into(), path.into(), key.into()], reason: reason.into() }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
