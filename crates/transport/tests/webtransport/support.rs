//! A server, a client of it, and a deadline around everything.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime};

use roomcast_protocol::{Class, Packet, PacketBuffer, SessionId, Tag};
use roomcast_transport::tls::{Certificate, ClientTrust, ServerIdentity};
use roomcast_transport::webtransport::{
    ClientReader, ClientWriter, HandshakeError, Options, Reader, Writer, accept, connect_with, endpoint,
};
use roomcast_transport::{Incoming, PacketReader, ReadError, Refusal};

/// Long enough for a busy machine; nothing waits for it to pass.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it took too long")
}

pub(crate) struct Server {
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) identity: ServerIdentity,
    pub(crate) options: Options,
}

impl Server {
    pub(crate) fn start(options: Options) -> Self {
        Self::with_certificate(options, Certificate::self_signed(&[], SystemTime::now()).unwrap())
    }

    pub(crate) fn with_certificate(options: Options, certificate: Certificate) -> Self {
        let identity = ServerIdentity::new(certificate).unwrap();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let endpoint = endpoint(socket, &identity, &options).unwrap();
        Self { endpoint, identity, options }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}/lobby/ann/standup", self.address())
    }

    pub(crate) fn trust(&self) -> ClientTrust {
        ClientTrust::Hashes(vec![self.identity.current().sha256()])
    }

    pub(crate) async fn accept<T: Send>(
        &self,
        decide: impl FnOnce(roomcast_transport::RequestHead<'_>) -> Result<T, Refusal> + Send,
    ) -> Result<(T, Reader, Writer), HandshakeError> {
        let incoming = self.endpoint.accept().await.unwrap();
        accept(incoming, &self.options, decide).await
    }
}

/// Both ends of a connection, and what keeps them.
pub(crate) struct Pair {
    pub(crate) server: Server,
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) client_reader: ClientReader,
    pub(crate) client: ClientWriter,
}

pub(crate) async fn pair(options: Options) -> Pair {
    pair_with(options, Options::client()).await
}

pub(crate) async fn pair_with(options: Options, client: Options) -> Pair {
    let server = Server::start(options);
    let (url, trust) = (server.url(), server.trust());
    let connecting = connect_with(&url, &trust, &client, http::HeaderMap::new());
    let (accepted, connected) = within(async { tokio::join!(server.accept(|_| Ok(())), connecting) }).await;
    let ((), reader, writer) = accepted.unwrap();
    let (client_reader, client) = connected.unwrap();
    Pair { server, reader, writer, client_reader, client }
}

/// What is read next, signs of life left out.
pub(crate) async fn next(reader: &mut impl PacketReader) -> Result<Option<Vec<u8>>, ReadError> {
    let mut buffer = PacketBuffer::new();
    within(async {
        loop {
            match reader.read(&mut buffer).await? {
                Incoming::Packet => return Ok(Some(buffer.payload().to_vec())),
                Incoming::Alive => {}
                Incoming::Closed(_) => return Ok(None),
                Incoming::Ping(_) => panic!("there are no pings here"),
            }
        }
    })
    .await
}

pub(crate) async fn packet(reader: &mut impl PacketReader) -> Vec<u8> {
    next(reader).await.unwrap().expect("closed instead of a packet")
}

/// The code that the peer closed with.
pub(crate) async fn closed(reader: &mut impl PacketReader) -> Option<u16> {
    let mut buffer = PacketBuffer::new();
    within(async {
        loop {
            match reader.read(&mut buffer).await.unwrap() {
                Incoming::Closed(code) => return code,
                Incoming::Alive => {}
                other => panic!("{other:?} instead of the end"),
            }
        }
    })
    .await
}

pub(crate) fn sealed(payload: &[u8]) -> Packet {
    let mut buffer = PacketBuffer::new();
    buffer.extend(payload);
    buffer.seal(Tag { sender: SessionId(1), class: Class::Control, flow: 0 }, None)
}

/// Bytes that are different at every place and for every seed.
pub(crate) fn content(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (seed.wrapping_mul(31) + at.wrapping_mul(7) + (at >> 8)) as u8).collect()
}
