//! The crowd itself: on a calm node nothing is lost, and what a node's death costs is seen.

use std::time::{Duration, Instant};

use roomcast_client::{ClosedReason, KeepAlive, ReconnectPolicy};
use roomcast_testkit::cluster::NodeProcess;
use roomcast_testkit::cluster::load::{Load, Plan};
use roomcast_testkit::{Via, eventually};

use crate::program;

const SOON: Duration = Duration::from_secs(20);

fn plan(spread: Vec<usize>) -> Plan {
    Plan {
        seed: 1,
        rooms: 4,
        spread,
        pace: Duration::from_millis(20),
        keep_alive: KeepAlive { every: Duration::from_secs(1), dead_after: Duration::from_secs(4) },
        reconnect: ReconnectPolicy { initial: Duration::from_millis(50), ..ReconnectPolicy::default() },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_calm_node_everybody_hears_everything() {
    let node = NodeProcess::start(program(), "one", &[]).await;
    let load = Load::gather(plan(vec![0, 0, 0]), &[Via::ALL.map(|via| node.endpoint(via))]).await;
    load.mark();
    load.await_all();
    eventually("everybody is heard", SOON, async || load.all_heard_again().is_some()).await;
    assert_eq!(load.deaf(), []);
    let sent: u32 = load.seats().iter().map(|seat| seat.sent()).sum();
    assert!(sent > 0);
    for outcome in load.disperse().await {
        assert_eq!(outcome.verdict, Default::default(), "{}", outcome.seat.id);
        assert_eq!((outcome.ended, outcome.stats.connections), (ClosedReason::Local, 1));
        assert_eq!((outcome.seat.turns().len(), outcome.seat.refused()), (1, 0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_node_dies_its_members_and_only_they_are_seen_to_go_elsewhere() {
    let mut nodes = Vec::new();
    for name in ["one", "two"] {
        nodes.push(NodeProcess::start(program(), name, &[]).await);
    }
    let endpoints: Vec<_> = nodes.iter().map(|node| Via::ALL.map(|via| node.endpoint(via))).collect();
    // No bus between them: each room is on one node.
    let load = Load::gather(plan(vec![0, 0]), &endpoints).await;
    load.mark();
    let struck = Instant::now();
    nodes[0].kill().await;
    load.await_all();
    eventually("everybody is heard again", SOON, async || load.all_heard_again().is_some()).await;
    assert!(load.all_heard_again().unwrap() > struck);
    for seat in load.seats() {
        let turns = seat.turns();
        assert_eq!(turns.len(), if seat.home == 0 { 3 } else { 1 }, "{turns:?}");
        assert_eq!(seat.node(), Some(1));
        let mate = load.mates(seat).next().unwrap();
        let silence = load.silence(seat, mate, Instant::now()).unwrap();
        assert!(seat.home == 1 || silence > turns[2].at - struck, "{silence:?} {turns:?}");
    }
    for outcome in load.disperse().await {
        assert_eq!(outcome.verdict.wrong, [""; 0]);
        assert_eq!(outcome.ended, ClosedReason::Local);
        if outcome.seat.home == 1 {
            assert_eq!(outcome.verdict, Default::default());
        }
    }
}
