//! What leaves a broker: one copy of each packet for each node with members in its room, however many they are, by the broker's
//! own counters.

use std::time::Duration;

use roomcast_bus::testing::{Broker, BrokerOptions};
use roomcast_client::{Client, ClientOptions, ClientTrust};
use roomcast_protocol::{RoomId, UserId};
use roomcast_testkit::cluster::NodeProcess;
use roomcast_testkit::ledger::Numbered;
use roomcast_testkit::soak::packet;
use roomcast_testkit::{Via, eventually};
use tokio::time::timeout;

use crate::program;

const SOON: Duration = Duration::from_secs(60);
const PACKETS: u32 = 200;
const NODES: [&str; 3] = ["one", "two", "three"];

/// What went between the broker and one node.
#[derive(Clone, Copy, Debug)]
struct Carried {
    in_msgs: u64,
    out_msgs: u64,
    out_bytes: u64,
}

async fn carried(broker: &Broker) -> [Carried; 3] {
    let counters = broker.counters().await;
    NODES.map(|name| {
        let mut found = counters.connections.iter().filter(|connection| connection.name.contains(name));
        let connection = found.next().unwrap_or_else(|| panic!("{name} is connected: {counters:?}"));
        assert!(found.next().is_none(), "a node has one connection: {counters:?}");
        Carried { in_msgs: connection.in_msgs, out_msgs: connection.out_msgs, out_bytes: connection.out_bytes }
    })
}

async fn join(node: &NodeProcess, via: Via, user: &str, room: &str) -> Client {
    let (user, room) = (UserId::parse(user).unwrap(), RoomId::parse(room).unwrap());
    let mut options = ClientOptions::new(node.endpoint(via), user, room);
    options.trust = ClientTrust::Insecure;
    let client = Client::connect(options).unwrap();
    timeout(SOON, client.joined()).await.unwrap().unwrap();
    client
}

/// Counts the packets from this number on until there is none for a while after all came.
async fn hears(mut client: Client, first: u32, count: u32) -> u32 {
    let mut heard = 0;
    while heard < count {
        let received = timeout(SOON, client.recv()).await.expect("all is heard soon").unwrap();
        heard += u32::from(packet::read(&received.bytes).unwrap().number >= first);
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_sends_one_copy_to_each_node_with_members_however_many_they_are() {
    let broker = Broker::start(&BrokerOptions::default()).await;
    // Presence is the other thing that is sent; with these settings there is little of it, and it is allowed for below.
    let settings = [
        "bus.kind=nats".to_owned(),
        format!("bus.nats.urls=[\"{}\"]", broker.url()),
        "presence.heartbeat=1s".to_owned(),
        "egress.max_delay=30s".to_owned(),
    ];
    let mut nodes = Vec::new();
    for name in NODES {
        nodes.push(NodeProcess::start(program(), name, &settings).await);
        nodes.last().unwrap().becomes_ready(SOON).await;
    }
    // The third has members, in another room.
    let _elsewhere = join(&nodes[2], Via::WebSocket, "elsewhere", "other").await;
    println!("members  packets  from node one  to node one  to node two  to node three  bytes to node two");
    for members in [2, 20, 200] {
        let room = format!("of-{members}");
        let mut joined = Vec::new();
        for index in 0..members {
            let via = Via::ALL[index / 2 % 2];
            joined.push(join(&nodes[index % 2], via, &format!("m{index}"), &room).await);
        }
        let speaker = joined.remove(0);
        // From here on everybody hears everything.
        let probe = |number| packet::control("m0", Numbered { room: 0, sender: 0, number });
        let mut first = 0;
        let last = joined.last_mut().unwrap();
        let probing = async {
            loop {
                speaker.send(probe(first)).await.unwrap();
                first += 1;
                if timeout(Duration::from_millis(50), last.recv()).await.is_ok() {
                    return;
                }
            }
        };
        timeout(SOON, probing).await.unwrap();
        let listeners: Vec<_> = joined.into_iter().map(|client| tokio::spawn(hears(client, first, PACKETS))).collect();
        let (before, began) = (carried(&broker).await, std::time::Instant::now());
        for number in first..first + PACKETS {
            speaker.send(probe(number)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for listener in listeners {
            assert_eq!(listener.await.unwrap(), PACKETS);
        }
        let (after, seconds) = (carried(&broker).await, began.elapsed().as_secs_f64());
        let grown = |node: usize, count: fn(&Carried) -> u64| count(&after[node]) - count(&before[node]);
        let from = grown(0, |carried| carried.in_msgs);
        let to: [u64; 3] = std::array::from_fn(|node| grown(node, |carried| carried.out_msgs));
        let bytes = grown(1, |carried| carried.out_bytes);
        println!("{members:>7}  {PACKETS:>7}  {from:>13}  {:>11}  {:>11}  {:>13}  {bytes:>17}", to[0], to[1], to[2]);
        // What presence may add: of each node a heartbeat a second, and what its members' coming is worth.
        let presence = 3 * (seconds.ceil() as u64 + 1) + 20;
        let packets = u64::from(PACKETS);
        assert!((packets..=packets + presence).contains(&from), "one publication for each packet: {from}");
        assert!((packets..=packets + presence).contains(&to[1]), "one copy to the node with members: {}", to[1]);
        assert!(to[0] <= presence, "none back to where it came from: {}", to[0]);
        assert!(to[2] <= presence, "none to the node without members: {}", to[2]);
        // Bare: what was sent, and nothing around it.
        let bare = packets * packet::BYTES as u64;
        assert!((bare..=bare + presence * 4096).contains(&bytes), "{bytes}");
        drop(speaker);
        eventually("the room is empty", SOON, async || {
            nodes[0].metric("roomcast_rooms", &[]).await.is_ok_and(|rooms| rooms == 0.0)
        })
        .await;
    }
}
