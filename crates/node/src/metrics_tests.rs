//! That `docs/metrics.md` says what the code does, and that labels stay bounded.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// A metric's type and labels.
type Shape = (String, BTreeSet<String>);

/// Every figure, those that are made at their first use too.
fn all() -> Metrics {
    let metrics = Metrics::new("1.2.3", "seed");
    metrics.closed(None);
    metrics.refused(Transport::WebSocket, "403");
    metrics.crashed("rooms/*", "killed");
    metrics.restarted("rooms/*", "killed");
    metrics.escalated("rooms/*");
    metrics.accept_failed(Transport::WebTransport);
    metrics.streams_abandoned("stalled", 1);
    for histogram in [&metrics.egress_depth, &metrics.delivery_delay, &metrics.recovery] {
        histogram.record(0.03);
    }
    metrics
}

fn rendered(text: &str) -> BTreeMap<String, Shape> {
    let mut shapes: BTreeMap<String, Shape> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            current = name.to_owned();
            shapes.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if let Some((_, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let labels = labels.rsplit_once('}').unwrap().0;
            let keys = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(key, _)| key.to_owned());
            shapes.get_mut(&current).unwrap().1.extend(keys.filter(|key| key != "le"));
        }
    }
    shapes
}

fn documented() -> BTreeMap<String, Shape> {
    include_str!("../../../docs/metrics.md")
        .lines()
        .filter(|line| line.starts_with("| `roomcast_"))
        .map(|line| line.trim_matches(['|', ' ']).split('|').map(str::trim).collect::<Vec<_>>())
        .filter(|cells| cells.len() == 4)
        .map(|cells| {
            let labels = cells[2].split(", ").filter(|label| !label.is_empty()).map(|label| label.replace('`', ""));
            (cells[0].replace('`', ""), (cells[1].to_owned(), labels.collect()))
        })
        .collect()
}

#[test]
fn the_page_and_the_code_agree() {
    assert_eq!(documented(), rendered(&all().render()));
}

#[test]
fn every_reason_and_class_is_explained() {
    let page = include_str!("../../../docs/metrics.md");
    let labels =
        DropReason::ALL.iter().map(|reason| reason.label()).chain(Class::ALL.iter().map(|class| class.label()));
    for label in labels.chain(ActorState::ALL.iter().map(|state| state.as_str())) {
        assert!(page.contains(&format!("`{label}`")), "{label} is not in the page");
    }
}

#[test]
fn no_metric_of_the_source_is_left_out() {
    let source = include_str!("metrics.rs");
    let mut named: BTreeSet<&str> = source.split('"').filter(|text| text.starts_with("roomcast_")).collect();
    // Two parts of one literal would be a name that is not found here.
    named.retain(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
    let documented = documented();
    let documented: BTreeSet<&str> = documented.keys().map(String::as_str).collect();
    assert_eq!(named, documented);
}

#[test]
fn recovery_is_measured_finely_around_what_is_promised() {
    let text = all().render();
    for bound in ["0.0001", "0.02", "0.05", "0.1", "10"] {
        let line = format!("roomcast_actor_recovery_seconds_bucket{{le=\"{bound}\"}}");
        assert!(text.contains(&line), "{line} is not in {text}");
    }
}

#[test]
fn actors_are_counted_by_state_and_not_twice() {
    let metrics = Metrics::new("1.2.3", "seed");
    metrics.actors_are([(ActorState::Running, 2), (ActorState::Restarting, 1), (ActorState::Down, 0)]);
    metrics.actors_are([(ActorState::Running, 1), (ActorState::Restarting, 0), (ActorState::Down, 1)]);
    let text = metrics.render();
    for (state, count) in [("running", 1), ("down", 1), ("restarting", 0), ("starting", 0), ("stopping", 0)] {
        let line = format!("roomcast_actors{{state=\"{state}\"}} {count}\n");
        assert!(text.contains(&line), "{line} is not in {text}");
    }
}
