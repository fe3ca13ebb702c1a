//! A call under way, for tests that do something to the node meanwhile: four members on both transports who all talk.
//!
//! What does not live here: crowds of rooms and guests who come and go (`soak`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::history::{Client, History};
use crate::member::{Heard, Member, SOON, control};
use crate::node_box::{NodeBox, Via, eventually};

/// The room of the call.
pub const ROOM: &str = "call";
/// Each member's pace where the test says no other: 50 packets a second.
const PACE: Duration = Duration::from_millis(20);

/// Four members on both transports who all send numbered packets until told to stop.
pub struct Call {
    stop: Arc<AtomicBool>,
    /// How many packets each member has sent.
    sent: Vec<Arc<AtomicUsize>>,
    members: Vec<JoinHandle<(Member, Vec<Vec<u8>>)>>,
}

impl Call {
    /// Joins the members and waits until everybody has spoken.
    ///
    /// # Panics
    /// When a member does not get in, or nothing is heard of it soon.
    pub async fn begin(node: &NodeBox) -> Self {
        Self::begin_at(PACE, node).await
    }

    /// The same at another pace: the time between two packets of a member.
    ///
    /// # Panics
    /// As [`Call::begin`].
    pub async fn begin_at(pace: Duration, node: &NodeBox) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut joined = Vec::new();
        for (index, via) in [Via::WebSocket, Via::WebTransport, Via::WebSocket, Via::WebTransport].iter().enumerate() {
            joined.push(Member::join(node, *via, &format!("m{index}"), ROOM).await);
        }
        let sent: Vec<_> = joined.iter().map(|_| Arc::new(AtomicUsize::new(0))).collect();
        let talking = |(member, sent)| tokio::spawn(talk(pace, member, Arc::clone(&stop), Arc::clone(sent)));
        let members = joined.into_iter().zip(&sent).map(talking).collect();
        let call = Self { stop, sent, members };
        call.runs().await;
        call
    }

    /// Waits until every member has sent some more.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn runs(&self) {
        const MORE: usize = 5;
        let now = || self.sent.iter().map(|sent| sent.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let before = now();
        eventually("everybody has spoken", SOON, async || {
            now().iter().zip(&before).all(|(now, before)| *now >= before + MORE)
        })
        .await;
    }

    /// Ends the call, waits for what is under way, and checks that nobody was closed and nothing lost.
    ///
    /// # Panics
    /// When somebody was, or the history is not perfect.
    pub async fn end(self) {
        // What happened last must have had a chance to do harm.
        self.runs().await;
        self.stop.store(true, Ordering::Relaxed);
        let mut spoken = Vec::new();
        for member in self.members {
            spoken.push(member.await.expect("talking does not panic"));
        }
        let all: usize = spoken.iter().map(|(_, sent)| sent.len()).sum();
        let mut history = History::default();
        for (mut member, sent) in spoken {
            let mut received = Vec::new();
            while received.len() < all - sent.len() {
                match member.hear().await {
                    Heard::Packet(packet) => received.push(packet.to_vec()),
                    Heard::Closed(code) => panic!("{} was closed with {code:?}", member.user()),
                }
            }
            assert!(member.heard_by_now().is_empty(), "more than was sent");
            assert!(!sent.is_empty());
            history.clients.insert(member.user().to_owned(), Client { room: ROOM.into(), sent, received });
            member.leave().await;
        }
        history.check();
    }
}

async fn talk(
    pace: Duration,
    mut member: Member,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
) -> (Member, Vec<Vec<u8>>) {
    let mut sent = Vec::new();
    let mut pace = interval(pace);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let packet = control(member.user(), &format!("{} {}", member.user(), sent.len()));
        sent.push(packet.to_vec());
        member.send(packet).await.expect("the connection takes a packet");
        count.store(sent.len(), Ordering::Relaxed);
    }
    (member, sent)
}
