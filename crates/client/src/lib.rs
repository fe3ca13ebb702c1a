//! A native client: join, send, receive, reconnect, move from a draining node to another without a gap; and clips of encoded media to send and to write.
//!
//! What lives here: everything on the client's side of the wire that needs no codec. What does not: end-to-end encryption
//! (not yet), coding and decoding, a user interface.
//!
//! [`Client::connect`] makes a member of a room; [`clip`] reads and writes files of media; [`media`] turns frames into
//! packets and back; [`recording`] writes what one sender sent to a file. The examples `send_clip` and `receive` are all
//! of it together.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod client;
pub mod clip;
mod connection;
mod dial;
mod endpoints;
mod gate;
mod handover;
mod inbox;
pub mod media;
mod moving;
mod options;
mod outbox;
mod pulse;
mod reconnect;
pub mod recording;
mod shared;

pub use client::{Client, Sender, State};
pub use dial::Transport;
pub use inbox::Received;
pub use options::{ClientOptions, OptionsError};
pub use outbox::{QueueBounds, SendError};
pub use pulse::KeepAlive;
pub use reconnect::{ClosedReason, PolicyError, ReconnectPolicy};
pub use roomcast_transport::tls::ClientTrust;
pub use shared::Stats;
