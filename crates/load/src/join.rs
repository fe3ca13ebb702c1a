//! Joining a room: the TCP, TLS and QUIC connections and the handshakes on them. What follows is not here.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::{Host, Url};
use web_transport_quinn::{Session, proto};

use crate::plan::{Plan, Target, Transport};

/// How long one try may take: longer than an overloaded router's own limit for handshakes.
const PATIENCE: Duration = Duration::from_secs(15);
/// Tries, where the network and not the router says no.
const TRIES: u32 = 3;
/// The longest answer to an upgrade.
const LONGEST_ANSWER: usize = 8 * 1024;

/// Why a member is not in its room.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// No address for a URL's host.
    #[error("{0} cannot be found: {1}")]
    Resolve(String, io::Error),
    /// Certificates or names.
    #[error("{0}")]
    Trust(String),
    /// Nobody there, or it broke.
    #[error("{url}: {why}")]
    Network { url: String, why: String },
    /// The router answered no.
    #[error("{url} refuses {path}: {answer}")]
    Refused { url: String, path: String, answer: String },
}

/// A connection that is in its room.
pub(crate) enum Joined {
    Plain(TcpStream, Vec<u8>),
    Tls(Box<TlsStream<TcpStream>>, Vec<u8>),
    WebTransport(quinn::Endpoint, Box<Session>),
}

/// A way to connect to one router, made once.
pub(crate) struct Door {
    url: String,
    authority: String,
    addresses: Vec<SocketAddr>,
    way: Way,
}

enum Way {
    Plain,
    Tls(TlsConnector, ServerName<'static>),
    Quic(quinn::ClientConfig, String),
}

impl Door {
    /// Finds the addresses, which blocks, and loads what is trusted.
    pub(crate) fn new(plan: &Plan, target: &Target) -> Result<Self, JoinError> {
        let url = target.url.as_str().trim_end_matches('/').to_owned();
        let no_host = || JoinError::Trust(format!("{url} names no host"));
        let host = target.url.host().ok_or_else(no_host)?;
        let port = target.url.port_or_known_default().unwrap_or(443);
        let (name, ip) = match host {
            Host::Domain(name) => (name.to_owned(), None),
            Host::Ipv4(ip) => (ip.to_string(), Some(IpAddr::from(ip))),
            Host::Ipv6(ip) => (ip.to_string(), Some(IpAddr::from(ip))),
        };
        let mut addresses: Vec<SocketAddr> = match ip {
            Some(ip) => vec![(ip, port).into()],
            None => {
                let found = (name.as_str(), port).to_socket_addrs();
                found.map_err(|error| JoinError::Resolve(name.clone(), error))?.collect()
            }
        };
        // UDP does not say that nobody listens: the address that is likelier to be listened on first.
        addresses.sort_by_key(SocketAddr::is_ipv6);
        let trust = |error: &dyn std::fmt::Display| JoinError::Trust(format!("{url}: {error}"));
        let config = |alpn: &[&[u8]]| plan.trust.client_config(alpn).map_err(|error| trust(&error));
        let way = match target.transport {
            Transport::WebSocket => Way::Plain,
            Transport::WebSocketTls => {
                let server = match ip {
                    Some(ip) => ServerName::from(ip),
                    None => ServerName::try_from(name).map_err(|error| trust(&error))?,
                };
                Way::Tls(TlsConnector::from(Arc::new(config(&[b"http/1.1"])?)), server)
            }
            Transport::WebTransport => {
                let crypto =
                    quinn::crypto::rustls::QuicClientConfig::try_from(config(&[web_transport_quinn::ALPN.as_bytes()])?);
                let mut config = quinn::ClientConfig::new(Arc::new(crypto.map_err(|error| trust(&error))?));
                config.transport_config(Arc::new(quic()));
                Way::Quic(config, name)
            }
        };
        let host = target.url.host_str().unwrap_or_default();
        Ok(Self { authority: format!("{host}:{port}"), url, addresses, way })
    }

    /// Joins, with a few tries where the network fails.
    pub(crate) async fn join(&self, path: &str) -> Result<Joined, JoinError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let result = match tokio::time::timeout(PATIENCE, Box::pin(self.once(path))).await {
                Ok(result) => result,
                Err(_) => Err(self.network(&format!("no answer within {PATIENCE:?}"))),
            };
            match result {
                Err(JoinError::Network { .. }) if tries < TRIES => {
                    tokio::time::sleep(Duration::from_millis(100 << tries)).await;
                }
                result => return result,
            }
        }
    }

    /// The router said no.
    pub(crate) fn refused(&self, path: &str, answer: String) -> JoinError {
        JoinError::Refused { url: self.url.clone(), path: path.to_owned(), answer }
    }

    fn network(&self, why: &dyn std::fmt::Display) -> JoinError {
        JoinError::Network { url: self.url.clone(), why: why.to_string() }
    }

    async fn once(&self, path: &str) -> Result<Joined, JoinError> {
        match &self.way {
            Way::Plain => {
                let mut socket = self.tcp().await?;
                let early = self.upgrade(&mut socket, path).await?;
                Ok(Joined::Plain(socket, early))
            }
            Way::Tls(connector, name) => {
                let socket = self.tcp().await?;
                let connected = connector.connect(name.clone(), socket).await;
                let mut stream = Box::new(connected.map_err(|error| self.certificate(&error))?);
                let early = self.upgrade(&mut stream, path).await?;
                Ok(Joined::Tls(stream, early))
            }
            Way::Quic(config, name) => self.session(config, name, path).await,
        }
    }

    /// A failed handshake; for one reason there is something to do.
    fn certificate(&self, error: &dyn std::fmt::Display) -> JoinError {
        let why = error.to_string();
        if why.contains("certificate") {
            return JoinError::Trust(format!("{}: {why}; take it with --insecure or --cert-sha256 HASH", self.url));
        }
        self.network(&why)
    }

    async fn tcp(&self) -> Result<TcpStream, JoinError> {
        let socket = TcpStream::connect(&self.addresses[..]).await.map_err(|error| self.network(&error))?;
        socket.set_nodelay(true).map_err(|error| self.network(&error))?;
        Ok(socket)
    }

    /// Asks for the upgrade; gives what was read behind the answer.
    async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(&self, io: &mut S, path: &str) -> Result<Vec<u8>, JoinError> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.authority
        );
        let broken = |error: io::Error| self.network(&error);
        io.write_all(request.as_bytes()).await.map_err(broken)?;
        io.flush().await.map_err(broken)?;
        let mut answer = Vec::with_capacity(512);
        let end = loop {
            let scanned = answer.len();
            if io.read_buf(&mut answer).await.map_err(broken)? == 0 {
                return Err(self.network(&"closed before it answered"));
            }
            let from = scanned.saturating_sub(3);
            if let Some(at) = answer[from..].windows(4).position(|window| window == b"\r\n\r\n") {
                break from + at + 4;
            }
            if answer.len() > LONGEST_ANSWER {
                return Err(self.network(&"its answer has no end: no WebSocket server"));
            }
        };
        if answer.starts_with(b"HTTP/1.1 101") {
            return Ok(answer.split_off(end));
        }
        let line = String::from_utf8_lossy(&answer[..end]).lines().next().unwrap_or_default().to_owned();
        let body = String::from_utf8_lossy(&answer[end..]).trim().chars().take(200).collect::<String>();
        let answer = if body.is_empty() { line } else { format!("{line}: {body}") };
        Err(self.refused(path, answer))
    }

    async fn session(&self, config: &quinn::ClientConfig, name: &str, path: &str) -> Result<Joined, JoinError> {
        let mut failure = self.network(&"its host has no address");
        for address in &self.addresses {
            let local: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            // A socket for each member, as real clients have: one for all would be read too late, and lose datagrams.
            let endpoint = quinn::Endpoint::client(local).map_err(|error| self.network(&error))?;
            let connecting = endpoint.connect_with(config.clone(), *address, name);
            let connection = match connecting.map_err(|error| self.network(&error))?.await {
                Ok(connection) => connection,
                Err(error) => {
                    failure = self.certificate(&error);
                    continue;
                }
            };
            let url = Url::parse(&format!("https://{}{path}", self.authority)).map_err(|error| self.network(&error))?;
            return match Session::connect(connection, proto::ConnectRequest::new(url)).await {
                Ok(session) => Ok(Joined::WebTransport(endpoint, Box::new(session))),
                Err(error) => Err(self.refused(path, error.to_string())),
            };
        }
        Err(failure)
    }
}

/// QUIC's settings for a member: a whole room's packets come on one connection.
fn quic() -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_idle_timeout(Some(VarInt::from_u32(30_000).into()))
        .keep_alive_interval(Some(Duration::from_secs(10)))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(2_048))
        .stream_receive_window(VarInt::from_u32(4 << 20))
        .receive_window(VarInt::from_u32(16 << 20))
        .send_window(2 << 20)
        // A packet is worth something only when it is whole.
        .send_fairness(false);
    transport
}
