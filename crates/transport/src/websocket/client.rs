//! The client's end: asks for the upgrade, masks what it sends.
//!
//! What does not live here: joining again after a failure, and what is said over the connection.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use roomcast_protocol::CloseCode;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Position, Url};

use super::frame::{self, Opcode, Side};
use super::reader::Reader;
use super::stream::{Stream, WriteSide};
use super::writer::CLOSE_TIME;
use crate::intake::Bounds;
use crate::tls::{ClientTrust, TlsError};

/// The most that is kept of a refusal's body.
const MAX_MESSAGE: usize = 4 * 1024;

/// Masked bytes that go to the socket in one write, and the buffer that an idle writer keeps.
const CHUNK: usize = 64 * 1024;

/// The client's receiving half: expects unmasked frames, otherwise the server's [`Reader`].
pub type ClientReader = Reader;

/// Why a client is not connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL cannot be connected to.
    #[error("{0}")]
    Url(&'static str),
    /// What the client is to trust cannot be used.
    #[error(transparent)]
    Trust(#[from] TlsError),
    /// No connection, or it broke: worth another try.
    #[error("the network failed: {0}")]
    Network(#[source] io::Error),
    /// The TLS handshake failed, such as for an untrusted certificate.
    #[error("the TLS handshake failed: {0}")]
    Tls(#[source] io::Error),
    /// Not done in time: worth another try.
    #[error("no answer in time")]
    Timeout,
    /// The server answered, and not with an upgrade.
    #[error("refused with {status}: {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The body's beginning, trimmed.
        message: String,
    },
    /// The server's answer is not what RFC 6455 asks for.
    #[error("no WebSocket server: {0}")]
    Protocol(String),
}

/// Connects to a `ws:` or `wss:` URL. `timeout` covers everything from the name's resolution to the upgrade.
///
/// # Errors
///
/// Every way this can fail; a refusal is told apart from a network failure.
pub async fn connect(
    url: &Url,
    trust: &ClientTrust,
    timeout: Duration,
) -> Result<(ClientReader, ClientWriter), ConnectError> {
    connect_with(url, trust, timeout, HeaderMap::new()).await
}

/// The same with headers (such as `Origin`) of one's own.
///
/// # Errors
///
/// Those of [`connect`].
pub async fn connect_with(
    url: &Url,
    trust: &ClientTrust,
    timeout: Duration,
    headers: HeaderMap,
) -> Result<(ClientReader, ClientWriter), ConnectError> {
    // Boxed, so that the caller's task does not keep room for the handshake.
    match tokio::time::timeout(timeout, Box::pin(connect_untimed(url, trust, headers))).await {
        Ok(connected) => connected,
        Err(_) => Err(ConnectError::Timeout),
    }
}

async fn connect_untimed(
    url: &Url,
    trust: &ClientTrust,
    headers: HeaderMap,
) -> Result<(ClientReader, ClientWriter), ConnectError> {
    let secure = match url.scheme() {
        "ws" => false,
        "wss" => true,
        _ => return Err(ConnectError::Url("a WebSocket URL starts with ws:// or wss://")),
    };
    let host = url.host().ok_or(ConnectError::Url("the URL names no host"))?;
    let port = url.port_or_known_default().ok_or(ConnectError::Url("the URL names no port"))?;
    let socket = match host {
        Host::Domain(name) => TcpStream::connect((name, port)).await,
        Host::Ipv4(address) => TcpStream::connect((address, port)).await,
        Host::Ipv6(address) => TcpStream::connect((address, port)).await,
    }
    .map_err(ConnectError::Network)?;
    let stream = if secure {
        let name = match host {
            Host::Domain(name) => ServerName::try_from(name.to_owned())
                .map_err(|_| ConnectError::Url("the URL's host is no name that a certificate can hold"))?,
            Host::Ipv4(address) => ServerName::from(IpAddr::from(address)),
            Host::Ipv6(address) => ServerName::from(IpAddr::from(address)),
        };
        let connector = TlsConnector::from(Arc::new(trust.client_config(&[b"http/1.1"])?));
        Stream::tls(connector.connect(name, socket).await.map_err(ConnectError::Tls)?)
    } else {
        Stream::Plain(socket)
    };
    stream.tune().map_err(ConnectError::Network)?;
    let (stream, ahead) = ask(stream, url, headers).await?;
    let (read, write) = stream.split();
    Ok((Reader::new(read, Side::Client, &ahead, Arc::new(Bounds::default())), ClientWriter::new(write)))
}

/// Asks for the upgrade. Returns the stream behind it, and the bytes that were read too far.
async fn ask<I: AsyncRead + AsyncWrite + Unpin>(
    io: I,
    url: &Url,
    headers: HeaderMap,
) -> Result<(I, Bytes), ConnectError> {
    let key = fastwebsockets::handshake::generate_key();
    let mut request = request(url, &key)?;
    request.headers_mut().extend(headers);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(|error| network(&error))?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(|error| network(&error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(refusal(response).await);
        }
        check_answer(&response, &key)
    };
    // Biased to the answer: after a refusal it does not matter how the connection ends.
    let mut connection = std::pin::pin!(connection.without_shutdown());
    let mut answer = std::pin::pin!(answer);
    let parts = tokio::select! {
        biased;
        answered = &mut answer => { answered?; connection.await },
        parts = &mut connection => { answer.await?; parts }
    };
    let parts = parts.map_err(|error| network(&error))?;
    Ok((parts.io.into_inner(), parts.read_buf))
}

fn request(url: &Url, key: &str) -> Result<Request<Empty<Bytes>>, ConnectError> {
    let host = url.host_str().ok_or(ConnectError::Url("the URL names no host"))?;
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    Request::builder()
        .uri(&url[Position::BeforePath..Position::AfterQuery])
        .header(header::HOST, host)
        .header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
        .header(header::UPGRADE, HeaderValue::from_static("websocket"))
        .header(header::SEC_WEBSOCKET_KEY, key)
        .header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"))
        .body(Empty::new())
        .map_err(|_| ConnectError::Url("the URL cannot be sent in a request"))
}

/// Whether the server's answer fits the key (RFC 6455, section 4.1): something in between may only look like one.
fn check_answer<B>(response: &http::Response<B>, key: &str) -> Result<(), ConnectError> {
    let protocol = |what: &str| ConnectError::Protocol(what.to_owned());
    let mut asked = Request::new(());
    asked.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    asked.headers_mut().insert(
        header::SEC_WEBSOCKET_KEY,
        HeaderValue::from_str(key).map_err(|_| protocol("the key is not a header's value"))?,
    );
    // What the library's server would answer to this key.
    let (expected, _) = fastwebsockets::upgrade::upgrade(&mut asked).map_err(|error| protocol(&error.to_string()))?;
    let accept = |headers: &http::HeaderMap| headers.get(header::SEC_WEBSOCKET_ACCEPT).cloned();
    if accept(response.headers()) != accept(expected.headers()) {
        return Err(protocol("its accept key is wrong"));
    }
    let upgrade = response.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if !upgrade.is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
        return Err(protocol("it upgraded to something else"));
    }
    if response.headers().contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
        return Err(protocol("it speaks an extension that was not asked for"));
    }
    Ok(())
}

async fn refusal(response: http::Response<Incoming>) -> ConnectError {
    let status = response.status().as_u16();
    let mut message = Vec::new();
    let mut body = Limited::new(response.into_body(), MAX_MESSAGE);
    // What arrived before the limit or a failure is better than nothing.
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            message.extend_from_slice(data);
        }
    }
    ConnectError::Refused { status, message: String::from_utf8_lossy(&message).trim().to_owned() }
}

fn network(error: &hyper::Error) -> ConnectError {
    if error.is_parse() {
        return ConnectError::Protocol(error.to_string());
    }
    ConnectError::Network(io::Error::other(error.to_string()))
}

/// The client's sending half: masks every frame with a key of its own.
///
/// A `send` that is dropped half-way has still taken the frames it had masked; they go out before the next ones.
#[derive(Debug)]
pub struct ClientWriter<W = WriteSide> {
    io: W,
    /// Masked frames of which `sent` bytes are written.
    frames: Vec<u8>,
    sent: usize,
    closed: bool,
}

impl<W: AsyncWrite + Unpin> ClientWriter<W> {
    pub(super) const fn new(io: W) -> Self {
        Self { io, frames: Vec::new(), sent: 0, closed: false }
    }

    /// Sends each of `packets` as one binary message, all together in as few writes as fit.
    ///
    /// # Errors
    ///
    /// The connection is gone, or was closed on this side.
    pub async fn send(&mut self, packets: &[Bytes]) -> io::Result<()> {
        for packet in packets {
            self.push(Opcode::Binary, packet)?;
            if self.frames.len() >= CHUNK {
                self.drain().await?;
            }
        }
        self.flush().await
    }

    /// Asks the server for a sign of life; at most 125 bytes come back in its pong.
    ///
    /// # Errors
    ///
    /// The connection is gone, or was closed on this side; more than 125 bytes.
    pub async fn ping(&mut self, payload: &[u8]) -> io::Result<()> {
        self.push(Opcode::Ping, payload)?;
        self.flush().await
    }

    /// Answers the server's ping with its payload.
    ///
    /// # Errors
    ///
    /// The connection is gone, or was closed on this side; more than 125 bytes.
    pub async fn pong(&mut self, payload: &[u8]) -> io::Result<()> {
        self.push(Opcode::Pong, payload)?;
        self.flush().await
    }

    /// Says why and closes this direction. Takes at most about a second, whatever the server does.
    pub async fn close(&mut self, code: CloseCode, reason: &str) {
        let payload = frame::close_payload(code.number(), reason);
        let closing = async {
            self.push(Opcode::Close, &payload)?;
            self.flush().await?;
            self.io.shutdown().await
        };
        let _ = tokio::time::timeout(CLOSE_TIME, closing).await; // heard or not, this end is done
        self.closed = true;
    }

    fn push(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        if self.closed {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "already closed"));
        }
        if opcode != Opcode::Binary && payload.len() > frame::MAX_CONTROL {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a control frame holds at most 125 bytes"));
        }
        let mut mask = [0; 4];
        getrandom::fill(&mut mask).map_err(|error| io::Error::other(error.to_string()))?;
        frame::encode(&mut self.frames, opcode, payload, Some(mask));
        Ok(())
    }

    /// Writes what is masked and not yet written.
    async fn drain(&mut self) -> io::Result<()> {
        while self.sent < self.frames.len() {
            let Self { io, frames, sent, .. } = self;
            let count = poll_fn(|cx| Pin::new(&mut *io).poll_write(cx, &frames[*sent..])).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            *sent += count;
        }
        if self.frames.capacity() > 2 * CHUNK {
            self.frames = Vec::new(); // only a rare large packet needed it
        }
        self.frames.clear();
        self.sent = 0;
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.drain().await?;
        self.io.flush().await
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
