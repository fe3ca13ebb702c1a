//! A node without its broker: it starts, serves those it has, says what is wrong, and is whole again when the broker is there.

use std::time::Duration;

use roomcast_bus::testing::{Broker, BrokerOptions};
use roomcast_testkit::cluster::NodeProcess;
use roomcast_testkit::eventually;

use crate::program;

const SOON: Duration = Duration::from_secs(20);

fn on(broker: &Broker) -> [String; 2] {
    ["bus.kind=nats".to_owned(), format!("bus.nats.urls=[\"{}\"]", broker.url())]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_without_its_broker_says_so_and_is_ready_once_it_is_reached() {
    let mut broker = Broker::start(&BrokerOptions::default()).await;
    broker.kill();
    let node = NodeProcess::start(program(), "one", &on(&broker)).await;
    let url = broker.url();
    let address = url.trim_start_matches("nats://");
    eventually("it says which broker it cannot reach", SOON, async || node.log().contains(address)).await;
    let (ready, said) = node.ready().await.unwrap();
    assert!(!ready, "{said}");
    broker.restart().await;
    node.becomes_ready(SOON).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_loses_its_broker_stays_ready_and_says_degraded() {
    let mut broker = Broker::start(&BrokerOptions::default()).await;
    let node = NodeProcess::start(program(), "one", &on(&broker)).await;
    node.becomes_ready(SOON).await;
    broker.kill();
    eventually("it says so", SOON, async || node.ready().await.unwrap().1.contains("degraded")).await;
    assert!(node.ready().await.unwrap().0);
    broker.restart().await;
    eventually("it is whole again", SOON, async || !node.ready().await.unwrap().1.contains("degraded")).await;
    assert!(node.ready().await.unwrap().0);
}
