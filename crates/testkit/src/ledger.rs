//! The history checker for long runs with joins and leaves: what one receiver has heard of each sender, checked as it
//! comes and kept as a few numbers. Pure.
//!
//! Packets are numbered from 0 by their sender. A receiver that is in a room hears every sender's packets without a gap,
//! from some packet on and up to some packet; [`Ledger::settle`] says which of them it had to hear: those sent after its
//! join was answered and before its leave. Those sent around the two moments it may hear or not, in order all the same.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;

/// Violations that are kept; more are only counted.
const KEPT: usize = 50;

/// What a numbered packet says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// The room it was sent in.
    pub room: u32,
    /// Who sent it.
    pub sender: u32,
    /// The how-many-eth of its sender's packets, from 0.
    pub number: u32,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Never heard.
    Lost {
        /// Who did not get them.
        to: u32,
        /// Who sent them.
        from: u32,
        /// Which.
        numbers: Range<u32>,
    },
    /// Heard again.
    Duplicated {
        /// Who got it again.
        to: u32,
        /// Which.
        packet: Numbered,
    },
    /// Heard after a later one.
    Reordered {
        /// Who got it late.
        to: u32,
        /// Which.
        packet: Numbered,
    },
    /// Back to its own sender.
    Echoed {
        /// Which.
        packet: Numbered,
    },
    /// Heard in another room.
    Leaked {
        /// Who got it.
        to: u32,
        /// The room that `to` is in.
        into: u32,
        /// Which.
        packet: Numbered,
    },
    /// Never sent: from nobody known, or with a number that its sender has not reached.
    Invented {
        /// Who got it.
        to: u32,
        /// From whom it says it is.
        from: u32,
        /// One past the highest number heard.
        next: u32,
    },
    /// Not the bytes that its sender made, or no packet at all.
    Changed {
        /// Who got it.
        to: u32,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |packet: &Numbered| format!("packet {} of {}", packet.number, packet.sender);
        match self {
            Self::Lost { to, from, numbers } => write!(f, "{to} never got packets {numbers:?} of {from}"),
            Self::Duplicated { to, packet } => write!(f, "{to} got {} again", name(packet)),
            Self::Reordered { to, packet } => write!(f, "{to} got {} after a later one", name(packet)),
            Self::Echoed { packet } => write!(f, "{} came back to its sender", name(packet)),
            Self::Leaked { to, into, packet } => {
                write!(f, "{to} in room {into} got {} of room {}", name(packet), packet.room)
            }
            Self::Invented { to, from, next } => {
                write!(f, "{to} got packets up to {next} of {from}, which were never sent")
            }
            Self::Changed { to } => write!(f, "{to} got a packet that is not what its sender made"),
        }
    }
}

/// One receiver's ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    me: u32,
    room: u32,
    tracks: HashMap<u32, Track>,
    packets: u64,
    violations: Vec<Violation>,
    more: u64,
    tally: Tally,
}

/// How many packets went wrong, however many of the violations are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Never heard, by sender.
    pub lost: BTreeMap<u32, u64>,
    /// Heard after a later one.
    pub reordered: u64,
    /// Back to their own sender.
    pub echoed: u64,
    /// All other violations.
    pub other: u64,
}

/// What was heard of one sender: `first..next` but for `missing`.
#[derive(Clone, Debug)]
struct Track {
    first: u32,
    next: u32,
    missing: Vec<Range<u32>>,
    settled: bool,
}

impl Ledger {
    /// A receiver in a room that has heard nothing.
    #[must_use]
    pub fn new(me: u32, room: u32) -> Self {
        Self { me, room, tracks: HashMap::new(), packets: 0, violations: Vec::new(), more: 0, tally: Tally::default() }
    }

    /// Packets heard, whatever they were.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// One past the highest number heard of a sender; 0 where none was.
    #[must_use]
    pub fn next_of(&self, sender: u32) -> u32 {
        self.tracks.get(&sender).map_or(0, |track| track.next)
    }

    /// Enters a packet.
    pub fn hear(&mut self, packet: Numbered) {
        self.packets += 1;
        let Numbered { room, sender, number } = packet;
        let (to, into) = (self.me, self.room);
        if sender == to {
            return self.violated(Violation::Echoed { packet });
        }
        if room != into {
            return self.violated(Violation::Leaked { to, into, packet });
        }
        let fresh = Track { first: number, next: number, missing: Vec::new(), settled: false };
        let track = self.tracks.entry(sender).or_insert(fresh);
        if number >= track.next {
            if number > track.next {
                track.missing.push(track.next..number);
            }
            track.next = number + 1;
        } else if number < track.first {
            if number + 1 < track.first {
                track.missing.push(number + 1..track.first);
            }
            track.first = number;
            self.violated(Violation::Reordered { to, packet });
        } else if let Some(at) = track.missing.iter().position(|gap| gap.contains(&number)) {
            let gap = track.missing.swap_remove(at);
            let halves = [gap.start..number, number + 1..gap.end];
            track.missing.extend(halves.into_iter().filter(|half| !half.is_empty()));
            self.violated(Violation::Reordered { to, packet });
        } else {
            self.violated(Violation::Duplicated { to, packet });
        }
    }

    /// Enters bytes that are no packet of any sender.
    pub fn hear_changed(&mut self) {
        self.packets += 1;
        self.violated(Violation::Changed { to: self.me });
    }

    /// Compares with what a sender did: it sent `sent` packets in all, and those in `must` had to be heard.
    pub fn settle(&mut self, sender: u32, sent: u32, must: Range<u32>) {
        let (to, from) = (self.me, sender);
        let mut lost = Vec::new();
        match self.tracks.get_mut(&sender) {
            None => lost.push(must),
            Some(track) => {
                track.settled = true;
                lost.push(must.start..must.end.min(track.first));
                lost.push(must.start.max(track.next)..must.end);
                lost.append(&mut track.missing);
                let next = track.next;
                if next > sent {
                    self.violated(Violation::Invented { to, from, next });
                }
            }
        }
        for numbers in lost.into_iter().filter(|numbers| !numbers.is_empty()) {
            self.violated(Violation::Lost { to, from, numbers });
        }
    }

    /// How many packets went wrong so far, those that are lost once every sender was settled.
    #[must_use]
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Closes the ledger after every sender was settled: all violations (the first of them, if there are very many) and
    /// how many there are. Whoever was not settled is nobody.
    #[must_use]
    pub fn close(mut self) -> (Vec<Violation>, u64) {
        let mut strangers: Vec<_> =
            self.tracks.iter().filter(|(_, track)| !track.settled).map(|(from, track)| (*from, track.next)).collect();
        strangers.sort_unstable();
        for (from, next) in strangers {
            self.violated(Violation::Invented { to: self.me, from, next });
        }
        let count = self.violations.len() as u64 + self.more;
        (self.violations, count)
    }

    fn violated(&mut self, violation: Violation) {
        match &violation {
            Violation::Lost { from, numbers, .. } => {
                *self.tally.lost.entry(*from).or_default() += u64::from(numbers.end - numbers.start);
            }
            Violation::Reordered { .. } => self.tally.reordered += 1,
            Violation::Echoed { .. } => self.tally.echoed += 1,
            _ => self.tally.other += 1,
        }
        if self.violations.len() < KEPT {
            self.violations.push(violation);
        } else {
            self.more += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: u32 = 1;
    const BOB: u32 = 2;
    const ROOM: u32 = 7;

    fn bobs(number: u32) -> Numbered {
        Numbered { room: ROOM, sender: BOB, number }
    }

    /// What Ann's ledger says after she heard these of Bob's ten packets and had to hear `must`.
    fn verdict(heard: &[u32], must: Range<u32>) -> Vec<Violation> {
        let mut ledger = Ledger::new(ANN, ROOM);
        heard.iter().for_each(|number| ledger.hear(bobs(*number)));
        ledger.settle(BOB, 10, must);
        let (violations, count) = ledger.close();
        assert_eq!(violations.len() as u64, count);
        violations
    }

    fn lost(numbers: Range<u32>) -> Violation {
        Violation::Lost { to: ANN, from: BOB, numbers }
    }

    #[test]
    fn a_guest_hears_all_from_its_answer_to_its_leave_and_perhaps_some_around() {
        assert_eq!(verdict(&[3, 4, 5, 6], 3..7), []);
        assert_eq!(verdict(&[2, 3, 4, 5, 6, 7, 8], 3..7), [], "what was under way may be heard");
        assert_eq!(verdict(&[], 4..4), [], "nothing was sent while it was there");
        assert_eq!(verdict(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 0..10), []);
    }

    #[test]
    fn a_guest_that_comes_in_late_or_is_dropped_early_has_lost_something() {
        assert_eq!(verdict(&[4, 5, 6], 3..7), [lost(3..4)]);
        assert_eq!(verdict(&[3, 4], 3..7), [lost(5..7)]);
        assert_eq!(verdict(&[], 3..7), [lost(3..7)]);
        assert_eq!(verdict(&[8, 9], 3..7), [lost(3..7)], "only what came after its leave");
        assert_eq!(verdict(&[0, 1], 3..7), [lost(3..7)], "only what came before its answer");
    }

    #[test]
    fn a_gap_is_a_loss_wherever_it_is() {
        assert_eq!(verdict(&[3, 4, 6], 3..7), [lost(5..6)]);
        assert_eq!(verdict(&[0, 3, 4, 5, 6], 3..7), [lost(1..3)], "who is in the table is in it");
        assert_eq!(verdict(&[3, 4, 5, 6, 9], 3..7), [lost(7..9)], "and stays in it until it is out");
    }

    #[test]
    fn what_comes_twice_or_too_late_is_found_and_is_not_lost() {
        assert_eq!(verdict(&[3, 4, 4, 5, 6], 3..7), [Violation::Duplicated { to: ANN, packet: bobs(4) }]);
        assert_eq!(verdict(&[3, 5, 4, 6], 3..7), [Violation::Reordered { to: ANN, packet: bobs(4) }]);
        assert_eq!(verdict(&[4, 3, 5, 6], 3..7), [Violation::Reordered { to: ANN, packet: bobs(3) }]);
        assert_eq!(
            verdict(&[5, 3, 6], 3..7),
            [Violation::Reordered { to: ANN, packet: bobs(3) }, lost(4..5)],
            "one came late and one not at all"
        );
        assert_eq!(
            verdict(&[0, 4, 2, 2], 0..5),
            [
                Violation::Reordered { to: ANN, packet: bobs(2) },
                Violation::Duplicated { to: ANN, packet: bobs(2) },
                lost(1..2),
                lost(3..4)
            ]
        );
    }

    #[test]
    fn echoes_leaks_inventions_and_changes_are_found() {
        let mut ledger = Ledger::new(ANN, ROOM);
        let echo = Numbered { sender: ANN, ..bobs(0) };
        let leak = Numbered { room: 8, ..bobs(1) };
        let stranger = Numbered { sender: 99, ..bobs(0) };
        [echo, leak, stranger, bobs(0), bobs(1)].into_iter().for_each(|packet| ledger.hear(packet));
        ledger.hear_changed();
        assert_eq!((ledger.packets(), ledger.next_of(BOB), ledger.next_of(5)), (6, 2, 0));
        ledger.settle(BOB, 1, 0..1);
        let expected = [
            Violation::Echoed { packet: echo },
            Violation::Leaked { to: ANN, into: ROOM, packet: leak },
            Violation::Changed { to: ANN },
            Violation::Invented { to: ANN, from: BOB, next: 2 },
            Violation::Invented { to: ANN, from: 99, next: 1 },
        ];
        assert_eq!(ledger.close(), (expected.to_vec(), 5));
    }

    #[test]
    fn very_many_violations_are_counted_and_the_first_are_shown() {
        let mut ledger = Ledger::new(ANN, ROOM);
        (0..1000).for_each(|_| ledger.hear_changed());
        (0..1000).filter(|number| number % 4 != 1).for_each(|number| ledger.hear(bobs(number)));
        ledger.hear(bobs(1));
        ledger.hear(Numbered { sender: ANN, ..bobs(0) });
        ledger.settle(BOB, 1010, 0..1010);
        let lost = BTreeMap::from([(BOB, 249 + 10)]);
        assert_eq!(*ledger.tally(), Tally { lost, reordered: 1, echoed: 1, other: 1000 });
        let (shown, count) = ledger.close();
        assert_eq!((shown.len(), count), (KEPT, 1000 + 1 + 1 + 249 + 1));
    }
}
