//! The server's side of a connection's beginning: the endpoint, and the handshake with its HTTP answer.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use roomcast_protocol::notice;
use web_transport_quinn::{Request, ServerError};

use super::{Options, Reader, Shared, Writer};
use crate::tls::ServerIdentity;
use crate::{Refusal, RequestHead};

/// Connections whose first packet came and that nobody accepted yet; more are refused at once. A listener takes them in
/// microseconds, so this is a burst of thousands of clients.
const MAX_INCOMING: usize = 1024;

/// What such a connection may have sent meanwhile: a few datagrams, since there is no early data.
const INCOMING_BYTES: u64 = 16 << 10;

/// The same of all of them.
const INCOMING_BYTES_TOTAL: u64 = 4 << 20;

/// How long a refused client is given to take its answer and go.
const REFUSAL_LINGER: Duration = Duration::from_secs(1);

/// RFC 9114: nothing is wrong, the connection is just over.
const H3_NO_ERROR: u32 = 0x100;

/// Why a connection did not become a session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// It took too long.
    #[error("the handshake took longer than {0:?}")]
    Timeout(Duration),
    /// The client was answered with an HTTP error.
    #[error("refused with {}: {}", .0.status, .0.message)]
    Refused(Refusal),
    /// QUIC or TLS failed.
    #[error("the QUIC connection failed: {0}")]
    Quic(#[from] quinn::ConnectionError),
    /// What came over QUIC is not a WebTransport request.
    #[error("not a WebTransport request: {0}")]
    Http(String),
}

impl HandshakeError {
    /// A word for a metrics label.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Refused(_) => "refused",
            Self::Quic(_) => "gone",
            Self::Http(_) => "malformed",
        }
    }
}

impl From<ServerError> for HandshakeError {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::Connection(error) => Self::Quic(error),
            error => Self::Http(error.to_string()),
        }
    }
}

/// QUIC's settings for a server: also for [`quinn::Endpoint::set_server_config`], when options change while it runs.
#[must_use]
pub fn server_config(identity: &ServerIdentity, options: &Options) -> quinn::ServerConfig {
    let mut config = quinn::ServerConfig::with_crypto(identity.quic_config());
    config
        .transport_config(Arc::new(options.transport()))
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
    config
}

/// Listens on a bound socket. Must be called within a tokio runtime, which then drives it.
///
/// # Errors
/// A socket that the runtime does not take.
pub fn endpoint(socket: UdpSocket, identity: &ServerIdentity, options: &Options) -> io::Result<quinn::Endpoint> {
    let config = Some(server_config(identity, options));
    quinn::Endpoint::new(quinn::EndpointConfig::default(), config, socket, Arc::new(quinn::TokioRuntime))
}

/// Makes a session of an incoming connection, if `decide` says so; else answers with its HTTP status.
///
/// # Errors
/// Anything else than a session; the connection is closed then.
pub async fn accept<T: Send>(
    incoming: quinn::Incoming,
    options: &Options,
    decide: impl FnOnce(RequestHead<'_>) -> Result<T, Refusal> + Send,
) -> Result<(T, Reader, Writer), HandshakeError> {
    accept_then(incoming, options, decide, std::future::ready).await
}

/// Like [`accept`], in two steps: what `decide` made of the request goes through `enter`, and only then is the client
/// answered. A client that has its 200 is what `enter` made it.
///
/// # Errors
/// Those of [`accept`]. What `enter` made is dropped when the client is gone by then.
pub async fn accept_then<T, U, N: Future<Output = U> + Send>(
    incoming: quinn::Incoming,
    options: &Options,
    decide: impl FnOnce(RequestHead<'_>) -> Result<T, Refusal> + Send,
    enter: impl FnOnce(T) -> N + Send,
) -> Result<(U, Reader, Writer), HandshakeError> {
    // Boxed, so that a connection's task does not keep room for its handshake as long as it lives.
    let handshake = Box::pin(handshake(incoming, options, decide, enter));
    match tokio::time::timeout(options.handshake, handshake).await {
        Ok(result) => result,
        // Dropped in the middle, it closes its connection.
        Err(_) => Err(HandshakeError::Timeout(options.handshake)),
    }
}

async fn handshake<T, U, N: Future<Output = U> + Send>(
    incoming: quinn::Incoming,
    options: &Options,
    decide: impl FnOnce(RequestHead<'_>) -> Result<T, Refusal> + Send,
    enter: impl FnOnce(T) -> N + Send,
) -> Result<(U, Reader, Writer), HandshakeError> {
    let connection = incoming.accept()?.await?;
    let remote = connection.remote_address();
    let request = Request::accept(connection.clone()).await.map_err(|error| {
        match (HandshakeError::from(error), connection.close_reason()) {
            // A connection that broke is not a client that speaks something else.
            (HandshakeError::Http(_), Some(reason)) => HandshakeError::Quic(reason),
            (error, _) => error,
        }
    })?;
    let decision = {
        let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
        let mut target = request.url.path().to_owned();
        if let Some(query) = request.url.query() {
            target.push('?');
            target.push_str(query);
        }
        decide(RequestHead {
            target: &target,
            origin: header("origin"),
            forwarded_for: header("x-forwarded-for"),
            notices: header(notice::HEADER) == Some(notice::VERSION),
            remote,
        })
    };
    match decision {
        Ok(accepted) => {
            let accepted = enter(accepted).await;
            let session = request.ok().await?;
            let shared = Arc::new(Shared::new(session, options));
            Ok((accepted, Reader::new(Arc::clone(&shared), options), Writer::new(shared)))
        }
        Err(refusal) => {
            // A status that would tell the client that it is in is a mistake of the caller's, not an invitation.
            let status = http::StatusCode::from_u16(refusal.status).ok().filter(|status| status.as_u16() >= 400);
            // Not the library's own rejection, which lets the connection go before the client has the answer.
            let session = request.respond(status.unwrap_or(http::StatusCode::FORBIDDEN)).await?;
            let _ = tokio::time::timeout(REFUSAL_LINGER, session.closed()).await;
            quinn::Connection::close(&session, H3_NO_ERROR.into(), b"");
            Err(HandshakeError::Refused(refusal))
        }
    }
}
