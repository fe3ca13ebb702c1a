//! The broker's configuration that the documentation hands out: nodes share rooms with it, and it confines them.

use std::time::Duration;

use roomcast_bus::testing::{Broker, BrokerOptions, BrokerVersion};
use roomcast_client::{Client, ClientOptions, ClientTrust};
use roomcast_protocol::{RoomId, UserId};
use roomcast_testkit::cluster::NodeProcess;
use roomcast_testkit::{Via, control, eventually};
use tokio::time::timeout;

use crate::program;

const SOON: Duration = Duration::from_secs(20);

async fn member(node: &NodeProcess, via: Via, user: &str) -> Client {
    let (user, room) = (UserId::parse(user).unwrap(), RoomId::parse("standup").unwrap());
    let mut options = ClientOptions::new(node.endpoint(via), user, room);
    options.trust = ClientTrust::Insecure;
    let client = Client::connect(options).unwrap();
    timeout(SOON, client.joined()).await.unwrap().unwrap();
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brokers_configuration_in_the_documentation_carries_rooms_and_confines_nodes() {
    let written = include_str!("../../../../docs/nats.conf").replace("$ROOMCAST_PASSWORD", "secret");
    assert!(written.contains("\nmax_payload: 8MB\n"));
    for version in BrokerVersion::ALL {
        // The fixture says how large a message may be, and the same.
        let lines = written.lines().filter(|line| !line.starts_with("max_payload"));
        let extra = lines.collect::<Vec<_>>().join("\n");
        let broker = Broker::start(&BrokerOptions { extra, ..BrokerOptions::of(version) }).await;
        let url = broker.url_of("roomcast", "secret");
        let settings = ["bus.kind=nats".to_owned(), format!("bus.nats.urls=[\"{url}\"]")];
        let mut nodes = Vec::new();
        for name in ["one", "two"] {
            let node = NodeProcess::start(program(), name, &settings).await;
            node.becomes_ready(SOON).await;
            nodes.push(node);
        }
        let ann = member(&nodes[0], Via::WebSocket, "ann").await;
        let mut bob = member(&nodes[1], Via::WebTransport, "bob").await;
        let hearing = async {
            loop {
                ann.send(control("ann", "hello")).await.unwrap();
                if let Ok(heard) = timeout(Duration::from_millis(50), bob.recv()).await {
                    return heard.unwrap().bytes;
                }
            }
        };
        assert_eq!(timeout(SOON, hearing).await.expect("bob hears ann"), control("ann", "hello"));
        eventually("they know of each other", SOON, async || {
            nodes[0].admin("GET", "/cluster").await.unwrap().1.matches("\"complete\":true").count() == 2
        })
        .await;
        assert!(!broker.log().contains("Violation"), "all that nodes say is allowed: {}", broker.log());
        // With the same account nothing else can be said or heard, and without it nothing at all.
        let as_a_node = async_nats::ConnectOptions::with_user_and_password("roomcast".into(), "secret".into());
        let node = as_a_node.connect(broker.url()).await.unwrap();
        let _elsewhere = node.subscribe("billing.>").await.unwrap();
        node.publish("billing.invoice", "free".into()).await.unwrap();
        node.flush().await.unwrap();
        eventually("both are refused", SOON, async || broker.log().matches("Violation").count() >= 2).await;
        assert!(async_nats::connect(broker.url()).await.is_err(), "nobody comes in without a password");
    }
}
