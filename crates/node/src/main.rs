//! The `roomcast` program: reads its arguments and hands over.

use std::process::ExitCode;

use clap::Parser;
use roomcast_node::cli::{Cli, run};

fn main() -> ExitCode {
    run(Cli::parse())
}
