//! Crash anything, drop nobody: every kind of actor is killed, and made to panic, while a call runs.

use std::sync::Arc;
use std::time::Duration;

use roomcast_supervision::{ActorState, Fault};
use roomcast_testkit::{Call, Heard, Member, NodeBox, ROOM, SOON, Via, eventually};

/// Small enough to be a call, fast enough that a lost moment shows.
const PACE: Duration = Duration::from_millis(5);

/// Injects a fault and waits until whoever it hit is up again.
async fn strike(node: &NodeBox, path: &str, fault: Fault) {
    let tree = node.node().tree();
    let before = tree.find(path).unwrap_or_else(|| panic!("{path} is in the tree")).generation;
    assert_eq!(tree.inject(path, fault), Ok(1), "{path}");
    eventually(&format!("{path} is up again after {fault:?}"), SOON, async || {
        tree.find(path).is_some_and(|entry| entry.generation > before && entry.state == ActorState::Running)
    })
    .await;
}

const ALL_BUT_CONNECTIONS: [&str; 15] = [
    "telemetry",
    "config",
    "bus",
    "bus/link",
    "flushers",
    "flushers/0",
    "rooms",
    "rooms/call",
    "rooms/call/room",
    "rooms/call/subscription",
    "admin",
    "listeners",
    "listeners/certificates",
    "listeners/websocket",
    "listeners/webtransport",
];

/// Faults come faster here than any policy for production allows.
const PATIENT: [&str; 2] = ["supervision.defaults.intensity=1000", "supervision.\"\".intensity=1000"];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_crashes_no_call_notices_and_anybody_can_join() {
    everything_crashes_and_no_call_notices(&[]).await;
}

/// Where the settings allow another strategy, it is as safe: those that are restarted with a neighbour hold nothing.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_crashes_no_call_notices_when_all_neighbours_are_restarted() {
    everything_crashes_and_no_call_notices(&[
        ("bus", "one_for_all"),
        ("flushers", "one_for_all"),
        ("listeners", "one_for_all"),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_crashes_no_call_notices_when_later_neighbours_are_restarted() {
    let everywhere = ["bus", "flushers", "listeners", "rooms/*"].map(|path| (path, "rest_for_one"));
    everything_crashes_and_no_call_notices(&everywhere).await;
}

/// With these strategies, by path; elsewhere one for one.
async fn everything_crashes_and_no_call_notices(strategies: &[(&str, &str)]) {
    let set = |(path, strategy): &(&str, &str)| format!("supervision.\"{path}\".strategy={strategy}");
    let strategies: Vec<String> = strategies.iter().map(set).collect();
    let overrides: Vec<&str> = PATIENT.into_iter().chain(strategies.iter().map(String::as_str)).collect();
    let node = NodeBox::start_with(&overrides).await;
    let call = Call::begin_at(PACE, &node).await;
    for path in ALL_BUT_CONNECTIONS {
        for fault in [Fault::Kill, Fault::Panic] {
            strike(&node, path, fault).await;
            for via in Via::ALL {
                let mut late = Member::join(&node, via, "late", "other").await;
                let mut later = Member::join(&node, Via::WebSocket, "later", "other").await;
                late.say("still here").await;
                assert_eq!(later.hear_content().await, "still here", "after {fault:?} of {path}");
                late.leave().await;
                later.leave().await;
            }
        }
    }
    call.end().await;
    assert!(node.metric("roomcast_actor_crashes_total", &[]).await >= 26.0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_while_their_room_crashes() {
    let node = NodeBox::start_with(&PATIENT).await;
    let call = Call::begin_at(PACE, &node).await;
    let tree = node.node().tree();
    for round in 0..40 {
        let path = ["rooms/call/room", "rooms/call", "rooms"][round % 3];
        // May hit nobody: the last blow is still being recovered from.
        let _ = tree.inject(path, Fault::Kill);
        let mut guest = Member::join(&node, Via::ALL[round % 2], "guest", ROOM).await;
        assert!(matches!(guest.hear().await, Heard::Packet(_)), "a guest that is in hears the call");
        guest.leave().await;
    }
    let store = Arc::clone(node.node().store());
    let room = roomcast_protocol::RoomId::parse(ROOM).unwrap();
    eventually("the guests are out of the table", SOON, async || {
        store.rooms.get(&room).is_some_and(|cell| cell.table().len() == 4)
    })
    .await;
    // The call's members do not count what the guests did not send: nothing.
    call.end().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_connection_is_told_1011_and_nobody_else_notices() {
    for via in Via::ALL {
        for fault in [Fault::Kill, Fault::Panic] {
            let node = NodeBox::start().await;
            let mut first = Member::join(&node, via, "first", "a").await;
            // In the room since its handshake; its actor is up a moment later.
            let session = || {
                let entries = node.node().tree().snapshot().into_iter();
                let mut running = entries.filter(|entry| entry.state == ActorState::Running);
                running.find(|entry| entry.path.as_str().starts_with("connections/"))
            };
            eventually("its connection is up", SOON, async || session().is_some()).await;
            let session = session().unwrap().path.as_str().to_owned();
            let call = Call::begin_at(PACE, &node).await;
            assert_eq!(node.node().tree().inject(&session, fault), Ok(1));
            assert_eq!(first.hear_close().await, Some(1011), "{via:?} {fault:?}");
            eventually("it left", SOON, async || node.node().store().rooms.count() == 1).await;
            call.end().await;
            node.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_in_the_middle_of_its_handshake_gets_in_though_the_listener_dies() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let node = NodeBox::start_with(&PATIENT).await;
    let address = node.node().addresses().websocket.unwrap();
    for fault in [Fault::Kill, Fault::Panic] {
        let mut halfway = tokio::net::TcpStream::connect(address).await.unwrap();
        halfway.write_all(b"GET /lobby/ann/a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n").await.unwrap();
        strike(&node, "listeners/websocket", fault).await;
        let mut waiting = tokio::net::TcpStream::connect(address).await.unwrap();
        strike(&node, "listeners", fault).await;
        let rest =
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        halfway.write_all(rest).await.unwrap();
        waiting.write_all(b"GET /lobby/bob/a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n").await.unwrap();
        waiting.write_all(rest).await.unwrap();
        for socket in [&mut halfway, &mut waiting] {
            let mut answer = [0; 12];
            tokio::time::timeout(SOON, socket.read_exact(&mut answer)).await.unwrap().unwrap();
            assert_eq!(&answer, b"HTTP/1.1 101");
        }
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_whose_supervisor_gives_up_is_over_and_the_node_goes_on() {
    let node = NodeBox::start_with(&["supervision.\"rooms/*\".intensity=0"]).await;
    let mut ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
    let mut bob = Member::join(&node, Via::WebTransport, "bob", "b").await;
    let mut cat = Member::join(&node, Via::WebSocket, "cat", "b").await;
    assert_eq!(node.node().tree().inject("rooms/a/room", Fault::Panic), Ok(1));
    assert_eq!(ann.hear_close().await, Some(1011));
    cat.say("unharmed").await;
    assert_eq!(bob.hear_content().await, "unharmed");
    let mut again = Member::join(&node, Via::WebSocket, "ann", "a").await;
    let mut dan = Member::join(&node, Via::WebTransport, "dan", "a").await;
    again.say("anew").await;
    assert_eq!(dan.hear_content().await, "anew");
    assert!(node.metric("roomcast_escalations_total", &[]).await >= 1.0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn actors_are_killed_by_path_through_the_admin_port_and_only_with_the_token() {
    let node = NodeBox::start_with(&PATIENT).await;
    let call = Call::begin_at(PACE, &node).await;
    let tree = node.node().tree();
    for (path, fault) in
        [("rooms/call/room", "kill"), ("rooms/*/subscription", "panic"), ("listeners/websocket", "stall")]
    {
        let before = tree.snapshot().iter().map(|entry| entry.restarts).sum::<u64>();
        let (status, body) = node.admin("POST", &format!("/actors/{path}/kill?fault={fault}&for=1ms")).await;
        assert!(status == 200 && body.starts_with("{\"hit\":1,"), "{path}: {body}");
        if fault != "stall" {
            eventually("it was restarted", SOON, async || {
                tree.snapshot().iter().map(|entry| entry.restarts).sum::<u64>() > before
            })
            .await;
        }
    }
    assert_eq!(node.admin_as("POST", "/actors/rooms/kill", "").await.0, 401);
    assert_eq!(node.admin_as("POST", "/actors/rooms/kill", "wrong").await.0, 401);
    assert_eq!(node.admin("POST", "/actors/nowhere/kill").await.0, 404);
    assert_eq!(node.admin("POST", "/actors/rooms/kill?fault=hug").await.0, 400);
    assert_eq!(node.admin("POST", "/actors/rooms").await.0, 404);
    call.end().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_stops_though_a_supervisor_does_not_and_its_clients_are_told() {
    for stalled in ["listeners", "connections"] {
        let node = NodeBox::start().await;
        let mut ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
        let mut bob = Member::join(&node, Via::WebTransport, "bob", "a").await;
        assert_eq!(node.node().tree().inject(stalled, Fault::Stall(Duration::from_secs(120))), Ok(1));
        let began = tokio::time::Instant::now();
        let told = async { (ann.hear_until_close().await, bob.hear_until_close().await) };
        let ((), codes) = tokio::join!(node.stop(), told);
        assert_eq!(codes, (Some(1001), Some(1001)), "{stalled}");
        assert!(began.elapsed() < Duration::from_secs(60), "{stalled}");
    }
}
