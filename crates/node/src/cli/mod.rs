//! The command line: what it says, what it prints, and the process around a node (runtime, logs, signals, exit codes).

mod banner;
mod check;
mod logs;
mod operate;

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::config;
use crate::{Node, NodeOptions};

/// A self-healing media router for video calls.
///
/// Clients join a room over WebSocket or WebTransport, and every packet that one of them sends reaches all the others.
#[derive(Debug, Parser)]
#[command(name = "roomcast", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  roomcast serve                                      on the defaults, all on loopback
  roomcast serve --config /etc/roomcast/supervisor.toml
  roomcast serve --set listen.websocket.bind=0.0.0.0:8080 --set limits.max_rooms=500
  roomcast check supervisor.toml                      before you reload it
  roomcast tree                                       what runs, what was restarted and why
  roomcast top                                        rooms, rates, restarts, as they are now
  roomcast events --type crashed,restarted            as they happen
  roomcast cluster                                    the nodes that this one sees, and what they carry
  roomcast drain                                      send its clients elsewhere, then stop it
  roomcast kill rooms/standup/room                    nobody notices; needs chaos.enabled
  roomcast bench ws://127.0.0.1:8080 --members 20     load, and what a copy costs; more: roomcast bench --help

Those that ask a running node take --admin ADDR and --token-file FILE, and end with 0: done, 1: the node refused or has
no such thing, 2: not understood, 3: nobody answers. The node's admin address answers programs too: `curl
127.0.0.1:9090` lists what it knows.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node until Ctrl-C or SIGTERM.
    ///
    /// Prints where clients connect, then the log. SIGTERM drains it: clients are sent elsewhere, spread over
    /// timers.drain, then it stops; a second one hurries, a third ends it at once. Ctrl-C stops it in order without
    /// waiting for anybody (1001), a second one ends it at once. SIGHUP reads the configuration again.
    Serve(Serve),
    /// Say whether a configuration file is good, without running anything.
    ///
    /// Exit code 0: good, with the keys that differ from the defaults and whether they act while a node runs. 1: not, with
    /// the file, line, key and reason of each problem.
    Check(check::Check),
    /// Print the JSON Schema of the configuration file, for editors.
    Schema,
    /// Put load on a running router by its URL, and say what came of it.
    ///
    /// Members join rooms over WebSocket (plain or TLS) or WebTransport and send at a steady pace; every copy that they get is
    /// held against what was sent: lost, duplicated, reordered, leaked to whom it was not for, and how long it took. Exit
    /// code 0: it ran, whatever was lost. 1: it could not, with what to do. 2: not understood.
    Bench(Box<roomcast_load::Arguments>),
    #[command(flatten)]
    Operate(operate::Command),
}

#[derive(Debug, Args)]
struct Serve {
    /// The configuration file [default: supervisor.toml where there is one, else the built-in defaults]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key over the file, for example limits.max_rooms=500; may be given many times
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// Runs one command to its end.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Serve(arguments) => serve(arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::Schema => schema(),
        Command::Bench(arguments) => roomcast_load::command(&arguments),
        Command::Operate(command) => operate::run(command),
    }
}

/// Prints the schema of the configuration file. Whoever stopped reading (`| head`) has what they wanted.
fn schema() -> ExitCode {
    match write_out(&config::schema()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("the schema cannot be printed: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Writes to standard output and says how that went, where `print!` would panic.
fn write_out(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn serve(arguments: Serve) -> ExitCode {
    let config_file = arguments.config.or_else(|| {
        let usual = PathBuf::from("supervisor.toml");
        usual.exists().then_some(usual)
    });
    let settings = match config::load(config_file.as_deref(), &arguments.overrides) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let log_control = match logs::install(&settings.telemetry) {
        Ok(control) => control,
        Err(error) => {
            eprintln!("telemetry.log: {error}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let options =
        NodeOptions { settings, config_file, overrides: arguments.overrides, log_control, ..Default::default() };
    let code = runtime.block_on(serve_until_signal(options));
    // What is still blocking (a name look-up, a file read) must not hold the process.
    runtime.shutdown_background();
    code
}

async fn serve_until_signal(options: NodeOptions) -> ExitCode {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = signals else {
        eprintln!("the signal handlers cannot be installed");
        return ExitCode::FAILURE;
    };
    let config_file = options.config_file.clone();
    let node = match Node::start(options).await {
        Ok(node) => node,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    // A node whose greeting nobody reads serves all the same.
    if let Err(error) = write_out(&banner::banner(&node, config_file.as_deref())) {
        tracing::warn!(%error, "where to connect could not be printed");
    }
    let mut terms = 0;
    loop {
        tokio::select! {
            _ = terminate.recv() => {
                terms += 1;
                if terms > 1 {
                    break;
                }
                node.drain();
                let window = node.settings().timers.drain;
                tracing::info!(?window, connections = node.store().connections(), "draining; SIGTERM again to hurry");
            }
            _ = interrupt.recv() => break,
            _ = hangup.recv() => node.reload(),
            () = node.drained() => break,
            reason = node.ended() => {
                tracing::error!(%reason, "the tree gave up");
                node.stop().await;
                return ExitCode::from(70);
            }
        }
    }
    node.hurry();
    tracing::info!("stopping; once more to end at once");
    tokio::select! {
        () = node.stop() => ExitCode::SUCCESS,
        _ = terminate.recv() => ExitCode::from(130),
        _ = interrupt.recv() => ExitCode::from(130),
    }
}
