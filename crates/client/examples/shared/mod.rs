//! What both examples share: where to join, how to say so on the command line, and how to tell how it goes.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use clap::ValueEnum;
use roomcast_client::{Client, ClientOptions, ClientTrust, ClosedReason, State};
use roomcast_protocol::{Dialect, RoomId, UserId};
use url::Url;

/// The server did not let us in, or closed for good.
pub(crate) const NOT_IN_THE_ROOM: u8 = 3;
/// It ran, but what was asked for did not happen as a whole.
pub(crate) const INCOMPLETE: u8 = 4;

pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  a file cannot be read or written, or an option makes no sense
  2  usage
  3  the server refused, closed for good, or cannot be reached (--attempts)
  4  incomplete: frames were not sent, or nothing was received";

#[derive(clap::Args, Debug)]
pub(crate) struct Join {
    /// The node: ws:// or wss:// for WebSocket, https:// for WebTransport. Of several, the first that works; when that
    /// is lost or drains, any other
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8080")]
    pub(crate) url: Vec<Url>,

    /// The room
    #[arg(long, default_value = "demo", value_parser = |name: &str| RoomId::parse(name))]
    pub(crate) room: RoomId,

    /// SHA-256 of the node's certificate, as the node prints it (Base64 or hexadecimal), for one that is self-signed
    #[arg(long, value_name = "HASH", value_parser = parse_hash)]
    pub(crate) hash: Vec<[u8; 32]>,

    /// Believe any certificate: only for a node on this machine
    #[arg(long, conflicts_with = "hash")]
    pub(crate) insecure: bool,

    /// The numbering that the node speaks
    #[arg(long, value_enum, default_value_t = DialectName::Seed)]
    pub(crate) dialect: DialectName,

    /// Give up after so many failures in a row (default: never)
    #[arg(long, value_name = "N")]
    pub(crate) attempts: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DialectName {
    Seed,
    Sessions,
}

impl From<DialectName> for Dialect {
    fn from(name: DialectName) -> Self {
        match name {
            DialectName::Seed => Self::Seed,
            DialectName::Sessions => Self::Sessions,
        }
    }
}

fn parse_hash(text: &str) -> Result<[u8; 32], String> {
    let hexadecimal: String = text.chars().filter(|c| *c != ':').collect();
    let bytes = if hexadecimal.len() == 64 {
        hex::decode(hexadecimal).map_err(|error| error.to_string())?
    } else {
        base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| error.to_string())?
    };
    bytes.try_into().map_err(|_| "a SHA-256 hash has 32 bytes".to_owned())
}

impl Join {
    pub(crate) fn options(&self, user: &str) -> anyhow::Result<ClientOptions> {
        let user = UserId::parse(user).with_context(|| format!("--user {user:?}"))?;
        let Some(first) = self.url.first() else { bail!("--url is needed") };
        let mut options = ClientOptions::new(first.clone(), user, self.room.clone());
        options.endpoints.clone_from(&self.url);
        options.dialect = self.dialect.into();
        options.reconnect.attempts = self.attempts;
        if self.insecure {
            options.trust = ClientTrust::Insecure;
        } else if !self.hash.is_empty() {
            options.trust = ClientTrust::Hashes(self.hash.clone());
        }
        Ok(options)
    }
}

/// Prints every change of state, until the client is closed.
#[allow(dead_code)] // one example looks at the states itself
pub(crate) async fn tell(client: &Client) {
    let mut states = client.state();
    loop {
        let state = states.borrow_and_update().clone();
        if !tell_state(&state) || states.changed().await.is_err() {
            return;
        }
    }
}

/// Prints a state. `false` where it is the last.
pub(crate) fn tell_state(state: &State) -> bool {
    match state {
        State::Connecting { endpoint, attempt: 1 } => eprintln!("connecting to {endpoint}"),
        State::Connecting { .. } => {}
        State::Connected { endpoint, transport, .. } => eprintln!("in the room, by {transport}, at {endpoint}"),
        State::Waiting { reason, .. } => eprintln!("{reason}; trying again"),
        State::Closed(_) => return false,
    }
    true
}

/// Prints an error with its causes on one line, without a backtrace: it is about a file or an option.
pub(crate) fn exit(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Says why the client is not in the room.
pub(crate) fn explain(reason: &ClosedReason) -> ExitCode {
    eprintln!("{reason}");
    if matches!(reason, ClosedReason::Untrusted(_)) {
        eprintln!("for a self-signed certificate pass the hash that the node prints: --hash HASH");
    }
    ExitCode::from(NOT_IN_THE_ROOM)
}
