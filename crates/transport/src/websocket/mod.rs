//! WebSocket: the handshake over HTTP/1.1, frames to packets, packets to frames; both ends of it.
//!
//! What lives here: how a connection begins and what its two halves are. What does not: how long one may idle, how many
//! there are, and who may join: the node decides.
//!
//! The server answers with [`accept`] or [`accept_tls`], the client asks with [`connect`]. After a [`Writer`]'s `close`,
//! [`Reader`]'s `linger` makes sure that the peer can read why.

mod client;
mod frame;
mod reader;
mod stream;
mod upgrade;
mod writer;

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;

pub use client::{ClientReader, ClientWriter, ConnectError, connect, connect_with};
#[doc(hidden)]
pub use frame::unmask; // for its micro-benchmark
pub use reader::Reader;
pub use stream::{ReadSide, Stream, WriteSide};
pub use writer::Writer;

use crate::intake::{Bounds, Intake};
use crate::{Refusal, RequestHead};

/// What one connection may take.
#[derive(Clone, Debug)]
pub struct Options {
    /// What a packet under way may take, whole or in fragments.
    pub intake: Arc<dyn Intake>,
    /// The most that the whole handshake may take, TLS and the reading of a refusal included.
    pub handshake: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { intake: Arc::new(Bounds::default()), handshake: Duration::from_secs(10) }
    }
}

/// Why a connection did not come to be.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The client was too slow, or silent.
    #[error("the handshake took too long")]
    Timeout,
    /// The client was answered with a status: by `decide`, or because this was no upgrade.
    #[error("refused with {}: {}", .0.status, .0.message)]
    Refused(Refusal),
    /// What the client sent is not HTTP, or too much of it; it was answered 400, 414 or 431.
    #[error("a malformed request: {0}")]
    Malformed(String),
    /// The TLS handshake failed, such as for a client without TLS 1.3.
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    /// The client went away.
    #[error("the connection is gone: {0}")]
    Gone(String),
}

impl HandshakeError {
    /// A word for a metrics label.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Refused(_) => "refused",
            Self::Malformed(_) => "malformed",
            Self::Tls(_) => "tls",
            Self::Gone(_) => "gone",
        }
    }
}

/// Answers the request on a connected stream: an upgrade where `decide` accepts it, else an HTTP status.
///
/// `decide` is called once, for a GET with readable headers, before it is known whether the request is a proper upgrade:
/// what it returns may be dropped unused, and must undo itself then. [`accept_then`] has a second step for what is costly.
///
/// # Errors
///
/// Every way a handshake can fail; a client that could be answered has been.
pub async fn accept<T, F>(
    io: Stream,
    remote: SocketAddr,
    options: &Options,
    decide: F,
) -> Result<(T, Reader, Writer), HandshakeError>
where
    T: Send,
    F: FnOnce(RequestHead<'_>) -> Result<T, Refusal> + Send,
{
    let deadline = Instant::now() + options.handshake;
    // Boxed, so that a connection's task does not keep room for its handshake as long as it lives.
    Box::pin(accept_until(deadline, io, remote, options, decide, ready)).await
}

/// Like [`accept`] or, with `tls`, [`accept_tls`], in two steps: what `decide` made of a request that is a proper upgrade
/// goes through `enter`, and only then is the client answered. A client that has its 101 is what `enter` made it.
///
/// # Errors
///
/// Those of [`accept_tls`]. What `enter` made is dropped when the client is gone by then.
pub async fn accept_then<T, U, F, E, N>(
    socket: TcpStream,
    tls: Option<&TlsAcceptor>,
    remote: SocketAddr,
    options: &Options,
    decide: F,
    enter: E,
) -> Result<(U, Reader, Writer), HandshakeError>
where
    T: Send,
    U: Send,
    F: FnOnce(RequestHead<'_>) -> Result<T, Refusal> + Send,
    E: FnOnce(T) -> N + Send,
    N: Future<Output = U> + Send,
{
    let deadline = Instant::now() + options.handshake;
    Box::pin(async {
        let stream = match tls {
            Some(acceptor) => shake_tls(socket, acceptor, deadline).await?,
            None => Stream::Plain(socket),
        };
        accept_until(deadline, stream, remote, options, decide, enter).await
    })
    .await
}

/// Like [`accept`], for a socket that is to speak TLS first; one deadline covers both.
///
/// # Errors
///
/// Those of [`accept`], and a failed TLS handshake.
pub async fn accept_tls<T, F>(
    socket: TcpStream,
    acceptor: &TlsAcceptor,
    remote: SocketAddr,
    options: &Options,
    decide: F,
) -> Result<(T, Reader, Writer), HandshakeError>
where
    T: Send,
    F: FnOnce(RequestHead<'_>) -> Result<T, Refusal> + Send,
{
    let deadline = Instant::now() + options.handshake;
    Box::pin(async {
        let stream = shake_tls(socket, acceptor, deadline).await?;
        accept_until(deadline, stream, remote, options, decide, ready).await
    })
    .await
}

async fn shake_tls(socket: TcpStream, acceptor: &TlsAcceptor, deadline: Instant) -> Result<Stream, HandshakeError> {
    let shaken = timeout_at(deadline, acceptor.accept(socket)).await.map_err(|_| HandshakeError::Timeout)?;
    Ok(Stream::tls(shaken.map_err(HandshakeError::Tls)?))
}

async fn accept_until<T, U, F, E, N>(
    deadline: Instant,
    io: Stream,
    remote: SocketAddr,
    options: &Options,
    decide: F,
    enter: E,
) -> Result<(U, Reader, Writer), HandshakeError>
where
    T: Send,
    U: Send,
    F: FnOnce(RequestHead<'_>) -> Result<T, Refusal> + Send,
    E: FnOnce(T) -> N + Send,
    N: Future<Output = U> + Send,
{
    io.tune().map_err(|error| HandshakeError::Gone(error.to_string()))?;
    let (accepted, io, ahead) = upgrade::serve(io, remote, deadline, decide, enter).await?;
    let (read, write) = io.split();
    let reader = Reader::new(read, frame::Side::Server, &ahead, Arc::clone(&options.intake));
    Ok((accepted, reader, Writer::new(write)))
}
