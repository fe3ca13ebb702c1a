//! A node that drains: clients that understand notices go to another node, and nobody misses a packet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use roomcast_bus::Bus;
use roomcast_bus::local::Hub;
use roomcast_client::{Client, ClientOptions, ClientTrust, Sender, State};
use roomcast_protocol::{RoomId, UserId};
use roomcast_testkit::history::{self, History};
use roomcast_testkit::{NodeBox, ROOM, SOON, Via, content, control, eventually};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

/// How many members the call has.
const MEMBERS: usize = 4;
/// The time between two packets of a member.
const PACE: Duration = Duration::from_millis(10);
/// How a member's last packet ends.
const LAST: &str = "and out";

/// A member: what it sends and what it hears, in tasks of their own.
struct Talker {
    user: String,
    state: watch::Receiver<State>,
    sent: Arc<AtomicUsize>,
    heard: Arc<AtomicUsize>,
    talking: JoinHandle<Vec<Vec<u8>>>,
    listening: JoinHandle<(Client, Vec<Vec<u8>>)>,
}

/// A node on a hub, whose drain takes a second.
async fn node(hub: &Hub) -> NodeBox {
    let bus: Arc<dyn Bus> = Arc::new(hub.join());
    NodeBox::start_on(&["timers.drain=1s"], Some(bus)).await
}

/// For a client whose first node is the first one given.
fn options(user: &str, nodes: [(&NodeBox, Via); 2]) -> ClientOptions {
    let [first, second] = nodes.map(|(node, via)| node.base(via).parse().unwrap());
    let mut options = ClientOptions::new(first, UserId::parse(user).unwrap(), RoomId::parse(ROOM).unwrap());
    options.endpoints.push(second);
    let hashes = nodes.iter().map(|(node, _)| match node.trust() {
        ClientTrust::Hashes(hashes) => hashes,
        other => panic!("{other:?} where a box has a certificate of its own"),
    });
    options.trust = ClientTrust::Hashes(hashes.flatten().collect());
    options
}

async fn talk(sender: Sender, user: String, count: Arc<AtomicUsize>, stop: Arc<AtomicBool>) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    let mut pace = interval(PACE);
    let mut last = false;
    while !last {
        pace.tick().await;
        last = stop.load(Ordering::Relaxed);
        let packet = control(&user, &format!("{user} {} {}", sent.len(), if last { LAST } else { "" }));
        sent.push(packet.to_vec());
        sender.send(packet).await.expect("a client that moves takes packets all the time");
        count.store(sent.len(), Ordering::Relaxed);
    }
    sent
}

/// Hears everybody else out.
async fn listen(mut client: Client, user: String, count: Arc<AtomicUsize>) -> (Client, Vec<Vec<u8>>) {
    let (mut received, mut left) = (Vec::new(), MEMBERS - 1);
    while left > 0 {
        let packet = timeout(SOON, client.recv()).await.unwrap_or_else(|_| panic!("{user} hears nothing any more"));
        let packet = packet.unwrap_or_else(|| panic!("{user} was closed for good"));
        if content(&packet.bytes).ends_with(LAST) {
            left -= 1;
        }
        received.push(packet.bytes.to_vec());
        count.store(received.len(), Ordering::Relaxed);
    }
    (client, received)
}

async fn talkers(first: &NodeBox, second: &NodeBox, stop: &Arc<AtomicBool>) -> Vec<Talker> {
    let mut clients = Vec::new();
    for index in 0..MEMBERS {
        let user = format!("m{index}");
        // Two on each transport, and of each two one that goes to the other transport.
        let (from, to) = (Via::ALL[index % 2], Via::ALL[usize::from(index == 0 || index == 3)]);
        let client = Client::connect(options(&user, [(first, from), (second, to)])).unwrap();
        timeout(SOON, client.joined()).await.expect("a client is in soon").unwrap();
        clients.push((user, client));
    }
    let talker = |(user, client): (String, Client)| {
        let (sent, heard) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (sender, state) = (client.sender().clone(), client.state());
        let talking = tokio::spawn(talk(sender, user.clone(), Arc::clone(&sent), Arc::clone(stop)));
        let listening = tokio::spawn(listen(client, user.clone(), Arc::clone(&heard)));
        Talker { user, state, sent, heard, talking, listening }
    };
    clients.into_iter().map(talker).collect()
}

/// Waits until everybody has said and heard so much more.
async fn run_on(talkers: &[Talker], more: usize) {
    let counts = || -> Vec<usize> {
        let counters = talkers.iter().flat_map(|talker| [&talker.sent, &talker.heard]);
        counters.map(|counter| counter.load(Ordering::Relaxed)).collect()
    };
    let before = counts();
    eventually("everybody has said and heard more", SOON, async || {
        counts().iter().zip(&before).all(|(now, before)| *now >= before + more)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_understand_notices_leave_a_draining_node_without_missing_a_packet() {
    let hub = Hub::new();
    let (first, second) = (node(&hub).await, node(&hub).await);
    let stop = Arc::new(AtomicBool::new(false));
    let mut talkers = talkers(&first, &second, &stop).await;
    run_on(&talkers, 20).await;

    let began = std::time::Instant::now();
    first.node().drain();
    timeout(SOON, first.node().drained()).await.expect("everybody leaves by themselves, and soon");
    // Nobody was waited for: that would have taken five seconds more.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for talker in &mut talkers {
        let moved = talker.state.wait_for(|state| !matches!(state, State::Connected { number: 1, .. }));
        let state = timeout(SOON, moved).await.expect("the state tells of the move").unwrap().clone();
        let State::Connected { endpoint, number: 2, .. } = state else { panic!("{}: {state:?}", talker.user) };
        let there = |via: &Via| endpoint.as_str().starts_with(&second.base(*via));
        assert!(Via::ALL.iter().any(there), "{endpoint}");
    }
    run_on(&talkers, 20).await;

    // All four were closed by the node, and in order.
    assert_eq!(first.metric("roomcast_closes_total", &["1000"]).await, MEMBERS as f64);
    assert_eq!(first.metric("roomcast_closes_total", &[]).await, MEMBERS as f64);
    stop.store(true, Ordering::Relaxed);
    let mut history = History::default();
    for talker in talkers {
        let (client, received) = talker.listening.await.unwrap();
        let sent = talker.talking.await.unwrap();
        let (_, stats) = client.close().await;
        assert_eq!((stats.connections, stats.handovers), (2, 1), "{stats:?}");
        assert_eq!((stats.received, stats.sent), (received.len() as u64, sent.len() as u64), "{stats:?}");
        assert_eq!((stats.unconfirmed, stats.dropped, stats.refused, stats.forgotten), (0, 0, 0, 0), "{stats:?}");
        history.clients.insert(talker.user, history::Client { room: ROOM.into(), sent, received });
    }
    history.check();
    for node in [first, second] {
        // Whoever is leaving is sent nothing more, and hears it elsewhere.
        let drops = node.metric("roomcast_drops_total", &[]).await;
        assert_eq!(drops, node.metric("roomcast_drops_total", &["\"closed\""]).await);
        node.stop().await;
    }
}
