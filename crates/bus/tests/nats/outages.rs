//! Brokers that die, freeze, come late or retire: what is heard after it, and what never is.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use roomcast_bus::nats::{NatsBus, NatsOptions};
use roomcast_bus::testing::{Broker, BrokerCluster, BrokerOptions, BrokerVersion};
use roomcast_bus::{Bus, BusState, Inbox, Published};
use roomcast_protocol::subject::ServerName;
use roomcast_protocol::{Class, RoomId, SessionId, Subject};
use tokio::time::Instant;

use crate::common::{
    PATIENT, hearing, hears, next, options, overhear, packet, packet_of, publish_foreign, reaches, reconnects, room,
    sent, until, up, within,
};
use crate::proxy::Proxy;

/// Two brokers, and which of them a bus is on.
fn index_of(cluster: &BrokerCluster, bus: &NatsBus) -> usize {
    let info = bus.broker().unwrap();
    cluster.brokers.iter().position(|broker| broker.name() == info.name).unwrap()
}

/// Publishes what must never arrive: into the kernel's buffers, then the client library's, then the bus's own, until something
/// had to go. Returns how much was published, and how much of it went.
async fn fill(bus: &NatsBus, room: &RoomId) -> (u64, u64) {
    let stale = packet_of(Class::Control, 1, &[b"stale".as_slice(), &[0; 60_000]].concat());
    let mut published = 0;
    let full = until("no more room", async || {
        for _ in 0..16 {
            sent(bus, room, &stale);
            published += 1;
        }
        Some(bus.take_counts().dropped_full).filter(|full| *full > 0)
    })
    .await;
    (published, full)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_waited_for_a_lost_connection_arrives_on_the_next() {
    for version in BrokerVersion::ALL {
        let mut cluster = BrokerCluster::start(2, &BrokerOptions::of(version)).await;
        let bus = up(NatsOptions { ping: PATIENT, ..options(&cluster.urls()) }).await;
        let first = index_of(&cluster, &bus);
        // A plain client on the other broker hears all that reaches the cluster, whoever carries it there.
        let (_client, mut witness) = overhear(&cluster.brokers[1 - first].url(), "room.stale.*").await;
        let room = room("stale");
        until("word from one broker to the other", async || {
            bus.publish(&room, &packet(1, b"probe"));
            tokio::time::timeout(Duration::from_millis(50), witness.next()).await.ok()
        })
        .await;
        cluster.brokers[first].freeze();
        let (published, full) = fill(&bus, &room).await;
        reconnects(&bus, async || cluster.brokers[first].kill()).await;
        assert_eq!(index_of(&cluster, &bus), 1 - first);
        sent(&bus, &room, &packet(1, b"fresh"));
        let heard = within("the fresh one", async {
            loop {
                let payload = witness.next().await.unwrap().payload;
                if payload != "probe" {
                    return payload;
                }
            }
        })
        .await;
        assert!(heard == "fresh", "{} bytes of {:?} arrived", heard.len(), heard.get(..5));
        let counts = bus.take_counts();
        assert!(counts.dropped_down > 0 && counts.dropped_down + full <= published, "{counts:?} of {published}");
        assert_eq!(counts.connections, 1, "since the last look");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_waited_for_a_cut_connection_arrives_on_the_next_to_the_same_broker() {
    for version in BrokerVersion::ALL {
        let broker = Broker::start(&BrokerOptions::of(version)).await;
        let (_client, mut witness) = overhear(&broker.url(), "room.cut.*").await;
        let proxy = Proxy::to(broker.port()).await;
        let bus = up(NatsOptions { ping: PATIENT, ..options(&[proxy.url()]) }).await;
        let room = room("cut");
        for _ in 0..3 {
            sent(&bus, &room, &packet(1, b"before"));
            assert_eq!(within("a packet", witness.next()).await.unwrap().payload, "before");
            proxy.stall();
            fill(&bus, &room).await;
            reconnects(&bus, async || proxy.cut()).await;
            sent(&bus, &room, &packet(1, b"fresh"));
            let heard = within("the fresh one", witness.next()).await.unwrap().payload;
            assert!(heard == "fresh", "{} bytes of {:?} arrived", heard.len(), heard.get(..5));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_moves_to_another_broker_never_hears_itself() {
    let mut cluster = BrokerCluster::start(2, &BrokerOptions::default()).await;
    let own = Arc::new(|session: SessionId| session.0 == 7);
    let bus = up(NatsOptions { own, ..options(&cluster.urls()) }).await;
    let other = up(options(&cluster.urls())).await;
    let room = room("echo");
    let mut own = hearing(&other, &bus, &room).await;
    let publishing = Arc::new(AtomicBool::new(true));
    let publisher = tokio::spawn({
        let (bus, room, publishing) = (Arc::clone(&bus), room.clone(), Arc::clone(&publishing));
        async move {
            while publishing.load(Ordering::Relaxed) {
                bus.publish(&room, &packet(7, b"own"));
                tokio::task::yield_now().await;
            }
        }
    });
    for _ in 0..3 {
        let broker = index_of(&cluster, &bus);
        reconnects(&bus, async || cluster.brokers[broker].kill()).await;
        assert_eq!(index_of(&cluster, &bus), 1 - broker);
        cluster.brokers[broker].restart().await;
        cluster.formed().await;
        reaches(&other, BusState::Up).await;
        // Everything that was on its way is older than this.
        within("the other node's", async {
            loop {
                other.publish(&room, &packet(8, b"others"));
                if let Ok(heard) = tokio::time::timeout(Duration::from_millis(50), own.next()).await {
                    let heard = heard.unwrap();
                    assert!(heard.sender != Some(SessionId(7)), "heard itself: {heard:?}");
                    if heard.payload == "others" {
                        break;
                    }
                }
            }
        })
        .await;
    }
    publishing.store(false, Ordering::Relaxed);
    publisher.await.unwrap();
}

#[tokio::test]
async fn a_packet_of_an_own_session_is_an_echo_whatever_brings_it() {
    let broker = Broker::start(&BrokerOptions::default()).await;
    let own = Arc::new(|session: SessionId| session.0 == 7);
    let bus = up(NatsOptions { own, ..options(&[broker.url()]) }).await;
    let other = up(options(&[broker.url()])).await;
    let mut subscription = hearing(&other, &bus, &room("a")).await;
    for (subject, payload) in
        [("room.a.7", "echo"), ("room.a.8", "packet"), ("room.a.7", "echo"), ("room.a.7x", "foreign")]
    {
        publish_foreign(&broker.url(), subject, Bytes::from(payload)).await;
    }
    assert_eq!(next(&mut subscription).await.payload, "packet");
    assert_eq!(next(&mut subscription).await.payload, "foreign");
    assert_eq!(subscription.take_lost(), 0, "an echo is no loss");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_and_inboxes_are_heard_again_after_the_only_broker_was_killed() {
    for version in BrokerVersion::ALL {
        let mut broker = Broker::start(&BrokerOptions::of(version)).await;
        let (from, to) = (up(options(&[broker.url()])).await, up(options(&[broker.url()])).await);
        let rooms: Vec<_> = (0..50).map(|number| room(&format!("room-{number}"))).collect();
        let subject = Subject::health(&ServerName::new("a", "b", "c").unwrap());
        let mut inbox = to.receive(vec![Subject::all_health()]).await.unwrap();
        let mut subscriptions = Vec::new();
        for room in &rooms {
            subscriptions.push(hearing(&from, &to, room).await);
        }
        broker.kill();
        reaches(&from, BusState::Down).await;
        reaches(&to, BusState::Down).await;
        // What changes meanwhile counts too.
        drop(subscriptions.remove(0));
        let late = room("late");
        let mut late_subscription = to.subscribe(&late).await.unwrap();
        let begun = Instant::now();
        broker.restart().await;
        let restarted = begun.elapsed();
        reaches(&from, BusState::Up).await;
        reaches(&to, BusState::Up).await;
        for (room, subscription) in rooms[1..].iter().zip(&mut subscriptions) {
            hears(&from, room, subscription).await;
        }
        println!("{version:?}: heard again {:?} after the broker was back", begun.elapsed() - restarted);
        hears(&from, &late, &mut late_subscription).await;
        letter(&from, &subject, &mut inbox).await;
        // 49 rooms, one that came, and the inbox; the dropped one was not subscribed to again.
        assert_eq!(subscribed_at(&broker).await, 51);
    }
}

/// Sends until the inbox hears it.
async fn letter(from: &NatsBus, subject: &Subject, inbox: &mut Box<dyn Inbox>) {
    until("a letter", async || {
        from.send(subject, Bytes::from_static(b"letter"));
        tokio::time::timeout(Duration::from_millis(50), inbox.next()).await.ok()
    })
    .await;
}

/// Subscriptions of all clients.
async fn subscribed_at(broker: &Broker) -> usize {
    broker.counters().await.connections.iter().map(|connection| connection.subscriptions).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_starts_while_the_broker_is_away_reaches_it_when_it_comes() {
    let mut broker = Broker::start(&BrokerOptions::default()).await;
    broker.kill();
    let (from, to) =
        (NatsBus::start(options(&[broker.url()])).unwrap(), NatsBus::start(options(&[broker.url()])).unwrap());
    let room = room("early");
    let mut subscription = to.subscribe(&room).await.unwrap();
    assert_eq!(*from.state().borrow(), BusState::Connecting);
    assert_eq!(from.publish(&room, &packet(1, b"unheard")), Published::Down);
    assert_eq!(from.broker(), None);
    broker.restart().await;
    reaches(&from, BusState::Up).await;
    reaches(&to, BusState::Up).await;
    hears(&from, &room, &mut subscription).await;
    let info = from.broker().unwrap();
    assert_eq!((info.url, info.max_payload, info.name.as_str()), (broker.url(), 8 * 1024 * 1024, broker.name()));
    assert!(info.version.starts_with("2."));
    assert_eq!(info.cluster, None);
    assert_eq!(from.take_counts().connections, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_broker_holds_up_no_publisher_and_is_given_up() {
    let broker = Broker::start(&BrokerOptions::default()).await;
    let ping = Duration::from_millis(200);
    let (from, to) = (up(NatsOptions { ping, ..options(&[broker.url()]) }).await, up(options(&[broker.url()])).await);
    let room = room("frozen");
    let mut subscription = hearing(&from, &to, &room).await;
    broker.freeze();
    let frozen = Instant::now();
    let video = packet_of(Class::Opaque, 1, &[0; 10_000]);
    let (mut calls, mut longest) = (0_u64, Duration::ZERO);
    while *from.state().borrow() == BusState::Up {
        let call = std::time::Instant::now();
        from.publish(&room, &video);
        longest = longest.max(call.elapsed());
        calls += 1;
        tokio::task::yield_now().await;
        assert!(frozen.elapsed() < Duration::from_secs(20), "not noticed");
    }
    println!("noticed after {:?}; {calls} publications meanwhile, the longest took {longest:?}", frozen.elapsed());
    assert!(frozen.elapsed() >= ping, "a broker must be given time to answer");
    broker.thaw();
    reaches(&from, BusState::Up).await;
    reaches(&to, BusState::Up).await;
    hears(&from, &room, &mut subscription).await;
    let counts = from.take_counts();
    assert!(counts.dropped_full + counts.dropped_late + counts.dropped_down > 0, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_heard_and_hears_nothing_is_given_up() {
    for version in BrokerVersion::ALL {
        let broker = Broker::start(&BrokerOptions::of(version)).await;
        let proxy = Proxy::to(broker.port()).await;
        let ping = Duration::from_millis(200);
        let deaf = up(NatsOptions { ping, ..options(&[proxy.url()]) }).await;
        let other = up(options(&[broker.url()])).await;
        let room = room("deaf");
        let mut subscription = hearing(&other, &deaf, &room).await;
        // Until the broker has answered once on this connection.
        let steady = Instant::now();
        while steady.elapsed() < 5 * ping {
            sent(&other, &room, &packet(1, b"steady"));
            assert_eq!(within("a packet", subscription.next()).await.unwrap().payload, "steady");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(*deaf.state().borrow(), BusState::Up, "as long as it is answered nothing is given up");
        proxy.stall();
        let stalled = Instant::now();
        // It hears the broker all the time.
        while *deaf.state().borrow() == BusState::Up {
            other.publish(&room, &packet(1, b"more"));
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(stalled.elapsed() < Duration::from_secs(20), "not noticed");
        }
        println!("noticed after {:?}", stalled.elapsed());
        proxy.cut();
        reaches(&deaf, BusState::Up).await;
        hears(&other, &room, &mut subscription).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_on_which_somebody_listens_to_everything_is_not_given_up() {
    let broker = Broker::start(&BrokerOptions::default()).await;
    let (_client, mut everything) = overhear(&broker.url(), ">").await;
    let ping = Duration::from_millis(100);
    let bus = up(NatsOptions { ping, ..options(&[broker.url()]) }).await;
    // It has asked, was not answered, and does not ask again.
    let question = async {
        loop {
            let heard = everything.next().await.unwrap();
            if heard.subject.starts_with("roomcast.v1.echo.") {
                break;
            }
        }
    };
    within("the question", question).await;
    let quiet = tokio::time::timeout(10 * ping, everything.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert_eq!(*bus.state().borrow(), BusState::Up);
    assert_eq!(bus.take_counts().connections, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_knows_the_brokers_of_a_cluster_of_which_it_was_told_one() {
    let mut cluster = BrokerCluster::start(3, &BrokerOptions::default()).await;
    let told = vec![cluster.brokers[0].url()];
    let (bus, other) = (up(options(&told)).await, up(options(&[cluster.brokers[1].url()])).await);
    let room = room("learned");
    let mut subscription = hearing(&other, &bus, &room).await;
    let killed = Instant::now();
    reconnects(&bus, async || cluster.brokers[0].kill()).await;
    println!("on another broker {:?} after the kill", killed.elapsed());
    assert_ne!(index_of(&cluster, &bus), 0);
    hears(&other, &room, &mut subscription).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_brokers_among_several_are_passed_over() {
    let mut dead = Broker::start(&BrokerOptions::default()).await;
    let live = Broker::start(&BrokerOptions::default()).await;
    dead.kill();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("nats://{}", silent.local_addr().unwrap());
    let mut reached = HashSet::new();
    for _ in 0..4 {
        let connect_timeout = Duration::from_millis(300);
        let urls = [dead.url(), silent.clone(), live.url()];
        let bus = up(NatsOptions { connect_timeout, ..options(&urls) }).await;
        reached.insert(bus.broker().unwrap().url);
    }
    assert_eq!(reached, HashSet::from([live.url()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_retires_is_left_for_another_with_all_that_was_published() {
    for version in BrokerVersion::ALL {
        let cluster = BrokerCluster::start(2, &BrokerOptions::of(version)).await;
        let bus = up(options(&cluster.urls())).await;
        let first = index_of(&cluster, &bus);
        let (_client, mut witness) = overhear(&cluster.brokers[1 - first].url(), "room.retired.*").await;
        let room = room("retired");
        until("word from one broker to the other", async || {
            bus.publish(&room, &packet(1, b"probe"));
            tokio::time::timeout(Duration::from_millis(50), witness.next()).await.ok()
        })
        .await;
        // What was taken arrives, before and after. No faster than it can be carried, so that none of it goes for want of room.
        let mut published = 0_u64;
        reconnects(&bus, async || {
            let state = bus.state();
            cluster.brokers[first].retire();
            while !state.has_changed().unwrap() {
                for _ in 0..8 {
                    if bus.publish(&room, &packet(1, &published.to_be_bytes())) == Published::Sent {
                        published += 1;
                    }
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        for number in 0..published {
            let payload = within("what was published", async {
                loop {
                    let payload = witness.next().await.unwrap().payload;
                    if payload != "probe" {
                        return payload;
                    }
                }
            })
            .await;
            assert_eq!(payload, number.to_be_bytes().as_slice(), "of {published}, with {:?}", bus.take_counts());
        }
        assert_eq!(index_of(&cluster, &bus), 1 - first);
        let counts = bus.take_counts();
        assert_eq!((counts.dropped_down, counts.dropped_full, counts.connections), (0, 0, 2));
    }
}
