//! The client's side: connecting, sending and receiving.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use roomcast_protocol::CloseCode;
use url::{Host, Url};
use web_transport_quinn::{ClientError, ConnectError as HttpError, Session, proto};

use super::{Options, Reader, Shared, Writer};
use crate::PacketWriter as _;
use crate::tls::{ClientTrust, TlsError};

/// The port of an URL that names none.
const DEFAULT_PORT: u16 = 443;

/// How long one address is tried before the next one is tried beside it (RFC 8305, section 5): a host's first address may
/// be one that nobody listens on, and UDP does not say so.
const STAGGER: Duration = Duration::from_millis(250);

/// The receiving half of a client's connection.
pub type ClientReader = Reader;

/// The sending half of a client's connection.
pub struct ClientWriter {
    writer: Writer,
    /// The socket. It is driven until the last connection on it has said goodbye.
    _endpoint: quinn::Endpoint,
}

/// Why a client is not connected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is not one, or not one of WebTransport.
    #[error("{0:?} is not a WebTransport URL: {1}; write https://host:port/lobby/user/room")]
    Url(String, String),
    /// The roots or hashes cannot be used.
    #[error(transparent)]
    Trust(#[from] TlsError),
    /// The host's name is not known.
    #[error("the host {0} cannot be found: {1}")]
    Resolve(String, io::Error),
    /// No local socket.
    #[error("no local UDP socket: {0}")]
    Socket(io::Error),
    /// Nobody answered in time.
    #[error("no session within {0:?}")]
    Timeout(Duration),
    /// The server answered, with this HTTP status.
    #[error("the server refused with HTTP status {status}")]
    Refused {
        /// 400, 401, 403, 404, …
        status: u16,
    },
    /// QUIC or TLS failed: a certificate that is not trusted, among others.
    #[error("the QUIC connection failed: {0}")]
    Quic(#[from] quinn::ConnectionError),
    /// The server speaks no WebTransport.
    #[error("the server does not speak WebTransport: {0}")]
    Http(String),
}

impl From<ClientError> for ConnectError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Connection(error) => Self::Quic(error),
            ClientError::HttpError(HttpError::ErrorStatus(status))
            | ClientError::HttpError(HttpError::ProtoError(proto::ConnectError::WrongStatus(Some(status)))) => {
                Self::Refused { status: status.as_u16() }
            }
            ClientError::HttpError(HttpError::ConnectionError(error)) => Self::Quic(error),
            error => Self::Http(error.to_string()),
        }
    }
}

/// Opens a session at `https://host:port/path`, with a client's options.
///
/// # Errors
/// Anything that kept it from coming to be within `timeout`.
pub async fn connect(
    url: &str,
    trust: &ClientTrust,
    timeout: Duration,
) -> Result<(ClientReader, ClientWriter), ConnectError> {
    let options = Options { handshake: timeout, ..Options::client() };
    connect_with(url, trust, &options, http::HeaderMap::new()).await
}

/// The same with options and headers (such as `Origin`) of one's own.
///
/// # Errors
/// Anything that kept it from coming to be within [`Options::handshake`].
pub async fn connect_with(
    url: &str,
    trust: &ClientTrust,
    options: &Options,
    headers: http::HeaderMap,
) -> Result<(ClientReader, ClientWriter), ConnectError> {
    let bad = |why: String| ConnectError::Url(url.to_owned(), why);
    let parsed = Url::parse(url).map_err(|error| bad(error.to_string()))?;
    if parsed.scheme() != "https" {
        return Err(bad("it does not start with https://".to_owned()));
    }
    let crypto = trust.client_config(&[web_transport_quinn::ALPN.as_bytes()])?;
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(crypto)
        .expect("ring has the cipher suite of QUIC's first packets");
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(options.transport()));

    let connecting = Box::pin(async {
        let (endpoint, connection) = establish(&parsed, config).await?;
        let request = proto::ConnectRequest::new(parsed.clone()).with_headers(headers);
        match Session::connect(connection.clone(), request).await {
            Ok(session) => Ok((endpoint, session)),
            Err(error) => Err(match (ConnectError::from(error), connection.close_reason()) {
                // A connection that broke is not a server that speaks something else.
                (ConnectError::Http(_), Some(reason)) => ConnectError::Quic(reason),
                (error, _) => error,
            }),
        }
    });
    let (endpoint, session) = match tokio::time::timeout(options.handshake, connecting).await {
        Ok(result) => result?,
        Err(_) => return Err(ConnectError::Timeout(options.handshake)),
    };
    let shared = Arc::new(Shared::new(session, options));
    let reader = Reader::new(Arc::clone(&shared), options);
    Ok((reader, ClientWriter { writer: Writer::new(shared), _endpoint: endpoint }))
}

/// The first QUIC connection that comes to be with any of the host's addresses.
async fn establish(
    url: &Url,
    config: quinn::ClientConfig,
) -> Result<(quinn::Endpoint, quinn::Connection), ConnectError> {
    let bad = |why: &str| ConnectError::Url(url.to_string(), why.to_owned());
    let port = url.port().unwrap_or(DEFAULT_PORT);
    let (name, addresses) = match url.host().ok_or_else(|| bad("it names no host"))? {
        Host::Domain(name) => {
            let found = tokio::net::lookup_host((name, port)).await;
            let found = found.map_err(|error| ConnectError::Resolve(name.to_owned(), error))?;
            (name.to_owned(), found.collect())
        }
        Host::Ipv4(ip) => (ip.to_string(), vec![SocketAddr::from((ip, port))]),
        Host::Ipv6(ip) => (ip.to_string(), vec![SocketAddr::from((ip, port))]),
    };
    let mut attempts: FuturesUnordered<_> = (0_u32..)
        .zip(addresses)
        .map(|(turn, address)| {
            let (config, name) = (config.clone(), &name);
            async move {
                tokio::time::sleep(STAGGER * turn).await;
                let local: SocketAddr = match address {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let endpoint = quinn::Endpoint::client(local).map_err(ConnectError::Socket)?;
                let connecting = endpoint
                    .connect_with(config, address, name)
                    .map_err(|error| ConnectError::Url(url.to_string(), error.to_string()))?;
                let connection = connecting.await?;
                Ok((endpoint, connection))
            }
        })
        .collect();
    let mut failure = None;
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Ok(connected) => return Ok(connected),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| bad("its host has no address")))
}

impl ClientWriter {
    /// Sends packets, each on a stream of its own, in order. Waits for QUIC to take them, not for the server. Not
    /// cancel-safe.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, packets: &[Bytes]) -> io::Result<()> {
        for packet in packets {
            self.writer.send(packet.clone()).await?;
        }
        Ok(())
    }

    /// Waits until the server's QUIC has everything that was sent, or the connection is gone. Cancel-safe. [`close`](Self::close)
    /// does the same for a second at most.
    pub async fn confirmed(&mut self) {
        self.writer.confirmed().await;
    }

    /// Sends one packet as a datagram: it may be lost, and it may overtake.
    ///
    /// # Errors
    /// The connection is gone, or the packet is larger than the path carries (about 1,200 bytes are safe).
    pub fn send_datagram(&mut self, packet: Bytes) -> io::Result<()> {
        self.session().send_datagram(packet).map_err(|error| io::Error::other(error.to_string()))
    }

    /// Says why and closes, once the server has what was sent, within about a second and a half.
    pub async fn close(&mut self, code: CloseCode, reason: &str) {
        self.writer.close(code, reason).await;
    }

    /// The session below, for streams that are no packets.
    #[must_use]
    pub fn session(&self) -> &Session {
        self.writer.session()
    }
}
