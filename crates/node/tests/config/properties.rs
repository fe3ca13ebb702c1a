//! Whatever two settings are: what is in force after a change is exactly the old ones with the live differences applied.

use proptest::prelude::*;
use proptest::sample::subsequence;
use roomcast_node::config::{Change, Settings, diff, in_force, parse};

/// Values that never contradict each other, live and not.
const VALUES: [&str; 31] = [
    "node.name = 'one'",
    "node.region = 'far'",
    "listen.websocket.bind = '127.0.0.1:1'",
    "listen.admin.token_file = 'a'",
    "listen.websocket.tls = 'self-signed'",
    "listen.webtransport.tls = { cert = 'a', key = 'b' }",
    "bus.nats.urls = ['nats://a', 'nats://b']",
    "auth.origins = ['https://a']",
    "auth.algorithm = 'EdDSA'",
    "limits.max_rooms = 3",
    "limits.max_connections = 7",
    "limits.trusted_proxies = ['10.0.0.0/8']",
    "limits.max_packet_bytes = 1000",
    "egress.queue_packets = 5",
    "egress.coalesce = '0s'",
    "egress.max_delay = '1m 30s 5ms'",
    "timers.idle = '1h'",
    "timers.drain = '0s'",
    "presence.lost_after = '7s'",
    "supervision.defaults.intensity = 0",
    "supervision.bus.strategy = 'one_for_all'",
    "supervision.bus.period = '9s'",
    "supervision.\"\".shutdown = '9s'",
    "supervision.\"rooms/*\".strategy = 'rest_for_one'",
    "supervision.\"rooms/*\".intensity = 4",
    "supervision.\"rooms/*\".backoff = { initial = '1ms', factor = 1.25, max = '2s', jitter = 0.125 }",
    "supervision.\"rooms/caf%C3%A9\".intensity = 1",
    "chaos.enabled = true",
    "telemetry.log = 'debug'",
    "telemetry.log = 'info,roomcast=trace'",
    "telemetry.format = 'json'",
];

fn settings() -> impl Strategy<Value = Settings> {
    subsequence(&VALUES[..], 0..=VALUES.len()).prop_filter_map("some client must be able to connect", |values| {
        parse("supervisor.toml", &values.join("\n"), &[]).ok()
    })
}

fn only(changes: Vec<Change>, live: bool) -> Vec<Change> {
    changes.into_iter().filter(|change| change.live == live).collect()
}

proptest! {
    #[test]
    fn what_is_in_force_is_the_old_settings_with_the_live_changes(old in settings(), new in settings()) {
        let merged = in_force(&old, &new);
        prop_assert_eq!(diff(&old, &merged), only(diff(&old, &new), true));
        prop_assert_eq!(diff(&merged, &new), only(diff(&old, &new), false));
        // The same, section by section, so that the comparison is not only held against itself.
        prop_assert_eq!(
            (&merged.node, &merged.listen, &merged.bus, &merged.auth, merged.telemetry.format),
            (&old.node, &old.listen, &old.bus, &old.auth, old.telemetry.format)
        );
        prop_assert_eq!(
            (&merged.limits, &merged.egress, &merged.timers, &merged.presence, &merged.chaos, &merged.telemetry.log),
            (&new.limits, &new.egress, &new.timers, &new.presence, &new.chaos, &new.telemetry.log)
        );
        for path in ["bus", "rooms/*", "defaults", ""] {
            let [old, new, merged] = [&old, &new, &merged].map(|settings| settings.supervision.get(path));
            prop_assert_eq!(merged.and_then(|policy| policy.strategy), old.and_then(|policy| policy.strategy));
            prop_assert_eq!(merged.and_then(|policy| policy.intensity), new.and_then(|policy| policy.intensity));
        }
    }

    #[test]
    fn equal_settings_differ_in_nothing_and_others_in_something(old in settings(), new in settings()) {
        prop_assert_eq!(diff(&old, &old), vec![]);
        prop_assert_eq!(&in_force(&old, &old), &old);
        prop_assert_eq!(old == new, diff(&old, &new).is_empty());
        let merged = in_force(&old, &new);
        prop_assert_eq!(in_force(&merged, &new), merged, "once is enough");
    }

    #[test]
    fn settings_written_as_a_file_read_as_the_same_settings(old in settings(), new in settings()) {
        let merged = in_force(&old, &new);
        let text = toml::to_string(&merged).unwrap();
        prop_assert_eq!(parse("supervisor.toml", &text, &[]).unwrap(), merged);
    }
}
