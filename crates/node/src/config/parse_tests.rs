use std::time::Duration;

use super::*;

fn refused(text: &str) -> String {
    parse("supervisor.toml", text, &[]).unwrap_err().to_string()
}

#[test]
fn the_annotated_file_is_exactly_the_defaults() {
    let text = include_str!("../../../../supervisor.toml");
    let from_file = parse("supervisor.toml", text, &[]).unwrap();
    let mut defaults = Settings::default();
    let policy = |settings, path: &str| {
        let path = path.split('/').filter(|name| !name.is_empty());
        let path = path.fold(roomcast_supervision::ActorPath::root(""), |path, name| path.child(name));
        crate::policy::policies(settings).policy(&path)
    };
    for path in ["", "rooms", "rooms/standup", "listeners", "bus"] {
        assert_eq!(policy(&from_file, path), policy(&defaults, path), "{path}");
    }
    defaults.supervision = from_file.supervision.clone();
    assert_eq!(from_file, defaults);
}

#[test]
fn nothing_at_all_is_a_good_configuration() {
    assert_eq!(parse("supervisor.toml", "", &[]).unwrap(), Settings::default());
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_a_suggestion() {
    assert_eq!(
        refused("[limits]\nmax_rooms = 1\nmax_romm_members = 3\n"),
        "supervisor.toml:3: limits.max_romm_members: unknown key `max_romm_members`; did you mean `max_room_members`?"
    );
    assert!(
        refused("[limitz]\n").starts_with("supervisor.toml:1: limitz: unknown key `limitz`; did you mean `limits`?")
    );
    assert!(refused("[supervision.rooms]\nintensty = 3\n").contains("supervision.rooms.intensty: unknown key"));
}

#[test]
fn a_wrong_type_or_value_names_its_key() {
    for (text, expected) in [
        ("[limits]\nmax_rooms = \"many\"", "supervisor.toml:2: limits.max_rooms: "),
        ("[egress]\nmax_delay = \"soon\"", "supervisor.toml:2: egress.max_delay: "),
        ("[node]\ndialect = \"sed\"", "supervisor.toml:2: node.dialect: unknown value `sed`; did you mean `seed`?"),
        (
            "[listen.websocket]\ntls = \"of\"",
            "supervisor.toml:2: listen.websocket.tls: unknown value `of`; did you mean `off`?",
        ),
        ("[listen.websocket]\ntls = 3", "supervisor.toml:2: listen.websocket.tls: "),
        ("[listen.websocket]\nbind = \"here\"", "supervisor.toml:2: listen.websocket.bind: "),
        ("[limits]\nmax_rooms = 0", "supervisor.toml:2: limits.max_rooms: must be at least 1"),
        (
            "[limits]\nmax_packet_bytes = 5000000",
            "supervisor.toml:2: limits.max_packet_bytes: must be from 1 to 4000000",
        ),
        ("[limits]\ntrusted_proxies = [\"10.0.0.0/99\"]", "supervisor.toml:2: limits.trusted_proxies: "),
        ("[timers]\nping = \"20s\"", "supervisor.toml:2: timers.idle: must be at least twice timers.ping"),
        ("[listen.admin]\nbind = \"127.0.0.1:0\"", "supervisor.toml:1: listen: no client could connect"),
        ("[listen.webtransport]\ntls = \"off\"", "supervisor.toml:2: listen.webtransport.tls: "),
        ("[supervision.\"rooms/*\"]\nperiod = \"0s\"", "supervisor.toml:2: supervision.\"rooms/*\".period: "),
        (
            "[supervision.defaults]\nbackoff = { initial = \"1s\", factor = 0.5, max = \"5s\", jitter = 0.2 }",
            "supervisor.toml:2: supervision.defaults.backoff.factor: ",
        ),
        ("[node]\nname = \"a b\"", "supervisor.toml:2: node.name: "),
        ("[node", "supervisor.toml:1: node: is not valid TOML: "),
    ] {
        let message = refused(text);
        assert!(message.starts_with(expected), "{text:?} gave {message:?}");
    }
}

#[test]
fn a_set_lays_over_the_file_and_is_named_when_it_is_wrong() {
    let set = |entries: &[&str]| {
        let entries: Vec<String> = entries.iter().map(ToString::to_string).collect();
        parse("supervisor.toml", "[limits]\nmax_rooms = 7\n", &entries)
    };
    let settings = set(&["limits.max_room_members=9", "node.name=one", "egress.coalesce=2ms"]).unwrap();
    assert_eq!((settings.limits.max_rooms, settings.limits.max_room_members), (7, 9));
    assert_eq!(settings.node.name, "one");
    assert_eq!(settings.egress.coalesce, Duration::from_millis(2));
    let quoted = set(&["supervision.\"rooms/*\".intensity=3"]).unwrap();
    assert_eq!(quoted.supervision["rooms/*"].intensity, Some(3));
    assert_eq!(
        set(&["limits.max_rooms=0"]).unwrap_err().to_string(),
        "--set limits.max_rooms=0: limits.max_rooms: must be at least 1"
    );
    for order in [["timers.idle=3s", "timers.ping=1s"], ["timers.ping=1s", "timers.idle=3s"]] {
        assert_eq!(set(&order).unwrap().timers.idle, Duration::from_secs(3), "the order does not matter");
    }
    let contradiction = set(&["timers.ping=20s", "node.name=one"]).unwrap_err().to_string();
    assert!(contradiction.starts_with("--set timers.ping=20s: timers.idle: "), "{contradiction}");
    assert!(set(&["limits.max_roms=1"]).unwrap_err().to_string().contains("did you mean `max_rooms`?"));
    assert!(set(&["limits"]).unwrap_err().to_string().contains("has no `=`"));
}

#[test]
fn a_set_for_one_listener_leaves_the_others_on() {
    let settings = parse("defaults", "", &["listen.websocket.bind=127.0.0.1:0".into()]).unwrap();
    assert!(settings.listen.webtransport.is_some() && settings.listen.admin.is_some());
    assert_eq!(settings.listen.websocket.unwrap().bind.port(), 0);
}

#[test]
fn a_missing_file_says_so() {
    let error = load(Some(Path::new("/nonexistent/supervisor.toml")), &[]).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/supervisor.toml: cannot be read: "), "{error}");
}
