//! A videocall.rs server on the same broker, played by a plain NATS client: its packets reach our members on every node, and
//! theirs reach it, bare, on the subjects that it knows.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use roomcast_bus::testing::{Broker, BrokerOptions};
use roomcast_client::{Client, ClientOptions, ClientTrust};
use roomcast_protocol::{RoomId, UserId};
use roomcast_testkit::cluster::NodeProcess;
use roomcast_testkit::{Via, control};
use tokio::time::timeout;

use crate::program;

const SOON: Duration = Duration::from_secs(20);

/// Two nodes on one broker.
async fn nodes(broker: &Broker) -> Vec<NodeProcess> {
    let settings = ["bus.kind=nats".to_owned(), format!("bus.nats.urls=[\"{}\"]", broker.url())];
    let mut nodes = Vec::new();
    for name in ["one", "two"] {
        let node = NodeProcess::start(program(), name, &settings).await;
        node.becomes_ready(SOON).await;
        nodes.push(node);
    }
    nodes
}

async fn member(node: &NodeProcess, via: Via, user: &str, room: &str) -> Client {
    let (user, room) = (UserId::parse(user).unwrap(), RoomId::parse(room).unwrap());
    let mut options = ClientOptions::new(node.endpoint(via), user, room);
    options.trust = ClientTrust::Insecure;
    let client = Client::connect(options).unwrap();
    timeout(SOON, client.joined()).await.unwrap().unwrap();
    client
}

/// What a member hears next that is not one of the probes.
async fn hears(client: &mut Client, probe: &Bytes) -> Bytes {
    loop {
        let received = timeout(SOON, client.recv()).await.expect("something is heard soon").unwrap().bytes;
        if received != probe {
            return received;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_servers_packets_reach_members_and_theirs_reach_it() {
    let broker = Broker::start(&BrokerOptions::default()).await;
    let nodes = nodes(&broker).await;
    let room = "stand.up now";
    // As PROTOCOL.md writes names: a space is `_`, any other odd byte `%XX`.
    let subject = |sender: &str| format!("room.stand%2Eup_now.{sender}");
    let foreign = async_nats::connect(broker.url()).await.unwrap();
    let mut hearing = foreign.subscribe(subject("*")).await.unwrap();
    let mut stranger = foreign.subscribe("room.other.*").await.unwrap();
    foreign.flush().await.unwrap();

    let mut ann = member(&nodes[0], Via::WebSocket, "ann@example.com", room).await;
    let mut bob = member(&nodes[1], Via::WebTransport, "bob", room).await;
    let mut cat = member(&nodes[1], Via::WebSocket, "cat", "other").await;

    // Until both nodes' subscriptions have reached the broker.
    let probe: Bytes = control("zoe@example.com", "probe");
    for client in [&mut ann, &mut bob] {
        let probing = async {
            loop {
                foreign.publish(subject("zoe%40example%2Ecom"), probe.clone()).await.unwrap();
                if let Ok(received) = timeout(Duration::from_millis(50), client.recv()).await {
                    return received.unwrap();
                }
            }
        };
        assert_eq!(timeout(SOON, probing).await.unwrap().bytes, probe);
    }

    // From there to here: by a user's name, and by a session that is none of ours; in order, byte for byte.
    for index in 0..20 {
        let sender = if index % 2 == 0 { "zoe%40example%2Ecom" } else { "18446744073709551615" };
        let packet: Bytes = control("zoe@example.com", &format!("foreign {index}"));
        foreign.publish(subject(sender), packet).await.unwrap();
    }
    for client in [&mut ann, &mut bob] {
        for index in 0..20 {
            let expected: Bytes = control("zoe@example.com", &format!("foreign {index}"));
            assert_eq!(hears(client, &probe).await, expected);
        }
    }
    // And what it publishes is what it hears of itself; the nodes add nothing.
    for index in 0..20 {
        let heard = loop {
            let message = timeout(SOON, hearing.next()).await.unwrap().unwrap();
            if message.payload != probe {
                break message;
            }
        };
        assert_eq!(heard.payload, control("zoe@example.com", &format!("foreign {index}")));
    }

    // From here to there: once each, bare, on the room's subject with the session's number; and to the other node.
    let mut senders = Vec::new();
    for (client, user, other) in [(0, "ann@example.com", 1), (1, "bob", 0)] {
        let clients = [&mut ann, &mut bob];
        let mut tokens = Vec::new();
        for index in 0..20 {
            let packet: Bytes = control(user, &format!("ours {index}"));
            clients[client].send(packet.clone()).await.unwrap();
            let message = timeout(SOON, hearing.next()).await.unwrap().unwrap();
            assert_eq!(message.payload, packet);
            tokens.push(message.subject.strip_prefix(&subject("")).unwrap().to_owned());
            assert_eq!(hears(clients[other], &probe).await, packet);
        }
        tokens.dedup();
        assert_eq!(tokens.len(), 1, "one member, one subject: {tokens:?}");
        tokens[0].parse::<u64>().unwrap();
        senders.extend(tokens);
    }
    assert_ne!(senders[0], senders[1]);

    // Nothing of it left its room.
    foreign.publish("room.other.zoe", control("zoe", "the end")).await.unwrap();
    let end: Bytes = control("zoe", "the end");
    assert_eq!(timeout(SOON, cat.recv()).await.unwrap().unwrap().bytes, end);
    assert_eq!(timeout(SOON, stranger.next()).await.unwrap().unwrap().payload, end);
}
