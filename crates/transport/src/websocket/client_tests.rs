//! The client's side of the handshake against servers that answer wrongly, and the masking writer against the reader.

use proptest::prelude::*;
use roomcast_protocol::PacketBuffer;
use tokio::io::AsyncReadExt;

use super::super::frame::Header;
use super::*;
use crate::{Incoming as Read, PacketReader};

/// Plays a server that reads the request and answers with `answer`, in which `{accept}` is the right accept key.
async fn asked(answer: &'static str) -> (String, Result<Bytes, ConnectError>) {
    let (client, mut server) = tokio::io::duplex(8192);
    let serving = tokio::spawn(async move {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert!(server.read_buf(&mut request).await.unwrap() > 0);
        }
        let request = String::from_utf8(request).unwrap();
        let key = request.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
        let mut like = Request::new(());
        like.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        like.headers_mut().insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_str(key).unwrap());
        let (right, _) = fastwebsockets::upgrade::upgrade(&mut like).unwrap();
        let accept = right.headers()[header::SEC_WEBSOCKET_ACCEPT].to_str().unwrap();
        server.write_all(answer.replace("{accept}", accept).as_bytes()).await.unwrap();
        request
    });
    let url = Url::parse("ws://router.test:8080/lobby/al%20ice/standup?token=a.b#part").unwrap();
    let result = ask(client, &url, HeaderMap::new()).await.map(|(_, ahead)| ahead);
    (serving.await.unwrap(), result)
}

const RIGHT: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: {accept}\r\n\r\nfirst frames";

#[tokio::test]
async fn an_upgrade_is_asked_for_properly_and_what_followed_it_is_kept() {
    let (request, result) = asked(RIGHT).await;
    assert_eq!(&result.unwrap()[..], b"first frames");
    assert!(request.starts_with("GET /lobby/al%20ice/standup?token=a.b HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("host: router.test:8080\r\n"), "{request}");
    assert!(request.contains("sec-websocket-version: 13\r\n"), "{request}");
}

#[tokio::test]
async fn a_refusal_is_told_with_its_message() {
    for answer in [
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nnot you.\n",
        "HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\nnot you.\n",
    ] {
        match asked(answer).await.1 {
            Err(ConnectError::Refused { status: 403, message }) => assert_eq!(message, "not you."),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_mean_this_request_is_not_believed() {
    let wrong_key = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let no_key = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let other = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n";
    let extension = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Accept: {accept}\r\n\r\n";
    for answer in [wrong_key, no_key, other, extension, "not http at all\r\n\r\n"] {
        let result = asked(answer).await.1;
        assert!(matches!(result, Err(ConnectError::Protocol(_))), "{answer}: {result:?}");
    }
}

#[tokio::test]
async fn a_server_that_hangs_up_is_a_network_failure() {
    assert!(matches!(asked("").await.1, Err(ConnectError::Network(_))));
}

#[tokio::test]
async fn only_websocket_urls_are_connected_to() {
    let url = Url::parse("http://127.0.0.1:1/").unwrap();
    let result = connect(&url, &ClientTrust::Insecure, Duration::from_secs(1)).await;
    assert!(matches!(result, Err(ConnectError::Url(_))));
}

#[tokio::test]
async fn every_frame_has_a_mask_of_its_own_and_hides_its_payload() {
    let (io, mut wire) = tokio::io::duplex(1 << 20);
    let mut writer = ClientWriter::new(io);
    let packet = Bytes::from(vec![0; 64]);
    writer.send(&vec![packet; 50]).await.unwrap();
    writer.close(CloseCode::Done, "").await;
    let mut bytes = Vec::new();
    wire.read_to_end(&mut bytes).await.unwrap();
    let mut rest = &bytes[..];
    let mut keys = std::collections::HashSet::new();
    for _ in 0..50 {
        let header = Header::parse(rest).unwrap();
        assert_eq!((header.size, header.length), (6, 64));
        keys.insert(rest[2..6].to_vec());
        assert_eq!(rest[6..10], rest[2..6], "zeroes under a mask are the mask");
        rest = &rest[70..];
    }
    assert!(keys.len() > 45, "{} keys for 50 frames", keys.len()); // 32 random bits: a repetition is one in millions
    assert!(writer.send(&[]).await.is_ok() && writer.send(&[Bytes::new()]).await.is_err());
}

#[tokio::test]
async fn a_writer_does_not_keep_what_a_large_packet_needed() {
    let mut writer = ClientWriter::new(tokio::io::sink());
    writer.send(&[Bytes::from(vec![1; 1_000_000])]).await.unwrap();
    assert_eq!(writer.frames.capacity(), 0);
    assert!(writer.ping(&[0; 126]).await.is_err());
}

proptest! {
    #[test]
    fn what_is_masked_is_read_back(
        batches in proptest::collection::vec(proptest::collection::vec(0usize..80_000, 0..6), 0..4),
        pipe in 1usize..50_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (io, wire) = tokio::io::duplex(pipe);
            let mut seed = 0;
            let batches: Vec<Vec<Bytes>> = batches.iter().map(|sizes| sizes.iter().map(|size| {
                seed += 1;
                (0..*size).map(|at| (at * 17 + seed) as u8).collect()
            }).collect()).collect();
            let expected = batches.concat();
            let sending = async {
                let mut writer = ClientWriter::new(io);
                for batch in &batches {
                    writer.send(batch).await.unwrap();
                    writer.ping(b"between").await.unwrap();
                }
                writer.pong(b"").await.unwrap();
                writer.close(CloseCode::Done, "bye").await;
            };
            let reading = async {
                let mut reader = Reader::new(wire, Side::Server, &[], Arc::new(Bounds { max_packet_bytes: 80_000, ..Bounds::default() }));
                let mut buffer = PacketBuffer::new();
                let (mut packets, mut pings) = (Vec::new(), 0);
                loop {
                    match reader.read(&mut buffer).await.unwrap() {
                        Read::Packet => packets.push(Bytes::copy_from_slice(buffer.payload())),
                        Read::Ping(payload) => {
                            assert_eq!(payload, b"between");
                            pings += 1;
                        }
                        Read::Alive => {}
                        Read::Closed(code) => {
                            assert_eq!(code, Some(1000));
                            break (packets, pings);
                        }
                    }
                }
            };
            let ((), (packets, pings)) = tokio::join!(sending, reading);
            assert_eq!(packets, expected);
            assert_eq!(pings, batches.len());
        });
    }
}
