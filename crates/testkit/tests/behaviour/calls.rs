//! Real encoded media through a running node: byte for byte, in order, decodable.

use std::time::Duration;

use prost::Message;
use roomcast_client::clip::Clip;
use roomcast_client::media;
use roomcast_client::recording::Recording;
use roomcast_protocol::seed::PacketWrapper;
use roomcast_protocol::{Dialect, UserId};
use roomcast_testkit::history::{Client, History};
use roomcast_testkit::{Heard, Member, NodeBox, SOON, Via, control, eventually, ffmpeg};
use roomcast_transport::webtransport;
use tokio::time::{Instant, sleep_until, timeout};

const VP8: &[u8] = include_bytes!("../../../client/clips/vp8.ivf");
const VP9: &[u8] = include_bytes!("../../../client/clips/vp9.ivf");
const H264: &[u8] = include_bytes!("../../../client/clips/h264-baseline.h264");
const OPUS: &[u8] = include_bytes!("../../../client/clips/opus.ogg");

/// The clips are sent so much faster than they play: a test has no time, and a router no clock for media.
const SPEED: u32 = 4;

/// Sends a clip at its own pace, `SPEED` times as fast, and gives back what was sent.
async fn send_clip(member: &mut Member, file: &[u8]) -> Vec<Vec<u8>> {
    let clip = Clip::parse(file, Clip::ANNEX_B_FRAME_RATE).unwrap();
    let user = UserId::parse(member.user()).unwrap();
    let start = Instant::now();
    let mut sent = Vec::new();
    for (sequence, frame) in (0..).zip(&clip.frames) {
        sleep_until(start + frame.timestamp / SPEED).await;
        let packet = media::wrap(Dialect::Seed, &user, &clip.format, sequence, frame);
        sent.push(packet.to_vec());
        member.send(packet).await.unwrap();
    }
    sent
}

#[tokio::test(flavor = "multi_thread")]
async fn six_clients_in_two_rooms_send_four_codecs_and_everybody_gets_every_byte_in_order() {
    let node = NodeBox::start().await;
    let cast = [
        ("a", Via::WebSocket, "ann", VP8),
        ("a", Via::WebTransport, "bob", VP9),
        ("a", Via::WebSocket, "cat", OPUS),
        ("b", Via::WebTransport, "dan", VP8),
        ("b", Via::WebSocket, "eve", H264),
        ("b", Via::WebTransport, "fay", OPUS),
    ];
    let mut members = Vec::new();
    for (room, via, user, clip) in cast {
        members.push((room, Member::join(&node, via, user, room).await, clip));
    }
    let sending: Vec<_> = members
        .into_iter()
        .map(|(room, mut member, clip)| {
            tokio::spawn(async move {
                let sent = send_clip(&mut member, clip).await;
                (room, member, sent)
            })
        })
        .collect();
    let mut spoken = Vec::new();
    for sender in sending {
        spoken.push(sender.await.unwrap());
    }
    let packets = |room: &str, but: &str| -> usize {
        let others = spoken.iter().filter(|(other, member, _)| *other == room && member.user() != but);
        others.map(|(_, _, sent)| sent.len()).sum()
    };
    let expected: Vec<usize> = spoken.iter().map(|(room, member, _)| packets(room, member.user())).collect();
    let mut history = History::default();
    for ((room, mut member, sent), expected) in spoken.into_iter().zip(expected) {
        assert!(expected > 100, "clips are many frames: {expected}");
        let mut received = Vec::new();
        while received.len() < expected {
            received.push(member.hear_packet().await.to_vec());
        }
        history.clients.insert(member.user().to_owned(), Client { room: room.into(), sent, received });
        assert_eq!(member.heard_by_now(), []);
    }
    history.check();
    assert_eq!(node.metric("roomcast_drops_total", &[]).await, 0.0);

    // What two receivers on different transports made of the VP8 streams is the clip, frame for frame.
    let directory = tempfile::tempdir().unwrap();
    let original = directory.path().join("original.ivf");
    std::fs::write(&original, VP8).unwrap();
    for (receiver, sender) in [("bob", "ann"), ("eve", "dan")] {
        let file = directory.path().join(format!("{receiver}.ivf"));
        let mut recording = Recording::default();
        for packet in &history.clients[receiver].received {
            if PacketWrapper::decode(packet.as_slice()).unwrap().email == sender {
                let frame = media::unwrap(Dialect::Seed, packet).unwrap();
                recording.push(&frame, |_| std::fs::File::create(&file)).unwrap();
            }
        }
        recording.finish().unwrap();
        let frames = ffmpeg::same_frames(&original, &file).await.unwrap();
        assert_eq!(frames, Clip::parse(VP8, Clip::ANNEX_B_FRAME_RATE).unwrap().frames.len());
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn media_passes_over_a_tls_websocket() {
    let node = NodeBox::start_with(&["listen.websocket.tls=self-signed"]).await;
    assert!(node.base(Via::WebSocket).starts_with("wss://"));
    let mut ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
    let mut bob = Member::join(&node, Via::WebSocket, "bob", "a").await;
    let sent = send_clip(&mut ann, OPUS).await;
    for packet in sent {
        assert_eq!(bob.hear_packet().await, packet);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_packet_passes_on_both_transports() {
    let node = NodeBox::start().await;
    for (from, to) in [(Via::WebSocket, Via::WebTransport), (Via::WebTransport, Via::WebSocket)] {
        let mut ann = Member::join(&node, from, "ann", "a").await;
        let mut bob = Member::join(&node, to, "bob", "a").await;
        let frame = |bytes: usize| control("ann", &"x".repeat(bytes));
        let overhead = frame(3_999_000).len() - 3_999_000;
        let packet = frame(4_000_000 - overhead);
        assert_eq!(packet.len(), 4_000_000);
        ann.send(packet.clone()).await.unwrap();
        assert!(bob.hear_packet().await == packet, "{from:?} to {to:?}");
        ann.leave().await;
        bob.leave().await;
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_delays_nobody_and_every_copy_is_delivered_or_counted() {
    // Twelve megabytes: more than the kernel holds for a socket that nobody reads.
    const PACKETS: usize = 600;
    let node = NodeBox::start_with(&["egress.queue_packets=64", "egress.slow_client=10m"]).await;
    let mut ann = Member::join(&node, Via::WebSocket, "ann", "a").await;
    let mut bob = Member::join(&node, Via::WebTransport, "bob", "a").await;
    // Joins and then never reads: the kernel's buffers fill, then its egress queue.
    let deaf = crate::raw::upgrade(&node, "deaf", "a").await;
    let text = "x".repeat(20_000);
    let mut slowest = Duration::ZERO;
    for number in 0..PACKETS {
        let started = Instant::now();
        ann.say(&format!("{number} {text}")).await;
        assert!(bob.hear_content().await.starts_with(&format!("{number} ")));
        slowest = slowest.max(started.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "one packet took {slowest:?}");
    drop(deaf);
    // The copies for the deaf one: written to its socket before it was closed, or dropped by reason; ann's were bob's.
    eventually("every copy is accounted for", Duration::from_secs(10), async || {
        let delivered = node.metric("roomcast_packets_out_total", &[]).await;
        let dropped = node.metric("roomcast_drops_total", &[]).await;
        (delivered + dropped - 2.0 * PACKETS as f64).abs() < 0.5
    })
    .await;
    assert!(node.metric("roomcast_drops_total", &["reason=\"queue_packets\""]).await > 0.0);
    assert!(matches!(ann.heard_by_now()[..], []));
    assert!(!matches!(bob.heard_by_now()[..], [Heard::Closed(_), ..]));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_senders_streams_are_heard_in_the_order_they_were_opened_although_the_first_ends_last() {
    let node = NodeBox::start().await;
    let mut bob = Member::join(&node, Via::WebSocket, "bob", "a").await;
    let mut cat = Member::join(&node, Via::WebTransport, "cat", "a").await;
    let url = node.url(Via::WebTransport, "ann", "a");
    let (_reader, ann) = webtransport::connect(&url, &node.trust(), SOON).await.unwrap();
    let packets = ["first", "second", "third"].map(|content| control("ann", content));
    let mut streams = Vec::new();
    for _ in &packets {
        streams.push(ann.session().open_uni().await.unwrap());
    }
    let (begin, end) = packets[0].split_at(packets[0].len() / 2);
    streams[0].write_all(begin).await.unwrap();
    for later in [2, 1] {
        streams[later].write_all(&packets[later]).await.unwrap();
        streams[later].finish().unwrap();
        // The node has all of it.
        assert_eq!(timeout(SOON, streams[later].stopped()).await.unwrap().unwrap(), None);
    }
    // They wait for the first one, and nobody else does.
    bob.say("meanwhile").await;
    assert_eq!(cat.hear_content().await, "meanwhile");
    assert_eq!(bob.heard_by_now(), []);
    streams[0].write_all(end).await.unwrap();
    streams[0].finish().unwrap();
    for packet in packets {
        assert_eq!(bob.hear_packet().await, packet);
        assert_eq!(cat.hear_packet().await, packet);
    }
    assert_eq!(node.metric("roomcast_drops_total", &[]).await, 0.0);
    node.stop().await;
}
