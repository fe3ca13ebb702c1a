//! One member's life: it joins, sends and receives until the run ends, and may leave and join again. How bytes move is in
//! `websocket` and `webtransport`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use crate::counts::{Counts, Timeline};
use crate::join::{JoinError, Joined};
use crate::ledger::Ledger;
use crate::pace::Pace;
use crate::packet::{self, Stamp, Template};
use crate::thread::Thread;
use crate::{websocket, webtransport};

/// How often a sender looks whether all have joined, in microseconds.
const LOOK: u64 = 200_000;

/// How one connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It is this member's turn to leave.
    Left,
    /// The router closed, or the network broke; in words.
    Gone(String),
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Send one packet: [`Member::packet`].
    Send,
    /// Wait until then, in microseconds of the run; for ever, where it is `u64::MAX`.
    Wait(u64),
    /// Leave the room.
    Leave,
}

/// One member.
pub(crate) struct Member {
    pub(crate) thread: Arc<Thread>,
    pub(crate) ledger: Ledger,
    pub(crate) sender: Sender,
}

/// What a member does of itself: sending and leaving.
pub(crate) struct Sender {
    pub(crate) thread: Arc<Thread>,
    room: u32,
    index: u32,
    name: String,
    pace: Option<Pace>,
    sent: u64,
    leave_at: u64,
    /// Since when the connection has taken what it was given: what is late because the router does not read is no fault
    /// of this tool.
    pub(crate) free_at: u64,
    random: fastrand::Rng,
}

impl Member {
    pub(crate) fn new(thread: &Arc<Thread>, room: u32, index: u32) -> Self {
        let sender = Sender {
            thread: Arc::clone(thread),
            room,
            index,
            name: packet::name(index),
            pace: None,
            sent: 0,
            leave_at: u64::MAX,
            free_at: 0,
            random: fastrand::Rng::new(),
        };
        let ledger = Ledger::new(room, index, thread.plan.senders);
        Self { thread: Arc::clone(thread), ledger, sender }
    }

    /// Lives until the run ends. An error means that it could not join at first.
    pub(crate) async fn live(mut self, permit: OwnedSemaphorePermit) -> Result<(), JoinError> {
        let mut permit = Some(permit);
        let thread = Arc::clone(&self.thread);
        let (room, index) = (self.sender.room, self.sender.index);
        let (target, _) = thread.plan.place(room, index);
        let path = format!("/lobby/{}/{}-{room}", self.sender.name, thread.room_prefix);
        let mut first = true;
        loop {
            let asked = Instant::now();
            let joined = match thread.doors[target].join(&path).await {
                Ok(joined) => joined,
                Err(error) if first => return Err(error),
                Err(error) => {
                    thread.scratch().counts.disconnected(error.to_string());
                    return Ok(());
                }
            };
            {
                let mut scratch = thread.scratch();
                scratch.counts.joins.add(asked.elapsed().as_micros() as u64);
                scratch.counts.joined += u64::from(first);
            }
            if !self.sender.stays() {
                // What it missed while it was away must not look like loss, nor its next packets like late ones.
                self.ledger = Ledger::new(room, index, thread.plan.senders);
                let stay = thread.plan.stay.unwrap_or(Duration::MAX).as_micros() as u64;
                let stay = if first { self.sender.random.u64(0..=stay) } else { stay };
                self.sender.leave_at = thread.now().saturating_add(stay);
            }
            first = false;
            // The next one may join.
            drop(permit.take());
            let end = match joined {
                Joined::Plain(socket, early) => websocket::run(socket, &early, &mut self).await,
                Joined::Tls(stream, early) => websocket::run(stream, &early, &mut self).await,
                Joined::WebTransport(endpoint, session) => {
                    Box::pin(webtransport::run(endpoint, &session, &mut self)).await
                }
            };
            if let End::Gone(why) = end {
                // Routers may also refuse by closing, once the handshake is done.
                if thread.timeline.get().is_none_or(|timeline| thread.now() < timeline.begin) {
                    return Err(thread.doors[target].refused(&path, why));
                }
                thread.scratch().counts.disconnected(why);
                return Ok(());
            }
        }
    }
}

impl Sender {
    /// Whether copies are owed to this member.
    pub(crate) fn stays(&self) -> bool {
        self.index < self.thread.plan.steady
    }

    fn sends(&self) -> bool {
        self.index < self.thread.plan.senders
    }

    /// Whether it ever needs a timer.
    pub(crate) fn has_times(&self) -> bool {
        self.sends() || !self.stays()
    }

    /// What is to be done at `now`.
    pub(crate) fn next(&mut self, timeline: Option<&Timeline>, now: u64) -> Next {
        if now >= self.leave_at {
            return Next::Leave;
        }
        if !self.sends() {
            return Next::Wait(self.leave_at);
        }
        let Some(timeline) = timeline else { return Next::Wait(now + LOOK) };
        let pace =
            self.pace.get_or_insert_with(|| Pace::new(&self.thread.plan.tracks, timeline.begin, &mut self.random));
        match pace.due() {
            // Senders stop at the window's end; a packet that is due before it but late would be counted by nobody.
            _ if now >= timeline.end => Next::Wait(u64::MAX),
            due if due > now => Next::Wait(due),
            _ => Next::Send,
        }
    }

    /// The packet that is due, counted as sent.
    pub(crate) fn packet<'a>(
        &mut self,
        templates: &'a mut [Template],
        counts: &mut Counts,
        timeline: &Timeline,
        now: u64,
    ) -> &'a [u8] {
        let due = self.pace.as_ref().map_or(now, Pace::due).max(self.free_at);
        let shape = self.pace.as_mut().map_or(0, |pace| pace.take(&self.thread.plan.tracks, now, &mut self.random));
        self.sent += 1;
        counts.sent(timeline, now, now.saturating_sub(due), self.thread.plan.owed());
        let stamp = Stamp { time: now, room: self.room, sender: self.index, number: self.sent };
        templates[shape].stamped(&self.name, stamp)
    }
}
