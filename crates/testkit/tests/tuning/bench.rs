//! What all of these tests stand on: a node whose file is rewritten, and a call that runs meanwhile.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use roomcast_node::LogControl;
pub(crate) use roomcast_testkit::{Call, ROOM};
use roomcast_testkit::{Heard, Member, NodeBox, SOON};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// Within this a changed key acts: a second, in beats. See [`Pulse`].
const AT_ONCE: usize = 80;
/// One beat, and an answer of the node's: somewhat over 12 ms in all where nothing else runs.
const BEAT: Duration = Duration::from_millis(10);
/// The longest that is waited for 80 beats, however busy the machine is.
const AT_LAST: Duration = Duration::from_secs(40);

/// A key and its value, as TOML writes them.
pub(crate) type Setting<'a> = (&'a str, &'a str);

/// A running node, and what its file says.
pub(crate) struct Tuned {
    pub(crate) node: NodeBox,
    keys: Mutex<BTreeMap<String, String>>,
    pulse: Pulse,
}

impl Tuned {
    pub(crate) async fn start(settings: &[Setting<'_>]) -> Self {
        Self::start_logged(settings, LogControl::default()).await
    }

    pub(crate) async fn start_logged(settings: &[Setting<'_>], log_control: LogControl) -> Self {
        let keys = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let node = NodeBox::start_from(&text(&keys), log_control).await;
        Self { pulse: Pulse::begin(&node), node, keys: Mutex::new(keys) }
    }

    /// Changes keys in the file, and gives the time by which that must have acted.
    pub(crate) async fn set(&self, settings: &[Setting<'_>]) -> Deadline {
        let text = {
            let mut keys = self.keys.lock().unwrap();
            keys.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
            text(&keys)
        };
        let deadline = self.pulse.deadline();
        self.node.rewrite(&text).await;
        deadline
    }

    /// Packets dropped so far for this reason.
    pub(crate) async fn drops(&self, reason: &str) -> f64 {
        self.node.metric("roomcast_drops_total", &[&format!("reason=\"{reason}\"")]).await
    }

    pub(crate) fn connections(&self) -> usize {
        self.node.node().store().connections()
    }
}

fn text(keys: &BTreeMap<String, String>) -> String {
    keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
}

/// The time that this machine has for the node: it beats after each pause and each answer of the admin port. Where nothing
/// else runs, 80 beats are a second; where much does, all that the node does takes longer, and so does a beat. A second by
/// the clock on the wall would be a test of the machine.
struct Pulse {
    beats: Arc<AtomicUsize>,
    beating: JoinHandle<()>,
}

impl Pulse {
    fn begin(node: &NodeBox) -> Self {
        let beats = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&beats);
        let address = node.node().addresses().admin.unwrap();
        let beating = tokio::spawn(async move {
            loop {
                sleep(BEAT).await;
                let asking = async {
                    let mut socket = TcpStream::connect(address).await?;
                    socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").await?;
                    socket.read_to_end(&mut Vec::new()).await
                };
                let answered: std::io::Result<usize> = asking.await;
                if answered.is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { beats, beating }
    }

    fn deadline(&self) -> Deadline {
        let until = self.beats.load(Ordering::Relaxed) + AT_ONCE;
        Deadline { beats: Arc::clone(&self.beats), until, at_last: Instant::now() + AT_LAST }
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

/// When a change must have acted.
#[derive(Clone)]
pub(crate) struct Deadline {
    beats: Arc<AtomicUsize>,
    until: usize,
    at_last: Instant,
}

impl Deadline {
    /// For what no change brings about.
    pub(crate) fn soon() -> Self {
        Self { beats: Arc::default(), until: usize::MAX, at_last: Instant::now() + SOON }
    }

    /// The same, for what begins to act when a time that was set has passed too.
    pub(crate) fn and(mut self, more: Duration) -> Self {
        self.until += (more.as_millis() / BEAT.as_millis()) as usize;
        self
    }

    /// Waits for the effect.
    pub(crate) async fn shows(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        while !condition().await {
            assert!(!self.is_over(), "not in time: {what}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// The effect was just seen.
    pub(crate) fn is_kept(&self) {
        assert!(
            !self.is_over(),
            "too late: {} beats after the deadline",
            self.beats.load(Ordering::Relaxed) - self.until
        );
    }

    fn is_over(&self) -> bool {
        self.beats.load(Ordering::Relaxed) > self.until || Instant::now() > self.at_last
    }
}

/// What a flood sends at once: a busy machine cannot keep a pace of its own that is as fast.
const AT_A_TIME: usize = 4;

/// Somebody who sends packets of one kind at a steady pace until told to stop, whatever becomes of them.
pub(crate) struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicUsize>,
    sending: JoinHandle<Member>,
}

impl Flood {
    /// Four packets at each step of the pace.
    pub(crate) fn begin(member: Member, pace: Duration, packet: impl Fn() -> bytes::Bytes + Send + 'static) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (until, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let sending = tokio::spawn(async move {
            let mut member = member;
            let mut pace = interval(pace);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !until.load(Ordering::Relaxed) {
                pace.tick().await;
                for _ in 0..AT_A_TIME {
                    member.send(packet()).await.expect("the node keeps the one who floods");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            member
        });
        Self { stop, sent, sending }
    }

    /// Packets sent so far.
    pub(crate) fn sent(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops, and gives back the member, who is still connected.
    pub(crate) async fn end(self) -> Member {
        self.stop.store(true, Ordering::Relaxed);
        let mut member = self.sending.await.unwrap();
        assert!(member.heard_by_now().iter().all(|heard| matches!(heard, Heard::Packet(_))), "it was closed");
        member
    }
}
