//! What one receiver has heard of each of its room: the ledger, and when. Pure: time is an argument.
//!
//! Three things are read from it: what is wrong (the ledger), for how long each sender was silent since a mark, and when each
//! was heard again after another.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::ledger::{Ledger, Numbered, Violation};

/// What one receiver heard.
#[derive(Debug)]
pub struct Record {
    me: u32,
    ledger: Ledger,
    senders: BTreeMap<u32, Track>,
    oldest: Duration,
}

#[derive(Debug, Default)]
struct Track {
    last: Option<Instant>,
    longest: Duration,
    /// From this number on its packets were sent after the moment that matters.
    awaited: Option<u32>,
    heard_again: Option<Instant>,
}

/// What is wrong with one receiver's record, sorted by what may happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Packets that never came, by sender.
    pub lost: BTreeMap<u32, u64>,
    /// Some of those, as runs of one sender's numbers.
    pub runs: Vec<(u32, Range<u32>)>,
    /// Packets that came after later ones of their sender.
    pub late: u64,
    /// Its own packets that came back to it.
    pub returned: u64,
    /// Everything else, in words: duplicates, leaks, inventions, changes. None of it may ever happen.
    pub wrong: Vec<String>,
}

impl Record {
    /// A receiver that has heard nothing.
    #[must_use]
    pub fn new(me: u32, room: u32) -> Self {
        Self { me, ledger: Ledger::new(me, room), senders: BTreeMap::new(), oldest: Duration::ZERO }
    }

    /// Enters what was received: a packet, or `None` for bytes that are nobody's; and how long ago it was sent.
    pub fn hear(&mut self, packet: Option<Numbered>, age: Duration, now: Instant) {
        let Some(packet) = packet else { return self.ledger.hear_changed() };
        self.oldest = self.oldest.max(age);
        self.ledger.hear(packet);
        let track = self.senders.entry(packet.sender).or_default();
        if let Some(last) = track.last.replace(now) {
            track.longest = track.longest.max(now.saturating_duration_since(last));
        }
        if track.awaited.is_some_and(|awaited| packet.number >= awaited) {
            track.heard_again.get_or_insert(now);
        }
    }

    /// Begins the ledger anew: what came so far was no part of it, whatever is wrong with it.
    pub fn begin(&mut self, room: u32) {
        self.ledger = Ledger::new(self.me, room);
    }

    /// From now on counts silences anew. One that lasts counts whole when it ends.
    pub fn mark(&mut self) {
        self.oldest = Duration::ZERO;
        self.senders.values_mut().for_each(|track| track.longest = Duration::ZERO);
    }

    /// The greatest age of a packet that was heard since the mark.
    #[must_use]
    pub fn oldest(&self) -> Duration {
        self.oldest
    }

    /// The longest silence of a sender since the mark, the one that lasts included. `None`: it was never heard.
    #[must_use]
    pub fn silence(&self, sender: u32, now: Instant) -> Option<Duration> {
        let track = self.senders.get(&sender)?;
        track.last.map(|last| track.longest.max(now.saturating_duration_since(last)))
    }

    /// Asks to note when a packet of `sender` with this number or a later one is heard.
    pub fn await_from(&mut self, sender: u32, number: u32) {
        let track = self.senders.entry(sender).or_default();
        (track.awaited, track.heard_again) = (Some(number), None);
    }

    /// When the awaited packet of a sender, or a later one, was heard.
    #[must_use]
    pub fn heard_again(&self, sender: u32) -> Option<Instant> {
        self.senders.get(&sender)?.heard_again
    }

    /// One past the highest number heard of a sender.
    #[must_use]
    pub fn next_of(&self, sender: u32) -> u32 {
        self.ledger.next_of(sender)
    }

    /// Compares with what each of the room sent: `(sender, first number that had to be heard, packets sent in all)`.
    #[must_use]
    pub fn close(mut self, senders: impl IntoIterator<Item = (u32, u32, u32)>) -> Verdict {
        for (sender, first, sent) in senders {
            self.ledger.settle(sender, sent, first..sent);
            self.senders.remove(&sender);
        }
        let tally = self.ledger.tally().clone();
        // Whoever was heard and is nobody is found when the ledger is closed; echoes are counted already.
        let strangers =
            self.senders.iter().filter(|(id, track)| **id != self.me && track.last.is_some()).count() as u64;
        let (violations, _) = self.ledger.close();
        let expected = |violation: &&Violation| {
            matches!(violation, Violation::Lost { .. } | Violation::Reordered { .. } | Violation::Echoed { .. })
        };
        let mut wrong: Vec<String> =
            violations.iter().filter(|violation| !expected(violation)).map(ToString::to_string).collect();
        let run = |violation: &Violation| match violation {
            Violation::Lost { from, numbers, .. } => Some((*from, numbers.clone())),
            _ => None,
        };
        let runs = violations.iter().filter_map(run).collect();
        let unseen = (tally.other + strangers).saturating_sub(wrong.len() as u64);
        if unseen > 0 {
            wrong.push(format!("{unseen} more"));
        }
        Verdict { lost: tally.lost, runs, late: tally.reordered, returned: tally.echoed, wrong }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: u32 = 1;
    const ANN: u32 = 2;
    const BOB: u32 = 3;
    const NEW: Duration = Duration::from_millis(1);

    fn record(heard: &[(u32, u32, u64)], start: Instant) -> Record {
        let mut record = Record::new(ME, 7);
        for (sender, number, millis) in heard {
            let packet = Numbered { room: 7, sender: *sender, number: *number };
            record.hear(Some(packet), NEW, start + Duration::from_millis(*millis));
        }
        record
    }

    #[test]
    fn the_longest_silence_since_the_mark_is_told_for_each_sender() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let silence = |record: &Record, sender, millis| record.silence(sender, at(millis)).map(|time| time.as_millis());
        let mut record = record(&[(ANN, 0, 0), (BOB, 0, 10), (ANN, 1, 500), (ANN, 2, 600)], start);
        assert_eq!(silence(&record, ANN, 610), Some(500));
        assert_eq!(silence(&record, BOB, 610), Some(600), "it lasts");
        assert_eq!(silence(&record, 9, 610), None);
        assert_eq!(record.oldest(), NEW);
        record.mark();
        assert_eq!(silence(&record, ANN, 610), Some(10));
        assert_eq!(record.oldest(), Duration::ZERO);
        record.hear(Some(Numbered { room: 7, sender: ANN, number: 3 }), NEW * 9, at(900));
        record.hear(Some(Numbered { room: 7, sender: BOB, number: 1 }), NEW * 2, at(900));
        assert_eq!(record.oldest(), NEW * 9);
        assert_eq!(silence(&record, ANN, 910), Some(300), "what began before the mark counts whole");
    }

    #[test]
    fn hearing_again_means_hearing_what_was_sent_since() {
        let start = Instant::now();
        let mut record = record(&[(ANN, 0, 0), (ANN, 1, 10)], start);
        record.await_from(ANN, 3);
        record.await_from(BOB, 0);
        let mut hear = |number, millis| {
            let packet = Numbered { room: 7, sender: ANN, number };
            record.hear(Some(packet), NEW, start + Duration::from_millis(millis));
            record.heard_again(ANN)
        };
        assert_eq!(hear(2, 20), None, "it was on its way before");
        let again = start + Duration::from_millis(40);
        assert_eq!(hear(4, 40), Some(again));
        assert_eq!(hear(5, 50), Some(again));
        assert_eq!(record.heard_again(BOB), None);
    }

    #[test]
    fn losses_and_late_packets_are_counted_and_all_else_is_wrong() {
        let start = Instant::now();
        let heard = [(ANN, 5, 0), (ANN, 8, 1), (ANN, 7, 2), (BOB, 0, 3), (BOB, 0, 4), (BOB, 1, 5)];
        let record = |heard: &[(u32, u32, u64)]| record(heard, start);
        let verdict = record(&heard).close([(ANN, 4, 10), (BOB, 0, 2)]);
        assert_eq!(verdict.lost, BTreeMap::from([(ANN, 3)]), "4, 6 and 9");
        assert_eq!(verdict.runs, [(ANN, 4..5), (ANN, 9..10), (ANN, 6..7)]);
        assert_eq!((verdict.late, verdict.wrong.len()), (1, 1), "{verdict:?}");
        let verdict = record(&[(ME, 3, 0), (ME, 2, 1)]).close([(ANN, 0, 0)]);
        assert_eq!(verdict, Verdict { returned: 2, ..Verdict::default() });
        let mut many = record(&[(ANN, 0, 0)]);
        (0..200).for_each(|_| many.hear(None, NEW, start));
        let verdict = many.close([(ANN, 0, 1)]);
        assert_eq!(verdict.wrong.last().unwrap(), "150 more");
        let mut gaps = record(&[]);
        let heard = (0..400).step_by(2).map(|number| Numbered { room: 7, sender: ANN, number });
        heard.for_each(|packet| gaps.hear(Some(packet), NEW, start));
        gaps.hear(Some(Numbered { room: 7, sender: 99, number: 0 }), NEW, start);
        let verdict = gaps.close([(ANN, 0, 400)]);
        assert_eq!(verdict.lost, BTreeMap::from([(ANN, 200)]));
        assert_eq!(verdict.wrong, ["1 more"], "a stranger behind more losses than are kept");
    }
}
