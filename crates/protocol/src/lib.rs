//! The wire: messages of both dialects, the header peek, names, subjects and the packet.
//!
//! Everything here is pure: no sockets, no clock. This is the only place where a bus subject is formatted or parsed and
//! where a lobby path is taken apart.

pub mod close;
pub mod dialect;
#[doc(hidden)]
pub mod fuzz;
pub mod lobby;
pub mod names;
pub mod notice;
pub mod packet;
pub mod peek;
pub mod subject;
mod token;
mod wire;

/// The messages that nodes tell each other, generated from `proto/cluster.proto`.
#[allow(missing_docs, clippy::all, clippy::needless_pass_by_value)]
pub mod cluster {
    include!(concat!(env!("OUT_DIR"), "/roomcast.cluster.rs"));
}

/// The messages of the [`Dialect::Seed`] dialect, generated from `proto/seed.proto`.
#[allow(missing_docs, clippy::all, clippy::needless_pass_by_value)]
pub mod seed {
    include!(concat!(env!("OUT_DIR"), "/roomcast.seed.rs"));
}

/// The messages of the [`Dialect::Sessions`] dialect, generated from `proto/sessions.proto`.
#[allow(missing_docs, clippy::all, clippy::needless_pass_by_value)]
pub mod sessions {
    include!(concat!(env!("OUT_DIR"), "/roomcast.sessions.rs"));
}

pub use close::CloseCode;
pub use dialect::Dialect;
pub use lobby::{Lobby, LobbyError};
pub use names::{NameError, RoomId, SessionId, UserId};
pub use packet::{Class, Packet, PacketBuffer, Tag};
pub use peek::{Header, Media, MediaKind, PacketKind, peek};
pub use subject::{ClusterSubject, RoomSubject, Sender, ServerName, ServerSubject, Subject};
pub use wire::Malformed;

/// The largest packet that either transport carries, in bytes.
pub const MAX_PACKET_BYTES: usize = 4_000_000;

/// The user name of packets that a server makes; reserved, so that a client who claims it is refused. No [`UserId`] can
/// hold it.
pub const SYSTEM_USER: &str = "system-&^%$#@!";
