//! Which transport an endpoint asks for, connecting by it, and what a failure means.
//!
//! The only place that tells the two transports apart.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::CloseCode;
use roomcast_transport::tls::ClientTrust;
use roomcast_transport::websocket;
use url::Url;

use crate::connection::{self, ClientSink, End, Settings};
use crate::inbox::InboxWriter;
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
}

impl Line {
    pub(crate) fn transport(&self) -> Transport {
        match self {
            Self::WebSocket(..) => Transport::WebSocket,
        }
    }

    /// Runs the connection until it ends.
    pub(crate) async fn run(self, number: u64, shared: &Shared, inbox: &InboxWriter, settings: Settings) -> End {
        match self {
            Self::WebSocket(reader, writer) => connection::run((reader, writer), number, shared, inbox, settings).await,
        }
    }
}

/// Connects within `timeout`, or says how the attempt ended.
pub(crate) async fn dial(url: &Url, trust: &ClientTrust, timeout: Duration) -> Result<Line, Ended> {
    match url.scheme() {
        "https" => Err(Ended::Unreachable("not yet".into())),
        _ => match websocket::connect(url, trust, timeout).await {
            Ok((reader, writer)) => Ok(Line::WebSocket(reader, writer)),
            Err(error) => Err(websocket_failure(&error)),
        },
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

/// Whether a TLS handshake failed for the server's certificate, and not for the network.
fn blames_certificate(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
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

    async fn close(&mut self, code: CloseCode, reason: &'static str) {
        Self::close(self, code, reason).await;
    }
}
