//! Strangers' clients: Python's `websockets` and Chromium, in one room with ours.

use std::time::Duration;

use roomcast_testkit::peers::{BrowserTargets, Peer, Via as PeerVia};
use roomcast_testkit::{Member, NodeBox, Via, control};

/// A browser takes its time to start, on a busy machine above all.
const PATIENCE: Duration = Duration::from_secs(60);
const EACH: u32 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn python_and_chromium_talk_with_our_clients_on_both_transports() {
    let node = NodeBox::start().await;
    let (websocket, webtransport) =
        (node.url(Via::WebSocket, "chrome-ws", "mixed"), node.url(Via::WebTransport, "chrome-wt", "mixed"));
    let hash = node.hash_base64();
    let mut python = Peer::python(&node.url(Via::WebSocket, "python", "mixed"), None).unwrap();
    let targets = BrowserTargets { websocket: Some(&websocket), webtransport: Some((&webtransport, &hash)) };
    let mut browser = Peer::browser(targets).unwrap();
    python.wait_open(PeerVia::WebSocket, PATIENCE).await.unwrap();
    browser.wait_open(PeerVia::WebSocket, PATIENCE).await.unwrap();
    browser.wait_open(PeerVia::WebTransport, PATIENCE).await.unwrap();
    let mut ann = Member::join(&node, Via::WebSocket, "ann", "mixed").await;
    let mut bob = Member::join(&node, Via::WebTransport, "bob", "mixed").await;

    // Ours to theirs.
    ann.say("hello from ann").await;
    let hello = control("ann", "hello from ann");
    assert_eq!(bob.hear_packet().await, hello);
    let heard = |packets: Vec<Vec<u8>>| assert_eq!(packets, std::slice::from_ref(&hello));
    heard(python.wait_packets(PeerVia::WebSocket, 1, PATIENCE).await.unwrap());
    heard(browser.wait_packets(PeerVia::WebSocket, 1, PATIENCE).await.unwrap());
    heard(browser.wait_packets(PeerVia::WebTransport, 1, PATIENCE).await.unwrap());

    // Theirs to ours, and to each other.
    python.send_numbered(PeerVia::WebSocket, "python", EACH, 600).await.unwrap();
    let from_python = hear_numbered(&mut ann, "python").await;
    assert_eq!(hear_numbered(&mut bob, "python").await, from_python);
    let at_browser = browser.wait_packets(PeerVia::WebTransport, EACH as usize, PATIENCE).await.unwrap();
    assert_eq!(at_browser, from_python);
    browser.wait_packets(PeerVia::WebSocket, EACH as usize, PATIENCE).await.unwrap();

    browser.send_numbered(PeerVia::WebTransport, "chrome-wt", EACH, 600).await.unwrap();
    let from_browser = hear_numbered(&mut ann, "chrome-wt").await;
    assert_eq!(hear_numbered(&mut bob, "chrome-wt").await, from_browser);
    assert_eq!(python.wait_packets(PeerVia::WebSocket, EACH as usize, PATIENCE).await.unwrap(), from_browser);
    browser.wait_packets(PeerVia::WebSocket, EACH as usize, PATIENCE).await.unwrap();

    browser.send_numbered(PeerVia::WebSocket, "chrome-ws", EACH, 600).await.unwrap();
    let from_browser = hear_numbered(&mut ann, "chrome-ws").await;
    assert_eq!(hear_numbered(&mut bob, "chrome-ws").await, from_browser);
    assert_eq!(python.wait_packets(PeerVia::WebSocket, EACH as usize, PATIENCE).await.unwrap(), from_browser);

    // And all of them are told when the node stops.
    node.stop().await;
    assert_eq!(python.wait_closed(PeerVia::WebSocket, PATIENCE).await.unwrap(), Some(1001));
    assert_eq!(browser.wait_closed(PeerVia::WebSocket, PATIENCE).await.unwrap(), Some(1001));
    assert_eq!(browser.wait_closed(PeerVia::WebTransport, PATIENCE).await.unwrap(), Some(1001));
}

/// The packets that a peer made, which must come in order.
async fn hear_numbered(member: &mut Member, user: &str) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for _ in 0..EACH {
        packets.push(member.hear_packet().await.to_vec());
    }
    let holds = |packet: &[u8], part: &[u8]| packet.windows(part.len()).any(|window| window == part);
    for (number, packet) in (0_u32..).zip(&packets) {
        assert!(holds(packet, user.as_bytes()), "{user} sent it");
        assert!(holds(packet, &number.to_be_bytes()), "number {number} of {user} comes in its turn");
    }
    packets
}
