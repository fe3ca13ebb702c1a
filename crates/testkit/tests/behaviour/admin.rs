//! What an operator sees.

use std::sync::Arc;
use std::time::Duration;

use roomcast_bus::{BusState, local::Hub};
use roomcast_supervision::ActorState;
use roomcast_testkit::{Member, NodeBox, SOON, Via, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn every_figure_is_there_from_the_start_and_counts_what_happens() {
    let node = NodeBox::start().await;
    let mut ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
    let mut bob = Member::join(&node, Via::WebTransport, "bob", "a").await;
    ann.say("one").await;
    bob.hear_packet().await;
    bob.say("two").await;
    ann.hear_packet().await;
    let (status, metrics) = node.admin("GET", "/metrics").await;
    assert_eq!(status, 200);
    for name in [
        "roomcast_connections{transport=\"websocket\"} 1",
        "roomcast_connections{transport=\"webtransport\"} 1",
        "roomcast_rooms 1",
        "roomcast_members 2",
        "roomcast_packets_in_total{transport=\"websocket\",class=\"control\"} 1",
        "roomcast_packets_in_total{transport=\"webtransport\",class=\"control\"} 1",
        "roomcast_bytes_in_total",
        "roomcast_bytes_out_total",
        "roomcast_drops_total{reason=\"queue_packets\"} 0",
        "roomcast_egress_queue_packets_bucket",
        "roomcast_delivery_delay_seconds_bucket",
        "roomcast_mailbox_depth",
        "roomcast_bus_state{state=\"up\"} 1",
        "roomcast_bus_publishes_total 2",
        "roomcast_nodes 1",
        "roomcast_config_generation 1",
        "roomcast_config_rejections_total 0",
        "roomcast_build_info{version=",
    ] {
        assert!(metrics.contains(name), "{name} is not in\n{metrics}");
    }
    // Written to the socket just before it was heard, counted just after.
    eventually("both copies are counted", SOON, async || node.metric("roomcast_packets_out_total", &[]).await == 2.0)
        .await;
    for secret in ["ann", "bob", "lobby"] {
        assert!(!metrics.contains(secret), "a label names {secret}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tree_is_shown_with_what_an_operator_needs() {
    let node = NodeBox::start().await;
    let _ann = Member::join(&node, Via::WebSocket, "ann", "a b").await;
    // In the room since its handshake; its actor is up a moment later.
    let tree = node.node().tree();
    eventually("ann's connection is up", SOON, async || {
        tree.snapshot().iter().any(|entry| entry.path.as_str().starts_with("connections/"))
            && tree.snapshot().iter().all(|entry| entry.state == ActorState::Running && entry.depth == 0)
    })
    .await;
    let (status, body) = node.admin("GET", "/tree").await;
    assert_eq!(status, 200);
    let tree: Vec<serde_json::Value> = serde_json::from_str(&body).unwrap();
    let paths: Vec<&str> = tree.iter().map(|actor| actor["path"].as_str().unwrap()).collect();
    for path in [
        "telemetry",
        "config",
        "bus/link",
        "rooms/a%20b/room",
        "rooms/a%20b/subscription",
        "admin",
        "listeners/websocket",
    ] {
        assert!(paths.contains(&path), "{path} is not in {paths:?}");
    }
    for actor in &tree {
        assert_eq!(actor["state"], "running", "{actor}");
        assert_eq!(actor["restarts"], 0, "{actor}");
        assert_eq!(actor["mailbox_depth"], 0, "{actor}");
        assert!(["worker", "supervisor"].contains(&actor["kind"].as_str().unwrap()), "{actor}");
        assert!(actor["since"].as_str().unwrap().ends_with('Z'), "{actor}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_ready_once_its_bus_was_reached_and_stays_so_when_it_is_lost() {
    let hub = Hub::new();
    hub.set_state(BusState::Connecting);
    let node = NodeBox::start_on(&[], Some(Arc::new(hub.join()))).await;
    assert_eq!(node.admin("GET", "/healthz").await.0, 200);
    assert_eq!(node.admin("GET", "/readyz").await.0, 503);
    hub.set_state(BusState::Up);
    eventually("ready", SOON, async || node.admin("GET", "/readyz").await.0 == 200).await;
    hub.set_state(BusState::Down);
    eventually("degraded", SOON, async || node.admin("GET", "/readyz").await.1.contains("degraded")).await;
    assert_eq!(node.admin("GET", "/readyz").await.0, 200);
    let mut ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
    let mut bob = Member::join(&node, Via::WebSocket, "bob", "a").await;
    ann.say("we hear each other all the same").await;
    assert_eq!(bob.hear_content().await, "we hear each other all the same");
    assert_eq!(node.metric("roomcast_drops_total", &["reason=\"bus_down\""]).await, 1.0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_in_one_process_share_a_room_over_the_bus_and_nothing_else() {
    let hub = Hub::new();
    let one = NodeBox::start_on(&["node.name=one"], Some(Arc::new(hub.join()))).await;
    let two = NodeBox::start_on(&["node.name=two"], Some(Arc::new(hub.join()))).await;
    let mut ann = Member::join(&one, Via::WebSocket, "ann", "shared").await;
    let mut bob = Member::join(&two, Via::WebTransport, "bob", "shared").await;
    let mut cat = Member::join(&two, Via::WebSocket, "cat", "other").await;
    // A subscription is live a moment after the join; until then the bus has nobody to deliver to.
    let deadline = tokio::time::Instant::now() + SOON;
    while bob.heard_by_now().is_empty() {
        assert!(tokio::time::Instant::now() < deadline, "bob never hears ann");
        ann.say("hello").await;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    bob.say("and back").await;
    assert_eq!(ann.hear_content().await, "and back");
    assert_eq!(ann.heard_by_now(), [], "no echo of her own");
    assert_eq!(cat.heard_by_now(), []);
    assert_eq!(one.metric("roomcast_connections", &[]).await, 1.0);
    assert_eq!(two.metric("roomcast_connections", &[]).await, 2.0);
    one.stop().await;
    cat.say("the other node goes on").await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_held_open_shut_nobody_out() {
    let node = NodeBox::start().await;
    let address = node.node().addresses().admin.unwrap();
    let mut held = Vec::new();
    for number in 0..200 {
        let mut socket = TcpStream::connect(address).await.unwrap();
        if number % 2 == 0 {
            // One that was closed meanwhile to make room refuses it.
            let _ = socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: ").await;
        }
        held.push(socket);
    }
    // Less than any of them is given for its headers.
    let answer = timeout(Duration::from_secs(3), node.admin("GET", "/healthz")).await.expect("it is not kept waiting");
    assert_eq!(answer, (200, "ok\n".to_owned()));
    drop(held);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_asks_nothing_more_is_closed_soon() {
    let node = NodeBox::start().await;
    let mut socket = TcpStream::connect(node.node().addresses().admin.unwrap()).await.unwrap();
    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(2 * SOON, socket.read_to_string(&mut answer)).await.expect("it is closed").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
    node.stop().await;
}
