//! What a reload does and says: live keys act, others wait, bad files change nothing; and no crash of the configuration
//! actor loses a change.

use std::time::Duration;

use roomcast_node::config::{Change, Verdict};
use roomcast_supervision::{ActorState, Fault};
use serde_json::json;

use crate::support::{BASE, Folder, eventually, metric, reload, rooms, rooms_in_force, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_good_file_is_told_key_by_key_and_what_waits_stays_listed() {
    let folder = Folder::new();
    std::fs::write(folder.file(), rooms(10)).unwrap();
    let node = start(&folder.file()).await;
    let outcome = reload(&node).await;
    assert_eq!((outcome.verdict, outcome.generation), (Verdict::Unchanged, 1));
    assert!(outcome.changed.is_empty() && outcome.errors.is_empty());

    std::fs::write(folder.file(), format!("{}[node]\nregion = \"far\"\n", rooms(11))).unwrap();
    let outcome = reload(&node).await;
    let region = Change { key: "node.region".into(), old: Some(json!("local")), new: Some(json!("far")), live: false };
    // The watch may have been first; then the live key is in force already, and what waits is told again.
    if outcome.verdict == Verdict::Applied {
        let limit = Change { key: "limits.max_rooms".into(), old: Some(json!(10)), new: Some(json!(11)), live: true };
        assert_eq!(outcome.changed, [limit, region.clone()]);
    } else {
        assert_eq!((outcome.verdict, &outcome.changed), (Verdict::Unchanged, &vec![region.clone()]));
    }
    assert_eq!(outcome.generation, 2);
    assert_eq!((rooms_in_force(&node), node.settings().node.region.as_str()), (11, "local"));
    assert_eq!(node.store().config_waiting().as_slice(), std::slice::from_ref(&region));
    assert_eq!(metric(&node, "roomcast_config_waiting"), 1.0);
    assert!(metric(&node, "roomcast_config_last_good_timestamp_seconds") > 1.6e9);

    let again = reload(&node).await;
    assert_eq!((again.verdict, again.generation), (Verdict::Unchanged, 2));
    assert_eq!(again.changed, [region], "it waits still");

    std::fs::write(folder.file(), rooms(11)).unwrap();
    reload(&node).await;
    assert!(node.store().config_waiting().is_empty(), "taken back, it waits no more");
    assert_eq!(metric(&node, "roomcast_config_waiting"), 0.0);
    assert_eq!(node.store().config_generation(), 2, "nothing in force has changed");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_changes_nothing_and_is_counted_and_told_whole() {
    let folder = Folder::new();
    std::fs::write(folder.file(), rooms(10)).unwrap();
    let node = start(&folder.file()).await;
    let before = node.settings();
    // One good key among the bad ones: a file is taken whole or not at all.
    let bad = format!("{BASE}[limits]\nmax_rooms = 11\nmax_romms = 3\n[timers]\nping = 5\n");
    std::fs::write(folder.file(), bad).unwrap();
    eventually("the watch has read it", || metric(&node, "roomcast_config_rejections_total") == 1.0).await;
    let outcome = reload(&node).await;
    assert_eq!((outcome.verdict, outcome.generation), (Verdict::Refused, 1));
    assert!(outcome.changed.is_empty());
    let told: Vec<_> = outcome.errors.iter().map(|error| (error.line, error.key.as_str())).collect();
    assert_eq!(told, [(Some(5), "limits.max_romms"), (Some(7), "timers.ping")]);
    let json = serde_json::to_value(&outcome).unwrap();
    assert_eq!(json["verdict"], "refused");
    assert_eq!(json["errors"][0]["nearest"], "max_rooms");
    assert_eq!(json["errors"][0]["file"], folder.file().to_str().unwrap());
    assert_eq!(metric(&node, "roomcast_config_rejections_total"), 2.0, "asked for again, it is told again");
    assert_eq!(*node.settings(), *before);
    node.stop().await;
}

/// Twice, so that the second restart waits: that is the time in which the file changes.
const SLOW_RESTART: &str = "[supervision.\"\"]\nintensity = 1000\n\
     backoff = { initial = \"1s\", factor = 1.0, max = \"1s\", jitter = 0.0 }\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_made_while_the_configuration_actor_is_dead_is_not_lost() {
    let folder = Folder::new();
    std::fs::write(folder.file(), rooms(10) + SLOW_RESTART).unwrap();
    let node = start(&folder.file()).await;
    let state = |wanted: ActorState| node.tree().find("config").is_some_and(|entry| entry.state == wanted);
    let deadline = tokio::time::Instant::now() + crate::support::SOON;
    while !state(ActorState::Restarting) {
        assert!(tokio::time::Instant::now() < deadline, "it never waits to be restarted");
        let _ = node.tree().inject("config", Fault::Kill);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    std::fs::write(folder.file(), rooms(11) + SLOW_RESTART).unwrap();
    node.reload();
    assert!(state(ActorState::Restarting), "the change was made while nobody looked");
    assert_eq!(rooms_in_force(&node), 10);
    eventually("the next incarnation has found the change", || rooms_in_force(&node) == 11).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_incarnation_does_not_judge_again_what_was_judged() {
    let folder = Folder::new();
    let patient = "[supervision.\"\"]\nintensity = 1000\n";
    std::fs::write(folder.file(), rooms(10) + patient).unwrap();
    let node = start(&folder.file()).await;
    std::fs::write(folder.file(), "[limits]\nmax_rooms = 0\n").unwrap();
    eventually("it is refused", || metric(&node, "roomcast_config_rejections_total") == 1.0).await;
    let restarts = || node.tree().find("config").map_or(0, |entry| entry.restarts);
    for crash in 1..=3 {
        eventually("there is one to kill", || node.tree().inject("config", Fault::Kill).is_ok()).await;
        eventually("it is back", || restarts() >= crash && node.store().config.current().is_some()).await;
    }
    std::fs::write(folder.file(), rooms(11) + patient).unwrap();
    eventually("the watch of the new incarnation works", || rooms_in_force(&node) == 11).await;
    assert_eq!(metric(&node, "roomcast_config_rejections_total"), 1.0);
    node.stop().await;
}

/// Kills and panics in between, at whatever moment they hit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_crash_loses_the_last_change() {
    let folder = Folder::new();
    let patient = "[supervision.\"\"]\nintensity = 100000\n\
         backoff = { initial = \"1ms\", factor = 1.0, max = \"1ms\", jitter = 0.0 }\n";
    std::fs::write(folder.file(), rooms(10) + patient).unwrap();
    let node = start(&folder.file()).await;
    for count in 11..211 {
        std::fs::write(folder.file(), rooms(count) + patient).unwrap();
        let fault = if count % 2 == 0 { Fault::Kill } else { Fault::Panic };
        // Between two incarnations there is nobody to hit.
        let _ = node.tree().inject("config", fault);
        if count % 20 == 0 {
            eventually("the last change is in force", || rooms_in_force(&node) == count).await;
        } else {
            tokio::task::yield_now().await;
        }
    }
    eventually("the last change is in force", || rooms_in_force(&node) == 210).await;
    assert!(node.tree().find("config").unwrap().restarts > 0, "it was hit");
    assert_eq!(metric(&node, "roomcast_config_rejections_total"), 0.0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_a_file_reloads_its_defaults() {
    let overrides = vec!["listen.websocket.bind=127.0.0.1:0".to_owned(), "listen.webtransport.bind=127.0.0.1:0".into()];
    let overrides = [overrides, vec!["listen.admin.bind=127.0.0.1:0".into()]].concat();
    let settings = roomcast_node::config::load(None, &overrides).unwrap();
    let options = roomcast_node::NodeOptions { settings, overrides, ..Default::default() };
    let node = roomcast_node::Node::start(options).await.unwrap();
    let outcome = reload(&node).await;
    assert_eq!((outcome.verdict, outcome.generation, outcome.changed), (Verdict::Unchanged, 1, Vec::new()));
    node.stop().await;
}
