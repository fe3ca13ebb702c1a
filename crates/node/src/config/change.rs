//! What differs between two settings, key by key; which keys act while the node runs; and what came of a reload. Pure.
//!
//! Nothing here knows the settings' types: both sides are written out as flat maps from a key's path to its value, so a
//! new key is compared without anybody thinking of it.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::error::ConfigError;
use super::settings::Settings;

/// A key's path, outermost first.
type Path = Vec<String>;

/// One key whose value differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The key's full path as `--set` takes it: `limits.max_rooms`, `supervision."rooms/*".intensity`.
    pub key: String,
    /// The value before; `None`: it was not set.
    pub old: Option<Value>,
    /// The value after; `None`: it is not set any more.
    pub new: Option<Value>,
    /// Whether it acts while the node runs; else it waits for a restart.
    pub live: bool,
}

/// What came of reading the configuration again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReloadOutcome {
    /// In one word.
    pub verdict: Verdict,
    /// The number of the settings in force after it, from 1; it grows when a live key changes.
    pub generation: u64,
    /// How the configuration differs from the settings that were in force before. Live keys act now; the others wait for
    /// a restart, and are told at each reload for as long as they do. Empty when refused.
    pub changed: Vec<Change>,
    /// Why it was refused.
    pub errors: Vec<ConfigError>,
}

/// What came of reading the configuration again, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is good and differs from what was read last: live keys are in force, the others wait for a restart.
    Applied,
    /// It is good and says what the one before said.
    Unchanged,
    /// It is bad; the settings in force stay.
    Refused,
}

impl Verdict {
    /// The word, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// What differs, in the order of keys.
#[must_use]
pub fn diff(old: &Settings, new: &Settings) -> Vec<Change> {
    let (old, new) = (explicit(old), explicit(new));
    let mut keys: Vec<&Path> = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))).collect();
    keys.sort();
    keys.into_iter()
        .filter(|key| old.get(*key) != new.get(*key))
        .map(|key| Change {
            key: written(key),
            old: old.get(key).cloned(),
            new: new.get(key).cloned(),
            live: is_live(key),
        })
        .collect()
}

/// The settings that are in force after a change from `old` to `new` without a restart: `new` where it is live, else `old`.
#[must_use]
pub fn in_force(old: &Settings, new: &Settings) -> Settings {
    let mut merged = flat(old);
    let new = flat(new);
    merged.retain(|key, _| !is_live(key));
    merged.extend(new.into_iter().filter(|(key, _)| is_live(key)));
    let mut tree = Value::Object(serde_json::Map::new());
    for (path, value) in merged {
        let mut place = &mut tree;
        for part in path {
            place = &mut place[part];
        }
        *place = value;
    }
    serde_json::from_value(tree).expect("each key's value was written by the same types that read it here")
}

/// Whether a key acts while the node runs. What is not named here waits for a restart, so that a new key is not believed
/// to be live before somebody made it so.
pub(super) fn is_live(path: &[String]) -> bool {
    let names: Vec<&str> = path.iter().map(String::as_str).collect();
    match names[..] {
        // A strategy is part of the tree's shape, which is laid down once.
        ["supervision", _, "strategy"] => false,
        ["limits" | "egress" | "timers" | "presence" | "supervision" | "chaos", ..] | ["telemetry", "log"] => true,
        _ => false,
    }
}

/// Every key that has a value, also where the value is built in: writing that down is no change.
fn explicit(settings: &Settings) -> BTreeMap<Path, Value> {
    flat(&Settings { supervision: crate::policy::in_force(settings), ..settings.clone() })
}

/// Every key that has a value.
fn flat(settings: &Settings) -> BTreeMap<Path, Value> {
    let value = serde_json::to_value(settings).expect("settings are strings, numbers and maps with string keys");
    let mut out = BTreeMap::new();
    flatten(value, &mut Vec::new(), &mut out);
    out
}

fn flatten(value: Value, path: &mut Path, out: &mut BTreeMap<Path, Value>) {
    match value {
        Value::Null => {}
        Value::Object(map) => {
            for (key, value) in map {
                path.push(key);
                flatten(value, path, out);
                path.pop();
            }
        }
        value => {
            out.insert(path.clone(), value);
        }
    }
}

/// A key's path as TOML and `--set` write it.
pub(super) fn written<S: AsRef<str>>(path: &[S]) -> String {
    let bare = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    };
    let parts: Vec<String> = path
        .iter()
        .map(|part| if bare(part.as_ref()) { part.as_ref().to_owned() } else { format!("\"{}\"", part.as_ref()) })
        .collect();
    parts.join(".")
}

#[cfg(test)]
#[path = "change_tests.rs"]
mod tests;
