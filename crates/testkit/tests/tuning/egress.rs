//! `[egress]`: the bounds of running queues, and how long their packets wait for each other.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use roomcast_protocol::seed::PacketWrapper;
use roomcast_protocol::seed::packet_wrapper::PacketType;
use roomcast_testkit::{Member, NodeBox, SOON, Via, control, eventually};
use tokio::net::TcpStream;

use crate::bench::{Call, Deadline, Flood, Setting, Tuned};
use crate::raw;

/// Media that nobody can read, large enough not to be taken for audio: it may be late, unlike control.
fn media(user: &str, length: usize) -> Bytes {
    let packet = PacketWrapper {
        packet_type: PacketType::Media.into(),
        email: user.to_owned(),
        data: vec![0xff; length],
        ..PacketWrapper::default()
    };
    packet.encode_to_vec().into()
}

/// A client that reads nothing, and somebody whose packets pile up for it.
struct Pile {
    stalled: TcpStream,
    flood: Flood,
}

impl Pile {
    async fn begin(node: &NodeBox, packet: impl Fn() -> Bytes + Send + 'static) -> Self {
        let stalled = raw::upgrade(node, "stalled", "slow").await;
        let speaker = Member::join(node, Via::WebTransport, "speaker", "slow").await;
        Self { stalled, flood: Flood::begin(speaker, Duration::from_millis(5), packet) }
    }

    async fn is_at_least(&self, node: &NodeBox, bytes: f64) {
        eventually("packets pile up", SOON, async || node.metric("roomcast_buffered_bytes", &[]).await > bytes).await;
    }

    async fn end(self) {
        self.flood.end().await.leave().await;
        drop(self.stalled);
    }
}

/// Far more of everything than piles up in a test.
const ROOMY: [Setting<'static>; 4] = [
    ("egress.queue_packets", "1_000_000"),
    ("egress.queue_bytes", "500_000_000"),
    ("egress.max_delay", "\"1h\""),
    ("egress.slow_client", "\"1h\""),
];

/// Makes a packet to pile up.
type Make = fn() -> Bytes;

#[tokio::test(flavor = "multi_thread")]
async fn lowered_bounds_cut_running_queues_at_once_and_nobody_is_closed_for_it() {
    let cases: [(&str, &str, &str, Make); 3] = [
        ("egress.queue_packets", "200", "queue_packets", || control("speaker", &"x".repeat(2_000))),
        ("egress.queue_bytes", "300_000", "queue_bytes", || control("speaker", &"x".repeat(2_000))),
        ("egress.max_delay", "\"100ms\"", "late", || media("speaker", 2_000)),
    ];
    for (key, low, reason, packet) in cases {
        let mut settings = ROOMY.to_vec();
        settings.push(("limits.max_packet_bytes", "100_000"));
        let tuned = Tuned::start(&settings).await;
        let call = Call::begin(&tuned.node).await;
        let pile = Pile::begin(&tuned.node, packet).await;
        // More than 400 packets, and for longer than 100 ms.
        pile.is_at_least(&tuned.node, 850_000.0).await;
        assert_eq!(tuned.drops(reason).await, 0.0);
        let deadline = tuned.set(&[(key, low)]).await;
        deadline
            .shows("it is cut", async || {
                tuned.drops(reason).await > 0.0 && tuned.node.metric("roomcast_buffered_bytes", &[]).await < 500_000.0
            })
            .await;
        let (_, high) = ROOMY.iter().find(|(roomy, _)| *roomy == key).unwrap();
        let deadline = tuned.set(&[(key, high)]).await;
        deadline
            .shows("raised, it drops no more", async || {
                let (dropped, sent) = (tuned.drops(reason).await, pile.flood.sent());
                eventually("more is sent", SOON, async || pile.flood.sent() > sent + 50).await;
                tuned.drops(reason).await == dropped
            })
            .await;
        assert_eq!(tuned.connections(), 6, "{key}: nobody was closed");
        pile.end().await;
        call.end().await;
        tuned.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_patience_with_slow_clients_acts_on_one_that_is_slow_already() {
    let mut settings = ROOMY.to_vec();
    settings.push(("egress.queue_packets", "200"));
    let tuned = Tuned::start(&settings).await;
    let call = Call::begin(&tuned.node).await;
    let pile = Pile::begin(&tuned.node, || control("speaker", &"x".repeat(5_000))).await;
    eventually("its queue is full", SOON, async || tuned.drops("queue_packets").await > 0.0).await;
    assert_eq!(tuned.drops("closed").await, 0.0);
    let patience = Duration::from_millis(200);
    let deadline = tuned.set(&[("egress.slow_client", "\"200ms\"")]).await;
    deadline.and(patience).shows("it is given up on", async || tuned.drops("closed").await > 0.0).await;
    eventually("it is out", SOON, async || tuned.connections() == 5).await;
    assert_eq!(tuned.node.metric("roomcast_closes_total", &["code=\"1008\""]).await, 1.0);
    pile.end().await;
    call.end().await;
    tuned.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_coalescing_time_acts_on_running_writers() {
    let tuned = Tuned::start(&[("egress.coalesce", "\"0s\"")]).await;
    let call = Call::begin(&tuned.node).await;
    // In the call, 150 packets a second come for each member.
    let packets_per_batch = async |node: &NodeBox| {
        let count = async || {
            (
                node.metric("roomcast_packets_out_total", &[]).await,
                node.metric("roomcast_egress_queue_packets_count", &[]).await,
            )
        };
        let (packets, batches) = count().await;
        let mut now = (packets, batches);
        Deadline::soon()
            .shows("packets are written", async || {
                now = count().await;
                now.0 > packets + 60.0
            })
            .await;
        (now.0 - packets) / (now.1 - batches).max(1.0)
    };
    let alone = async |node: &NodeBox| packets_per_batch(node).await < 4.0;
    let together = async |node: &NodeBox| packets_per_batch(node).await > 6.0;
    eventually("packets go out alone", SOON, async || alone(&tuned.node).await).await;
    let deadline = tuned.set(&[("egress.coalesce", "\"100ms\"")]).await;
    deadline.shows("packets go out together", async || together(&tuned.node).await).await;
    let deadline = tuned.set(&[("egress.coalesce", "\"0s\"")]).await;
    deadline.shows("packets go out alone again", async || alone(&tuned.node).await).await;
    call.end().await;
    tuned.node.stop().await;
}
