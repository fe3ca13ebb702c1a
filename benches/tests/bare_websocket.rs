//! The bare WebSocket broadcaster hands every packet to everybody else in the room, once and in order.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use roomcast_benches::bare::frame::{Frame, put_header};
use roomcast_benches::bare::{certificate, websocket::Broadcaster};
use rustls::pki_types::ServerName;

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

trait Socket: Read + Write {}
impl<T: Read + Write> Socket for T {}

/// A client that joined.
struct Client {
    socket: Box<dyn Socket>,
    waiting: Vec<u8>,
}

impl Client {
    fn join(mut socket: Box<dyn Socket>, room: &str) -> Self {
        let request = format!(
            "GET /lobby/ann/{room} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
        Self { socket, waiting: Vec::new() }
    }

    fn send(&mut self, first: u8, payload: &[u8]) {
        self.socket.write_all(&masked(first, payload)).unwrap();
    }

    /// The next frame's first byte and payload.
    fn receive(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let Some(frame) = Frame::parse(&self.waiting)
                && self.waiting.len() >= frame.length()
            {
                assert_eq!(
                    frame.header,
                    put_header(&mut [0; 10], 0, frame.payload),
                    "a server's frames are not masked"
                );
                let payload = self.waiting[frame.header..frame.length()].to_vec();
                self.waiting.drain(..frame.length());
                return (frame.first, payload);
            }
            let mut buffer = vec![0; 64 * 1024];
            let read = self.socket.read(&mut buffer).unwrap();
            assert!(read > 0, "the connection ended");
            self.waiting.extend_from_slice(&buffer[..read]);
        }
    }
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; 10];
    let length = put_header(&mut header, first, payload.len());
    header[1] |= 0x80;
    let key = [7, 77, 177, 211];
    let mut bytes = [&header[..length], &key].concat();
    bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ key[index % 4]));
    bytes
}

fn plain(address: SocketAddr) -> Box<dyn Socket> {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    Box::new(socket)
}

/// Serves on a thread that ends with the process.
fn serve(tls: Option<Arc<rustls::ServerConfig>>) -> SocketAddr {
    let mut broadcaster = Broadcaster::bind(0, tls).unwrap();
    let address = broadcaster.address().unwrap();
    thread::spawn(move || broadcaster.run());
    address
}

/// Sends packets of many sizes, some cut anywhere and some together, and sees them come to everybody else in the room.
fn exchange(join: &dyn Fn(&str) -> Client) {
    let (mut one, mut two, mut three, mut other) = (join("a"), join("a"), join("a"), join("b"));
    // The answer to a ping says that the join before it was handled.
    for client in [&mut one, &mut two, &mut three, &mut other] {
        client.send(0x89, b"here");
        assert_eq!(client.receive(), (0x8a, b"here".to_vec()));
    }
    let sizes = [0, 1, 125, 126, 1_200, 4_000, 70_000, 300_000];
    let payloads: Vec<Vec<u8>> =
        sizes.iter().map(|size| (0..*size).map(|index: usize| (index * 7 + size) as u8).collect()).collect();
    for payload in &payloads {
        one.send(0x82, payload);
    }
    let together: Vec<u8> = payloads.iter().take(6).flat_map(|payload| masked(0x82, payload)).collect();
    for piece in [&together[..3], &together[3..140], &together[140..]] {
        one.socket.write_all(piece).unwrap();
        one.socket.flush().unwrap();
    }
    for receiver in [&mut two, &mut three] {
        for payload in payloads.iter().chain(payloads.iter().take(6)) {
            let (first, received) = receiver.receive();
            assert_eq!((first, received.len()), (0x82, payload.len()));
            assert!(received == *payload, "a packet of {} bytes came as another", payload.len());
        }
    }
    two.send(0x82, b"from two");
    assert_eq!(one.receive(), (0x82, b"from two".to_vec()), "and none of its own before it");
    assert_eq!(three.receive(), (0x82, b"from two".to_vec()));
    drop(two);
    other.send(0x89, b"still here");
    assert_eq!(other.receive(), (0x8a, b"still here".to_vec()), "and nothing of another room before it");
    three.send(0x82, b"to one");
    assert_eq!(one.receive(), (0x82, b"to one".to_vec()));
}

#[test]
fn packets_reach_everybody_else_in_the_room() {
    let address = serve(None);
    exchange(&|room| Client::join(plain(address), room));
}

#[test]
fn packets_reach_everybody_else_over_tls() {
    let (certificate, key) = certificate::self_signed().unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = Arc::new(
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth(),
    );
    let address = serve(Some(Arc::new(server)));
    exchange(&|room| {
        let name = ServerName::try_from("localhost").unwrap();
        let session = rustls::ClientConnection::new(Arc::clone(&client), name).unwrap();
        Client::join(Box::new(rustls::StreamOwned::new(session, plain(address))), room)
    });
}

#[test]
fn a_recipient_that_reads_nothing_costs_only_itself_and_gets_whole_packets_later() {
    // Far more than sockets and a backlog hold.
    const COUNT: usize = 400;
    let address = serve(None);
    let join = || Client::join(plain(address), "a");
    let (mut sender, mut stuck, mut reader) = (join(), join(), join());
    reader.send(0x89, b"");
    reader.receive();
    for number in 0..COUNT {
        sender.send(0x82, &vec![number as u8; 100_000]);
        assert!(reader.receive() == (0x82, vec![number as u8; 100_000]), "packet {number} came as another");
    }
    // A pong comes behind all that was kept for it; those that found no room are not answered.
    let mut got = 0;
    loop {
        stuck.send(0x89, b"");
        let (first, payload) = stuck.receive();
        if first == 0x8a {
            break;
        }
        assert!(payload == vec![got as u8; 100_000], "what is dropped is the newest, and whole packets");
        got += 1;
    }
    assert!((80..COUNT).contains(&got), "{got} of {COUNT} packets were kept");
}
