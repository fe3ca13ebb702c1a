//! Flush sets: the egresses with something to write, in the order in which that is due. One set for each lane, so that a
//! packet for a hundred receivers wakes a flusher or two and not a hundred tasks, and a flusher that is awake writes for everybody who is
//! due.
//!
//! The sets outlive the flushers: a new incarnation goes on with whoever is next. Between taking an egress from its set and having
//! written for it there is no await, so a kill finds every packet either queued or written.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use roomcast_relay::Time;
use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::{Egress, Store};

/// Egresses written for between two awaits: about 200 µs, so that whoever reads on the same thread is not kept waiting.
const TURN: usize = 32;

/// One flush set.
#[derive(Default)]
pub(crate) struct FlushSet {
    lines: Mutex<Lines>,
    wake: Notify,
}

#[derive(Default)]
struct Lines {
    /// Due since they came, in the order of that.
    now: VecDeque<(Time, Arc<Egress>)>,
    /// Waiting for company, in the order of when that ends.
    later: VecDeque<(Time, Arc<Egress>)>,
    /// Connections and when they were asked for a sign of life last, in the order of that.
    alive: VecDeque<(Time, Weak<Egress>)>,
    /// When the flusher looks again by itself; `None`: it is at work.
    asleep_until: Option<Time>,
}

/// Who is next.
enum Due {
    Write(Arc<Egress>),
    Ping(Weak<Egress>),
    /// Nobody before this.
    Nobody(Time),
}

impl FlushSet {
    /// Puts an egress in line, for `due` or at once. Its holder does so once until it was written for, or once more to make it
    /// earlier.
    pub(super) fn add(&self, egress: &Arc<Egress>, now: Time, due: Option<Time>) {
        let mut lines = self.lock();
        match due {
            None => lines.now.push_back((now, Arc::clone(egress))),
            Some(due) => lines.later.push_back((due, Arc::clone(egress))),
        }
        if lines.asleep_until.is_some_and(|until| due.unwrap_or(now) < until) {
            lines.asleep_until = None;
            drop(lines);
            self.wake.notify_one();
        }
    }

    /// Has a connection asked for signs of life from now on, until it is over.
    pub(super) fn keep_alive(&self, egress: &Arc<Egress>, now: Time) {
        self.lock().alive.push_back((now, Arc::downgrade(egress)));
        self.rouse();
    }

    /// Has the flusher look again.
    pub(super) fn rouse(&self) {
        self.wake.notify_one();
    }

    /// Writes for whoever is due, for ever. One at a time.
    pub(crate) async fn flush_due(&self, store: &Store) -> Infallible {
        let mut batch = Vec::new();
        let mut written = 0;
        loop {
            match self.next(store.clock.now(), store.live().timers.ping) {
                Due::Write(egress) => egress.flush(&mut batch),
                Due::Ping(egress) => {
                    if let Some(egress) = egress.upgrade().filter(Egress::ping) {
                        self.lock().alive.push_back((store.clock.now(), Arc::downgrade(&egress)));
                    }
                }
                Due::Nobody(until) => {
                    batch.shrink_to(TURN);
                    tokio::select! {
                        () = self.wake.notified() => {}
                        () = sleep_until(store.clock.instant(until)) => {}
                    }
                    written = 0;
                    continue;
                }
            }
            written += 1;
            if written == TURN {
                written = 0;
                tokio::task::yield_now().await;
            }
        }
    }

    fn next(&self, now: Time, ping: Duration) -> Due {
        let mut lines = self.lock();
        lines.asleep_until = None;
        let first = |line: &VecDeque<(Time, Arc<Egress>)>| line.front().map(|(due, _)| *due);
        let (at_once, later) = (first(&lines.now), first(&lines.later));
        // Whoever was due first, so that neither line starves the other.
        let line = match (at_once, later.filter(|due| *due <= now)) {
            (Some(at_once), Some(later)) if later < at_once => &mut lines.later,
            (Some(_), _) => &mut lines.now,
            (None, _) => &mut lines.later,
        };
        if line.front().is_some_and(|(due, _)| *due <= now)
            && let Some((_, egress)) = line.pop_front()
        {
            return Due::Write(egress);
        }
        let next_ping = lines.alive.front().map(|(last, _)| last.after(ping));
        if next_ping.is_some_and(|due| due <= now)
            && let Some((_, egress)) = lines.alive.pop_front()
        {
            return Due::Ping(egress);
        }
        let until = later.into_iter().chain(next_ping).min().unwrap_or(now.after(ping));
        lines.asleep_until = Some(until);
        Due::Nobody(until)
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
