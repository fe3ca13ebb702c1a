//! A tiny server for tests: accepts on either transport, and hands each connection to the test.

#![allow(dead_code)] // each test file uses another part

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use roomcast_client::{Client, ClientOptions, ClientTrust, ReconnectPolicy, State};
use roomcast_protocol::{Class, CloseCode, Packet, PacketBuffer, RoomId, SessionId, Tag, UserId};
use roomcast_transport::tls::{Certificate, ServerIdentity};
use roomcast_transport::{
    Incoming, PacketReader, PacketWriter, ReadError, Refusal, RequestHead, websocket, webtransport,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// No test waits longer than this for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("nothing happened before the deadline")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Ws,
    Wss,
    Wt,
}

pub(crate) const KINDS: [Kind; 3] = [Kind::Ws, Kind::Wss, Kind::Wt];

/// One accepted connection, whatever its transport.
pub(crate) struct Accepted {
    /// The path asked for.
    pub(crate) target: String,
    /// Whether the client says that it understands notices.
    pub(crate) notices: bool,
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
}

pub(crate) enum Reader {
    WebSocket(websocket::Reader),
    WebTransport(Box<webtransport::Reader>),
}

pub(crate) enum Writer {
    WebSocket(websocket::Writer),
    WebTransport(webtransport::Writer),
}

pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    pub(crate) hash: [u8; 32],
    /// Answers to the next requests; what comes after them is accepted.
    pub(crate) refusals: Arc<Mutex<VecDeque<Refusal>>>,
    accepted: mpsc::Receiver<Accepted>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) async fn start(kind: Kind) -> Self {
        let certificate = Certificate::self_signed(&[], SystemTime::now()).unwrap();
        let hash = certificate.sha256();
        let identity = ServerIdentity::new(certificate).unwrap();
        let refusals = Arc::<Mutex<VecDeque<Refusal>>>::default();
        let (accepted_writer, accepted) = mpsc::channel(64);
        let decide = {
            let refusals = Arc::clone(&refusals);
            move |head: &RequestHead<'_>| {
                let accepted = (head.target.to_owned(), head.notices);
                refusals.lock().unwrap().pop_front().map_or_else(|| Ok(accepted), Err)
            }
        };
        let (address, task) = if kind == Kind::Wt {
            let options = webtransport::Options::default();
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let address = socket.local_addr().unwrap();
            let endpoint = webtransport::endpoint(socket, &identity, &options).unwrap();
            let task = tokio::spawn(async move {
                while let Some(incoming) = endpoint.accept().await {
                    let decided = webtransport::accept(incoming, &options, |head| decide(&head)).await;
                    if let Ok(((target, notices), reader, writer)) = decided {
                        let (reader, writer) = (Reader::WebTransport(Box::new(reader)), Writer::WebTransport(writer));
                        let _ = accepted_writer.send(Accepted { target, notices, reader, writer }).await;
                    }
                }
            });
            (address, task)
        } else {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(identity.tls_config());
            let task = tokio::spawn(async move {
                let options = websocket::Options::default();
                while let Ok((socket, remote)) = listener.accept().await {
                    let decide = |head: RequestHead<'_>| decide(&head);
                    let decided = if kind == Kind::Wss {
                        websocket::accept_tls(socket, &acceptor, remote, &options, decide).await
                    } else {
                        websocket::accept(websocket::Stream::Plain(socket), remote, &options, decide).await
                    };
                    if let Ok(((target, notices), reader, writer)) = decided {
                        let (reader, writer) = (Reader::WebSocket(reader), Writer::WebSocket(writer));
                        let _ = accepted_writer.send(Accepted { target, notices, reader, writer }).await;
                    }
                }
            });
            (address, task)
        };
        Self { kind, address, hash, refusals, accepted, task }
    }

    pub(crate) fn url(&self) -> url::Url {
        let scheme = match self.kind {
            Kind::Ws => "ws",
            Kind::Wss => "wss",
            Kind::Wt => "https",
        };
        format!("{scheme}://{}", self.address).parse().unwrap()
    }

    /// A client's options for this server: quick to try again.
    pub(crate) fn options(&self) -> ClientOptions {
        let mut options =
            ClientOptions::new(self.url(), UserId::parse("alice@x").unwrap(), RoomId::parse("the room").unwrap());
        options.trust = ClientTrust::Hashes(vec![self.hash]);
        options.reconnect = ReconnectPolicy {
            initial: Duration::from_millis(1),
            max: Duration::from_millis(20),
            ..ReconnectPolicy::default()
        };
        options
    }

    /// The next connection.
    pub(crate) async fn accept(&mut self) -> Accepted {
        within(self.accepted.recv()).await.expect("the server ended")
    }

    /// A client's options for this server first, and for others after it.
    pub(crate) fn options_with(&self, others: &[&Self]) -> ClientOptions {
        let mut options = self.options();
        options.endpoints.extend(others.iter().map(|server| server.url()));
        options.trust = ClientTrust::Hashes([self].iter().chain(others).map(|server| server.hash).collect());
        options
    }

    pub(crate) fn refuse_next(&self, status: u16, message: &str) {
        self.refusals.lock().unwrap().push_back(Refusal { status, message: message.to_owned() });
    }
}

impl Reader {
    /// What comes next: a packet's bytes, or something else.
    pub(crate) async fn read(&mut self) -> Result<Result<Bytes, Incoming>, ReadError> {
        let mut buffer = PacketBuffer::new();
        let incoming = match self {
            Self::WebSocket(reader) => within(reader.read(&mut buffer)).await?,
            Self::WebTransport(reader) => within(reader.read(&mut buffer)).await?,
        };
        Ok(match incoming {
            Incoming::Packet => Ok(Bytes::copy_from_slice(buffer.payload())),
            other => Err(other),
        })
    }

    /// Reads until the client is gone; the code it gave.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        loop {
            match self.read().await {
                Ok(Err(Incoming::Closed(code))) => return code,
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}

impl Writer {
    pub(crate) async fn write(&mut self, payloads: &[&[u8]]) {
        let batch: Vec<Packet> = payloads.iter().map(|payload| packet(payload)).collect();
        match self {
            Self::WebSocket(writer) => within(writer.write(&batch)).await.unwrap(),
            Self::WebTransport(writer) => within(writer.write(&batch)).await.unwrap(),
        }
    }

    pub(crate) async fn close(&mut self, code: CloseCode) {
        match self {
            Self::WebSocket(writer) => within(writer.close(code, "test")).await,
            Self::WebTransport(writer) => within(writer.close(code, "test")).await,
        }
    }
}

impl Accepted {
    /// What comes next: a packet's bytes, or something else.
    pub(crate) async fn read(&mut self) -> Result<Result<Bytes, Incoming>, ReadError> {
        self.reader.read().await
    }

    /// The next packet; pings are answered, signs of life passed over.
    pub(crate) async fn packet(&mut self) -> Bytes {
        loop {
            match self.read().await.expect("the connection is gone") {
                Ok(packet) => return packet,
                Err(Incoming::Ping(payload)) => match &mut self.writer {
                    Writer::WebSocket(writer) => writer.pong(&payload).await.unwrap(),
                    Writer::WebTransport(writer) => writer.pong(&payload).await.unwrap(),
                },
                Err(Incoming::Alive) => {}
                Err(other) => panic!("{other:?} instead of a packet"),
            }
        }
    }

    /// Reads until the client is gone; the code it gave.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        self.reader.closed().await
    }

    pub(crate) async fn write(&mut self, payloads: &[&[u8]]) {
        self.writer.write(payloads).await;
    }

    pub(crate) async fn close(&mut self, code: CloseCode) {
        self.writer.close(code).await;
    }
}

fn packet(payload: &[u8]) -> Packet {
    let mut buffer = PacketBuffer::new();
    buffer.extend(payload);
    buffer.seal(Tag { sender: SessionId(1), class: Class::Control, flow: 0 }, None)
}

/// Waits until the client's state is as wanted.
pub(crate) async fn state(client: &Client, wanted: impl Fn(&State) -> bool) -> State {
    let mut states = client.state();
    within(states.wait_for(|state| wanted(state))).await.expect("the client's task is gone").clone()
}
