//! The fixture itself: a node's process obeys its signals, and comes back where it was.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use roomcast_testkit::cluster::NodeProcess;
use roomcast_testkit::{Via, eventually};

use crate::program;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_killed_node_is_gone_and_comes_back_on_its_ports() {
    let mut node = NodeProcess::start(program(), "one", &[]).await;
    node.becomes_ready(SOON).await;
    assert_eq!(node.admin("GET", "/healthz").await.unwrap().0, 200);
    let endpoints = Via::ALL.map(|via| node.endpoint(via));
    let first = node.id().unwrap();
    node.kill().await;
    assert!(node.has_ended());
    assert!(node.admin("GET", "/healthz").await.is_err());
    node.restart().await;
    node.becomes_ready(SOON).await;
    assert_eq!(Via::ALL.map(|via| node.endpoint(via)), endpoints);
    assert_ne!(node.id().unwrap(), first);
    eventually("its banner is in its log", SOON, async || node.log().contains("node one")).await;
}

#[tokio::test]
async fn a_frozen_node_says_nothing_and_goes_on_when_thawed() {
    let node = NodeProcess::start(program(), "one", &[]).await;
    assert!(node.metric("roomcast_build_info", &[]).await.unwrap() > 0.0);
    node.freeze();
    eventually("it is stopped", SOON, async || state_of(&node) == 'T').await;
    node.thaw();
    eventually("it goes on", SOON, async || node.ready().await.is_ok_and(|(ready, _)| ready)).await;
}

/// As the system tells it: R, S, T (stopped), Z …
fn state_of(node: &NodeProcess) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", node.id().unwrap())).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

#[tokio::test]
async fn a_terminated_node_ends_in_order_even_if_it_was_frozen() {
    let mut node = NodeProcess::start(program(), "one", &["timers.drain=100ms".to_owned()]).await;
    node.freeze();
    node.terminate();
    node.thaw();
    assert_eq!(node.ends(SOON).await.code(), Some(0));
    node.restart().await;
    node.kill().await;
    assert_eq!(node.ends(SOON).await.signal(), Some(9));
}

#[tokio::test]
#[should_panic(expected = "max_romms")]
async fn a_node_that_does_not_start_shows_its_log() {
    NodeProcess::start(program(), "one", &["limits.max_romms=3".to_owned()]).await;
}
