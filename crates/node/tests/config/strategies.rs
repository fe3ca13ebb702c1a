//! The configuration's idea of the tree is held against a running one; strategies are taken from it at start.

use roomcast_node::Node;
use roomcast_node::config::parse;
use roomcast_supervision::{Fault, Kind};

use crate::support::{BASE, Folder, eventually, metric, reload, rooms, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_may_be_set_for_each_supervisor_of_a_running_tree_and_for_no_worker() {
    let folder = Folder::new();
    let all = "[listen.websocket]\nbind = \"127.0.0.1:0\"\n[listen.webtransport]\nbind = \"127.0.0.1:0\"\n\
               [listen.admin]\nbind = \"127.0.0.1:0\"\n";
    std::fs::write(folder.file(), all).unwrap();
    let node = start(&folder.file()).await;
    let entries = node.tree().snapshot();
    assert!(entries.len() >= 10, "{entries:?}");
    for entry in entries {
        let path = entry.path.as_str();
        let text = format!("[supervision.\"{path}\"]\nintensity = 3\n");
        assert_eq!(parse("supervisor.toml", &text, &[]).is_ok(), entry.kind == Kind::Supervisor, "{path}");
    }
    node.stop().await;
}

/// The generation of each listener, in the order of starting.
fn generations(node: &Node) -> Vec<u64> {
    let find = |path| node.tree().find(path).unwrap().generation;
    ["listeners/certificates", "listeners/websocket"].map(find).to_vec()
}

async fn crash(node: &Node, path: &str) {
    let before = node.tree().find(path).unwrap().generation;
    node.tree().inject(path, Fault::Kill).unwrap();
    let back = || {
        let all_run = node.tree().snapshot().iter().all(|entry| entry.state.as_str() == "running");
        all_run && node.tree().find(path).unwrap().generation > before
    };
    eventually("it is back", back).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_runs_on_the_strategy_it_was_started_with() {
    for (strategy, after_first, after_second) in [
        ("one_for_one", [true, false], [false, true]),
        ("one_for_all", [true, true], [true, true]),
        ("rest_for_one", [true, true], [false, true]),
    ] {
        let folder = Folder::new();
        std::fs::write(folder.file(), format!("{BASE}[supervision.listeners]\nstrategy = \"{strategy}\"\n")).unwrap();
        let node = start(&folder.file()).await;
        for (path, expected) in [("listeners/certificates", after_first), ("listeners/websocket", after_second)] {
            let before = generations(&node);
            crash(&node, path).await;
            let after = generations(&node);
            let restarted: Vec<bool> = before.iter().zip(&after).map(|(before, after)| after > before).collect();
            assert_eq!(restarted, expected, "{strategy}, after {path}");
        }
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_strategy_waits_for_a_restart() {
    let folder = Folder::new();
    std::fs::write(folder.file(), rooms(10)).unwrap();
    let node = start(&folder.file()).await;
    let changed = format!("{}[supervision.listeners]\nstrategy = \"one_for_all\"\nintensity = 7\n", rooms(10));
    std::fs::write(folder.file(), changed).unwrap();
    reload(&node).await;
    assert_eq!(node.settings().supervision["listeners"].intensity, Some(7), "the rest of the table is live");
    let waiting: Vec<String> = node.store().config_waiting().iter().map(|change| change.key.clone()).collect();
    assert_eq!(waiting, ["supervision.listeners.strategy"]);
    let before = generations(&node);
    crash(&node, "listeners/certificates").await;
    assert_eq!(generations(&node)[1], before[1], "it is one for one still");
    assert_eq!(metric(&node, "roomcast_config_waiting"), 1.0);
    node.stop().await;
}
