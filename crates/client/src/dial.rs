//! Which transport an endpoint asks for, connecting by it, and what a failure means.
//!
//! The only place that tells the two transports apart.

use std::io;

use bytes::Bytes;
use roomcast_protocol::{CloseCode, notice};
use roomcast_transport::{websocket, webtransport};
use url::Url;

use crate::connection::{self, ClientSink, End, Settings};
use crate::gate::Gate;
use crate::inbox::InboxWriter;
use crate::options::ClientOptions;
use crate::reconnect::Ended;
use crate::shared::Shared;

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// `ws://` and `wss://`.
    WebSocket,
    /// `https://`.
    WebTransport,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::WebSocket => "WebSocket",
            Self::WebTransport => "WebTransport",
        })
    }
}

/// An open connection by either transport.
pub(crate) enum Line {
    WebSocket(websocket::ClientReader, websocket::ClientWriter),
    WebTransport(Box<webtransport::ClientReader>, webtransport::ClientWriter),
}

impl Line {
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::WebSocket(..) => Transport::WebSocket,
            Self::WebTransport(..) => Transport::WebTransport,
        }
    }

    /// Runs the connection until it ends.
    pub(crate) async fn run(self, gate: &Gate, shared: &Shared, inbox: &InboxWriter, settings: Settings) -> End {
        match self {
            Self::WebSocket(reader, writer) => connection::run((reader, writer), gate, shared, inbox, settings).await,
            Self::WebTransport(reader, writer) => {
                connection::run((*reader, writer), gate, shared, inbox, settings).await
            }
        }
    }
}

/// Connects, or says how the attempt ended.
pub(crate) async fn dial(url: &Url, options: &ClientOptions) -> Result<Line, Ended> {
    let ClientOptions { trust, connect_timeout, .. } = options;
    let mut headers = http::HeaderMap::new();
    if options.notices {
        headers.insert(notice::HEADER, http::HeaderValue::from_static(notice::VERSION));
    }
    if url.scheme() == "https" {
        let options = webtransport::Options {
            handshake: *connect_timeout,
            idle: options.keep_alive.dead_after, // QUIC watches over the connection by itself
            ..webtransport::Options::client()
        };
        match webtransport::connect_with(url.as_str(), trust, &options, headers).await {
            Ok((reader, writer)) => Ok(Line::WebTransport(Box::new(reader), writer)),
            Err(error) => Err(webtransport_failure(&error)),
        }
    } else {
        match websocket::connect_with(url, trust, *connect_timeout, headers).await {
            Ok((reader, writer)) => Ok(Line::WebSocket(reader, writer)),
            Err(error) => Err(websocket_failure(&error)),
        }
    }
}

fn websocket_failure(error: &websocket::ConnectError) -> Ended {
    match error {
        websocket::ConnectError::Refused { status, message } => {
            Ended::Refused { status: *status, message: message.clone() }
        }
        websocket::ConnectError::Trust(error) => Ended::Untrusted(error.to_string()),
        websocket::ConnectError::Tls(error) if blames_certificate(error) => Ended::Untrusted(error.to_string()),
        error => Ended::Unreachable(error.to_string()),
    }
}

fn webtransport_failure(error: &webtransport::ConnectError) -> Ended {
    use webtransport::ConnectError;
    match error {
        ConnectError::Refused { status } => Ended::Refused { status: *status, message: reason_phrase(*status) },
        ConnectError::Trust(error) => Ended::Untrusted(error.to_string()),
        // Found out on this side; what the other side finds out is a close.
        ConnectError::Quic(quinn::ConnectionError::TransportError(error)) if blames_certificate_by_alert(error) => {
            Ended::Untrusted(error.reason.clone())
        }
        error => Ended::Unreachable(error.to_string()),
    }
}

/// The status in words, since WebTransport's answer to a refused client carries no text.
fn reason_phrase(status: u16) -> String {
    let status = http::StatusCode::from_u16(status).ok();
    status.and_then(|status| status.canonical_reason()).unwrap_or("no reason given").to_lowercase()
}

/// Whether a TLS handshake failed for the server's certificate, and not for the network.
fn blames_certificate(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

/// The same for QUIC, which tells it by a TLS alert (RFC 9001, section 4.8): from `bad_certificate` to `access_denied`.
fn blames_certificate_by_alert(error: &quinn_proto::TransportError) -> bool {
    const CRYPTO_ERROR: u64 = 0x100;
    const CERTIFICATE_ALERTS: std::ops::RangeInclusive<u64> = 42..=49;
    u64::from(error.code).checked_sub(CRYPTO_ERROR).is_some_and(|alert| CERTIFICATE_ALERTS.contains(&alert))
}

impl ClientSink for websocket::ClientWriter {
    const ANSWERED: bool = true;

    async fn send(&mut self, packets: &[Bytes]) -> io::Result<()> {
        Self::send(self, packets).await
    }

    async fn send_unreliable(&mut self, packet: Bytes) -> io::Result<()> {
        Self::send(self, &[packet]).await
    }

    async fn ping(&mut self) -> io::Result<()> {
        Self::ping(self, &[]).await
    }

    async fn pong(&mut self, payload: Vec<u8>) -> io::Result<()> {
        Self::pong(self, &payload).await
    }

    async fn confirmed(&mut self) {} // the system sends what it has taken before it closes

    async fn close(&mut self, code: CloseCode, reason: &'static str) {
        Self::close(self, code, reason).await;
    }
}

impl ClientSink for webtransport::ClientWriter {
    /// QUIC notices a dead server by itself.
    const ANSWERED: bool = false;

    async fn send(&mut self, packets: &[Bytes]) -> io::Result<()> {
        Self::send(self, packets).await
    }

    async fn send_unreliable(&mut self, packet: Bytes) -> io::Result<()> {
        // A path that carries no datagrams, or only smaller ones, still carries streams.
        if self.session().max_datagram_size() >= packet.len() {
            self.send_datagram(packet)
        } else {
            Self::send(self, &[packet]).await
        }
    }

    async fn ping(&mut self) -> io::Result<()> {
        self.send_datagram(Bytes::from_static(b"ping"))
    }

    async fn pong(&mut self, _payload: Vec<u8>) -> io::Result<()> {
        Ok(()) // nobody asks
    }

    async fn confirmed(&mut self) {
        Self::confirmed(self).await;
    }

    async fn close(&mut self, code: CloseCode, reason: &'static str) {
        Self::close(self, code, reason).await;
    }
}
