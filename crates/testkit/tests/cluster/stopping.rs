//! SIGTERM to a real process: it drains at its pace, a second one hurries, and it ends with 0.

use std::time::{Duration, Instant};

use roomcast_client::{KeepAlive, ReconnectPolicy};
use roomcast_testkit::cluster::NodeProcess;
use roomcast_testkit::cluster::load::{Load, Plan};
use roomcast_testkit::{Via, eventually};

use crate::program;

const SOON: Duration = Duration::from_secs(30);

async fn two_nodes(drain: &str) -> (Vec<NodeProcess>, Load) {
    let mut nodes = Vec::new();
    for name in ["one", "two"] {
        nodes.push(NodeProcess::start(program(), name, &[format!("timers.drain={drain}")]).await);
    }
    let endpoints: Vec<_> = nodes.iter().map(|node| Via::ALL.map(|via| node.endpoint(via))).collect();
    let plan = Plan {
        seed: 1,
        // Without a bus between them each room is on one node: every other on the first.
        rooms: 10,
        spread: vec![0, 0],
        pace: Duration::from_millis(50),
        keep_alive: KeepAlive { every: Duration::from_secs(1), dead_after: Duration::from_secs(10) },
        reconnect: ReconnectPolicy { initial: Duration::from_millis(50), ..ReconnectPolicy::default() },
    };
    let load = Load::gather(plan, &endpoints).await;
    (nodes, load)
}

fn on(load: &Load, node: usize) -> usize {
    load.seats().iter().filter(|seat| seat.node() == Some(node)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminated_node_sends_its_clients_away_one_after_another_and_ends() {
    const WINDOW: Duration = Duration::from_secs(3);
    let (mut nodes, load) = two_nodes("3s").await;
    assert_eq!((on(&load, 0), on(&load, 1)), (10, 10));
    let told = Instant::now();
    nodes[0].terminate();
    eventually("it is not ready", SOON, async || nodes[0].ready().await.is_ok_and(|(ready, _)| !ready)).await;
    eventually("it takes nobody in", SOON, async || {
        let port = nodes[0].endpoint(Via::WebSocket).port().unwrap();
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err()
    })
    .await;
    let status = nodes[0].ends(WINDOW + SOON).await;
    assert_eq!(status.code(), Some(0));
    eventually("everybody is at the other", SOON, async || on(&load, 1) == 20).await;
    let mut gone: Vec<Duration> = Vec::new();
    for seat in load.seats().iter().filter(|seat| seat.home == 0) {
        gone.push(seat.turns()[1].at - told);
    }
    gone.sort_unstable();
    // Spread over the window, not all at once.
    assert!(gone[9] - gone[0] > WINDOW / 2, "{gone:?}");
    load.disperse().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_hurries() {
    let (mut nodes, load) = two_nodes("10m").await;
    nodes[0].terminate();
    eventually("it is not ready", SOON, async || nodes[0].ready().await.is_ok_and(|(ready, _)| !ready)).await;
    assert!(on(&load, 0) > 5, "it takes its time");
    nodes[0].terminate();
    assert_eq!(nodes[0].ends(SOON).await.code(), Some(0));
    eventually("everybody is at the other", SOON, async || on(&load, 1) == 20).await;
    load.disperse().await;
}
