//! Every live key of `supervisor.toml`, changed while a call runs: it takes effect within a second, nobody's connection
//! closes, and no packet of the call is lost.
#![allow(clippy::unwrap_used)]

mod bench;
mod egress;
mod limits;
mod packets;
#[allow(dead_code)] // shared with the behaviour tests
#[path = "../behaviour/raw.rs"]
mod raw;
mod supervision;
mod switches;
mod timers;
