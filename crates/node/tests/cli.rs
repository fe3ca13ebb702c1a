//! The program itself, as a person runs it: what it prints, how it starts and how it ends.
#![allow(clippy::unwrap_used)]

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

fn roomcast(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn output(arguments: &[&str]) -> Output {
    timeout(SOON, roomcast(arguments).output()).await.unwrap().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A running node: its process, and what it said about where to connect.
struct Serving {
    child: Child,
    websocket: String,
    admin: String,
    banner: String,
}

async fn serve(more: &[&str]) -> Serving {
    let mut arguments = vec!["serve", "--set", "listen.websocket.bind=127.0.0.1:0"];
    arguments.extend(["--set", "listen.webtransport.bind=127.0.0.1:0", "--set", "listen.admin.bind=127.0.0.1:0"]);
    arguments.extend(more);
    let mut command = roomcast(&arguments);
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut banner = String::new();
    let reading = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            banner.push_str(&line);
            banner.push('\n');
            if line.contains("send_clip") {
                break;
            }
        }
    };
    timeout(SOON, reading).await.unwrap();
    let after = |mark: &str| {
        let (_, rest) = banner.split_once(mark).unwrap_or_else(|| panic!("{mark} is not in {banner}"));
        rest.split(['/', ' ', '\n']).next().unwrap().to_owned()
    };
    let (websocket, admin) = (after("ws://"), after("Admin         http://"));
    Serving { child, websocket, admin, banner }
}

impl Serving {
    fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        let status = std::process::Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap();
        assert!(status.success());
    }

    async fn get(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(&self.admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }
}

#[tokio::test]
async fn help_teaches_and_the_version_is_told() {
    let help = output(&["--help"]).await;
    assert!(help.status.success());
    for word in ["serve", "check", "Examples:", "--set limits.max_rooms=500", "curl"] {
        assert!(text(&help.stdout).contains(word), "{word}");
    }
    let serve = text(&output(&["serve", "--help"]).await.stdout);
    for word in ["--config", "--set", "1001", "SIGHUP"] {
        assert!(serve.contains(word), "{word}");
    }
    let version = output(&["--version"]).await;
    assert_eq!(text(&version.stdout).trim(), format!("roomcast {}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn check_says_whether_a_file_is_good_and_where_it_is_not() {
    let good = concat!(env!("CARGO_MANIFEST_DIR"), "/../../supervisor.toml");
    let checked = output(&["check", good]).await;
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    let directory = tempfile::tempdir().unwrap();
    let bad = directory.path().join("bad.toml");
    std::fs::write(&bad, "[limits]\nmax_romms = 3\n").unwrap();
    let checked = output(&["check", bad.to_str().unwrap()]).await;
    assert_eq!(checked.status.code(), Some(1));
    let said = text(&checked.stderr);
    assert!(
        said.contains("bad.toml:2: limits.max_romms: unknown key `max_romms`; did you mean `max_rooms`?"),
        "{said}"
    );
    let served = output(&["serve", "--config", bad.to_str().unwrap()]).await;
    assert_eq!(served.status.code(), Some(1));
    assert_eq!(text(&served.stderr), said);
}

#[tokio::test]
async fn it_says_where_to_connect_is_ready_at_once_and_ends_in_order_on_sigterm() {
    let started = Instant::now();
    let mut node = serve(&[]).await;
    let ready = started.elapsed();
    println!("from exec to the banner, when clients can connect: {ready:?}");
    assert!(node.get("/readyz").await.contains(r#"{"ready":true,"state":"ready"}"#));
    for line in ["WebTransport  https://127.0.0.1:", "certificate SHA-256 ", "token for changing calls: ", "Try it"] {
        assert!(node.banner.contains(line), "{line} in {}", node.banner);
    }
    let mut client = TcpStream::connect(&node.websocket).await.unwrap();
    let request = "GET /lobby/ann/a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, client.read_u8()).await.unwrap().unwrap());
    }
    assert!(node.get("/metrics").await.contains("roomcast_connections{transport=\"websocket\"} 1"));
    node.signal("TERM");
    let mut close = [0; 4];
    timeout(SOON, client.read_exact(&mut close)).await.unwrap().unwrap();
    assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (0x88, 1001));
    drop(client);
    let status = timeout(SOON, node.child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_port_in_use_is_said_with_its_key() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bind = format!("listen.websocket.bind={}", taken.local_addr().unwrap());
    let served = output(&["serve", "--set", &bind, "--set", "listen.admin.bind=127.0.0.1:0"]).await;
    assert_eq!(served.status.code(), Some(1));
    let said = text(&served.stderr);
    assert!(said.contains("listen.websocket.bind: ") && said.contains("cannot be bound"), "{said}");
}

#[tokio::test]
async fn sighup_reads_the_settings_again_and_refuses_bad_ones_whole() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("supervisor.toml");
    std::fs::write(&file, "[limits]\nmax_rooms = 7\n").unwrap();
    let node = serve(&["--config", file.to_str().unwrap()]).await;
    let shows = async |line: &str| {
        let deadline = Instant::now() + SOON;
        while !node.get("/metrics").await.lines().any(|shown| shown == line) {
            assert!(Instant::now() < deadline, "{line}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    std::fs::write(&file, "[limits]\nmax_rooms = 8\n").unwrap();
    shows("roomcast_config_generation 2").await;
    std::fs::write(&file, "[limits]\nmax_rooms = \"many\"\n").unwrap();
    shows("roomcast_config_rejections_total 1").await;
    // The file is watched and has not changed since; so what is counted now was asked for.
    for times in 2..5 {
        node.signal("HUP");
        shows(&format!("roomcast_config_rejections_total {times}")).await;
    }
    shows("roomcast_config_generation 2").await;
}

fn full() -> Stdio {
    std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

#[tokio::test]
async fn a_node_whose_greeting_cannot_be_printed_serves_all_the_same() {
    for nobody_reads in [true, false] {
        let mut arguments = vec!["serve", "--set", "listen.websocket.bind=127.0.0.1:0"];
        arguments.extend(["--set", "listen.webtransport.bind=127.0.0.1:0", "--set", "listen.admin.bind=127.0.0.1:0"]);
        let mut command = roomcast(&arguments);
        if nobody_reads {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            command.stdout(writer);
        } else {
            command.stdout(full());
        }
        let mut child = command.spawn().unwrap();
        drop(command);
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = async {
            while let Some(line) = log.next_line().await.unwrap() {
                if line.contains("where to connect could not be printed") {
                    return;
                }
            }
            panic!("the log ends without a word about it");
        };
        timeout(SOON, said).await.unwrap();
        let id = child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        // Read on, so that it is not the log that cannot be written.
        let reading = async { while let Ok(Some(_)) = log.next_line().await {} };
        let (status, ()) = timeout(SOON, async { tokio::join!(child.wait(), reading) }).await.unwrap();
        assert_eq!(status.unwrap().code(), Some(0), "nobody reads: {nobody_reads}");
    }
}

#[tokio::test]
async fn a_schema_that_cannot_be_printed_is_a_failure_and_one_that_nobody_reads_is_none() {
    // Not `output`, which would collect what is printed.
    let output_to = async |stdout: Stdio| {
        let schema = roomcast(&["schema"]).stdout(stdout).spawn().unwrap();
        timeout(SOON, schema.wait_with_output()).await.unwrap().unwrap()
    };
    let failed = output_to(full()).await;
    assert_eq!(failed.status.code(), Some(1));
    let said = text(&failed.stderr);
    assert!(said.starts_with("the schema cannot be printed: "), "{said}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let unread = output_to(writer.into()).await;
    assert_eq!((unread.status.code(), text(&unread.stderr).as_str()), (Some(0), ""));
}
