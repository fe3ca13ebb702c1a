//! Hostile input: the node answers as the protocol says, the room goes on, and memory comes back.

use std::time::Duration;

use roomcast_testkit::{Heard, Member, NodeBox, SOON, Via, control, eventually};
use roomcast_transport::webtransport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::raw::{close_code, connect, frame, request, status, upgrade};

const BINARY: u8 = 0x82;

/// A node with two well-behaved members, who must not notice anything.
struct Room {
    node: NodeBox,
    ann: Member,
    bob: Member,
}

impl Room {
    async fn open(overrides: &[&str]) -> Self {
        let node = NodeBox::start_with(overrides).await;
        let ann = Member::join(&node, Via::WebSocket, "ann", "room").await;
        let bob = Member::join(&node, Via::WebTransport, "bob", "room").await;
        Self { node, ann, bob }
    }

    /// The two still hear each other and nothing else, the intruders are gone, and nothing of them is left.
    async fn goes_on(mut self) {
        eventually("only the two members are left", SOON, async || {
            self.node.metric("roomcast_connections", &[]).await == 2.0
                && self.node.metric("roomcast_members", &[]).await == 2.0
                && self.node.metric("roomcast_buffered_bytes", &[]).await == 0.0
        })
        .await;
        self.ann.say("still here").await;
        assert_eq!(self.bob.hear_content().await, "still here");
        self.bob.say("me too").await;
        assert_eq!(self.ann.hear_content().await, "me too");
        assert_eq!(self.node.metric("roomcast_rooms", &[]).await, 1.0);
        self.node.stop().await;
    }
}

/// Targets that are no way into a room, and the status that says so.
fn wrong_targets() -> Vec<(String, u16)> {
    let long = "a".repeat(10_000);
    let wrong = [
        ("/", 404),
        ("/lobby", 404),
        ("/lobby/ann", 404),
        ("/lobby/ann/room/more", 404),
        ("/elsewhere/ann/room", 404),
        ("/lobby//room", 400),
        ("/lobby/ann/", 400),
        ("/lobby/ann/*", 400),
        ("/lobby/ann/../../etc", 404),
        ("/lobby/*/room", 400),
        ("/lobby/ann/%3E", 400),
        ("/lobby/%3E/room", 400),
        ("/lobby/a%00b/room", 400),
        ("/lobby/ann/ro%00om", 400),
        ("/lobby/ann/ro%1Fom", 400),
        ("/lobby/ann%0A/room", 400),
        ("/lobby/ann/%FF%FE", 400),
        ("/lobby/%C3%28/room", 400),
        ("/lobby/ann/%", 400),
        ("/lobby/ann/%4", 400),
        ("/lobby/ann/%zz", 400),
        ("/lobby/ann/a%2Fb", 400),
    ];
    let mut targets: Vec<(String, u16)> = wrong.map(|(target, status)| (target.to_owned(), status)).into();
    targets.push((format!("/lobby/{long}/room"), 400));
    targets.push((format!("/lobby/ann/{long}"), 400));
    targets
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_paths_and_names_are_answered_on_websocket() {
    let room = Room::open(&[]).await;
    // A URL library would resolve these; by hand they arrive as they are.
    let dots = [("/lobby/ann/..", 400), ("/lobby/../room", 400)].map(|(target, status)| (target.to_owned(), status));
    for (target, expected) in wrong_targets().into_iter().chain(dots) {
        let mut socket = connect(&room.node).await;
        socket.write_all(request(&target).as_bytes()).await.unwrap();
        assert_eq!(status(&mut socket).await, Some(expected), "{target:.60}");
    }
    room.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_paths_and_names_are_answered_on_webtransport() {
    let room = Room::open(&[]).await;
    for (target, expected) in wrong_targets() {
        let url = format!("{}{target}", room.node.base(Via::WebTransport));
        match webtransport::connect(&url, &room.node.trust(), SOON).await {
            Err(webtransport::ConnectError::Refused { status }) => assert_eq!(status, expected, "{target:.60}"),
            Err(error) => panic!("{target:.60}: {error}"),
            Ok(_) => panic!("{target:.60}: let in"),
        }
    }
    room.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_answered_and_closed() {
    let room = Room::open(&[]).await;
    let lobby = "/lobby/ann/room";
    for (text, expected) in [
        (format!("POST {lobby} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"), Some(405)),
        (format!("GET {lobby} HTTP/1.1\r\nHost: x\r\n\r\n"), Some(426)),
        (request(lobby).replace("Version: 13", "Version: 8"), Some(426)),
        (request(lobby).replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), Some(400)),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(), Some(400)),
        ("nonsense\r\n\r\n".to_owned(), Some(400)),
        (format!("GET {lobby} HTTP/1.1\r\n{}\r\n", "X-Pad: y\r\n".repeat(1_000)), Some(431)),
        (format!("GET {lobby} HTTP/1.1\r\nX-Pad: {}\r\n\r\n", "y".repeat(200_000)), Some(431)),
    ] {
        let mut socket = connect(&room.node).await;
        // The node may answer and close before all of it is sent.
        let _ = socket.write_all(text.as_bytes()).await;
        assert_eq!(status(&mut socket).await, expected, "{text:.60}");
    }
    room.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_silent_and_half_closed_handshakes_end() {
    let room = Room::open(&["timers.handshake=300ms"]).await;
    let mut silent = connect(&room.node).await;
    let mut closed = connect(&room.node).await;
    closed.write_all(b"GET /lobby/a").await.unwrap();
    closed.shutdown().await.unwrap();
    let mut trickle = connect(&room.node).await;
    let trickling = async {
        // A byte at a time, for ever: the deadline is for the whole handshake.
        for byte in request("/lobby/eve/room").bytes().cycle() {
            if trickle.write_all(&[byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, trickling).await.expect("the node ends it");
    for socket in [&mut silent, &mut closed] {
        let mut rest = Vec::new();
        let _ = timeout(SOON, socket.read_to_end(&mut rest)).await.expect("the node ends it");
        assert!(!rest.starts_with(b"HTTP/1.1 101"));
    }
    room.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_rules_of_websocket_is_closed_with_the_code_that_says_so() {
    let room = Room::open(&[]).await;
    let packet = control("eve", "x");
    let unmasked = [&[BINARY, packet.len() as u8][..], &packet].concat();
    let mut too_large = vec![BINARY, 0x80 | 127];
    too_large.extend_from_slice(&5_000_000_u64.to_be_bytes());
    too_large.extend_from_slice(&[0; 4 + 1000]);
    let fragments: Vec<u8> = [frame(0x02, &[0; 1_000_000])]
        .into_iter()
        .chain((0..4).map(|_| frame(0x00, &[0; 1_000_000])))
        .flatten()
        .collect();
    let endless: Vec<u8> =
        std::iter::once(frame(0x02, b"")).chain((0..200_000).map(|_| frame(0x00, b""))).flatten().collect();
    for (what, bytes, expected) in [
        ("a text frame", frame(0x81, b"hello"), 1003),
        ("an unmasked frame", unmasked, 1002),
        ("a reserved opcode", frame(0x83, b"x"), 1002),
        ("a reserved bit", frame(0xC2, b"x"), 1002),
        ("a continuation of nothing", frame(0x80, b"x"), 1002),
        ("a fragmented ping", frame(0x09, b"x"), 1002),
        ("a ping that is too long", frame(0x89, &[0; 126]), 1002),
        ("a message within a message", [frame(0x02, b"a"), frame(BINARY, b"b")].concat(), 1002),
        ("a message of 5 MB", too_large, 1009),
        ("5 MB in fragments", fragments, 1009),
        ("endless fragments", endless, 1002),
    ] {
        let mut socket = upgrade(&room.node, "eve", "room").await;
        let (mut read, mut write) = socket.split();
        // Read while writing: the node may close before it was sent all of it.
        let writing = async {
            let _ = write.write_all(&bytes).await;
            std::future::pending::<()>().await;
        };
        let code = tokio::select! {
            () = writing => None,
            code = close_code(&mut read) => code,
        };
        assert_eq!(code, Some(expected), "{what}");
    }
    room.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_half_closed_or_reset_in_mid_frame_is_gone() {
    let room = Room::open(&[]).await;
    let whole = frame(BINARY, &control("eve", &"x".repeat(10_000)));
    let mut half = upgrade(&room.node, "eve", "room").await;
    half.write_all(&whole[..5_000]).await.unwrap();
    half.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(SOON, half.read_to_end(&mut rest)).await.expect("the node lets go of it");

    let mut reset = upgrade(&room.node, "eve", "room").await;
    reset.write_all(&whole[..5_000]).await.unwrap();
    // With unread input or no time to linger, dropping a socket resets it.
    reset.set_zero_linger().unwrap();
    drop(reset);
    room.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_packet_are_dropped_and_counted_and_the_connection_stays() {
    let mut room = Room::open(&[]).await;
    let garbage: [&[u8]; 6] = [
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x0a",
        b"\x0b\x0c",
        b"\x08\x02\x12\x05ann",
        b"\x12\x02\xff\xfe",
        b"GET / HTTP/1.1\r\n",
    ];
    for via in Via::ALL {
        let mut eve = Member::join(&room.node, via, "eve", "room").await;
        for bytes in garbage {
            eve.send(bytes).await.unwrap();
        }
        eve.say("sorry").await;
        assert_eq!(room.ann.hear_content().await, "sorry", "garbage went nowhere");
        assert_eq!(room.bob.hear_content().await, "sorry");
        eve.leave().await;
    }
    let malformed = room.node.metric("roomcast_drops_total", &["reason=\"malformed\""]).await;
    assert_eq!(malformed, 2.0 * garbage.len() as f64);
    room.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_packets_than_a_connection_may_send_are_dropped_and_counted() {
    let mut room = Room::open(&["limits.ingress_packets_per_second=50"]).await;
    let mut eve = Member::join(&room.node, Via::WebSocket, "eve", "room").await;
    for number in 0..500 {
        eve.say(&number.to_string()).await;
    }
    eventually("the rest is counted", SOON, async || {
        room.node.metric("roomcast_drops_total", &["reason=\"rate_packets\""]).await >= 300.0
    })
    .await;
    eve.leave().await;
    // What was let through has all been heard once the queues are empty and eve is out of the table.
    eventually("eve is out", SOON, async || room.node.metric("roomcast_members", &[]).await == 2.0).await;
    room.bob.say("enough").await;
    let mut passed = 0;
    while room.ann.hear_content().await != "enough" {
        passed += 1;
    }
    assert!((1..=200).contains(&passed), "{passed} of 500 passed");
    room.ann.say("quite").await;
    while room.bob.hear_content().await != "quite" {}
    room.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_streams_and_datagrams_cost_only_their_sender() {
    let mut room = Room::open(&[]).await;
    let url = room.node.url(Via::WebTransport, "eve", "room");

    // A stream that never ends and one that is reset: what comes later passes.
    let (_reader, mut eve) = webtransport::connect(&url, &room.node.trust(), SOON).await.unwrap();
    let mut stalled = eve.session().open_uni().await.unwrap();
    stalled.write_all(b"half a pack").await.unwrap();
    let mut reset = eve.session().open_uni().await.unwrap();
    reset.write_all(b"half").await.unwrap();
    reset.reset(7).unwrap();
    eve.session().send_datagram(b"garbage \xff".as_slice().into()).unwrap();
    eve.session().send_datagram(b"ping".as_slice().into()).unwrap();
    eve.send(&[control("eve", "later")]).await.unwrap();
    assert_eq!(room.ann.hear_content().await, "later");
    assert_eq!(room.bob.hear_content().await, "later");
    eventually("the garbage is counted, and the sign of life is not", SOON, async || {
        room.node.metric("roomcast_drops_total", &["reason=\"malformed\""]).await == 1.0
    })
    .await;
    drop((stalled, eve, _reader));

    // A packet that is too large.
    let mut large = Member::join(&room.node, Via::WebTransport, "eve", "room").await;
    let _ = large.send(vec![0; 5_000_000]).await;
    assert_eq!(large.hear_close().await, Some(1009));
    drop(large);

    // 10,000 streams, none finished: flow control stops them, and the memory comes back.
    let (_reader, many) = webtransport::connect(&url, &room.node.trust(), SOON).await.unwrap();
    let mut open = Vec::new();
    while open.len() < 10_000 {
        match timeout(Duration::from_millis(500), many.session().open_uni()).await {
            Ok(Ok(mut stream)) => {
                let _ = stream.write_all(&[1]).await;
                open.push(stream);
            }
            // No more are granted, or the node has had enough of it.
            _ => break,
        }
    }
    assert!((100..10_000).contains(&open.len()), "{} streams were granted", open.len());
    drop((open, many, _reader));
    room.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_sent_message_is_not_held_for_the_sake_of_pongs() {
    let node = NodeBox::start_with(&["timers.ping=200ms", "timers.idle=1s"]).await;
    let whole = frame(BINARY, &control("eve", &"x".repeat(100_000)));
    let mut fragment = whole.clone();
    fragment[0] = 0x02;
    for (what, begun, between) in [
        ("a fragmented message", &fragment[..], frame(0x8A, b"")),
        // Nothing may come within a frame but itself, so this one trickles.
        ("one large frame", &whole[..50_000], vec![0]),
    ] {
        let mut socket = upgrade(&node, "eve", "room").await;
        let (mut read, mut write) = socket.split();
        let living = async {
            write.write_all(begun).await.unwrap();
            while write.write_all(&between).await.is_ok() {
                sleep(Duration::from_millis(100)).await;
            }
            std::future::pending::<Option<u16>>().await
        };
        let code = tokio::select! {
            code = close_code(&mut read) => code,
            never = living => never,
        };
        assert_eq!(code, Some(1008), "{what}");
    }
    assert_eq!(node.metric("roomcast_drops_total", &["reason=\"stalled\""]).await, 2.0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_and_honest_sender_of_one_large_frame_lives() {
    let node = NodeBox::start_with(&["timers.ping=500ms", "timers.idle=1s"]).await;
    let mut ear = Member::join(&node, Via::WebTransport, "ear", "room").await;
    let packet = control("eve", &"x".repeat(1_000_000));
    let mut socket = upgrade(&node, "eve", "room").await;
    // Three times the idle time, and it answers no ping: that its packet gets on is its sign of life.
    for piece in frame(BINARY, &packet).chunks(16_000) {
        socket.write_all(piece).await.unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(ear.hear().await, Heard::Packet(packet));
    assert_eq!(node.metric("roomcast_drops_total", &["reason=\"stalled\""]).await, 0.0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_under_way_take_no_more_memory_than_the_node_may_hold() {
    const LIMIT: f64 = 4_000_000.0;
    let mut room = Room::open(&["limits.max_buffered_bytes=4000000"]).await;
    let half = &frame(BINARY, &vec![0; 3_900_000])[..2_000_000];
    let mut plain = Vec::new();
    for _ in 0..10 {
        plain.push(upgrade(&room.node, "eve", "room").await);
    }
    let url = room.node.url(Via::WebTransport, "eve", "room");
    let mut quic = Vec::new();
    for _ in 0..4 {
        quic.push(webtransport::connect(&url, &room.node.trust(), SOON).await.unwrap());
    }
    let mut sending = tokio::task::JoinSet::new();
    for mut socket in plain {
        let half = half.to_vec();
        sending.spawn(async move {
            // It may be closed before it has sent all of it.
            let _ = socket.write_all(&half).await;
            std::future::pending::<()>().await;
        });
    }
    for (reader, client) in quic {
        sending.spawn(async move {
            let mut stream = client.session().open_uni().await.unwrap();
            let _ = stream.write_all(b"\x40\x54\x00").await;
            let _ = stream.write_all(&vec![0; 2_000_000]).await;
            std::future::pending::<()>().await;
            drop((reader, client));
        });
    }
    let mut most = 0.0_f64;
    eventually("who finds no memory left is told to try again later", SOON, async || {
        let held = room.node.metric("roomcast_buffered_bytes", &[]).await;
        assert!(held <= LIMIT, "{held} bytes are held");
        room.node.metric("roomcast_drops_total", &["reason=\"budget\""]).await >= 3.0
            && room.node.metric("roomcast_closes_total", &["code=\"1013\""]).await >= 3.0
    })
    .await;
    // What is held is held, and the room goes on meanwhile.
    for number in 0..20 {
        room.ann.say(&number.to_string()).await;
        assert_eq!(room.bob.hear_content().await, number.to_string());
        most = most.max(room.node.metric("roomcast_buffered_bytes", &[]).await);
    }
    assert!((1_000_000.0..=LIMIT).contains(&most), "{most} bytes were held");
    sending.abort_all();
    while sending.join_next().await.is_some() {}
    room.goes_on().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_says_try_again_later_on_both_transports() {
    for limit in ["limits.max_connections=2", "limits.max_room_members=2", "limits.max_rooms=1"] {
        let room = Room::open(&[limit]).await;
        let name = if limit.contains("max_rooms") { "another" } else { "room" };
        for via in Via::ALL {
            let mut late = Member::join(&room.node, via, "late", name).await;
            assert_eq!(late.hear().await, Heard::Closed(Some(1013)), "{limit}, {via:?}");
        }
        room.goes_on().await;
    }
}
