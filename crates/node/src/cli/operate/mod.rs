//! The commands that ask a running node: what they take, where they find it, and how they end.
//!
//! Exit codes: 0 done; 1 the node refused, has no such thing, or the answer cannot be printed; 2 the command was not understood; 3 nobody answers.
//! What is printed lives in `print`, `follow` and `top`; the HTTP client in `client`.

mod client;
mod cluster;
mod drain;
mod follow;
mod print;
mod top;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use roomcast_supervision::PathPattern;

use crate::config;
use crate::store::NodeEvent;
use crate::token;
use crate::view::Style;
use client::{Client, Trouble};

/// Asking a running node.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the tree of actors: state, since when, restarts, mailbox, last reason.
    ///
    /// Of more than 32 siblings the calm ones are left out and counted; --all shows them.
    #[command(after_help = "Examples:\n  roomcast tree --watch\n  roomcast tree rooms/standup\n  \
        roomcast tree --json | jq '.[] | select(.restarts > 0)'")]
    Tree(Tree),
    /// Watch rooms, rates, restarts and queues on the whole screen; q ends it.
    Top(Top),
    /// List the rooms with most members, or who is in one room.
    #[command(after_help = "Examples:\n  roomcast rooms\n  roomcast rooms standup --json")]
    Rooms(Rooms),
    /// Print what happens, as it happens: crashes, restarts, reloads, joins, leaves.
    ///
    /// Goes on where it was when the connection is cut, as long as the node answers again within ten seconds.
    #[command(after_help = "Examples:\n  roomcast events --type crashed,restarted,gave_up\n  \
        roomcast events --json | jq -c 'select(.room == \"standup\")'")]
    Events(Events),
    /// Have the configuration file read again, and say what changed, what waits for a restart, or why it was refused.
    Reload(Reload),
    /// Show the nodes that this one sees on the bus and what they carry, or who is in a room and on which node.
    ///
    /// It is one node's view: ask another to see what that one sees. Members on servers of other kinds are not known.
    #[command(after_help = "Examples:\n  roomcast cluster\n  roomcast cluster standup\n  \
        roomcast cluster --json | jq '.nodes[] | select(.state != \"up\")'")]
    Cluster(Cluster),
    /// Drain a node: no new clients, those there are sent elsewhere over timers.drain, then it stops.
    ///
    /// Tells how far it is until the node is gone.
    #[command(after_help = "Examples:\n  roomcast drain\n  roomcast drain --hurry      everybody at once\n  \
        roomcast drain --no-wait    only begin")]
    Drain(Drain),
    /// Kill an actor, or many: to see that nobody notices. Works only where chaos.enabled is set.
    #[command(after_help = "A path is as `roomcast tree` draws it, joined by slashes; * stands for any one name.\n\n\
        Examples:\n  roomcast kill rooms/standup/room\n  roomcast kill 'rooms/*/subscription' --panic\n  \
        roomcast kill listeners/websocket --stall 500ms")]
    Kill(Kill),
}

/// Which node, and by what right.
#[derive(Debug, Args)]
struct Target {
    /// The node's admin address [default: the one in the configuration file, else 127.0.0.1:9090]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// The file that holds the admin token [default: the one in the configuration file, else the one that a node of this
    /// user on this machine has made]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The node's configuration file [default: supervisor.toml where there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Tree {
    /// Only this actor and what is under it
    #[arg(value_name = "PATH", default_value = "")]
    under: String,
    /// Draw it again every second
    #[arg(long)]
    watch: bool,
    /// Every sibling, however many
    #[arg(long)]
    all: bool,
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct Top {
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct Rooms {
    /// One room, by its name
    room: Option<String>,
    /// How many rooms
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Only these, separated by commas
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', value_parser = NodeEvent::TYPES)]
    types: Vec<String>,
    /// From after this event on, as far back as the node remembers
    #[arg(long, value_name = "ID")]
    after: Option<String>,
    /// End after so many
    #[arg(long, short = 'n', value_name = "N")]
    number: Option<u64>,
    /// For programs: one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct Reload {
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct Cluster {
    /// One room, by its name
    room: Option<String>,
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct Drain {
    /// Wait for nobody
    #[arg(long)]
    hurry: bool,
    /// Begin, and do not wait until the node is gone
    #[arg(long)]
    no_wait: bool,
    /// For programs: what the node said when it began
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct Kill {
    /// The actor's path, or a pattern
    path: String,
    /// Make it panic at its next message, which it gets at once
    #[arg(long)]
    panic: bool,
    /// Keep it busy for this long, 60s at most
    #[arg(long, value_name = "TIME", conflicts_with = "panic", value_parser = time)]
    stall: Option<Duration>,
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

fn time(text: &str) -> Result<Duration, String> {
    humantime_serde::re::humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 500ms or 5s"))
}

/// Runs one command to its end.
pub(super) fn run(command: Command) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(dispatch(command)) {
        Ok(()) | Err(Trouble::NobodyReads) => ExitCode::SUCCESS,
        Err(trouble) => {
            eprintln!("{trouble}");
            ExitCode::from(trouble.exit_code())
        }
    }
}

async fn dispatch(command: Command) -> Result<(), Trouble> {
    match command {
        Command::Tree(asked) => {
            path(&asked.under)?;
            print::tree(&connect(&asked.target)?, &asked).await
        }
        Command::Top(asked) => top::run(&connect(&asked.target)?).await,
        Command::Rooms(asked) => print::rooms(&connect(&asked.target)?, &asked).await,
        Command::Events(asked) => follow::events(&connect(&asked.target)?, &asked).await,
        Command::Reload(asked) => print::reload(&connect(&asked.target)?, asked.json).await,
        Command::Cluster(asked) => cluster::show(&connect(&asked.target)?, &asked).await,
        Command::Drain(asked) => drain::run(&connect(&asked.target)?, &asked).await,
        Command::Kill(asked) => {
            path(&asked.path)?;
            print::kill(&connect(&asked.target)?, &asked).await
        }
    }
}

/// Checked here, so that what is sent is a path and nothing else.
fn path(text: &str) -> Result<(), Trouble> {
    PathPattern::parse(text).map(drop).map_err(|error| Trouble::Usage(error.to_string()))
}

/// Finds out whom to ask.
fn connect(target: &Target) -> Result<Client, Trouble> {
    const USUAL: &str = "supervisor.toml";
    let settings = match &target.config {
        Some(file) => Some(config::load(Some(file), &[]).map_err(|error| Trouble::Usage(error.to_string()))?),
        // A broken one is no obstacle: who wants to see why a reload is refused has one.
        None if std::path::Path::new(USUAL).exists() => config::load(Some(USUAL.as_ref()), &[]).ok(),
        None => None,
    };
    let admin = settings.and_then(|settings| settings.listen.admin).unwrap_or_default();
    let address = match &target.admin {
        Some(address) => address.trim_start_matches("http://").trim_end_matches('/').to_owned(),
        None => reachable(admin.bind).to_string(),
    };
    let file = target.token_file.clone().or_else(|| Some(admin.token_file).filter(|file| !file.as_os_str().is_empty()));
    let token = match file {
        Some(file) => {
            let read = token::read(&file);
            Some(read.map_err(|error| Trouble::Usage(format!("{}: {error}", file.display())))?)
        }
        // One that was found and not given goes to this machine only.
        None => address
            .parse::<SocketAddr>()
            .ok()
            .filter(|address| address.ip().is_loopback())
            .and_then(|address| token::find(address.port())),
    };
    Ok(Client::new(address, token))
}

/// Where a node that is bound to any address can be reached from here.
fn reachable(mut bind: SocketAddr) -> SocketAddr {
    if bind.ip().is_unspecified() {
        bind.set_ip(if bind.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    bind
}

/// Colours where they are seen and wanted (<https://no-color.org>).
fn style() -> Style {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    Style { colour: std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb }
}

/// Characters in a line.
fn width() -> usize {
    const NO_TERMINAL: usize = 200;
    if !std::io::stdout().is_terminal() {
        return NO_TERMINAL;
    }
    crossterm::terminal::size().map_or(NO_TERMINAL, |(columns, _)| usize::from(columns))
}

/// Prints, and ends quietly where nobody reads any more (`| head`).
fn put(text: &str) -> Result<(), Trouble> {
    super::write_out(text).map_err(Trouble::from_print)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_bound_to_any_address_is_asked_on_loopback() {
        for (bind, reached) in [
            ("127.0.0.1:9090", "127.0.0.1:9090"),
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
        ] {
            assert_eq!(reachable(bind.parse().unwrap()), reached.parse().unwrap());
        }
    }
}
