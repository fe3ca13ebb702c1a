//! The call: three senders of 2 Mbit/s in all, two receivers that keep up, and after a while one on a thin link.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use roomcast_testkit::soak::line::Line;
use roomcast_testkit::thin::{
    Congestion, Had, Heard, Kind, Lettering, Namespace, Narrow, Picture, make, now_micros, read,
};
use roomcast_testkit::{NodeBox, SOON, Via, eventually};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// What a busy machine may add to what others wait, from one time to the next.
pub(crate) const NOISE: Duration = Duration::from_millis(50);
const IN_TIME: Duration = Duration::from_millis(300);
const ROOM: &str = "call";
const SENDERS: u32 = 3;
const ALONE: Duration = Duration::from_secs(3);
const TOGETHER: Duration = Duration::from_secs(15);
const AUDIO: (Duration, usize) = (Duration::from_millis(20), 100);
const FRAME: Duration = Duration::from_micros(33_333);
const DELTA: usize = 2_500;
const KEY: usize = 10_000;
/// Frames from a key frame to the next: two seconds.
const GROUP: u32 = 60;

/// What makes the link thin.
pub(crate) enum Shaping {
    /// The system, before a namespace.
    Namespace(Namespace, Congestion),
    /// A proxy, of so many kilobits a second.
    Proxy(u32),
}

/// What came of it.
pub(crate) struct Report {
    title: String,
    pub(crate) audio_in_time: usize,
    audio: [Duration; 3],
    audio_sent: usize,
    audio_heard: usize,
    keys: usize,
    deltas: usize,
    pub(crate) pictures_per_second: f64,
    pub(crate) thin_in_order: bool,
    pub(crate) undecodable: Vec<Picture>,
    /// Packets and bytes.
    pub(crate) most_queued: (u64, u64),
    pub(crate) drops_for_room: f64,
    drops: Vec<(&'static str, f64)>,
    pub(crate) others_lost: usize,
    pub(crate) others_alone_p99: Duration,
    pub(crate) others_p99: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, most] = self.audio;
        writeln!(f, "{}", self.title)?;
        writeln!(
            f,
            "  audio: {} of {} heard, {:.1} % within 300 ms; delay p50 {p50:.0?}, p99 {p99:.0?}, most {most:.0?}",
            self.audio_heard,
            self.audio_sent,
            self.audio_in_time as f64 / 10.0
        )?;
        writeln!(
            f,
            "  video: {} key frames, {} deltas, {:.1} pictures/s; at most {:?} packets and bytes queued; drops {:?}",
            self.keys, self.deltas, self.pictures_per_second, self.most_queued, self.drops
        )?;
        write!(
            f,
            "  others: {} lost; delay p99 {:.1?}, {:.1?} without it",
            self.others_lost, self.others_p99, self.others_alone_p99
        )
    }
}

/// Sends until told to end; what was sent.
async fn send(mut line: Line, id: u32, lettering: Lettering, end: watch::Receiver<bool>) -> Vec<Picture> {
    let (user, mut sent, mut frame) = (format!("s{id}"), Vec::new(), id * GROUP / SENDERS);
    let begin = Instant::now() + Duration::from_millis(u64::from(id) * 7);
    let (mut next_audio, mut next_frame) = (begin, begin);
    while !*end.borrow() {
        let is_audio = next_audio <= next_frame;
        sleep_until(next_audio.min(next_frame)).await;
        let (kind, bytes) = if is_audio {
            next_audio += AUDIO.0;
            (Kind::Audio, AUDIO.1)
        } else {
            next_frame += FRAME;
            frame += 1;
            if frame % GROUP == 1 { (Kind::Key, KEY) } else { (Kind::Delta, DELTA) }
        };
        let picture = Picture { sender: id, number: sent.len() as u32, kind, sent: now_micros() };
        sent.push(picture);
        line.send(make(&user, picture, lettering, bytes)).await.unwrap();
    }
    sent
}

/// The receiver on the thin link, a process.
struct Thin {
    child: Child,
    heard: JoinHandle<Had>,
    _shaping: Shaped,
}

enum Shaped {
    Namespace { _namespace: Namespace },
    Proxy { _narrow: Narrow },
}

impl Thin {
    async fn join(node: &NodeBox, via: Via, shaping: Shaping) -> Self {
        let program = env!("CARGO_BIN_EXE_roomcast-thin-receiver");
        let url = node.url(via, "thin", ROOM);
        let (mut command, shaped) = match shaping {
            Shaping::Namespace(namespace, _) => {
                let mut command = Command::from(namespace.command(program));
                command.arg(url);
                (command, Shaped::Namespace { _namespace: namespace })
            }
            Shaping::Proxy(kilobits) => {
                let target: SocketAddr = node.node().addresses().websocket.unwrap();
                let narrow = Narrow::start(target, kilobits);
                let mut command = Command::new(program);
                command.arg(url.replace(&target.to_string(), &narrow.address().to_string()));
                (command, Shaped::Proxy { _narrow: narrow })
            }
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = timeout(SOON, lines.next_line()).await.expect("it joins soon").unwrap();
        assert_eq!(first.as_deref(), Some("joined"));
        let heard = tokio::spawn(async move {
            let mut had = Had::default();
            while let Some(line) = lines.next_line().await.unwrap() {
                had.heard.push(Heard::parse(&line).unwrap());
            }
            had
        });
        Self { child, heard, _shaping: shaped }
    }

    async fn end(mut self) -> Had {
        drop(self.child.stdin.take());
        let had = timeout(SOON, self.heard).await.expect("it ends soon").unwrap();
        self.child.wait().await.unwrap();
        had
    }
}

const REASONS: [&str; 6] = ["queue_packets", "queue_bytes", "budget", "late", "congested", "waiting_for_key_frame"];

/// What waits for the receiver on the thin link: packets and bytes.
async fn queued(node: &NodeBox) -> (u64, u64) {
    let (_, body) = node.admin("GET", &format!("/rooms/{ROOM}")).await;
    let room: serde_json::Value = serde_json::from_str(&body).unwrap();
    let sessions = room["sessions"].as_array().unwrap();
    let thin = sessions.iter().find(|session| session["user"] == "thin").expect("it is in the room");
    (thin["queued_packets"].as_u64().unwrap(), thin["queued_bytes"].as_u64().unwrap())
}

/// Runs the call, on a node that listens at this address.
pub(crate) async fn run(via: Via, lettering: Lettering, address: IpAddr, shaping: Shaping) -> Report {
    let shaped = match &shaping {
        Shaping::Namespace(_, congestion) => format!("namespace, {congestion:?}"),
        Shaping::Proxy(_) => "proxy".to_owned(),
    };
    let title = format!("500 kbit/s ({shaped}) in a call of 2 Mbit/s, {via:?}, {lettering:?}");
    let binds = ["websocket", "webtransport"].map(|listener| format!("listen.{listener}.bind={address}:0"));
    let node = NodeBox::start_with(&[&binds[0], &binds[1]]).await;
    let others: [Arc<Mutex<Had>>; 2] = Default::default();
    let mut lines = Vec::new();
    for (index, had) in others.iter().enumerate() {
        let had = Arc::clone(had);
        let hear = move |bytes: &[u8]| {
            if let Some(picture) = read(bytes) {
                let delay = Duration::from_micros(now_micros().saturating_sub(picture.sent));
                had.lock().unwrap().heard.push(Heard { picture, delay });
            }
        };
        lines.push(Line::open(&node, via, &format!("r{index}"), ROOM, hear).await.unwrap());
    }
    let (end, ending) = watch::channel(false);
    let mut senders = Vec::new();
    for id in 0..SENDERS {
        let line = Line::open(&node, via, &format!("s{id}"), ROOM, |_: &[u8]| {}).await.unwrap();
        senders.push(tokio::spawn(send(line, id, lettering, ending.clone())));
    }
    // From here on everybody hears everybody.
    let all_heard = || {
        others.iter().all(|had| (0..SENDERS).all(|id| had.lock().unwrap().heard.iter().any(|h| h.picture.sender == id)))
    };
    eventually("all hear all", SOON, async || all_heard()).await;
    let began = now_micros();
    sleep(ALONE).await;
    let thin = Thin::join(&node, via, shaping).await;
    let joined = now_micros();
    let until = Instant::now() + TOGETHER;
    let mut most_queued = (0, 0);
    while Instant::now() < until {
        let (packets, bytes) = queued(&node).await;
        most_queued = (most_queued.0.max(packets), most_queued.1.max(bytes));
        sleep(Duration::from_millis(20)).await;
    }
    let ended = now_micros();
    // What was sent until then has half a second more to arrive.
    sleep(Duration::from_millis(500)).await;
    let mut drops = Vec::new();
    for reason in REASONS {
        drops.push((reason, node.metric("roomcast_drops_total", &[&format!("reason=\"{reason}\"")]).await));
    }
    let had = thin.end().await;
    end.send_replace(true);
    let mut sent = Vec::new();
    for sender in senders {
        sent.extend(sender.await.unwrap());
    }
    let within = |from, to| sent.iter().filter(|picture| (from..to).contains(&picture.sent)).count();
    let others_got = |had: &Arc<Mutex<Had>>| had.lock().unwrap().sent_within(began, ended).heard.len();
    // A wait, not a judgement: that is the report's.
    let _ = timeout(SOON, async {
        while others.iter().any(|had| others_got(had) < within(began, ended)) {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let others_lost = others.iter().map(|had| within(began, ended).saturating_sub(others_got(had))).sum();
    let p99 = |from, to| {
        let all = others.iter().map(|had| had.lock().unwrap().sent_within(from, to));
        all.flat_map(|had| [Kind::Audio, Kind::Delta].map(|kind| had.delay(kind, 990))).max().unwrap_or_default()
    };
    assert!(others.iter().all(|had| had.lock().unwrap().is_in_order()));
    let judged = had.sent_within(joined, ended);
    let of_audio = |from, to| {
        sent.iter().filter(|picture| picture.kind == Kind::Audio && (from..to).contains(&picture.sent)).count()
    };
    let audio_sent = of_audio(joined, ended);
    let seconds = (ended - joined) as f64 / 1e6;
    let (keys, deltas) = (judged.count(Kind::Key), judged.count(Kind::Delta));
    let report = Report {
        title,
        audio_in_time: judged.in_time(Kind::Audio, IN_TIME) * 1_000 / audio_sent,
        audio: [500, 990, 1_000].map(|per_mille| judged.delay(Kind::Audio, per_mille)),
        audio_sent,
        audio_heard: judged.count(Kind::Audio),
        keys,
        deltas,
        pictures_per_second: (keys + deltas) as f64 / seconds,
        thin_in_order: had.is_in_order(),
        undecodable: if lettering == Lettering::Hinted { had.undecodable(&sent) } else { Vec::new() },
        most_queued,
        drops_for_room: drops.iter().take(3).map(|(_, count)| count).sum(),
        drops,
        others_lost,
        others_alone_p99: p99(began, joined),
        others_p99: p99(joined, ended),
    };
    drop(lines);
    node.stop().await;
    report
}
