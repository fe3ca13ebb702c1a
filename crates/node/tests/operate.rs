//! The commands that ask a running node, as a person runs them: what they print, what they do, and how they end.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(30);

const SETTINGS: &str = "\
[listen.websocket]
bind = \"127.0.0.1:0\"
[listen.webtransport]
bind = \"127.0.0.1:0\"
[listen.admin]
bind = \"127.0.0.1:0\"
[supervision.defaults]
intensity = 100
";

/// A running node with its configuration in a directory of its own.
struct Serving {
    child: Child,
    directory: tempfile::TempDir,
    websocket: String,
    admin: String,
}

fn roomcast(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

impl Serving {
    async fn start(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("supervisor.toml");
        std::fs::write(&file, format!("{SETTINGS}{more}")).unwrap();
        let mut command = roomcast(&["serve", "--config", file.to_str().unwrap()]);
        // Token files go where only this test looks.
        command.env("XDG_RUNTIME_DIR", directory.path()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut banner = String::new();
        while !banner.contains("send_clip") {
            banner.push_str(&timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap());
            banner.push('\n');
        }
        let after = |mark: &str| {
            let (_, rest) = banner.split_once(mark).unwrap_or_else(|| panic!("{mark} is not in {banner}"));
            rest.split(['/', ' ', '\n']).next().unwrap().to_owned()
        };
        let (websocket, admin) = (after("ws://"), after("Admin         http://"));
        Self { child, directory, websocket, admin }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("supervisor.toml")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = roomcast(arguments);
        command.args(["--admin", &self.admin]).env("XDG_RUNTIME_DIR", self.directory.path());
        // What a developer keeps in a file of that name is not asked.
        command.current_dir(self.directory.path()).env_remove("NO_COLOR");
        command
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        timeout(SOON, self.command(arguments).output()).await.unwrap().unwrap()
    }

    /// Runs a command that succeeds.
    async fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let text = self.good(arguments).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Joins a room and stays as long as the socket is held.
    async fn join(&self, user: &str, room: &str) -> TcpStream {
        let mut socket = TcpStream::connect(&self.websocket).await.unwrap();
        let request = format!(
            "GET /lobby/{user}/{room} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(SOON, socket.read_u8()).await.unwrap().unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101"));
        socket
    }

    /// Follows events; the first line is heard when the node has taken the follower in.
    async fn follow(&self, arguments: &[&str]) -> (Child, Lines<BufReader<ChildStdout>>) {
        let mut child = self.command(arguments).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let deadline = Instant::now() + SOON;
        loop {
            // A reload that changes nothing is heard by whoever is there.
            self.good(&["reload"]).await;
            assert!(Instant::now() < deadline, "nothing is heard");
            if let Ok(line) = timeout(Duration::from_millis(200), lines.next_line()).await {
                assert!(line.unwrap().unwrap().contains("reload"));
                return (child, lines);
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn complaint(output: &Output) -> String {
    assert_eq!(text(&output.stdout), "");
    text(&output.stderr)
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> Value {
    let line = timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

async fn next_of(lines: &mut Lines<BufReader<ChildStdout>>, kind: &str) -> Value {
    loop {
        let event = next(lines).await;
        if event["type"] == kind {
            return event;
        }
    }
}

#[tokio::test]
async fn the_tree_and_the_rooms_are_shown_to_people_and_to_programs() {
    let node = Serving::start("").await;
    let _members = (node.join("ann", "standup").await, node.join("bob", "standup").await);
    let tree = node.good(&["tree"]).await;
    for piece in ["ACTOR ", "STATE", "LAST REASON", "\nroomcast ", "│  └─ standup ", "└─ listeners ", "running"]
    {
        assert!(tree.contains(piece), "{piece} is not in\n{tree}");
    }
    assert!(!tree.contains('\x1b'), "colours are for terminals");
    let column = |line: &str| line.split("running").next().map(|before| before.chars().count());
    let columns: Vec<_> = tree.lines().skip(1).map(column).collect();
    assert!(columns.len() > 12 && columns.iter().all(|each| *each == columns[0]), "not aligned:\n{tree}");
    let part = node.good(&["tree", "rooms/standup"]).await;
    assert_eq!(part.lines().count(), 4, "{part}");
    let json = node.json(&["tree", "--json"]).await;
    assert!(json.as_array().unwrap().iter().any(|actor| actor["path"] == "rooms/standup/room"));
    let rooms = node.good(&["rooms"]).await;
    assert!(rooms.starts_with("ROOM ") && rooms.contains("\nstandup        2 "), "{rooms}");
    assert_eq!(node.json(&["rooms", "--json"]).await["total"], 1);
    let room = node.good(&["rooms", "standup"]).await;
    assert!(room.starts_with("standup, 2 members, actors at rooms/standup\n"), "{room}");
    assert!(room.contains("\nann ") && room.contains("\nbob "), "{room}");
    let watching = node.command(&["tree", "--watch", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.unwrap()).lines();
    for _ in 0..2 {
        assert!(timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap().starts_with('['));
    }
}

#[tokio::test]
async fn a_kill_is_done_and_heard_where_faults_are_on() {
    let node = Serving::start("[chaos]\nenabled = true\n").await;
    let _ann = node.join("ann", "standup").await;
    let (_child, mut events) = node.follow(&["events", "--json"]).await;
    let said = node.good(&["kill", "rooms/*/room"]).await;
    assert_eq!(said, "hit 1\n  rooms/standup/room\n");
    assert_eq!(next_of(&mut events, "crashed").await["path"], "rooms/standup/room");
    assert_eq!(next_of(&mut events, "restarted").await["path"], "rooms/standup/room");
    assert_eq!(node.json(&["kill", "bus/link", "--panic", "--json"]).await["hit"], 1);
    let crashed = next_of(&mut events, "crashed").await;
    assert!(crashed["path"] == "bus/link" && crashed["reason"].as_str().unwrap().contains("panicked"), "{crashed}");
    assert_eq!(node.good(&["kill", "listeners/websocket", "--stall", "1ms"]).await, "hit 1\n  listeners/websocket\n");
    // The one who serves the events is killed, and they go on where they were.
    let before = next_of(&mut events, "restarted").await["sequence"].as_u64().unwrap();
    node.good(&["kill", "admin"]).await;
    let crashed = next(&mut events).await;
    assert_eq!((&crashed["path"], crashed["sequence"].as_u64()), (&Value::from("admin"), Some(before + 1)));
    let restarted = next(&mut events).await;
    assert_eq!((&restarted["path"], restarted["sequence"].as_u64()), (&Value::from("admin"), Some(before + 2)));
    let tree = node.good(&["tree"]).await;
    let admin = tree.lines().find(|line| line.contains(" admin ")).unwrap();
    assert!(admin.contains("killed"), "{tree}");
    let nobody = node.run(&["kill", "rooms/nowhere"]).await;
    assert_eq!(nobody.status.code(), Some(1));
    assert_eq!(complaint(&nobody), "no actor at `rooms/nowhere` is running\n");
}

#[tokio::test]
async fn the_cluster_is_shown_as_this_node_sees_it() {
    let node = Serving::start("[node]\nname = \"alpha\"\n").await;
    let _ann = node.join("ann", "standup").await;
    let text = node.good(&["cluster"]).await;
    assert!(text.starts_with("as alpha sees it; the bus is up; 1 nodes, 1 rooms, 1 members\n\nNODE "), "{text}");
    assert!(text.contains("\nalpha     up  asked   local "), "{text}");
    let json = node.json(&["cluster", "--json"]).await;
    assert_eq!((&json["nodes"][0]["name"], &json["nodes"][0]["own"]), (&"alpha".into(), &true.into()));
    let room = node.good(&["cluster", "standup"]).await;
    assert!(room.starts_with("standup, 1 members, as alpha sees it\nUSER ") && room.contains("\nann "), "{room}");
    assert_eq!(node.good(&["cluster", "empty room"]).await, "nobody that alpha knows of is in empty room\n");
    assert_eq!(node.run(&["cluster", "no/room"]).await.status.code(), Some(1));
}

#[tokio::test]
async fn a_drain_tells_how_far_it_is_until_the_node_is_gone() {
    let mut node = Serving::start("[node]\nname = \"alpha\"\n[timers]\ndrain = \"1s\"\n").await;
    let mut ann = node.join("ann", "standup").await;
    let draining = node.command(&["drain"]).spawn().unwrap();
    let mut close = [0; 4];
    timeout(SOON, ann.read_exact(&mut close)).await.unwrap().unwrap();
    assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (0x88, 1001));
    drop(ann);
    let output = timeout(SOON, draining.wait_with_output()).await.unwrap().unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(said.starts_with("draining alpha: 1 connection, told within "), "{said}");
    assert!(said.ends_with("alpha has stopped\n"), "{said}");
    assert_eq!(timeout(SOON, node.child.wait()).await.unwrap().unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_node_in_a_hurry_waits_for_nobody_and_a_term_drains() {
    for hurry in ["drain", "term"] {
        let mut node = Serving::start("[timers]\ndrain = \"1h\"\n").await;
        let mut members = Vec::new();
        for user in ["ann", "bob", "cat"] {
            members.push(node.join(user, "standup").await);
        }
        let term = || {
            let pid = node.child.id().unwrap().to_string();
            std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap()
        };
        term();
        let probe = async || node.run(&["cluster", "--json"]).await;
        let deadline = Instant::now() + SOON;
        while !text(&probe().await.stdout).contains("\"draining\"") {
            assert!(Instant::now() < deadline, "it does not drain");
        }
        // Nobody is let in any more, and two of three are still waited for.
        assert!(TcpStream::connect(&node.websocket).await.is_err());
        if hurry == "drain" {
            node.good(&["drain", "--hurry"]).await;
        } else {
            term();
        }
        for mut member in members {
            let mut close = [0; 4];
            timeout(SOON, member.read_exact(&mut close)).await.unwrap().unwrap();
            assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (0x88, 1001), "{hurry}");
        }
        assert_eq!(timeout(SOON, node.child.wait()).await.unwrap().unwrap().code(), Some(0), "{hurry}");
    }
}

#[tokio::test]
async fn a_reload_says_what_changed_or_why_not_and_is_heard() {
    let node = Serving::start("[limits]\nmax_rooms = 7\n").await;
    let (_child, mut events) = node.follow(&["events", "--json", "--type", "reload"]).await;
    let write = |more: &str| std::fs::write(node.file(), format!("{SETTINGS}{more}")).unwrap();
    write("[limits]\nmax_rooms = 8\n[node]\nregion = \"far\"\n");
    let said = node.good(&["reload"]).await;
    // The file is watched too, and whoever sees the change first has done it.
    if said.starts_with("applied") {
        assert!(said.contains("\n  limits.max_rooms: 7 → 8\n"), "{said}");
        assert!(said.contains("\n  node.region: \"local\" → \"far\"   waits for a restart\n"), "{said}");
    }
    let applied = loop {
        let event = next(&mut events).await;
        if event["outcome"] == "applied" {
            break event;
        }
    };
    assert_eq!(applied["changed"], serde_json::json!(["limits.max_rooms"]));
    assert_eq!(applied["waiting"], serde_json::json!(["node.region"]));
    write("[limits]\nmax_romms = 8\n");
    let refused = node.run(&["reload"]).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = complaint(&refused);
    assert!(said.contains("max_romms") && said.contains("max_rooms") && said.contains(":10: "), "{said}");
    assert!(said.ends_with("refused; the settings in force stay\n"), "{said}");
    let json = node.run(&["reload", "--json"]).await;
    assert_eq!(json.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((&json["verdict"], &json["errors"][0]["nearest"]), (&"refused".into(), &"max_rooms".into()));
    loop {
        let event = next(&mut events).await;
        if event["outcome"] == "refused" {
            assert!(event["errors"][0].as_str().unwrap().contains("max_romms"), "{event}");
            break;
        }
    }
}

#[tokio::test]
async fn events_are_printed_one_a_line_and_end_after_as_many_as_were_asked_for() {
    let node = Serving::start("").await;
    let first = node.run(&["events", "-n", "0"]).await;
    assert_eq!((first.status.code(), text(&first.stdout).as_str()), (Some(0), ""));
    let (mut child, mut lines) = node.follow(&["events", "-n", "4"]).await;
    drop(node.join("ann", "standup").await);
    let mut heard = Vec::new();
    while let Some(line) = timeout(SOON, lines.next_line()).await.unwrap().unwrap() {
        heard.push(line);
    }
    // Reloads may be between: the follower was waited for with them.
    assert_eq!(heard.len(), 3, "{heard:?}");
    let about: Vec<_> = heard.iter().filter(|line| !line.contains("reload")).collect();
    assert!(about[0].contains("room_begun    standup"), "{heard:?}");
    assert_eq!(timeout(SOON, child.wait()).await.unwrap().unwrap().code(), Some(0));
}

#[tokio::test]
async fn what_goes_wrong_is_said_so_that_it_helps_and_in_the_exit_code() {
    let node = Serving::start("").await;
    // Nobody there: a port that was free a moment ago.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    for command in ["tree", "rooms", "cluster", "events", "reload", "drain", "kill"] {
        let path = if command == "kill" { &["bus"][..] } else { &[] };
        let arguments = [&[command], path, &["--admin", &free]].concat();
        let output = timeout(SOON, roomcast(&arguments).output()).await.unwrap().unwrap();
        assert_eq!(output.status.code(), Some(3), "{command}");
        let said = complaint(&output);
        assert!(said.contains(&format!("nobody answers at {free}")) && said.contains("--admin"), "{said}");
    }
    let off = node.run(&["kill", "bus"]).await;
    assert_eq!(off.status.code(), Some(1));
    let said = complaint(&off);
    assert!(said.contains("chaos.enabled = true") && said.contains("roomcast reload"), "{said}");
    // No token where this user has made none.
    let mut command = node.command(&["reload"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let output = timeout(SOON, command.env("XDG_RUNTIME_DIR", elsewhere.path()).output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(complaint(&output).contains("--token-file"));
    let wrong = elsewhere.path().join("wrong");
    std::fs::write(&wrong, "0123456789abcdef").unwrap();
    let output = node.run(&["reload", "--token-file", wrong.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(complaint(&output).contains("does not take this one"));
    for arguments in [
        &["kill", "rooms/a b"][..],
        &["kill", "bus", "--panic", "--stall", "1s"],
        &["kill", "bus", "--stall", "soon"],
        &["events", "--type", "hug"],
        &["rooms", "--limit", "0"],
        &["reload", "--token-file", "/nowhere/token"],
        &["tree", "--config", "/nowhere/supervisor.toml"],
        &["top"],
        &["hug"],
    ] {
        let output = node.run(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", complaint(&output));
    }
    assert_eq!(node.run(&["rooms", "nowhere"]).await.status.code(), Some(1));
}

#[tokio::test]
async fn a_node_is_found_by_its_configuration_file() {
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let node = Serving::start("").await;
    let token = node.directory.path().join("mine");
    std::fs::write(&token, "a-token-of-my-own\n").unwrap();
    let file = node.directory.path().join("other.toml");
    let admin = format!(
        "[listen.websocket]\nbind = \"127.0.0.1:0\"\n[listen.admin]\nbind = \"127.0.0.1:{port}\"\ntoken_file = {:?}\n",
        token.to_str().unwrap()
    );
    std::fs::write(&file, admin).unwrap();
    let asking = |file: &Path| {
        let arguments = ["reload", "--config", file.to_str().unwrap()];
        roomcast(&arguments).current_dir(node.directory.path()).output()
    };
    assert_eq!(timeout(SOON, asking(&file)).await.unwrap().unwrap().status.code(), Some(3), "not there yet");
    let mut serving = roomcast(&["serve", "--config", file.to_str().unwrap()]);
    let mut serving = serving.stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(serving.stdout.take().unwrap()).lines();
    while !timeout(SOON, lines.next_line()).await.unwrap().unwrap().unwrap().contains("send_clip") {}
    let output = timeout(SOON, asking(&file)).await.unwrap().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "unchanged: settings number 1\n"));
    // The file that is usually there is found without being named.
    std::fs::copy(&file, node.file()).unwrap();
    let mut unnamed = roomcast(&["reload"]);
    let output = timeout(SOON, unnamed.current_dir(node.directory.path()).output()).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[tokio::test]
async fn help_teaches_what_can_be_asked() {
    let all = timeout(SOON, roomcast(&["--help"]).output()).await.unwrap().unwrap();
    let all = text(&all.stdout);
    for word in
        ["tree", "top", "rooms", "cluster", "drain", "events", "reload", "kill", "--admin", "3: nobody answers", "curl"]
    {
        assert!(all.contains(word), "{word}");
    }
    for (command, words) in [
        ("tree", &["--watch", "--json", "--all", "--admin", "--token-file", "--config", "Examples:"][..]),
        ("kill", &["--panic", "--stall", "chaos.enabled", "rooms/*/subscription"]),
        ("events", &["--type", "--json", "crashed,restarted", "room_begun"]),
        ("rooms", &["--limit", "--json"]),
        ("reload", &["--json", "waits for a restart"]),
        ("top", &["q ends it"]),
        ("cluster", &["--json", "one node's view", "Examples:"]),
        ("drain", &["--hurry", "--no-wait", "timers.drain"]),
    ] {
        let help = timeout(SOON, roomcast(&[command, "--help"]).output()).await.unwrap().unwrap();
        for word in words {
            assert!(text(&help.stdout).contains(word), "{command}: {word}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_printed_is_a_failure_and_one_that_nobody_reads_is_none() {
    let node = Serving::start("").await;
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    // Not `output`, which would collect what is printed.
    let output_to = async |stdout: Stdio| {
        let tree = node.command(&["tree"]).stdout(stdout).spawn().unwrap();
        timeout(SOON, tree.wait_with_output()).await.unwrap().unwrap()
    };
    let failed = output_to(full.into()).await;
    assert_eq!(failed.status.code(), Some(1));
    let said = text(&failed.stderr);
    assert!(said.starts_with("the answer cannot be printed: "), "{said}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let unread = output_to(writer.into()).await;
    assert_eq!((unread.status.code(), text(&unread.stderr).as_str()), (Some(0), ""));
}
