//! Measures the router against the bare broadcasters, side by side in one run, and over several nodes with a broker.
//!
//! The load, and what came of it, is `roomcast bench`; this program starts what is measured, takes turns, and reckons.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cluster;
mod compare;
mod count;
mod load;
mod process;
mod workload;

use clap::Parser;

/// Measures the router. Build for release first; scripts/bench does.
#[derive(Debug, Parser)]
enum Command {
    /// The router against the bare broadcasters, in turns
    Compare(compare::Arguments),
    /// Each room's members spread over several routers that share one broker; needs scripts/setup
    Cluster(cluster::Arguments),
    /// Instructions per delivered copy, counted by valgrind and held against benches/counts.toml
    Count(count::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Compare(arguments) => compare::run(&arguments),
        Command::Cluster(arguments) => cluster::run(&arguments),
        Command::Count(arguments) => count::run(&arguments),
    }
}
