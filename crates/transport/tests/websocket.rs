//! WebSockets over real sockets: what hostile clients write by hand, and what the project's own client does.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use roomcast_protocol::{Class, CloseCode, MAX_PACKET_BYTES, Packet, PacketBuffer, SessionId, Tag};
use roomcast_transport::tls::{Certificate, ClientTrust, ServerIdentity};
use roomcast_transport::websocket::{
    self, ClientReader, ClientWriter, ConnectError, HandshakeError, Options, Reader, Stream, Writer,
};
use roomcast_transport::{Incoming, PacketReader, PacketWriter, ReadError, Refusal, RequestHead};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// Long enough for any step on a busy machine; a test that reaches it has failed.
const PATIENCE: Duration = Duration::from_secs(20);

const UPGRADE: &str = "GET /lobby/alice/standup HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

type Accepted = Result<(String, Reader, Writer), HandshakeError>;

/// Fails the test instead of hanging.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("done in time")
}

fn decide(head: RequestHead<'_>) -> Result<String, Refusal> {
    match head.target {
        "/lobby?token=old" => Err(Refusal { status: 401, message: "token has expired".into() }),
        target => Ok(target.to_owned()),
    }
}

/// Accepts one connection.
async fn listen(tls: Option<TlsAcceptor>) -> (SocketAddr, JoinHandle<Accepted>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let (socket, remote) = listener.accept().await.unwrap();
        match tls {
            Some(tls) => websocket::accept_tls(socket, &tls, remote, &Options::default(), decide).await,
            None => websocket::accept(Stream::Plain(socket), remote, &Options::default(), decide).await,
        }
    });
    (address, accepting)
}

/// A client that writes bytes by hand, upgraded, and the server's halves.
async fn by_hand() -> (TcpStream, Reader, Writer) {
    let (address, accepting) = listen(None).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(UPGRADE.as_bytes()).await.unwrap();
    let (_, reader, writer) = soon(accepting).await.unwrap().unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        assert!(soon(client.read_buf(&mut answer)).await.unwrap() > 0);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    (client, reader, writer)
}

/// A frame masked with zeroes.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=65_535 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

fn packet(payload: &[u8]) -> Packet {
    let mut buffer = PacketBuffer::new();
    buffer.extend(payload);
    buffer.seal(Tag { sender: SessionId(1), class: Class::Control, flow: 0 }, None)
}

/// What a client that wrote `bytes` makes the reader say first.
async fn verdict(bytes: &[u8]) -> Result<Incoming, ReadError> {
    let (mut client, mut reader, _writer) = by_hand().await;
    client.write_all(bytes).await.unwrap();
    soon(reader.read(&mut PacketBuffer::new())).await
}

async fn assert_protocol_error(bytes: &[u8]) {
    let verdict = verdict(bytes).await;
    assert!(matches!(verdict, Err(ReadError::Protocol(_))), "{verdict:?}");
}

#[tokio::test]
async fn fragments_with_a_ping_between_them_make_one_packet() {
    let (mut client, mut reader, mut writer) = by_hand().await;
    let mut buffer = PacketBuffer::new();
    let bytes = [frame(0x02, b"one "), frame(0x00, b"two "), frame(0x89, b"?"), frame(0x80, b"three")].concat();
    client.write_all(&bytes).await.unwrap();
    assert_eq!(soon(reader.read(&mut buffer)).await.unwrap(), Incoming::Ping(b"?".to_vec()));
    writer.pong(b"?").await.unwrap();
    assert_eq!(soon(reader.read(&mut buffer)).await.unwrap(), Incoming::Packet);
    assert_eq!(buffer.payload(), b"one two three");
    let mut pong = [0; 3];
    soon(client.read_exact(&mut pong)).await.unwrap();
    assert_eq!(pong, [0x8a, 1, b'?']);
}

#[tokio::test]
async fn a_frame_sent_together_with_the_request_is_not_lost() {
    let (address, accepting) = listen(None).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client
        .write_all(&[UPGRADE.as_bytes(), &frame(0x82, b"eager"), &frame(0x82, b"split")[..8]].concat())
        .await
        .unwrap();
    let (_, mut reader, _writer) = soon(accepting).await.unwrap().unwrap();
    client.write_all(&frame(0x82, b"split")[8..]).await.unwrap();
    let mut buffer = PacketBuffer::new();
    for expected in [b"eager", b"split"] {
        assert_eq!(soon(reader.read(&mut buffer)).await.unwrap(), Incoming::Packet);
        assert_eq!(buffer.payload(), expected);
    }
}

#[tokio::test]
async fn the_largest_packet_passes_whole_and_in_fragments() {
    let payload: Vec<u8> = (0..MAX_PACKET_BYTES).map(|at| (at * 7) as u8).collect();
    let fragments: Vec<u8> = payload
        .chunks(500_000)
        .enumerate()
        .flat_map(|(index, part)| {
            let last = if index == 7 { 0x80 } else { 0 };
            frame(if index == 0 { 0x02 } else { 0x00 } | last, part)
        })
        .collect();
    for bytes in [frame(0x82, &payload), fragments] {
        let (mut client, mut reader, _writer) = by_hand().await;
        let sending = tokio::spawn(async move { client.write_all(&bytes).await });
        let mut buffer = PacketBuffer::new();
        assert_eq!(soon(reader.read(&mut buffer)).await.unwrap(), Incoming::Packet);
        assert!(buffer.payload() == payload);
        sending.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn one_byte_more_is_refused_and_the_client_can_read_why() {
    let whole = frame(0x82, &vec![0; MAX_PACKET_BYTES + 1]);
    let fragments = [frame(0x02, &vec![0; MAX_PACKET_BYTES]), frame(0x80, &[0])].concat();
    for bytes in [whole, fragments] {
        let (client, mut reader, mut writer) = by_hand().await;
        let (mut read, mut write) = client.into_split();
        // It sends all of it before it reads, as a simple client would.
        let sending = tokio::spawn(async move {
            write.write_all(&bytes).await.unwrap();
            let mut answer = Vec::new();
            read.read_to_end(&mut answer).await.unwrap();
            drop(write);
            answer
        });
        let error = soon(reader.read(&mut PacketBuffer::new())).await.unwrap_err();
        assert!(matches!(error, ReadError::TooLarge(MAX_PACKET_BYTES)), "{error}");
        assert_eq!(error.close_code(), Some(CloseCode::TooLarge));
        writer.close(CloseCode::TooLarge, "too large").await;
        reader.linger().await;
        drop((reader, writer));
        assert_eq!(soon(sending).await.unwrap(), [&[0x88, 11, 0x03, 0xf1][..], b"too large"].concat());
    }
}

#[tokio::test]
async fn text_is_refused() {
    let error = verdict(&frame(0x81, b"hello")).await.unwrap_err();
    assert!(matches!(error, ReadError::Unsupported(_)), "{error}");
    assert_eq!(error.close_code().unwrap().number(), 1003);
}

#[tokio::test]
async fn an_unmasked_frame_is_refused() {
    assert_protocol_error(&[0x82, 1, b'x']).await;
    assert_protocol_error(&[0x89, 0]).await;
}

#[tokio::test]
async fn reserved_opcodes_and_bits_are_refused() {
    assert_protocol_error(&frame(0x83, b"")).await;
    assert_protocol_error(&frame(0x8b, b"")).await;
    assert_protocol_error(&frame(0xc2, b"x")).await;
}

#[tokio::test]
async fn bad_control_frames_are_refused() {
    assert_protocol_error(&frame(0x09, b"fragmented")).await;
    assert_protocol_error(&frame(0x89, &[0; 126])).await;
    assert_protocol_error(&frame(0x88, &[3])).await;
    assert_protocol_error(&frame(0x88, &1005u16.to_be_bytes())).await;
    assert_protocol_error(&frame(0x88, &[0x03, 0xe8, 0xff])).await;
}

#[tokio::test]
async fn messages_out_of_sequence_are_refused() {
    assert_protocol_error(&frame(0x80, b"continues nothing")).await;
    assert_protocol_error(&[frame(0x02, b"begun"), frame(0x82, b"another")].concat()).await;
}

#[tokio::test]
async fn endless_fragments_are_refused() {
    let (client, mut reader, _writer) = by_hand().await;
    let (_read, mut write) = client.into_split();
    let flood = tokio::spawn(async move {
        let mut sent = write.write_all(&frame(0x02, b"")).await;
        while sent.is_ok() {
            sent = write.write_all(&frame(0x00, b"").repeat(100)).await;
        }
    });
    let error = soon(reader.read(&mut PacketBuffer::new())).await.unwrap_err();
    assert!(matches!(error, ReadError::Protocol(_)), "{error}");
    drop((reader, _writer));
    soon(flood).await.unwrap();
}

#[tokio::test]
async fn a_close_frame_gives_its_code_and_ends_the_reading() {
    assert_eq!(verdict(&frame(0x88, &[0x03, 0xe9])).await.unwrap(), Incoming::Closed(Some(1001)));
    assert_eq!(verdict(&frame(0x88, b"")).await.unwrap(), Incoming::Closed(None));
    let (mut client, mut reader, _writer) = by_hand().await;
    client.write_all(&[frame(0x88, b""), frame(0x82, b"late")].concat()).await.unwrap();
    let mut buffer = PacketBuffer::new();
    assert_eq!(soon(reader.read(&mut buffer)).await.unwrap(), Incoming::Closed(None));
    assert!(matches!(soon(reader.read(&mut buffer)).await, Err(ReadError::Gone(_))));
}

#[tokio::test]
async fn a_half_closed_client_is_gone_and_can_still_be_told() {
    for beginning in [&b""[..], &[0x82], &frame(0x82, &[1; 50])[..20]] {
        let (mut client, mut reader, mut writer) = by_hand().await;
        client.write_all(beginning).await.unwrap();
        client.shutdown().await.unwrap();
        let error = soon(reader.read(&mut PacketBuffer::new())).await.unwrap_err();
        assert!(matches!(error, ReadError::Gone(_)), "{error}");
        writer.write(&[packet(b"still there")]).await.unwrap();
        writer.close(CloseCode::Done, "").await;
        let mut answer = Vec::new();
        soon(client.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, [&[0x82, 11][..], b"still there", &[0x88, 2, 0x03, 0xe8]].concat());
    }
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_frame_is_gone() {
    let (mut client, mut reader, _writer) = by_hand().await;
    client.write_all(&frame(0x82, &[1; 50_000])[..20_000]).await.unwrap();
    let reading = tokio::spawn(async move { reader.read(&mut PacketBuffer::new()).await });
    client.set_zero_linger().unwrap();
    drop(client);
    let error = soon(reading).await.unwrap().unwrap_err();
    assert!(matches!(error, ReadError::Gone(_)), "{error}");
}

#[tokio::test]
async fn a_refused_client_reads_its_answer_though_it_sent_more() {
    let (address, accepting) = listen(None).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    let body = vec![b'x'; 700_000];
    client.write_all(b"POST /lobby/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 700000\r\n\r\n").await.unwrap();
    soon(client.write_all(&body)).await.unwrap();
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer)).await.expect("no reset");
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    drop(client);
    let error = soon(accepting).await.unwrap().expect_err("refused");
    assert_eq!(error.reason(), "refused");
}

fn identity() -> (TlsAcceptor, ClientTrust) {
    let identity = ServerIdentity::new(Certificate::self_signed(&[], SystemTime::now()).unwrap()).unwrap();
    let trust = ClientTrust::Hashes(vec![identity.current().sha256()]);
    (TlsAcceptor::from(identity.tls_config()), trust)
}

async fn connect(
    address: SocketAddr,
    tls: bool,
    trust: &ClientTrust,
) -> Result<(ClientReader, ClientWriter), ConnectError> {
    let scheme = if tls { "wss" } else { "ws" };
    let url = format!("{scheme}://{address}/lobby/alice/standup").parse().unwrap();
    websocket::connect(&url, trust, PATIENCE).await
}

/// Everything that two honest ends say to each other.
async fn converse(client: (ClientReader, ClientWriter), server: (Reader, Writer)) {
    let ((mut client_reader, mut client_writer), (mut reader, mut writer)) = (client, server);
    let sizes = [0, 1, 125, 126, 1_200, 65_535, 65_536, 300_000];
    let payloads: Vec<Bytes> = sizes.iter().map(|size| (0..*size).map(|at| (at * 3) as u8).collect()).collect();
    let batch: Vec<Packet> = payloads.iter().map(|payload| packet(payload)).collect();
    let up = tokio::spawn({
        let payloads = payloads.clone();
        async move {
            client_writer.send(&payloads).await.unwrap();
            client_writer.ping(b"you there?").await.unwrap();
            client_writer
        }
    });
    let down = tokio::spawn(async move {
        writer.write(&batch).await.unwrap();
        writer.ping().await.unwrap();
        writer
    });
    let mut buffer = PacketBuffer::new();
    let reading = async {
        let mut buffer = PacketBuffer::new();
        for payload in &payloads {
            assert_eq!(client_reader.read(&mut buffer).await.unwrap(), Incoming::Packet);
            assert!(buffer.payload() == payload);
        }
        assert_eq!(client_reader.read(&mut buffer).await.unwrap(), Incoming::Ping(vec![]));
    };
    let serving = async {
        for payload in &payloads {
            assert_eq!(reader.read(&mut buffer).await.unwrap(), Incoming::Packet);
            assert!(buffer.payload() == payload);
        }
        assert_eq!(reader.read(&mut buffer).await.unwrap(), Incoming::Ping(b"you there?".to_vec()));
    };
    soon(async { tokio::join!(reading, serving) }).await;
    let (mut client_writer, mut writer) = (soon(up).await.unwrap(), soon(down).await.unwrap());
    client_writer.pong(b"").await.unwrap();
    assert_eq!(soon(reader.read(&mut buffer)).await.unwrap(), Incoming::Alive);
    writer.close(CloseCode::Draining, "elsewhere").await;
    assert_eq!(soon(client_reader.read(&mut buffer)).await.unwrap(), Incoming::Closed(Some(1001)));
    client_writer.close(CloseCode::Draining, "").await;
    assert_eq!(soon(reader.read(&mut buffer)).await.unwrap(), Incoming::Closed(Some(1001)));
    drop((client_reader, client_writer));
    soon(reader.linger()).await;
}

#[tokio::test]
async fn client_and_server_converse_over_plain_tcp() {
    let (address, accepting) = listen(None).await;
    let client = soon(connect(address, false, &ClientTrust::SystemRoots)).await.unwrap();
    let (target, reader, writer) = soon(accepting).await.unwrap().unwrap();
    assert_eq!(target, "/lobby/alice/standup");
    converse(client, (reader, writer)).await;
}

#[tokio::test]
async fn client_and_server_converse_over_tls() {
    let (acceptor, trust) = identity();
    let (address, accepting) = listen(Some(acceptor)).await;
    let client = soon(connect(address, true, &trust)).await.unwrap();
    let (_, reader, writer) = soon(accepting).await.unwrap().unwrap();
    converse(client, (reader, writer)).await;
}

#[tokio::test]
async fn an_untrusted_certificate_is_not_talked_to() {
    let (acceptor, _) = identity();
    let (address, accepting) = listen(Some(acceptor)).await;
    let result = soon(connect(address, true, &ClientTrust::Hashes(vec![[0; 32]]))).await;
    assert!(matches!(result, Err(ConnectError::Tls(_))));
    assert!(matches!(soon(accepting).await.unwrap(), Err(HandshakeError::Tls(_))));
}

/// The record layer's first bytes of a hello that offers nothing newer than TLS 1.2: no supported_versions extension.
fn old_hello() -> Vec<u8> {
    let mut body = vec![0x03, 0x03];
    body.extend([7; 32]); // random
    body.push(0); // no session
    body.extend([0, 2, 0xc0, 0x2b]); // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    body.extend([1, 0]); // no compression
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..],  // supported_groups: secp256r1
        &[0, 13, 0, 4, 0, 2, 0x04, 0x03], // signature_algorithms: ecdsa_secp256r1_sha256
    ]
    .concat();
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut hello = vec![1, 0];
    hello.extend((body.len() as u16).to_be_bytes());
    hello.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend((hello.len() as u16).to_be_bytes());
    record.extend(hello);
    record
}

#[tokio::test]
async fn a_client_without_tls_1_3_is_refused() {
    let (acceptor, _) = identity();
    let (address, accepting) = listen(Some(acceptor)).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&old_hello()).await.unwrap();
    let mut answer = Vec::new();
    soon(client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, [21, 3, 3, 0, 2, 2, 70], "a fatal alert: protocol_version");
    let error = soon(accepting).await.unwrap().expect_err("refused");
    assert!(matches!(error, HandshakeError::Tls(_)), "{error}");
}

#[tokio::test]
async fn a_refusal_reaches_the_client_with_its_words_also_over_tls() {
    let (acceptor, trust) = identity();
    for tls in [None, Some(acceptor)] {
        let secure = tls.is_some();
        let (address, accepting) = listen(tls).await;
        let scheme = if secure { "wss" } else { "ws" };
        let url = format!("{scheme}://{address}/lobby?token=old").parse().unwrap();
        match soon(websocket::connect(&url, &trust, PATIENCE)).await {
            Err(ConnectError::Refused { status: 401, message }) => assert_eq!(message, "token has expired"),
            other => panic!("{:?}", other.err()),
        }
        assert!(matches!(soon(accepting).await.unwrap(), Err(HandshakeError::Refused(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_begins_tls_ends_at_the_deadline() {
    let (acceptor, _) = identity();
    let begun = tokio::time::Instant::now();
    let (address, accepting) = listen(Some(acceptor)).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    assert!(matches!(accepting.await.unwrap(), Err(HandshakeError::Timeout)));
    assert_eq!(begun.elapsed().as_secs(), Options::default().handshake.as_secs());
}

#[tokio::test]
async fn nobody_there_is_a_network_failure() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    assert!(matches!(connect(address, false, &ClientTrust::SystemRoots).await, Err(ConnectError::Network(_))));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap(); // the kernel connects; nobody accepts
    let address = listener.local_addr().unwrap();
    assert!(matches!(connect(address, false, &ClientTrust::SystemRoots).await, Err(ConnectError::Timeout)));
}

#[tokio::test]
async fn what_a_connection_keeps_is_small() {
    // Resident per idle connection, with no buffer behind it: the rest of the budget is the task's and the queue's.
    assert!(size_of::<Reader>() <= 256, "{}", size_of::<Reader>());
    assert!(size_of::<Writer>() <= 128, "{}", size_of::<Writer>());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let options = Options::default();
    let accepting = websocket::accept(Stream::Plain(socket), ([127, 0, 0, 1], 1).into(), &options, decide);
    assert!(size_of_val(&accepting) <= 512, "{}", size_of_val(&accepting));
}
