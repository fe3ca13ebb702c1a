//! The writer under paused time, over the in-memory connection: when it writes at once, when it waits, how it ends.

use std::time::Duration;

use roomcast_protocol::{Class, PacketBuffer, SessionId, Tag, UserId};
use roomcast_transport::memory::{self, Client, Received};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep};

use super::super::{Sockets, StoreParts};
use super::*;
use crate::config::Settings;

const COALESCE: Duration = Duration::from_millis(5);

struct Bench {
    store: Arc<Store>,
    egress: Arc<Egress>,
    client: Client,
}

/// An egress with its writer running, to a client that holds `capacity` unread messages.
fn bench(capacity: usize) -> Bench {
    let mut settings = Settings::default();
    settings.egress.coalesce = COALESCE;
    settings.listen.admin = None;
    let bus = Arc::new(roomcast_bus::local::Hub::new().join());
    let parts = StoreParts {
        name: "bench".into(),
        settings,
        sessions: Arc::default(),
        bus,
        settled: true,
        sockets: Sockets::default(),
        token: None,
    };
    let store = Store::new(parts).unwrap();
    let egress = Egress::new(
        SessionId(1),
        UserId::parse("ann").unwrap(),
        Transport::WebSocket,
        store.lanes.get(0),
        false,
        &store,
    );
    let (_, writer, client) = memory::pair(capacity);
    let flushing = Arc::clone(&store);
    tokio::spawn(unconstrained(async move { match flushing.lanes.get(0).flush.flush_due(&flushing).await {} }));
    egress.open(writer);
    Bench { store, egress, client }
}

impl Bench {
    fn push(&self, content: &[u8]) {
        let mut buffer = PacketBuffer::new();
        buffer.extend(content);
        let packet = buffer.seal(Tag { sender: SessionId(2), class: Class::Control, flow: 0 }, None);
        self.egress.push(&packet, self.store.clock.now(), &self.store.live());
    }

    /// Packets a millisecond apart, until they are made to wait for each other.
    async fn become_dense(&mut self) {
        for _ in 0..32 {
            self.push(b"dense");
            sleep(Duration::from_millis(1)).await;
        }
        for _ in 0..32 {
            assert_eq!(self.hear_packet().await, b"dense");
        }
        sleep(COALESCE).await;
    }

    async fn hear(&mut self) -> Received {
        self.client.recv().await.unwrap()
    }

    async fn hear_packet(&mut self) -> Vec<u8> {
        loop {
            match self.hear().await {
                Received::Packet(packet) => return packet,
                Received::Ping => {}
                other => panic!("{other:?} instead of a packet"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_quiet_connection_nothing_waits() {
    let mut bench = bench(8);
    for _ in 0..5 {
        sleep(COALESCE * 3).await;
        let pushed = Instant::now();
        bench.push(b"now");
        assert_eq!(bench.hear_packet().await, b"now");
        assert_eq!(pushed.elapsed(), Duration::ZERO);
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_dense_connection_packets_wait_for_each_other_and_not_longer_than_they_may() {
    let mut bench = bench(64);
    bench.become_dense().await;
    let pushed = Instant::now();
    for _ in 0..10 {
        bench.push(b"next");
        tokio::task::yield_now().await;
    }
    for _ in 0..10 {
        assert_eq!(bench.hear_packet().await, b"next");
        let waited = pushed.elapsed();
        assert!(waited > Duration::ZERO && waited <= COALESCE + Duration::from_millis(1), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_full_does_not_wait() {
    let mut bench = bench(2 * FULL_BATCH.packets);
    bench.become_dense().await;
    let pushed = Instant::now();
    for _ in 0..FULL_BATCH.packets {
        bench.push(b"next");
    }
    for _ in 0..FULL_BATCH.packets {
        bench.hear_packet().await;
    }
    assert_eq!(pushed.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_close_comes_after_what_waits_and_the_first_reason_counts() {
    let mut bench = bench(8);
    bench.push(b"last words");
    bench.egress.close(CloseCode::Draining, "bye");
    bench.egress.close(CloseCode::Crashed, "too late");
    bench.push(b"after the end");
    assert_eq!(bench.hear().await, Received::Packet(b"last words".to_vec()));
    assert_eq!(bench.hear().await, Received::Closed { code: 1001, reason: "bye".into() });
    bench.egress.ended().await;
    assert!(bench.store.metrics.render().contains("roomcast_drops_total{reason=\"closed\"} 1"));
    assert!(bench.store.metrics.render().contains("roomcast_closes_total{code=\"1001\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_cannot_hold_its_connection() {
    let bench = bench(1);
    for _ in 0..10 {
        bench.push(b"unread");
    }
    sleep(Duration::from_secs(1)).await;
    let closed = Instant::now();
    bench.egress.close(CloseCode::Draining, "bye");
    bench.egress.ended().await;
    assert!(closed.elapsed() <= 2 * LAST_WRITE + Duration::from_millis(10), "{:?}", closed.elapsed());
    assert_eq!(bench.store.budget.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_lets_control_pile_up_is_disconnected() {
    let bench = bench(1);
    let started = Instant::now();
    let ended = bench.egress.ended();
    tokio::pin!(ended);
    loop {
        bench.push(b"control");
        let pause = tokio::time::timeout(Duration::from_millis(5), &mut ended);
        if pause.await.is_ok() {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(60), "still connected");
    }
    // 1,024 packets at 200 a second fill the queue in 5 s; 10 s later it is over.
    assert!(started.elapsed() >= Duration::from_secs(15), "{:?}", started.elapsed());
    assert!(bench.store.metrics.render().contains("roomcast_closes_total{code=\"1008\"} 1"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_pinged_at_the_pace_set() {
    let mut bench = bench(8);
    for _ in 0..3 {
        let before = Instant::now();
        assert_eq!(bench.hear().await, Received::Ping);
        assert!(before.elapsed() <= Duration::from_millis(5_001), "{:?}", before.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn the_newest_ping_is_answered() {
    let mut bench = bench(8);
    bench.egress.pong(b"one".to_vec());
    bench.egress.pong(b"two".to_vec());
    assert_eq!(bench.hear().await, Received::Pong(b"two".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_never_empties_does_not_keep_its_client_from_being_pinged() {
    let mut bench = bench(1);
    for _ in 0..1_000 {
        bench.push(b"one of many");
    }
    let mut packets = 0;
    loop {
        // All of them take 20 s to be read; a ping is due every 5 s.
        sleep(Duration::from_millis(20)).await;
        match bench.hear().await {
            Received::Packet(_) => packets += 1,
            Received::Ping => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(packets < 700, "only after {packets} packets");
}

#[tokio::test(start_paused = true)]
async fn a_changed_pace_of_pings_acts_on_a_writer_that_waits() {
    let mut bench = bench(8);
    assert_eq!(bench.hear().await, Received::Ping);
    sleep(Duration::from_secs(2)).await;
    let mut settings = Settings::clone(&bench.store.settings());
    settings.timers.ping = Duration::from_secs(1);
    bench.store.apply(settings);
    // It is no room's member here, so nobody but the test wakes its reader.
    bench.egress.retune();
    let changed = Instant::now();
    assert_eq!(bench.hear().await, Received::Ping);
    assert_eq!(changed.elapsed(), Duration::ZERO, "it is due already");
    assert_eq!(bench.hear().await, Received::Ping);
    assert!(changed.elapsed() <= Duration::from_millis(1_001), "{:?}", changed.elapsed());
    timeout(Duration::from_millis(1), bench.egress.retuned()).await.expect("the reader is woken too");
}
