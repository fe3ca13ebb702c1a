use serde_json::json;

use super::*;

fn parsed(text: &str) -> Settings {
    super::super::parse("supervisor.toml", text, &[]).unwrap()
}

#[test]
fn live_settings_are_taken_and_the_others_are_named_and_kept() {
    let old = Settings::default();
    let new = parsed(
        "[node]\nregion = \"far\"\n[limits]\nmax_rooms = 3\n[telemetry]\nlog = \"debug\"\nformat = \"json\"\n\
         [supervision.\"rooms/*\"]\nintensity = 4\n",
    );
    let change = |key: &str, old, new, live| Change { key: key.into(), old, new, live };
    assert_eq!(
        diff(&old, &new),
        [
            change("limits.max_rooms", Some(json!(10_000)), Some(json!(3)), true),
            change("node.region", Some(json!("local")), Some(json!("far")), false),
            change("supervision.\"rooms/*\".intensity", None, Some(json!(4)), true),
            change("telemetry.format", Some(json!("text")), Some(json!("json")), false),
            change("telemetry.log", Some(json!("info")), Some(json!("debug")), true),
        ]
    );
    let merged = in_force(&old, &new);
    assert_eq!((merged.limits.max_rooms, merged.telemetry.log.as_str()), (3, "debug"));
    assert_eq!((&merged.node, merged.telemetry.format), (&old.node, old.telemetry.format));
    assert_eq!(merged.supervision["rooms/*"].intensity, Some(4));
}

#[test]
fn the_file_that_shows_every_default_changes_nothing() {
    let shown = parsed(include_str!("../../../../supervisor.toml"));
    assert_eq!(diff(&Settings::default(), &shown), []);
    let one_more = parsed("[supervision.\"\"]\nintensity = 51\n");
    let change =
        Change { key: "supervision.\"\".intensity".into(), old: Some(json!(50)), new: Some(json!(51)), live: true };
    assert_eq!(diff(&shown, &one_more), [change]);
}

#[test]
fn a_listener_that_is_switched_off_stays_on_until_a_restart() {
    let new = parsed("[listen.websocket]\n");
    let changed = diff(&Settings::default(), &new);
    assert!(!changed.is_empty() && changed.iter().all(|change| change.key.starts_with("listen.") && !change.live));
    assert_eq!(in_force(&Settings::default(), &new), Settings::default());
    assert_eq!(in_force(&new, &Settings::default()), new);
}
