//! `[timers]`: what already waits on a running connection waits by the new time. (No actor uses `leave_grace` and `drain`
//! yet.)

use std::time::Duration;

use roomcast_protocol::PacketBuffer;
use roomcast_testkit::{Heard, Member, NodeBox, SOON, Via, control, eventually};
use roomcast_transport::{Incoming, PacketReader, webtransport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::bench::{Call, Setting, Tuned};
use crate::raw;

const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const CLOSE: u8 = 0x88;

/// Nothing is asked and nobody is given up on while a test runs.
const QUIET: [Setting<'static>; 2] = [("timers.ping", "\"20m\""), ("timers.idle", "\"1h\"")];

/// The first byte of the next frame, and its payload.
async fn frame(socket: &mut TcpStream) -> (u8, Vec<u8>) {
    let first = socket.read_u8().await.unwrap();
    let length = match socket.read_u8().await.unwrap() {
        126 => usize::from(socket.read_u16().await.unwrap()),
        length => usize::from(length),
    };
    let mut payload = vec![0; length];
    socket.read_exact(&mut payload).await.unwrap();
    (first, payload)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_ping_pace_acts_on_running_connections() {
    let tuned = Tuned::start(&QUIET).await;
    let call = Call::begin(&tuned.node).await;
    let mut plain = raw::upgrade(&tuned.node, "plain", "quiet").await;
    let url = tuned.node.url(Via::WebTransport, "quic", "quiet");
    let (_reader, quic) = webtransport::connect(&url, &tuned.node.trust(), SOON).await.unwrap();
    // What asks a silent QUIC peer for an acknowledgement: see the transport's `ping`.
    let asked = || std::ops::Deref::deref(quic.session()).stats().frame_rx.max_data;
    assert_eq!(asked(), 0);
    let deadline = tuned.set(&[("timers.ping", "\"100ms\"")]).await;
    assert_eq!(timeout(SOON, frame(&mut plain)).await.unwrap(), (PING, Vec::new()));
    deadline.is_kept();
    deadline.shows("the QUIC peer is asked too", async || asked() > 0).await;
    for _ in 0..5 {
        assert_eq!(timeout(SOON, frame(&mut plain)).await.unwrap().0, PING);
    }
    eventually("it is asked again and again", SOON, async || asked() >= 5).await;

    let deadline = tuned.set(&[("timers.ping", "\"20m\"")]).await;
    deadline
        .shows("neither is asked any more", async || {
            let before = asked();
            timeout(Duration::from_millis(300), frame(&mut plain)).await.is_err() && asked() == before
        })
        .await;
    call.end().await;
    tuned.node.stop().await;
}

/// Answers every ping until the connection ends; gives the first byte of what ended it.
async fn answer_pings(mut socket: TcpStream) -> u8 {
    loop {
        match frame(&mut socket).await {
            (PING, payload) => socket.write_all(&raw::frame(PONG, &payload)).await.unwrap(),
            (first, _) => return first,
        }
    }
}

/// A WebTransport client that connects, and then is not there any more: its runtime stands still. Sending ends it.
fn frozen(node: &NodeBox) -> (std::sync::mpsc::Sender<()>, std::thread::JoinHandle<()>) {
    let (url, trust) = (node.url(Via::WebTransport, "frozen", "quiet"), node.trust());
    let (thaw, wait) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connected = runtime.block_on(webtransport::connect(&url, &trust, SOON)).unwrap();
        let _ = wait.recv();
        drop(connected);
    });
    (thaw, thread)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_idle_time_ends_who_is_silent_and_nobody_who_answers() {
    let tuned = Tuned::start(&QUIET).await;
    let call = Call::begin(&tuned.node).await;
    let mut mute = raw::upgrade(&tuned.node, "mute", "quiet").await;
    let answering = tokio::spawn(answer_pings(raw::upgrade(&tuned.node, "polite", "quiet").await));
    // It says nothing; QUIC acknowledges for it.
    let mut listener = Member::join(&tuned.node, Via::WebTransport, "listener", "quiet").await;
    let (thaw, frozen) = frozen(&tuned.node);
    eventually("all are in", SOON, async || tuned.connections() == 8).await;

    let idle = Duration::from_millis(1_500);
    let deadline = tuned.set(&[("timers.ping", "\"100ms\""), ("timers.idle", "\"1500ms\"")]).await.and(idle);
    assert_eq!(raw::close_code(&mut mute).await, Some(1008));
    deadline.is_kept();
    // A second more for the goodbye that it does not hear.
    deadline
        .clone()
        .and(Duration::from_secs(1))
        .shows("the frozen one is out", async || tuned.connections() == 6)
        .await;
    drop(thaw);
    frozen.join().unwrap();
    // The others live on for several times the idle time.
    let mut witness = raw::upgrade(&tuned.node, "witness", "quiet").await;
    for _ in 0..40 {
        let (first, payload) = timeout(SOON, frame(&mut witness)).await.unwrap();
        assert_eq!(first, PING);
        witness.write_all(&raw::frame(PONG, &payload)).await.unwrap();
    }
    assert!(!answering.is_finished());
    assert_eq!(listener.heard_by_now(), []);
    witness.write_all(&raw::frame(0x82, &control("witness", "all well"))).await.unwrap();
    assert_eq!(listener.hear_content().await, "all well");
    answering.abort();
    call.end().await;
    tuned.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raised_idle_time_saves_who_is_silent_already() {
    let tuned = Tuned::start(&[("timers.ping", "\"200ms\""), ("timers.idle", "\"2s\"")]).await;
    let call = Call::begin(&tuned.node).await;
    let mut mute = raw::upgrade(&tuned.node, "mute", "quiet").await;
    tuned.set(&[("timers.idle", "\"1h\"")]).await;
    // 3 s of pings that it does not answer.
    for _ in 0..15 {
        assert_eq!(timeout(SOON, frame(&mut mute)).await.unwrap().0, PING);
    }
    let deadline = tuned.set(&[("timers.idle", "\"400ms\"")]).await.and(Duration::from_millis(400));
    let end = timeout(SOON, async {
        loop {
            if let (CLOSE, why) = frame(&mut mute).await {
                break why;
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(end[..2], 1008_u16.to_be_bytes());
    deadline.is_kept();
    call.end().await;
    tuned.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_handshake_time_acts_on_handshakes_that_begin_after() {
    let tuned = Tuned::start(&[("timers.handshake", "\"1h\"")]).await;
    let call = Call::begin(&tuned.node).await;
    let request = raw::request("/lobby/ann/quiet");
    let (half, rest) = request.as_bytes().split_at(40);
    let mut before = raw::connect(&tuned.node).await;
    before.write_all(half).await.unwrap();
    // Who is accepted after it is in: so it was accepted by the old settings.
    Member::join(&tuned.node, Via::WebSocket, "next", "quiet").await.leave().await;
    let time = Duration::from_millis(300);
    let deadline = tuned.set(&[("timers.handshake", "\"300ms\"")]).await.and(time);
    let mut after = raw::connect(&tuned.node).await;
    after.write_all(half).await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(SOON, after.read_to_end(&mut answer)).await.expect("the node ends it");
    deadline.is_kept();
    assert!(!answer.starts_with(b"HTTP/1.1 101"));
    before.write_all(rest).await.unwrap();
    let mut answer = [0; 12];
    timeout(SOON, before.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101", "begun before, it has the time that it began with");
    call.end().await;
    tuned.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_idle_time_is_what_a_packet_under_way_has_too() {
    let tuned = Tuned::start(&QUIET).await;
    let call = Call::begin(&tuned.node).await;
    let mut half = raw::upgrade(&tuned.node, "half", "quiet").await;
    half.write_all(&raw::frame(0x02, &[0; 1_000])).await.unwrap();
    let url = tuned.node.url(Via::WebTransport, "quic", "quiet");
    let (mut reader, mut quic) = webtransport::connect(&url, &tuned.node.trust(), SOON).await.unwrap();
    let mut stream = quic.session().open_uni().await.unwrap();
    stream.write_all(b"half a pack").await.unwrap();
    quic.session().send_datagram(b"no packet".as_slice().into()).unwrap();
    eventually("what came before the datagram is there", SOON, async || tuned.drops("malformed").await == 1.0).await;
    let deadline =
        tuned.set(&[("timers.ping", "\"100ms\""), ("timers.idle", "\"500ms\"")]).await.and(Duration::from_millis(500));
    let (mut read, mut write) = half.split();
    // It is alive, and does not get on with it.
    let living = async {
        while write.write_all(&raw::frame(PONG, b"")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::future::pending::<Option<u16>>().await
    };
    let code = tokio::select! {
        code = raw::close_code(&mut read) => code,
        never = living => never,
    };
    assert_eq!(code, Some(1008));
    deadline.is_kept();
    deadline
        .shows("the stream is given up on as well", async || {
            tuned.node.metric("roomcast_streams_abandoned_total", &["reason=\"overdue\""]).await == 1.0
        })
        .await;
    eventually("both are counted", SOON, async || tuned.drops("stalled").await == 2.0).await;
    let mut ear = Member::join(&tuned.node, Via::WebSocket, "ear", "quiet").await;
    quic.send(&[control("quic", "still")]).await.unwrap();
    assert_eq!(ear.hear().await, Heard::Packet(control("quic", "still")));
    let reading = timeout(Duration::from_millis(1), reader.read(&mut PacketBuffer::new())).await;
    assert!(!matches!(reading, Ok(Ok(Incoming::Closed(_)) | Err(_))), "{reading:?}");
    call.end().await;
    tuned.node.stop().await;
}
