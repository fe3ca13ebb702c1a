//! The wire: messages of both dialects, the header peek, names, subjects and the packet.
//!
//! Everything here is pure: no sockets, no clock. This is the only place where a bus subject is formatted or parsed and
//! where a lobby path is taken apart.

pub mod close;
pub mod dialect;
pub mod names;
pub mod packet;

pub use close::CloseCode;
pub use dialect::Dialect;
pub use names::{NameError, RoomId, SessionId, UserId};
pub use packet::{Class, Packet, PacketBuffer, Tag};

/// The largest packet that either transport carries, in bytes.
pub const MAX_PACKET_BYTES: usize = 4_000_000;
