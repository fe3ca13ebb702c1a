//! Bounds: what is dropped when there is too much, in which order, and that all of it is counted.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use futures_util::StreamExt;
use roomcast_bus::nats::NatsOptions;
use roomcast_bus::testing::{Broker, BrokerOptions, BrokerVersion};
use roomcast_bus::{BufferLimits, Bus, BusState, Published};
use roomcast_protocol::{Class, SessionId};
use roomcast_relay::EgressLimits;

use crate::common::{
    PATIENT, Told, hearing, next, options, overhear, packet, packet_of, reaches, room, sent, until, up, within,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_video_goes_first_and_each_packet_is_heard_or_counted() {
    let broker = Broker::start(&BrokerOptions::default()).await;
    let outgoing = EgressLimits { packets: 100, bytes: 64 << 20, max_delay: PATIENT };
    let bus = up(NatsOptions { ping: PATIENT, outgoing, ..options(&[broker.url()]) }).await;
    let (_client, mut witness) = overhear(&broker.url(), "room.full.*").await;
    let room = room("full");
    broker.freeze();
    // Until the kernel and the library hold what they can and the queue is full: each further video then costs one.
    let video = packet_of(Class::Opaque, 1, &[b'v'; 50_000]);
    let (mut videos, mut dropped, mut full_for) = (0, 0, 0);
    until("the broker to be stuck", async || {
        sent(&bus, &room, &video);
        videos += 1;
        let now = bus.take_counts().dropped_full;
        dropped += now;
        full_for = if now == 1 { full_for + 1 } else { 0 };
        (full_for == 50).then_some(())
    })
    .await;
    for number in 0..60_u8 {
        sent(&bus, &room, &packet_of(Class::Audio, 2, &[b'a', number]));
    }
    for number in 0..60_u8 {
        sent(&bus, &room, &packet(3, &[b'c', number]));
    }
    // More than the queue holds: only audio and control are left, and audio goes.
    assert_eq!(bus.publish(&room, &video), Published::Full);
    dropped += bus.take_counts().dropped_full;
    broker.thaw();
    let (mut heard, mut control) = (HashMap::<u8, u64>::new(), 0);
    while control < 60 {
        let payload = within("a packet", witness.next()).await.unwrap().payload;
        *heard.entry(payload[0]).or_default() += 1;
        if payload[0] == b'c' {
            assert_eq!(payload[1], control, "control in order");
            control += 1;
        }
    }
    assert_eq!(heard[&b'a'], 40, "the queue's 100 are 60 of control and the youngest 40 of audio");
    assert_eq!(heard[&b'v'] + heard[&b'a'] + 60 + dropped, videos + 120, "each is heard or counted");
    assert_eq!(bus.take_counts().dropped_full, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn video_that_waited_too_long_is_dropped_late_and_counted() {
    let broker = Broker::start(&BrokerOptions::default()).await;
    let outgoing = EgressLimits { packets: 4_096, bytes: 64 << 20, max_delay: Duration::from_millis(20) };
    let bus = up(NatsOptions { ping: PATIENT, outgoing, ..options(&[broker.url()]) }).await;
    let room = room("late");
    broker.freeze();
    let video = packet_of(Class::Opaque, 1, &[b'v'; 50_000]);
    until("video to be late", async || {
        bus.publish(&room, &video);
        (bus.take_counts().dropped_late > 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_publishers_packets_arrive_in_order_under_load_and_each_is_heard_or_counted() {
    const EACH: u64 = 10_000;
    for version in BrokerVersion::ALL {
        let broker = Broker::start(&BrokerOptions::of(version)).await;
        let (from, to) = (up(options(&[broker.url()])).await, up(options(&[broker.url()])).await);
        let (room, mut refused) = (room("load"), 0);
        let mut subscription = hearing(&from, &to, &room).await;
        let publishers: Vec<_> = (1..=4_u64)
            .map(|session| {
                let (from, room) = (Arc::clone(&from), room.clone());
                tokio::spawn(async move {
                    let mut refused = 0;
                    for number in 0..EACH {
                        let payload = [&number.to_be_bytes()[..], &[0; 1_200]].concat();
                        match from.publish(&room, &packet_of(Class::Audio, session, &payload)) {
                            Published::Sent => {}
                            Published::Full => refused += 1,
                            Published::Down => panic!("the bus is down"),
                        }
                        if number % 16 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                    refused
                })
            })
            .collect();
        let mut last: HashMap<SessionId, u64> = HashMap::new();
        let mut heard = 0;
        // A fence of control behind everything ends the reading.
        let publishing = async {
            for publisher in publishers {
                refused += publisher.await.unwrap();
            }
            sent(&from, &room, &packet_of(Class::Control, 99, &[[0xff; 8].as_slice(), &[0; 1_200]].concat()));
        };
        let reading = async {
            loop {
                let delivery = next(&mut subscription).await;
                if delivery.sender == Some(SessionId(99)) {
                    break;
                }
                let session = delivery.sender.unwrap();
                let number = u64::from_be_bytes(delivery.payload[..8].try_into().unwrap());
                assert_eq!(delivery.payload.len(), 1_208);
                let before = last.insert(session, number);
                assert!(before < Some(number), "{number} of {session:?} came after {before:?}");
                heard += 1;
            }
        };
        tokio::join!(publishing, reading);
        let (lost, counts) = (subscription.take_lost(), from.take_counts());
        let dropped = refused + counts.dropped_full + counts.dropped_late + lost;
        println!("{version:?}: {heard} heard, {refused} refused, {lost} lost by the subscription, {counts:?}");
        assert_eq!(heard + dropped, 4 * EACH);
        assert_eq!((counts.dropped_down, to.take_counts().slow), (0, 0));
    }
}

#[tokio::test]
async fn a_broker_that_takes_too_little_is_warned_of_and_only_what_does_not_fit_is_dropped() {
    for version in BrokerVersion::ALL {
        let told = Told::listen();
        let broker = Broker::start(&BrokerOptions { max_payload: 10_000, ..BrokerOptions::of(version) }).await;
        let (from, to) = (up(options(&[broker.url()])).await, up(options(&[broker.url()])).await);
        told.hears(&["WARN", "max_payload", "10000 bytes", "4001024"]).await;
        let room = room("large");
        let mut subscription = hearing(&from, &to, &room).await;
        for round in 0..3_u8 {
            sent(&from, &room, &packet(1, &[round; 10_000]));
            assert_eq!(from.publish(&room, &packet(1, &[9; 10_001])), Published::Full);
            assert_eq!(next(&mut subscription).await.payload, vec![round; 10_000]);
        }
        let counts = from.take_counts();
        assert_eq!((counts.connections, counts.dropped_down), (1, 0), "the connection held");
        assert_eq!(*from.state().borrow(), BusState::Up);
    }
}

#[tokio::test]
async fn a_broker_that_takes_enough_is_not_warned_of_and_carries_the_largest_packet() {
    let told = Told::listen();
    let broker = Broker::start(&BrokerOptions { max_payload: 4_001_024, ..BrokerOptions::default() }).await;
    let (from, to) = (up(options(&[broker.url()])).await, up(options(&[broker.url()])).await);
    let room = room("largest");
    let mut subscription = hearing(&from, &to, &room).await;
    let largest = vec![7; roomcast_protocol::MAX_PACKET_BYTES + 11];
    sent(&from, &room, &packet(1, &largest));
    assert!(next(&mut subscription).await.payload == largest);
    assert_eq!(told.lines(&["WARN"]), 0, "{}", told.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_the_broker_finds_too_slow_is_counted_and_comes_back() {
    for version in BrokerVersion::ALL {
        let extra = "write_deadline: \"1s\"".to_owned();
        let broker = Broker::start(&BrokerOptions { extra, ..BrokerOptions::of(version) }).await;
        let from = up(options(&[broker.url()])).await;
        let (stall, stalled) = mpsc::channel::<()>();
        let (ready, mut is_ready) = tokio::sync::oneshot::channel();
        // A node of one thread, which does nothing while that thread is held up.
        let url = broker.url();
        let node = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let incoming = BufferLimits { packets: 100_000, bytes: 1 << 30 };
                let to = up(NatsOptions { incoming, ..options(&[url]) }).await;
                let mut subscription = to.subscribe(&room("slow")).await.unwrap();
                // Heard once, so it is subscribed.
                within("the first", subscription.next()).await.unwrap();
                ready.send(()).unwrap();
                stalled.recv().unwrap();
                let mut slow = 0;
                until("word of the stall", async || {
                    slow += to.take_counts().slow;
                    (slow > 0).then_some(())
                })
                .await;
                reaches(&to, BusState::Up).await;
                // It hears again, past whatever was left of before.
                until("fresh packets", async || {
                    let heard = tokio::time::timeout(Duration::from_millis(50), subscription.next()).await.ok()?;
                    (heard.unwrap().payload == "fresh").then_some(())
                })
                .await;
            });
        });
        let room = room("slow");
        let bulk = packet(1, &[0; 100_000]);
        let heard = until("the node to hear", async || {
            from.publish(&room, &packet(1, b"probe"));
            tokio::time::timeout(Duration::from_millis(20), &mut is_ready).await.ok()
        })
        .await;
        heard.unwrap();
        until("the broker to cut it off", async || {
            from.publish(&room, &bulk);
            (broker.counters().await.slow_consumers > 0).then_some(())
        })
        .await;
        stall.send(()).unwrap();
        until("the node to be done", async || {
            from.publish(&room, &packet(1, b"fresh"));
            node.is_finished().then_some(())
        })
        .await;
        node.join().unwrap();
    }
}
