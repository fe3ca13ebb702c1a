//! `roomcast bench` against `roomcast serve`, both as a person runs them: what it counts, what it refuses.
#![allow(clippy::unwrap_used)]

use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Far more than any of this takes, also on a busy machine.
const SOON: Duration = Duration::from_secs(60);

fn roomcast() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// A running node, and where it says that clients connect.
struct Serving {
    child: Child,
    websocket: String,
    webtransport: String,
    /// The certificate's hash.
    hash: String,
}

impl Serving {
    async fn start(settings: &[&str]) -> Self {
        let own = ["listen.websocket.bind", "listen.webtransport.bind", "listen.admin.bind"];
        let own = own.map(|key| format!("{key}=127.0.0.1:0"));
        let settings = own.iter().map(String::as_str).chain(settings.iter().copied());
        let mut command = roomcast();
        command.arg("serve").args(settings.flat_map(|setting| ["--set", setting])).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut banner = String::new();
        let reading = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                banner.push_str(&line);
                banner.push('\n');
                if line.contains("Admin") {
                    break;
                }
            }
        };
        timeout(SOON, reading).await.unwrap();
        // The rest must have somewhere to go.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let word = |mark: &str| {
            let (_, rest) = banner.split_once(mark).unwrap_or_else(|| panic!("{mark} is not in {banner}"));
            rest.split_whitespace().next().unwrap().to_owned()
        };
        let url = |mark: &str| word(mark).split("/lobby").next().unwrap().to_owned();
        let (websocket, webtransport) = (url("WebSocket "), url("WebTransport "));
        Self { child, websocket, webtransport, hash: word("certificate SHA-256 ") }
    }

    fn pid(&self) -> String {
        self.child.id().unwrap().to_string()
    }
}

async fn bench(arguments: &[&str]) -> Output {
    timeout(SOON, roomcast().arg("bench").args(arguments).output()).await.unwrap().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A short run whose report is JSON: a second, measured from the first packet on.
async fn measured(arguments: &[&str]) -> Value {
    let short = ["--json", "--quiet", "--duration", "1s", "--warmup", "0s", "--ramp", "0"];
    let output = bench(&[arguments, &short[..]].concat()).await;
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(said(&output), "", "--quiet says nothing");
    // Nothing but the object: it parses to its last byte.
    serde_json::from_slice(&output.stdout).unwrap()
}

fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"))
}

/// What must hold on every transport of a router that has no reason to drop anything.
fn assert_whole(report: &Value, members: u64) {
    assert!(number(report, "sent") > 0 && number(report, "delivered") > 0, "{report}");
    assert_eq!(number(report, "offered"), number(report, "sent") * (members - 1), "{report}");
    for name in ["lost", "duplicated", "reordered", "leaked", "disconnected"] {
        assert_eq!(number(report, name), 0, "{name}: {report}");
    }
    let delays = &report["delay_ms"];
    let at = |name: &str| delays[name].as_f64().unwrap();
    assert!(
        0.0 < at("p50") && at("p50") <= at("p99") && at("p99") <= at("p999") && at("p999") <= at("max"),
        "{delays}"
    );
}

#[tokio::test]
async fn nothing_is_lost_over_websocket_and_the_process_is_looked_at() {
    let node = Serving::start(&[]).await;
    let report =
        measured(&[&node.websocket, "--rooms", "3", "--members", "4", "--rate", "50", "--pid", &node.pid()]).await;
    assert_whole(&report, 4);
    assert_eq!((number(&report, "connections"), &report["seconds"]), (12, &Value::from(1.0)));
    assert_eq!(report["routers"]["pids"], Value::from(vec![node.child.id().unwrap()]));
    assert!(report["routers"]["resident_bytes"].as_u64().unwrap() > 1 << 20, "{report}");
    assert!(report["generator"]["busy"].as_f64().unwrap() > 0.0, "{report}");
}

#[tokio::test]
async fn nothing_is_lost_over_tls() {
    let node = Serving::start(&["listen.websocket.tls=self-signed"]).await;
    assert!(node.websocket.starts_with("wss://"), "{}", node.websocket);
    // A size that takes several records.
    let report = measured(&[&node.websocket, "--insecure", "--members", "4", "--size", "40000"]).await;
    assert_whole(&report, 4);
    assert_eq!(report["routers"], Value::Null);
}

#[tokio::test]
async fn nothing_is_lost_over_webtransport_from_a_router_known_by_its_certificate() {
    let node = Serving::start(&[]).await;
    let report = measured(&[&node.webtransport, "--cert-sha256", &node.hash, "--members", "4", "--rate", "50"]).await;
    assert_whole(&report, 4);
}

#[tokio::test]
async fn a_call_over_both_transports_with_members_who_come_and_go_is_counted_and_drawn() {
    let node = Serving::start(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    let plot = directory.path().join("bench.svg");
    let report = measured(&[
        &node.websocket,
        &node.webtransport,
        "--insecure",
        "--members",
        "6",
        "--mix",
        "call",
        "--churn",
        "4",
        "--plot",
        plot.to_str().unwrap(),
    ])
    .await;
    // One of the six churns: five stay and send, and owe each other.
    assert_eq!(number(&report, "offered"), number(&report, "sent") * 4, "{report}");
    assert!(number(&report, "delivered") > 0, "{report}");
    // On a busy machine a router may drop old video; never this.
    for name in ["duplicated", "reordered", "leaked", "disconnected"] {
        assert_eq!(number(&report, name), 0, "{name}: {report}");
    }
    let drawn = std::fs::read_to_string(&plot).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.ends_with("</svg>\n"));
}

#[tokio::test]
async fn what_a_router_drops_is_counted_as_lost() {
    let node = Serving::start(&["limits.ingress_packets_per_second=10"]).await;
    // Two senders send a hundred packets each, of which a burst of ten and ten a second pass.
    let report = measured(&[&node.websocket, "--members", "3", "--senders", "2", "--rate", "100"]).await;
    let (offered, lost, delivered) =
        (number(&report, "offered"), number(&report, "lost"), number(&report, "delivered"));
    assert_eq!(offered, number(&report, "sent") * 2);
    assert!(lost > 0 && delivered > 0 && lost < offered, "{report}");
    assert!(lost > offered / 2, "{report}");
    assert_eq!((number(&report, "reordered"), number(&report, "disconnected")), (0, 0), "{report}");
}

#[tokio::test]
async fn members_without_senders_are_held() {
    let node = Serving::start(&[]).await;
    let report = measured(&[&node.websocket, "--rooms", "5", "--members", "5", "--idle"]).await;
    assert_eq!((number(&report, "connections"), number(&report, "disconnected")), (25, 0));
    assert_eq!((number(&report, "sent"), number(&report, "lost")), (0, 0));
}

#[tokio::test]
async fn a_router_that_ends_meanwhile_loses_what_it_owed_and_throws_everybody_out() {
    let mut node = Serving::start(&[]).await;
    let mut command = roomcast();
    command.args(["bench", &node.websocket, "--members", "3", "--warmup", "0s", "--json", "--pid", &node.pid()]);
    // Long enough for the router to end within, however slowly this goes.
    let mut run = command.args(["--duration", "5s"]).spawn().unwrap();
    let mut progress = BufReader::new(run.stderr.take().unwrap()).lines();
    let measuring = async {
        loop {
            let line = progress.next_line().await.unwrap().expect("it tells how it goes");
            if line.starts_with("measuring") {
                return;
            }
        }
    };
    timeout(SOON, measuring).await.unwrap();
    node.child.kill().await.unwrap();
    let rest = tokio::spawn(async move {
        let mut all = String::new();
        while let Ok(Some(line)) = progress.next_line().await {
            all.push_str(&line);
        }
        all
    });
    let output = timeout(SOON, run.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "a router that ends is no reason for the tool to fail");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(number(&report, "disconnected"), 3, "{report}");
    assert!(number(&report, "delivered") > 0, "{report}");
    assert_eq!(report["routers"], Value::Null);
    assert!(rest.await.unwrap().contains("ended meanwhile"));
}

#[tokio::test]
async fn what_cannot_be_run_is_said_with_what_to_do() {
    let node = Serving::start(&["limits.max_connections=2"]).await;
    for (arguments, code, advice) in [
        (vec!["ftp://127.0.0.1"], 1, "ws://HOST:PORT"),
        (vec!["ws://127.0.0.1:1", "--duration", "10"], 2, "such as 500ms or 10s"),
        (vec![&*node.websocket, "--members", "3", "--ramp", "0"], 1, "refuses /lobby/"),
        (vec![&*node.webtransport], 1, "--insecure or --cert-sha256"),
        (vec![&*node.websocket, "--pid", "4000000000"], 1, "no such process"),
        (vec![&*node.websocket, "--plot", "/there/is/no/such/folder.svg"], 1, "cannot be written"),
        (vec![&*node.websocket, "--rooms", "100000"], 1, "lower --rooms"),
    ] {
        let output = bench(&arguments).await;
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(advice), "{arguments:?}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    let help = String::from_utf8(bench(&["--help"]).await.stdout).unwrap();
    for words in ["Examples", "--mix", "key frame", "A copy is lost when", "--plot bench.svg"] {
        assert!(help.contains(words), "{words}");
    }
}
