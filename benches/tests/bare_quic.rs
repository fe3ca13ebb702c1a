//! The bare WebTransport broadcaster hands every packet to everybody else in the room, once, and to nobody outside of it.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use roomcast_benches::bare::quic::Broadcaster;
use tokio::time::timeout;
use url::Url;
use web_transport_quinn::{Client, ClientBuilder, Session};

/// How long anything may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);
const PACKETS: u32 = 50;

async fn join(client: &Client, address: std::net::SocketAddr, user: &str, room: &str) -> Session {
    let url = Url::parse(&format!("https://{address}/lobby/{user}/{room}")).unwrap();
    timeout(PATIENCE, client.connect(url)).await.unwrap().unwrap()
}

async fn send(session: &Session, packet: &[u8]) {
    let mut stream = session.open_uni().await.unwrap();
    stream.write_all(packet).await.unwrap();
    stream.finish().unwrap();
}

async fn receive(session: &Session) -> Vec<u8> {
    let receiving = async {
        let mut stream = session.accept_uni().await.unwrap();
        stream.read_to_end(1 << 20).await.unwrap()
    };
    timeout(PATIENCE, receiving).await.unwrap()
}

/// A packet with its number, of a length that depends on it.
fn packet(number: u32) -> Vec<u8> {
    let mut packet = number.to_be_bytes().to_vec();
    packet.resize(4 + number as usize * 400, number as u8);
    packet
}

#[tokio::test]
async fn packets_reach_everybody_else_in_the_room() {
    let broadcaster = Broadcaster::bind(0).unwrap();
    let address = broadcaster.address().unwrap();
    let serving = tokio::spawn(async move { broadcaster.run().await });
    let client = ClientBuilder::new().dangerous().with_no_certificate_verification().unwrap();
    let one = join(&client, address, "one", "a").await;
    let (two, three) = (join(&client, address, "two", "a").await, join(&client, address, "three", "a").await);
    let other = join(&client, address, "four", "b").await;
    let neighbour = join(&client, address, "five", "b").await;
    let sending = async {
        for number in 0..PACKETS {
            send(&one, &packet(number)).await;
        }
    };
    let receiving = |session: Session| async move {
        let mut received = Vec::new();
        for _ in 0..PACKETS {
            received.push(receive(&session).await);
        }
        // Streams finish in any order.
        received.sort_unstable();
        let expected: Vec<Vec<u8>> = (0..PACKETS).map(packet).collect();
        assert!(received == expected, "not the packets that were sent");
    };
    tokio::join!(sending, receiving(two.clone()), receiving(three.clone()));
    send(&two, b"from two").await;
    assert_eq!(receive(&one).await, b"from two", "and none of its own before it");
    send(&neighbour, b"in b").await;
    assert_eq!(receive(&other).await, b"in b", "and nothing of another room before it");
    serving.abort();
}
