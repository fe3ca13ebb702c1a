//! Nodes and brokers as processes: what a cluster does when parts of it are killed, frozen, cut off, drained.
//!
//! `scripts/faults` runs the same table of faults many times at full length.
#![allow(clippy::unwrap_used)]

mod account;
mod crowds;
mod egress;
mod faults;
mod foreign;
mod outages;
mod processes;
mod stopping;

use std::path::Path;

/// The node's program.
fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_roomcast-testkit-node"))
}
