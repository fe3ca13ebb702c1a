//! `supervisor.toml`: what an operator may set, its defaults, and errors that say where and what to change.
//!
//! `settings` is the values, `parse` turns text into them, `change` compares two of them. Nothing here opens a socket or
//! starts an actor.

mod change;
mod error;
mod parse;
mod settings;

pub use change::{Change, ReloadOutcome, Verdict, diff, in_force};
pub use error::{ConfigError, ConfigErrors, MAX_ERRORS};
pub use parse::{load, parse};
pub use settings::{
    AdminSettings, AuthMode, AuthSettings, BackoffSettings, BusKind, BusSettings, ChaosSettings, DialectName,
    EgressSettings, LimitSettings, ListenSettings, LogFormat, NatsSettings, NodeSettings, PolicySettings,
    PresenceSettings, Settings, TelemetrySettings, TimerSettings, Tls, TlsFiles, TlsMode, WebSocketSettings,
    WebTransportSettings,
};
