//! Sockets to packets and back: WebSocket, WebTransport, in-memory, and the certificates they use.
//!
//! What lives here: handshakes, framing, bounds on what one peer may send, certificates. What does not: who may join,
//! what is dropped, and every other decision about a room.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod intake;
pub mod memory;
pub mod pulse;
pub mod tls;
pub mod websocket;
pub mod webtransport;

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use roomcast_protocol::{CloseCode, Packet, PacketBuffer};

/// What a reader found on the connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// One whole packet; its bytes are in the buffer that was passed in.
    Packet,
    /// The peer asks for a pong with these bytes (at most 125; WebSocket only).
    Ping(Vec<u8>),
    /// A sign of life without content: a pong, the `ping` datagram.
    Alive,
    /// The peer closed in order, with the code it gave.
    Closed(Option<u16>),
}

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A packet over the size limit.
    #[error("a packet is larger than {0} bytes")]
    TooLarge(usize),
    /// A kind of message that is never accepted, such as text.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The peer broke the transport's own rules.
    #[error("{0}")]
    Protocol(String),
    /// A packet that came too slowly, by the bounds of its [`Intake`](intake::Intake).
    #[error("a packet takes too long to arrive")]
    Slow,
    /// A packet for which this side has no memory now.
    #[error("no memory is left for packets under way")]
    NoMemory,
    /// The connection is gone: reset, half-closed without a close frame, timed out below.
    #[error("the connection is gone: {0}")]
    Gone(String),
}

impl ReadError {
    /// The code to close with; `None` where there is nobody left to tell.
    #[must_use]
    pub fn close_code(&self) -> Option<CloseCode> {
        match self {
            Self::TooLarge(_) => Some(CloseCode::TooLarge),
            Self::Unsupported(_) => Some(CloseCode::Unsupported),
            Self::Protocol(_) => Some(CloseCode::ProtocolError),
            Self::Slow => Some(CloseCode::Policy),
            Self::NoMemory => Some(CloseCode::TryAgainLater),
            Self::Gone(_) => None,
        }
    }
}

/// The receiving half of a connection.
pub trait PacketReader: Send + 'static {
    /// Waits for what comes next. Clears `buffer` first. Not cancel-safe: drop the reader after dropping this future.
    fn read(&mut self, buffer: &mut PacketBuffer) -> impl Future<Output = Result<Incoming, ReadError>> + Send;

    /// Signs of life between two returns of `read`; `None`: there are no others than what it returns.
    fn pulse(&self) -> Option<pulse::Pulse> {
        None
    }

    /// To be called after the writer's `close`: throws away what the peer still sends until it closes too, at most about
    /// a second, so that the close frame is not lost to a reset over unread input. Nothing to do on most transports.
    fn linger(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// What a [`PacketWriter`] wrote without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// How many packets it is done with. One that was cut short is among them: the writer keeps the rest of it.
    pub packets: usize,
    /// Whether more can be written only after waiting: call `write` with the packets that follow, also where none do.
    pub blocked: bool,
}

/// The sending half of a connection.
pub trait PacketWriter: Send + 'static {
    /// Writes what can be written without waiting, in order, in as few system calls as the transport allows. `None`: this
    /// writer cannot know without waiting, and has done nothing.
    fn try_write(&mut self, _batch: &[Packet]) -> Option<io::Result<Tried>> {
        None
    }

    /// Writes all packets in order, in as few system calls as the transport allows. Not cancel-safe.
    fn write(&mut self, batch: &[Packet]) -> impl Future<Output = io::Result<()>> + Send;

    /// Asks the peer for a sign of life, below the application on WebTransport.
    fn ping(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Answers a ping.
    fn pong(&mut self, payload: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Says why and closes; the peer gets all that was written before. Takes at most about a second and a half, whatever the
    /// peer does: one that has not taken what was written by then misses it.
    fn close(&mut self, code: CloseCode, reason: &str) -> impl Future<Output = ()> + Send;
}

/// What a client asked for when it connected, before it is answered.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Path and query as sent, percent-encoded.
    pub target: &'a str,
    /// The browser's `Origin`, if any.
    pub origin: Option<&'a str>,
    /// `X-Forwarded-For`, if any: believed only from trusted proxies.
    pub forwarded_for: Option<&'a str>,
    /// Whether the client understands [notices](roomcast_protocol::notice).
    pub notices: bool,
    /// The peer's address.
    pub remote: SocketAddr,
}

/// Why a client is answered with something else than a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status: 400, 401, 403, 404, …
    pub status: u16,
    /// One line for the client: what to change, and nothing that helps an attacker.
    pub message: String,
}
