//! What one thread's members count together, and the window in which it counts. Pure.

use crate::histogram::Histogram;
use crate::ledger::{Arrival, Ledger};
use crate::packet::Stamp;

/// A send is late when it begins so much after it was due, in microseconds.
const LATE: u64 = 5_000;

/// When what happens, in microseconds of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeline {
    /// Senders begin.
    pub(crate) begin: u64,
    /// The measured window: `start..end`. Senders stop at its end.
    pub(crate) start: u64,
    pub(crate) end: u64,
}

impl Timeline {
    fn holds(&self, time: u64) -> bool {
        (self.start..self.end).contains(&time)
    }
}

/// Everything that is counted, but for what each receiver remembers of each sender.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Packets sent in the window, and the copies that are owed of them.
    pub(crate) sent: u64,
    pub(crate) offered: u64,
    /// Of these copies, those that came, whenever that was.
    pub(crate) arrived: u64,
    /// Owed copies that came in the window, whenever they were sent.
    pub(crate) delivered: u64,
    /// All copies that came in the window, those of members that churn among them: what the router's time is divided by.
    pub(crate) copies: u64,
    /// All copies of the whole run, for the progress.
    pub(crate) total: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    pub(crate) leaked: u64,
    /// Numbers that were skipped and have not come since: what is lost so far, but for the last packets of each sender.
    pub(crate) missing: u64,
    /// Packets without a stamp of this run.
    pub(crate) foreign: u64,
    /// Sends in the window that began late through no fault of the router's.
    pub(crate) late: u64,
    /// Of owed copies sent in the window.
    pub(crate) delays: Histogram,
    /// Of all owed copies since the last progress.
    pub(crate) recent: Histogram,
    /// How long joining took.
    pub(crate) joins: Histogram,
    /// Members that have joined for the first time.
    pub(crate) joined: u64,
    pub(crate) disconnected: u64,
    /// Why the first of these was.
    pub(crate) why: Option<String>,
}

impl Counts {
    /// Counts a packet that was sent at `now`, `late` microseconds after it was due and could have been.
    pub(crate) fn sent(&mut self, timeline: &Timeline, now: u64, late: u64, owed: u64) {
        if timeline.holds(now) {
            self.sent += 1;
            self.offered += owed;
            self.late += u64::from(late > LATE);
        }
    }

    /// Counts a packet that a member got at `now`. `owed` where the member stays.
    pub(crate) fn got(
        &mut self,
        timeline: Option<&Timeline>,
        ledger: &mut Ledger,
        owed: bool,
        stamp: Option<Stamp>,
        now: u64,
    ) {
        let Some(stamp) = stamp else {
            self.foreign += 1;
            return;
        };
        self.total += 1;
        let within = timeline.is_some_and(|timeline| timeline.holds(now));
        self.copies += u64::from(within);
        let first = match ledger.note(stamp.room, stamp.sender, stamp.number) {
            Arrival::New { skipped } => {
                self.missing += if owed { skipped } else { 0 };
                true
            }
            Arrival::Reordered => {
                self.reordered += 1;
                self.missing = self.missing.saturating_sub(u64::from(owed));
                true
            }
            Arrival::Duplicate => {
                self.duplicated += 1;
                false
            }
            Arrival::Leaked => {
                self.leaked += 1;
                false
            }
        };
        if !(first && owed) {
            return;
        }
        let delay = now.saturating_sub(stamp.time);
        self.recent.add(delay);
        self.delivered += u64::from(within);
        if timeline.is_some_and(|timeline| timeline.holds(stamp.time)) {
            self.arrived += 1;
            self.delays.add(delay);
        }
    }

    /// Counts a member that was thrown out.
    pub(crate) fn disconnected(&mut self, why: String) {
        self.disconnected += 1;
        self.why.get_or_insert(why);
    }

    /// Adds another thread's.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.sent, other.sent),
            (&mut self.offered, other.offered),
            (&mut self.arrived, other.arrived),
            (&mut self.delivered, other.delivered),
            (&mut self.copies, other.copies),
            (&mut self.total, other.total),
            (&mut self.duplicated, other.duplicated),
            (&mut self.reordered, other.reordered),
            (&mut self.leaked, other.leaked),
            (&mut self.missing, other.missing),
            (&mut self.foreign, other.foreign),
            (&mut self.late, other.late),
            (&mut self.joined, other.joined),
            (&mut self.disconnected, other.disconnected),
        ] {
            *mine += theirs;
        }
        if self.why.is_none() {
            self.why.clone_from(&other.why);
        }
        self.delays.merge(&other.delays);
        self.recent.merge(&other.recent);
        self.joins.merge(&other.joins);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMELINE: Timeline = Timeline { begin: 0, start: 1_000, end: 2_000 };

    fn stamp(time: u64, number: u64) -> Option<Stamp> {
        Some(Stamp { time, room: 0, sender: 0, number })
    }

    #[test]
    fn copies_are_owed_by_when_they_were_sent_and_delivered_by_when_they_came() {
        let mut counts = Counts::default();
        for now in [900, 1_000, 1_999, 2_000] {
            counts.sent(&TIMELINE, now, 0, 3);
        }
        assert_eq!((counts.sent, counts.offered), (2, 6));
        let mut ledger = Ledger::new(0, 1, 1);
        // Sent before the window and come within; both within; sent within and come after; after both.
        for (number, (sent, now)) in (1..).zip([(900, 1_010), (1_000, 1_020), (1_999, 2_500), (2_000, 2_600)]) {
            counts.got(Some(&TIMELINE), &mut ledger, true, stamp(sent, number), now);
        }
        assert_eq!((counts.delivered, counts.arrived, counts.total), (2, 2, 4));
        assert_eq!((counts.delays.count(), counts.delays.max(), counts.recent.count()), (2, 501, 4));
    }

    #[test]
    fn loss_duplicates_reordering_and_leaks_are_counted() {
        let mut counts = Counts::default();
        let mut ledger = Ledger::new(0, 1, 1);
        counts.sent(&TIMELINE, 1_100, 0, 6);
        for number in [1, 2, 5, 4, 4] {
            counts.got(Some(&TIMELINE), &mut ledger, true, stamp(1_100, number), 1_200);
        }
        let other = Some(Stamp { time: 1_100, room: 9, sender: 0, number: 6 });
        counts.got(Some(&TIMELINE), &mut ledger, true, other, 1_200);
        counts.got(Some(&TIMELINE), &mut ledger, true, None, 1_200);
        assert_eq!(
            (counts.offered - counts.arrived, counts.missing),
            (2, 1),
            "3 and 6 have not come; after 6 none came"
        );
        assert_eq!((counts.duplicated, counts.reordered, counts.leaked, counts.foreign), (1, 1, 1, 1));
    }

    #[test]
    fn what_a_churning_member_gets_is_load_and_no_more() {
        let mut counts = Counts::default();
        let mut ledger = Ledger::new(0, 1, 1);
        counts.got(Some(&TIMELINE), &mut ledger, false, stamp(1_100, 5), 1_200);
        counts.got(Some(&TIMELINE), &mut ledger, false, stamp(1_100, 9), 1_200);
        assert_eq!((counts.copies, counts.delivered, counts.arrived, counts.missing), (2, 0, 0, 0));
    }

    #[test]
    fn a_send_is_late_from_five_milliseconds_on_and_only_in_the_window() {
        let mut counts = Counts::default();
        for (now, late) in [(500, 9_000), (1_500, 5_000), (1_600, 5_001)] {
            counts.sent(&TIMELINE, now, late, 1);
        }
        assert_eq!(counts.late, 1);
    }

    #[test]
    fn threads_add_up() {
        let (mut one, mut other) = (Counts::default(), Counts::default());
        let mut ledger = Ledger::new(0, 1, 1);
        one.sent(&TIMELINE, 1_100, 0, 1);
        other.got(Some(&TIMELINE), &mut ledger, true, stamp(1_100, 1), 1_300);
        one.merge(&other);
        assert_eq!((one.offered, one.arrived, one.delays.max(), one.recent.max()), (1, 1, 200, 200));
    }
}
