//! Order on a path that loses and shuffles.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::CloseCode;
use roomcast_transport::PacketWriter as _;
use roomcast_transport::webtransport::{Options, connect};
use tokio::net::UdpSocket;

use crate::support::{Server, content, packet, sealed, within};

/// A small generator with a seed (xorshift), so that a failure comes again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Forwards one client's datagrams both ways: of a hundred, five are lost and twenty are held back behind the next one.
async fn proxy(server: SocketAddr, seed: u64) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    far.connect(server).await.unwrap();
    let address = near.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut dice = Dice(seed);
        let mut client = None;
        let mut held: [Option<Vec<u8>>; 2] = [None, None];
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            let (way, datagram) = tokio::select! {
                found = near.recv_from(&mut up) => {
                    let Ok((length, from)) = found else { continue };
                    client = Some(from);
                    (0, up[..length].to_vec())
                }
                found = far.recv(&mut down) => {
                    let Ok(length) = found else { continue };
                    (1, down[..length].to_vec())
                }
            };
            let mut out = Vec::new();
            match dice.roll(100) {
                0..5 => {}
                5..25 if held[way].is_none() => held[way] = Some(datagram),
                _ => {
                    out.push(datagram);
                    out.extend(held[way].take());
                }
            }
            for datagram in out {
                // A full socket is one more loss.
                match (way, client) {
                    (0, _) => drop(far.send(&datagram).await),
                    (_, Some(client)) => drop(near.send_to(&datagram, client).await),
                    (_, None) => {}
                }
            }
        }
    });
    (address, task)
}

#[tokio::test]
async fn nothing_is_lost_and_nothing_overtakes_on_a_bad_path() {
    // Patience longer than the deadline of the test: whatever is missing is the order's fault, not the clock's.
    let patient = Options {
        stream_wait: Duration::from_secs(600),
        intake: crate::hostile::lasting(Duration::from_secs(600)),
        ..Options::default()
    };
    let server = Server::start(patient);
    let (address, proxy) = proxy(server.address(), 0x9e37_79b9).await;
    let (url, trust) = (format!("https://{address}/lobby/a/b"), server.trust());
    let connecting = connect(&url, &trust, Duration::from_secs(30));
    let (accepted, connected) = within(async { tokio::join!(server.accept(|_| Ok(())), connecting) }).await;
    let ((), mut reader, mut writer) = accepted.unwrap();
    let (mut client_reader, mut client) = connected.unwrap();

    let packets: Vec<Vec<u8>> = (0..400).map(|seed| content(seed, seed * 37 % 3_000)).collect();
    let up: Vec<Bytes> = packets.iter().cloned().map(Bytes::from).collect();
    let down: Vec<_> = packets.iter().map(|packet| sealed(packet)).collect();
    let sending = async { tokio::join!(client.send(&up), writer.write(&down)) };
    let receiving = async {
        for expected in &packets {
            assert!(packet(&mut reader).await == *expected);
        }
    };
    let receiving_back = async {
        for expected in &packets {
            assert!(packet(&mut client_reader).await == *expected);
        }
    };
    let ((sent, written), (), ()) = within(async { tokio::join!(sending, receiving, receiving_back) }).await;
    sent.unwrap();
    written.unwrap();
    assert_eq!(reader.take_stats().lost_in(), 0);
    proxy.abort();
}

#[tokio::test]
async fn what_was_written_before_a_close_arrives_on_a_bad_path() {
    for seed in 1..=4 {
        let patient = Options {
            stream_wait: Duration::from_secs(600),
            intake: crate::hostile::lasting(Duration::from_secs(600)),
            ..Options::default()
        };
        let server = Server::start(patient);
        let (address, proxy) = proxy(server.address(), 0x9e37_79b9 * seed).await;
        let (url, trust) = (format!("https://{address}/lobby/a/b"), server.trust());
        let connecting = connect(&url, &trust, Duration::from_secs(30));
        let (accepted, connected) = within(async { tokio::join!(server.accept(|_| Ok(())), connecting) }).await;
        let ((), mut reader, mut writer) = accepted.unwrap();
        let (mut client_reader, mut client) = connected.unwrap();

        // The client's last words, then the server's, then its close.
        let last_words = [b"1".as_slice(), b"2", b"done"];
        client.send(&last_words.map(Bytes::from_static)).await.unwrap();
        for expected in last_words {
            assert_eq!(packet(&mut reader).await, expected);
        }
        let packets: Vec<Vec<u8>> = (0..60).map(|seed| content(seed, seed * 37 % 3_000)).collect();
        let down: Vec<_> = packets.iter().map(|packet| sealed(packet)).collect();
        let writing = async {
            writer.write(&down).await.unwrap();
            writer.close(CloseCode::Done, "moved").await;
        };
        let reading = async {
            for (number, expected) in packets.iter().enumerate() {
                assert!(packet(&mut client_reader).await == *expected, "packet {number}, seed {seed}");
            }
            crate::support::closed(&mut client_reader).await
        };
        let ((), code) = within(async { tokio::join!(writing, reading) }).await;
        assert!(code.is_none_or(|code| code == 1000), "{code:?}"); // the close itself may be lost
        proxy.abort();
    }
}
