//! The real node as a process of its own, so that tests can kill, freeze and stop it. Nothing else than `roomcast`.

use std::process::ExitCode;

use clap::Parser;
use roomcast_node::cli::{Cli, run};

fn main() -> ExitCode {
    run(Cli::parse())
}
