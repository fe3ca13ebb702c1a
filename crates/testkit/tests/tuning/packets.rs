//! `[limits]` on what a connection may send, and what all may hold: they act on what is sent next.

use std::time::Duration;

use bytes::Bytes;
use roomcast_testkit::{Member, SOON, Via, control, eventually};

use crate::bench::{Call, Flood, Tuned};
use crate::raw;

/// A packet of a guest with so many bytes of content.
fn packet(user: &str, length: usize) -> Bytes {
    control(user, &"x".repeat(length))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_packet_size_acts_on_running_connections_and_closes_only_who_exceeds_it() {
    let tuned = Tuned::start(&[("limits.max_packet_bytes", "20_000")]).await;
    let call = Call::begin(&tuned.node).await;
    for via in Via::ALL {
        tuned.set(&[("limits.max_packet_bytes", "20_001")]).await;
        let mut ear = Member::join(&tuned.node, Via::WebSocket, "ear", "large").await;
        let mut speaker = Member::join(&tuned.node, via, "speaker", "large").await;
        let mut modest = Member::join(&tuned.node, via, "modest", "large").await;

        let deadline = tuned.set(&[("limits.max_packet_bytes", "1_000_000")]).await;
        for length in [50_000, 900_000] {
            speaker.send(packet("speaker", length)).await.unwrap();
            assert_eq!(ear.hear_content().await.len(), length, "{via:?}: larger than when it connected");
            assert_eq!(modest.hear_content().await.len(), length);
        }
        deadline.is_kept();

        let deadline = tuned.set(&[("limits.max_packet_bytes", "30_000")]).await;
        // It may be closed before it has sent all of it.
        let _ = speaker.send(packet("speaker", 50_000)).await;
        assert_eq!(speaker.hear_close().await, Some(1009), "{via:?}");
        deadline.is_kept();
        modest.send(packet("modest", 25_000)).await.unwrap();
        assert_eq!(ear.hear_content().await.len(), 25_000, "{via:?}: within the new size nothing changed");
        modest.leave().await;
        ear.leave().await;
    }
    call.end().await;
    tuned.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_rates_act_on_what_a_running_connection_sends_next_and_close_nobody() {
    let wide: [(&str, &str, &str, &str); 2] = [
        ("limits.ingress_packets_per_second", "100000", "20", "rate_packets"),
        ("limits.ingress_bytes_per_second", "1000000000", "20000", "rate_bytes"),
    ];
    for (key, high, low, reason) in wide {
        let tuned = Tuned::start(&[("limits.max_packet_bytes", "20_000"), (key, high)]).await;
        // Below the lowest rate.
        let call = Call::begin_at(Duration::from_millis(100), &tuned.node).await;
        let mut ears = Vec::new();
        let mut floods = Vec::new();
        for (via, room) in [(Via::WebSocket, "flood1"), (Via::WebTransport, "flood2")] {
            ears.push(Member::join(&tuned.node, Via::WebSocket, "ear", room).await);
            let speaker = Member::join(&tuned.node, via, "speaker", room).await;
            // About 800 packets and 800,000 bytes a second.
            floods.push(Flood::begin(speaker, Duration::from_millis(5), || packet("speaker", 1_000)));
        }
        for ear in &mut ears {
            ear.hear_packet().await;
        }
        assert_eq!(tuned.drops(reason).await, 0.0);
        let deadline = tuned.set(&[(key, low)]).await;
        deadline.shows("what is too much is dropped", async || tuned.drops(reason).await > 0.0).await;
        let deadline = tuned.set(&[(key, high)]).await;
        deadline
            .shows("nothing is dropped any more", async || {
                let before = tuned.drops(reason).await;
                let sent: Vec<_> = floods.iter().map(Flood::sent).collect();
                eventually("they go on", SOON, async || {
                    floods.iter().zip(&sent).all(|(flood, sent)| flood.sent() > sent + 20)
                })
                .await;
                tuned.drops(reason).await == before
            })
            .await;
        for (flood, mut ear) in floods.into_iter().zip(ears) {
            let sent = flood.sent();
            flood.end().await.leave().await;
            assert!(sent > 0 && ear.heard_by_now().len() <= sent + 4);
            ear.leave().await;
        }
        call.end().await;
        tuned.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_budget_acts_on_running_queues_and_leaves_those_who_keep_up_alone() {
    let tuned = Tuned::start(&[
        ("limits.max_buffered_bytes", "64_000_000"),
        ("limits.max_packet_bytes", "20_000"),
        ("egress.queue_packets", "1_000_000"),
        ("egress.queue_bytes", "64_000_000"),
        ("egress.slow_client", "\"1h\""),
    ])
    .await;
    let call = Call::begin(&tuned.node).await;
    let stalled = raw::upgrade(&tuned.node, "stalled", "slow").await;
    let speaker = Member::join(&tuned.node, Via::WebSocket, "speaker", "slow").await;
    let flood = Flood::begin(speaker, Duration::from_millis(5), || packet("speaker", 10_000));
    let buffered = async || tuned.node.metric("roomcast_buffered_bytes", &[]).await;
    eventually("the stalled client's queue grows", SOON, async || buffered().await > 500_000.0).await;
    assert_eq!(tuned.drops("budget").await, 0.0);

    // More than what waits now; one queue may have half of it.
    let now = buffered().await;
    let deadline = tuned.set(&[("limits.max_buffered_bytes", &format!("{}", now as usize * 2 + 400_000))]).await;
    deadline.shows("the queue that is full to its share drops", async || tuned.drops("budget").await > 0.0).await;
    let deadline = tuned.set(&[("limits.max_buffered_bytes", "64_000_000")]).await;
    let now = tuned.node.metric("roomcast_buffered_bytes", &[]).await;
    deadline
        .shows("it grows again", async || tuned.node.metric("roomcast_buffered_bytes", &[]).await > now + 100_000.0)
        .await;
    call.end().await;

    // Less than what waits: those who hold much are cut at their next packet.
    let deadline = tuned.set(&[("limits.max_buffered_bytes", "300_000")]).await;
    deadline.shows("it is cut", async || tuned.node.metric("roomcast_buffered_bytes", &[]).await <= 300_000.0).await;
    flood.end().await.leave().await;
    let call = Call::begin(&tuned.node).await;
    call.end().await;
    drop(stalled);
    tuned.node.stop().await;
}
