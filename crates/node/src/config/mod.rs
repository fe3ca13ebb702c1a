//! `supervisor.toml`: what an operator may set, its defaults, and errors that say where and what to change.
//!
//! `settings` is the values, `parse` turns text into them. Nothing here opens a socket or starts an actor.

mod parse;
mod settings;

pub use parse::{ConfigError, load, parse};
pub use settings::{
    AdminSettings, AuthMode, AuthSettings, BackoffSettings, BusKind, BusSettings, ChaosSettings, DialectName,
    EgressSettings, LimitSettings, ListenSettings, ListenerSettings, LogFormat, NatsSettings, NodeSettings,
    PolicySettings, PresenceSettings, Settings, TelemetrySettings, TimerSettings, Tls, TlsMode,
};
