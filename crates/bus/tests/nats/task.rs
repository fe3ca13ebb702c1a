//! The task that carries the bus: what heals it, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use roomcast_bus::nats::{NatsBus, NatsOptions};
use roomcast_bus::testing::{Broker, BrokerOptions};
use roomcast_bus::{Bus, BusState, Published};
use roomcast_protocol::Subject;

use crate::common::{hearing, hears, next, options, overhear, packet, reaches, room, sent, until, up, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_died_is_told_of_and_started_again_with_the_same_rooms() {
    let broker = Broker::start(&BrokerOptions::default()).await;
    let (from, to) = (up(options(&[broker.url()])).await, up(options(&[broker.url()])).await);
    let room = room("healed");
    let mut subscription = hearing(&from, &to, &room).await;
    for _ in 0..3 {
        let mut watch = to.watch_over();
        assert!(watch.as_mut().now_or_never().is_none(), "it runs");
        to.break_driver();
        let why = within("its death", watch).await;
        assert!(why.contains("panicked") && why.contains("a test wanted it to"), "{why}");
        assert_eq!(*to.state().borrow(), BusState::Down);
        assert_eq!(to.publish(&room, &packet(1, b"unheard")), Published::Down);
        let watch = tokio::spawn({
            let to = Arc::clone(&to);
            async move { to.watch_over().await }
        });
        reaches(&to, BusState::Up).await;
        hears(&from, &room, &mut subscription).await;
        // Giving up the watch does nothing to the bus.
        watch.abort();
        sent(&from, &room, &packet(1, b"on"));
        assert_eq!(next(&mut subscription).await.payload, "on");
    }
    assert_eq!(to.take_counts().connections, 4);
    within(
        "one connection of each",
        until("it", async || (broker.counters().await.connections.len() == 2).then_some(())),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_published_before_closing_still_goes_out() {
    let broker = Broker::start(&BrokerOptions::default()).await;
    let (_client, mut witness) = overhear(&broker.url(), "room.leaving.*").await;
    let room = room("leaving");
    for _ in 0..20 {
        let bus = up(options(&[broker.url()])).await;
        for number in 0..100_u64 {
            sent(&bus, &room, &packet(1, &number.to_be_bytes()));
        }
        assert_eq!(bus.send(&Subject::system(&room), Bytes::from_static(b"bye")), Published::Sent);
        within("closing", bus.close()).await;
        for number in 0..100_u64 {
            assert_eq!(within("a packet", witness.next()).await.unwrap().payload, number.to_be_bytes().as_slice());
        }
        assert_eq!(within("the end", witness.next()).await.unwrap().payload, "bye");
        assert!(within("nothing", async { bus.watch_over().now_or_never() }).await.is_none(), "closed, not dead");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_waits_for_no_broker_that_is_frozen_or_away() {
    let mut broker = Broker::start(&BrokerOptions::default()).await;
    let (frozen, away) = (up(options(&[broker.url()])).await, up(options(&[broker.url()])).await);
    broker.freeze();
    sent(&frozen, &room("a"), &packet(1, &[0; 1_000_000]));
    within("closing", frozen.close()).await;
    assert_eq!(*frozen.state().borrow(), BusState::Closed);
    broker.kill();
    reaches(&away, BusState::Down).await;
    within("closing", away.close()).await;
    assert_eq!(*away.state().borrow(), BusState::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_is_dropped_leaves_the_broker() {
    let broker = Broker::start(&BrokerOptions::default()).await;
    let name = "dropped".to_owned();
    let bus: Arc<NatsBus> = up(NatsOptions { name, ..options(&[broker.url()]) }).await;
    let mut subscription = bus.subscribe(&room("a")).await.unwrap();
    until("the connection", async || broker.counters().await.of("dropped").map(|_| ())).await;
    drop(bus);
    assert!(within("the end", subscription.next()).await.is_none());
    until("it to leave", async || broker.counters().await.of("dropped").is_none().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_has_one_subscription_for_each_room_while_it_is_wanted() {
    let broker = Broker::start(&BrokerOptions::default()).await;
    let name = "counted".to_owned();
    let bus = up(NatsOptions { name, ..options(&[broker.url()]) }).await;
    let wants = async |count: usize| {
        until(&format!("{count} subscriptions"), async || {
            (broker.counters().await.of("counted")?.subscriptions == count).then_some(())
        })
        .await;
    };
    let rooms: Vec<_> = (0..20).map(|number| room(&format!("room-{number}"))).collect();
    let mut subscriptions = Vec::new();
    for room in &rooms {
        subscriptions.push(bus.subscribe(room).await.unwrap());
        assert!(bus.subscribe(room).await.is_err());
    }
    wants(20).await;
    subscriptions.truncate(5);
    wants(5).await;
    let inbox = bus.receive(vec![Subject::all_health()]).await.unwrap();
    wants(6).await;
    drop((inbox, subscriptions));
    wants(0).await;
    // Coming and going at once leaves nothing either.
    for room in &rooms {
        drop(bus.subscribe(room).await.unwrap());
    }
    let kept = bus.subscribe(&rooms[3]).await.unwrap();
    wants(1).await;
    drop(kept);
    wants(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_copy_of_a_packet_goes_to_each_node_that_is_in_the_room_and_none_to_others() {
    let broker = Broker::start(&BrokerOptions::default()).await;
    let named = async |name: &str| up(NatsOptions { name: name.to_owned(), ..options(&[broker.url()]) }).await;
    let (from, one, two, away) = (named("from").await, named("one").await, named("two").await, named("away").await);
    let room = room("copies");
    let mut heard = [hearing(&from, &one, &room).await, hearing(&from, &two, &room).await];
    let mut elsewhere = hearing(&from, &away, &crate::common::room("elsewhere")).await;
    let before = broker.counters().await;
    for number in 0..100_u64 {
        sent(&from, &room, &packet(1, &number.to_be_bytes()));
    }
    for subscription in &mut heard {
        for _ in 0..100 {
            next(subscription).await;
        }
    }
    let after = broker.counters().await;
    for (name, copies) in [("one", 100), ("two", 100), ("away", 0), ("from", 0)] {
        assert_eq!(after.of(name).unwrap().out_msgs - before.of(name).unwrap().out_msgs, copies, "to {name}");
    }
    assert_eq!(after.of("from").unwrap().in_msgs - before.of("from").unwrap().in_msgs, 100);
    let nothing = tokio::time::timeout(Duration::from_millis(1), elsewhere.next());
    assert!(nothing.await.is_err());
}
