//! `supervisor.toml`: what an operator may set, its defaults, and errors that say where and what to change.
//!
//! `settings`, `listen` and `supervision` are the values; `parse` makes them out of a file and `--set` values, with the help
//! of `read` (syntax, keys, types, in a bounded `document`) and `check` (ranges, contradictions); `change` compares two of them; `settle` says when a
//! watched file is worth reading; `schema` is for editors. Nothing here opens a socket or starts an actor.

mod change;
mod check;
mod document;
mod duration;
mod error;
mod listen;
mod parse;
mod read;
mod schema;
mod settings;
mod settle;
mod suggest;
mod supervision;

pub use change::{Change, ReloadOutcome, Verdict, diff, in_force};
pub(crate) use check::without_password;
pub use error::{ConfigError, ConfigErrors, MAX_ERRORS};
pub use listen::{AdminSettings, ListenSettings, Tls, TlsFiles, TlsMode, WebSocketSettings, WebTransportSettings};
pub use parse::{MAX_FILE_BYTES, load, parse};
pub(crate) use parse::{internal, parse_bytes, read_at_most, read_file, unreadable};
pub use schema::schema;
pub use settings::{
    Algorithm, AuthMode, AuthSettings, BusKind, BusSettings, ChaosSettings, DialectName, EgressSettings, LimitSettings,
    LogFormat, NatsSettings, NodeSettings, PresenceSettings, Settings, TelemetrySettings, TimerSettings,
};
pub use settle::Content;
pub(crate) use settle::{Next, Settling};
pub(crate) use suggest::nearest;
pub use supervision::{BackoffSettings, PolicySettings, StrategyName};
