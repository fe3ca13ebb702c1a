//! Broken files: each is refused, with a message that names the key and the line.

use std::time::{Duration, Instant};

use roomcast_node::config::{ConfigError, MAX_ERRORS, parse};

/// Text, line, key, a part of the reason.
type Broken = (&'static str, usize, &'static str, &'static str);

const SYNTAX: [Broken; 14] = [
    ("[node", 1, "node", "is not valid TOML"),
    ("[limits]\nmax_rooms =\n", 2, "limits.max_rooms", "is not valid TOML"),
    ("[limits]\nmax_rooms 3\n", 2, "", "is not valid TOML"),
    ("[timers]\nping = 5s\n", 2, "timers.ping", "string values must be quoted"),
    ("[timers]\nping: \"5s\"\n", 2, "timers.ping", "is not valid TOML"),
    ("[node]\nname = \"one\n", 2, "node.name", "is not valid TOML"),
    ("[node]\nname = 'one\n", 2, "node.name", "is not valid TOML"),
    ("[chaos]\nenabled = yes\n", 2, "chaos.enabled", "is not valid TOML"),
    ("[chaos]\nenabled = tru\n", 2, "chaos.enabled", "is not valid TOML"),
    ("[limits]\ntrusted_proxies = [\"10.0.0.1\"\n", 2, "limits.trusted_proxies", "unclosed array"),
    ("[supervision.bus]\nbackoff = { initial = \"1s\"\n", 2, "supervision.bus.backoff", "unclosed inline table"),
    ("[limits]\nmax_rooms = 1\nmax_rooms = 2\n", 3, "limits.max_rooms", "is set twice"),
    ("[limits]\nmax_rooms = 1\n[egress]\n[limits]\nmax_room_members = 3\n", 4, "limits", "is set twice"),
    ("[limits]\nmax_rooms = 1_000_\n", 2, "limits.max_rooms", "is not valid TOML"),
];

const UNKNOWN: [Broken; 15] = [
    ("[limitz]\nmax_rooms = 1\n", 1, "limitz", "did you mean `limits`?"),
    ("max_rooms = 1\n", 1, "max_rooms", "unknown key `max_rooms`; known here: node, listen"),
    ("[limits]\nmax_romms = 1\n", 2, "limits.max_romms", "did you mean `max_rooms`?"),
    ("[limits]\n\nMAX_ROOMS = 1\n", 3, "limits.MAX_ROOMS", "did you mean `max_rooms`?"),
    ("[limits]\ncolour = 1\n", 2, "limits.colour", "unknown key `colour`; known here: max_connections"),
    ("[listen.websockets]\nbind = \"127.0.0.1:1\"\n", 1, "listen.websockets", "did you mean `websocket`?"),
    ("[listen.websocket]\nbnd = \"127.0.0.1:1\"\n", 2, "listen.websocket.bnd", "did you mean `bind`?"),
    ("[bus.nats]\nurl = []\n", 2, "bus.nats.url", "did you mean `urls`?"),
    ("[node]\ndialect = \"sed\"\n", 2, "node.dialect", "unknown value `sed`; did you mean `seed`?"),
    ("[auth]\nalgorithm = \"HS265\"\n", 2, "auth.algorithm", "did you mean `HS256`?"),
    ("[telemetry]\nformat = \"yaml\"\n", 2, "telemetry.format", "unknown value `yaml`; known here: text, json"),
    (
        "[supervision.defaults]\nbackoff = { initial = \"1s\", facter = 2.0, max = \"5s\", jitter = 0.2 }\n",
        2,
        "supervision.defaults.backoff.facter",
        "did you mean `factor`?",
    ),
    (
        "[listen.websocket]\ntls = { cert = \"a\", key = \"b\", ca = \"c\" }\n",
        2,
        "listen.websocket.tls.ca",
        "unknown key `ca`",
    ),
    ("[supervision.\"rooms/*\"]\nintensty = 3\n", 2, "supervision.\"rooms/*\".intensty", "did you mean `intensity`?"),
    ("[supervision.bus]\nstrategy = \"one_for_al\"\n", 2, "supervision.bus.strategy", "did you mean `one_for_all`?"),
];

const TYPES: [Broken; 23] = [
    ("bus = []\n", 1, "bus", "list, expected a table"),
    ("[supervision]\nbus = [3]\n", 2, "supervision.bus", "list, expected a table"),
    (
        "[supervision.bus]\nbackoff = [\"1s\", 2.0, \"5s\", 0.2]\n",
        2,
        "supervision.bus.backoff",
        "list, expected a table",
    ),
    ("limits = 3\n", 1, "limits", "expected a table"),
    ("[[limits]]\nmax_rooms = 3\n", 1, "limits", "expected a table"),
    ("[limits]\nmax_rooms = \"many\"\n", 2, "limits.max_rooms", "expected a whole number"),
    ("[limits]\nmax_rooms = 1.5\n", 2, "limits.max_rooms", "expected a whole number"),
    ("[limits]\nmax_rooms = -1\n", 2, "limits.max_rooms", "expected a whole number"),
    ("[limits]\nmax_rooms = 99999999999999999999\n", 2, "limits.max_rooms", "expected a whole number"),
    (
        "[limits]\ningress_packets_per_second = 5000000000\n",
        2,
        "limits.ingress_packets_per_second",
        "expected a whole number",
    ),
    ("[limits]\ntrusted_proxies = \"10.0.0.1\"\n", 2, "limits.trusted_proxies", "expected a list"),
    ("[limits]\ntrusted_proxies = [1]\n", 2, "limits.trusted_proxies", "expected text"),
    ("[timers]\nping = 5\n", 2, "timers.ping", "expected a time as text with its unit"),
    ("[timers]\nping = \"5\"\n", 2, "timers.ping", "write it like \"500ms\" or \"10s\""),
    ("[timers]\nping = \"-5s\"\n", 2, "timers.ping", "write it like \"500ms\" or \"10s\""),
    ("[timers]\nping = \"soon\"\n", 2, "timers.ping", "write it like \"500ms\" or \"10s\""),
    ("[timers]\nping = \"99999999999999999999s\"\n", 2, "timers.ping", "write it like \"500ms\" or \"10s\""),
    ("[chaos]\nenabled = \"true\"\n", 2, "chaos.enabled", "expected true or false"),
    ("[listen.websocket]\nbind = \"here\"\n", 2, "listen.websocket.bind", "invalid socket address"),
    ("[listen.websocket]\nbind = 8080\n", 2, "listen.websocket.bind", "expected"),
    ("[listen.websocket]\ntls = true\n", 2, "listen.websocket.tls", "\"off\", \"self-signed\" or { cert"),
    (
        "[supervision.bus]\nbackoff = { initial = \"1s\", factor = \"two\", max = \"5s\", jitter = 0.2 }\n",
        2,
        "supervision.bus.backoff.factor",
        "expected a number",
    ),
    ("[supervision.bus]\nbackoff = { initial = \"1s\" }\n", 2, "supervision.bus.backoff", "missing field `factor`"),
];

const RANGES: [Broken; 30] = [
    ("[node]\nname = \"\"\n", 2, "node.name", "1 to 64 characters"),
    ("[node]\nregion = \"a b\"\n", 2, "node.region", "1 to 64 characters"),
    ("[limits]\nmax_rooms = 0\n", 2, "limits.max_rooms", "at least 1"),
    ("[limits]\nmax_connections = 9223372036854775807\n", 2, "limits.max_connections", "from 1 to 10000000"),
    ("[limits]\nmax_buffered_bytes = 9223372036854775807\n", 2, "limits.max_buffered_bytes", "from 1 to"),
    ("[limits]\nmax_packet_bytes = 5000000\n", 2, "limits.max_packet_bytes", "from 1 to 4000000"),
    ("[limits]\ntrusted_proxies = [\"10.0.0.0/99\"]\n", 2, "limits.trusted_proxies", "addresses or networks"),
    ("[egress]\nqueue_packets = 0\n", 2, "egress.queue_packets", "at least 1"),
    ("[egress]\ncoalesce = \"1s\"\n", 2, "egress.coalesce", "at most 100ms"),
    ("[egress]\nmax_delay = \"0s\"\n", 2, "egress.max_delay", "from 10ms to 1h"),
    ("[timers]\nhandshake = \"2h\"\n", 2, "timers.handshake", "from 100ms to 1h"),
    ("[timers]\nping = \"584000000000years\"\n", 2, "timers.ping", "from 100ms to 1h"),
    ("[presence]\nheartbeat = \"1ms\"\n", 2, "presence.heartbeat", "from 50ms to 1m"),
    ("[supervision.bus]\nperiod = \"0s\"\n", 2, "supervision.bus.period", "from 1ms to 1day"),
    ("[supervision.bus]\nshutdown = \"1day\"\n", 2, "supervision.bus.shutdown", "from 0s to 1h"),
    ("[supervision.bus]\nintensity = 4000000000\n", 2, "supervision.bus.intensity", "at most 1000000"),
    (
        "[supervision.bus]\nbackoff = { initial = \"1s\", factor = nan, max = \"5s\", jitter = 0.2 }\n",
        2,
        "supervision.bus.backoff.factor",
        "factor is NaN",
    ),
    (
        "[supervision.bus]\nbackoff = { initial = \"1s\", factor = inf, max = \"5s\", jitter = 0.2 }\n",
        2,
        "supervision.bus.backoff.factor",
        "factor is inf",
    ),
    (
        "[supervision.bus.backoff]\ninitial = \"1s\"\nfactor = 0.5\nmax = \"5s\"\njitter = 0.2\n",
        3,
        "supervision.bus.backoff.factor",
        "at least 1",
    ),
    (
        "[supervision.bus.backoff]\ninitial = \"1s\"\nfactor = 2.0\nmax = \"5s\"\njitter = 1.2\n",
        5,
        "supervision.bus.backoff.jitter",
        "between 0 and 1",
    ),
    ("[telemetry]\nlog = \"a=b=c\"\n", 2, "telemetry.log", "is no filter"),
    ("[telemetry]\nlog = \"inof\"\n", 2, "telemetry.log", "did you mean `info`?"),
    ("[node]\ndialect = \"sessions\"\n", 2, "node.dialect", "not served by this version"),
    ("[bus.nats]\nurls = [\"localhost:4222\"]\n", 2, "bus.nats.urls", "write nats://HOST:PORT"),
    ("[bus.nats]\nurls = [\"nats://\"]\n", 2, "bus.nats.urls", "write nats://HOST:PORT"),
    ("[bus.nats]\nurls = [\"http://user:secret@b\"]\n", 2, "bus.nats.urls", "`http://…@b`"),
    ("[bus.nats]\nurls = [\"nats://a,nats://b\"]\n", 2, "bus.nats.urls", "write nats://HOST:PORT"),
    ("[presence]\nheartbeat = \"2m\"\nlost_after = \"10m\"\n", 2, "presence.heartbeat", "from 50ms to 1m"),
    ("[auth]\nmode = \"token\"\n", 2, "auth.mode", "not served by this version"),
    ("[listen.webtransport]\ntls = \"off\"\n", 2, "listen.webtransport.tls", "always encrypted"),
];

const CONTRADICTIONS: [Broken; 10] = [
    ("[timers]\nping = \"20s\"\n", 2, "timers.idle", "at least twice timers.ping"),
    ("[timers]\nping = \"10s\"\nidle = \"15s\"\n", 3, "timers.idle", "at least twice timers.ping"),
    ("[presence]\nlost_after = \"1s\"\n", 2, "presence.lost_after", "at least twice presence.heartbeat"),
    ("[presence]\nheartbeat = \"10s\"\n", 2, "presence.lost_after", "at least twice presence.heartbeat"),
    ("[egress]\nqueue_bytes = 100\n", 2, "egress.queue_bytes", "less than limits.max_packet_bytes"),
    ("[limits]\nmax_buffered_bytes = 100\n", 2, "limits.max_buffered_bytes", "less than limits.max_packet_bytes"),
    (
        "[limits]\ningress_bytes_per_second = 100\n",
        2,
        "limits.ingress_bytes_per_second",
        "less than limits.max_packet_bytes",
    ),
    ("[listen.admin]\nbind = \"127.0.0.1:0\"\n", 1, "listen", "no client could connect"),
    (
        "[listen.websocket]\nbind = \"127.0.0.1:9090\"\n[listen.admin]\n",
        2,
        "listen.admin.bind",
        "is listen.websocket.bind too",
    ),
    (
        "[supervision.bus]\nbackoff = { initial = \"9s\", factor = 2.0, max = \"5s\", jitter = 0.2 }\n",
        2,
        "supervision.bus.backoff.max",
        "shorter than initial",
    ),
];

const TREE: [Broken; 26] = [
    (
        "[supervision.\"rooms/*\"]\nstrategy = \"one_for_all\"\n",
        2,
        "supervision.\"rooms/*\".strategy",
        "joins wait for the bus",
    ),
    (
        "[supervision.\"rooms/a\"]\nstrategy = \"one_for_all\"\n",
        2,
        "supervision.\"rooms/a\".strategy",
        "joins wait for the bus",
    ),
    ("[supervision.roms]\n", 1, "supervision.roms", "did you mean `rooms`?"),
    ("[supervision.\"roms\"]\nintensity = 3\n", 1, "supervision.roms", "did you mean `rooms`?"),
    ("[supervision.\"roms/*\"]\nintensity = 3\n", 1, "supervision.\"roms/*\"", "did you mean `rooms/*`?"),
    ("[supervision.default]\nintensity = 3\n", 1, "supervision.default", "did you mean `defaults`?"),
    (
        "[supervision.everything]\nintensity = 3\n",
        1,
        "supervision.everything",
        "known: defaults, \"\" (the root), *, bus",
    ),
    ("[supervision.\"rooms/\"]\nintensity = 3\n", 1, "supervision.\"rooms/\"", "empty segment"),
    ("[supervision.\"rooms/a b\"]\nintensity = 3\n", 1, "supervision.\"rooms/a b\"", "is not a name"),
    ("[supervision.\"rooms/%61\"]\nintensity = 3\n", 1, "supervision.\"rooms/%61\"", "write it as `rooms/a`"),
    (
        "[supervision.\"rooms/%c3%a9\"]\nintensity = 3\n",
        1,
        "supervision.\"rooms/%c3%a9\"",
        "write it as `rooms/%C3%A9`",
    ),
    ("[supervision.\"room%73/*\"]\nintensity = 3\n", 1, "supervision.\"room%73/*\"", "write it as `rooms/*`"),
    ("[supervision.\"rooms/%00\"]\nintensity = 3\n", 1, "supervision.\"rooms/%00\"", "what no name holds"),
    ("[supervision.\"rooms/a%0A\"]\nintensity = 3\n", 1, "supervision.\"rooms/a%0A\"", "what no name holds"),
    ("[supervision.\"rooms/%FF\"]\nintensity = 3\n", 1, "supervision.\"rooms/%FF\"", "what no name holds"),
    ("[supervision.telemetry]\nintensity = 3\n", 1, "supervision.telemetry", "this is a worker"),
    ("[supervision.\"bus/link\"]\nintensity = 3\n", 1, "supervision.\"bus/link\"", "`bus`"),
    ("[supervision.\"rooms/a/room\"]\nintensity = 3\n", 1, "supervision.\"rooms/a/room\"", "`rooms/a`"),
    ("[supervision.\"connections/*\"]\nintensity = 3\n", 1, "supervision.\"connections/*\"", "`connections`"),
    ("[supervision.\"rooms/a/room/b\"]\nintensity = 3\n", 1, "supervision.\"rooms/a/room/b\"", "no such supervisor"),
    ("[supervision.\"\"]\nstrategy = \"one_for_all\"\n", 2, "supervision.\"\".strategy", "would end all connections"),
    (
        "[supervision.rooms]\nstrategy = \"one_for_all\"\n",
        2,
        "supervision.rooms.strategy",
        "would end the actors of all rooms",
    ),
    (
        "[supervision.connections]\nstrategy = \"rest_for_one\"\n",
        2,
        "supervision.connections.strategy",
        "would end all connections when one of them crashes",
    ),
    ("[supervision.defaults]\nstrategy = \"one_for_one\"\n", 2, "supervision.defaults.strategy", "is set by name"),
    ("[supervision.\"*\"]\nstrategy = \"one_for_all\"\n", 2, "supervision.\"*\".strategy", "is set by name"),
    ("[supervision.\"*/*\"]\nstrategy = \"one_for_all\"\n", 2, "supervision.\"*/*\".strategy", "is set by name"),
];

fn errors(text: &str) -> Vec<ConfigError> {
    match parse("supervisor.toml", text, &[]) {
        Ok(_) => panic!("this was taken:\n{text}"),
        Err(errors) => errors.into_vec(),
    }
}

#[test]
fn each_broken_file_is_refused_with_its_line_key_and_reason() {
    let tables: [&[Broken]; 6] = [&SYNTAX, &UNKNOWN, &TYPES, &RANGES, &CONTRADICTIONS, &TREE];
    let mut wrong = Vec::new();
    for (text, line, key, reason) in tables.into_iter().flatten() {
        let errors = errors(text);
        let [error] = &errors[..] else {
            wrong.push(format!("{text}\n  gave {} errors: {errors:?}", errors.len()));
            continue;
        };
        let message = error.to_string();
        let named = error.line == Some(*line)
            && error.key == *key
            && error.reason.contains(reason)
            && message.starts_with(&format!("supervisor.toml:{line}: {key}"));
        if !named {
            wrong.push(format!("{text}\n  gave {message}\n  not  supervisor.toml:{line}: {key}: …{reason}…"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn a_nearest_name_is_given_for_programs_too() {
    for (text, nearest) in [
        ("[limits]\nmax_romms = 1\n", Some("max_rooms")),
        ("[node]\ndialect = \"sed\"\n", Some("seed")),
        ("[supervision.\"roms/*\"]\nintensity = 3\n", Some("rooms/*")),
        ("[supervision.\"rooms/a/room\"]\nintensity = 3\n", Some("rooms/a")),
        ("[supervision.\"rooms/%61\"]\nintensity = 3\n", Some("rooms/a")),
        ("[telemetry]\nlog = \"inof\"\n", Some("info")),
        ("[limits]\ncolour = 1\n", None),
    ] {
        assert_eq!(errors(text)[0].nearest.as_deref(), nearest, "{text}");
    }
}

#[test]
fn every_problem_of_a_file_is_told_in_the_order_of_lines() {
    let text = "\
[limits]
max_romms = 3
max_rooms = 0
max_room_members = \"many\"
[timers]
ping = 5
idle = \"1s\"
[egress]
coalesce = \"1s\"
queue_bytes = 5
[supervision.roms]
intensity = -1
[supervision.bus]
backoff = { initial = \"9s\", factor = nan, max = \"5s\", jitter = 2.0 }
[colours]
";
    let found: Vec<String> = errors(text).iter().map(|e| format!("{}:{}", e.line.unwrap(), e.key)).collect();
    assert_eq!(
        found,
        [
            "2:limits.max_romms",
            "3:limits.max_rooms",
            "4:limits.max_room_members",
            "6:timers.ping",
            // Nothing of timers.idle: what it would contradict is the default of a ping that was not meant.
            "9:egress.coalesce",
            "10:egress.queue_bytes",
            "11:supervision.roms",
            "12:supervision.roms.intensity",
            "14:supervision.bus.backoff.factor",
            "15:colours",
        ]
    );
}

#[test]
fn several_slips_of_syntax_are_told_at_once() {
    let found: Vec<_> = errors("[limits]\nmax_rooms = 1_\n[timers]\nping = 'x\n[node\nname = 1")
        .iter()
        .map(|e| e.line.unwrap())
        .collect();
    assert_eq!(found, [2, 4, 5]);
}

#[test]
fn a_duplicate_hides_no_other_problem() {
    let found = errors("[limits]\nmax_rooms = 1\nmax_rooms = 2\nmax_romms = 1\n");
    let keys: Vec<_> = found.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(keys, ["limits.max_rooms", "limits.max_romms"]);
}

#[test]
fn what_a_file_says_cannot_act_on_the_terminal_that_shows_its_errors() {
    for text in [
        "\"\\u001b[2J\\n\" = 1\n",
        "[supervision.\"\\u001b[2J\\n\"]\nintensity = 1\n",
        "[node]\ndialect = \"\\u001b[2J\\n\"\n",
        "[listen.websocket]\ntls = \"\\u001b[2J\\n\"\n",
        "[limits]\ntrusted_proxies = [\"\\u001b[2J\\n\"]\n",
        "[telemetry]\nlog = \"a=\\u001b[2J\\n=\"\n",
        "[limits]\nmax_rooms = \"\\u001b[2J\\n\"\n",
        "\u{1b}[2J\u{7} = = 1\n",
    ] {
        let errors = errors(text);
        let shown = errors[0].to_string();
        assert!(!shown.contains(char::is_control), "{shown:?}");
    }
}

#[test]
fn a_thousand_problems_are_cut() {
    let unknown: String = (0..1000).map(|n| format!("key{n} = 1\n")).collect();
    assert_eq!(errors(&unknown).len(), MAX_ERRORS);
    let unknown: String = (0..1000).map(|n| format!("[supervision.unheard{n}]\nintensity = 1\n")).collect();
    assert_eq!(errors(&unknown).len(), MAX_ERRORS);
}

#[test]
fn a_text_that_is_wrong_nearly_everywhere_is_refused_in_no_time_and_few_words() {
    let lines = |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<String>();
    let long = "a".repeat(100_000);
    for (what, text) in [
        ("no TOML under a long header", format!("[{long}]\n{}", "x=\n".repeat(33_000))),
        ("a long unknown key", format!("{long} = 1\n")),
        ("a long unknown table", format!("[{long}]\nx = 1\n")),
        (
            "unknown keys under a long name",
            format!("[supervision.{long}]\n{}", lines(9_000, &|n| format!("x{n} = 1\n"))),
        ),
        ("a long value", format!("[limits]\nmax_rooms = \"{long}\"\n")),
        ("a long log filter", format!("[telemetry]\nlog = \"{}=x\"\n", "a,".repeat(50_000))),
        ("unknown tables, deep", lines(4_500, &|n| format!("[a{n}.b.c.d]\n"))),
        ("more values than are looked at", lines(26_000, &|n| format!("k{n} = 1\n"))),
        ("unknown supervisors", lines(7_500, &|n| format!("[supervision.u{n}]\nintensity = 1\n"))),
        ("bad addresses", format!("[limits]\ntrusted_proxies = [{}]\n", "\"x\",".repeat(19_000))),
        ("duplicates", "x = 1\n".repeat(40_000)),
    ] {
        let began = Instant::now();
        let found = errors(&text);
        let took = began.elapsed();
        println!("{what}: {took:?}, {} errors", found.len());
        assert!(!found.is_empty() && found.len() <= MAX_ERRORS, "{what}: {} errors", found.len());
        let longest = found.iter().map(|error| error.to_string().len()).max().unwrap();
        assert!(longest < 1_500, "{what}: {longest} bytes");
        // Well under a second on an idle machine.
        assert!(took < Duration::from_secs(10), "{what}: {took:?}");
    }
}

#[test]
fn several_mistakes_on_each_line_are_one_error_a_line() {
    let found = errors(&"a = = = = = = = = \"\n".repeat(1_000));
    let lines: Vec<_> = found.iter().map(|error| error.line.unwrap()).collect();
    assert_eq!(lines, (1..=MAX_ERRORS).collect::<Vec<_>>());
}

/// Dotted keys in inline tables make a document that is thousands deep; threads that read settings have 2 MiB of stack.
#[test]
fn a_text_that_nests_without_end_is_refused() {
    let dotted = ["a"; 79].join(".");
    let nested = (0..78).fold("{a=1}".to_owned(), |inner, _| format!("{{{dotted}={inner}}}"));
    for head in
        ["", "[node]\nname = ", "[supervision.x]\nbackoff = ", "[limits]\ntrusted_proxies = [\"x\"]\na = [", "= = ="]
    {
        let text =
            if head.is_empty() { format!("[{dotted}]\n{dotted} = {nested}\n") } else { format!("{head}{nested}") };
        let reader = std::thread::Builder::new().stack_size(2 << 20).spawn(move || errors(&text).len()).unwrap();
        assert!(reader.join().unwrap() >= 1);
    }
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("supervisor.toml");
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    let refused = roomcast_node::config::load(Some(&file), &[]).unwrap_err().to_string();
    assert!(refused.contains("it is not a file"), "{refused}");
}

#[test]
fn what_is_not_text_or_no_file_or_huge_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("supervisor.toml");
    let refused = || roomcast_node::config::load(Some(&file), &[]).unwrap_err().to_string();
    assert!(refused().contains("supervisor.toml: cannot be read: "));
    std::fs::write(&file, b"[node]\nname = \"\xff\"\n").unwrap();
    assert!(refused().contains("supervisor.toml:2: is not UTF-8 text"));
    std::fs::write(&file, vec![b'#'; 2 << 20]).unwrap();
    assert!(refused().contains("larger than"));
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    assert!(refused().contains("it is not a file"));
}

#[test]
fn the_root_and_patterns_and_single_rooms_may_have_policies() {
    for path in [
        "",
        "*",
        "*/*",
        "bus",
        "rooms",
        "rooms/*",
        "rooms/standup",
        "rooms/caf%C3%A9",
        "rooms/%2A",
        "rooms/a%2Fb",
        "connections",
        "flushers",
        "listeners",
    ] {
        let text = format!("[supervision.\"{path}\"]\nintensity = 3\n");
        assert!(parse("supervisor.toml", &text, &[]).is_ok(), "{path}");
    }
}
