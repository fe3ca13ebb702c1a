//! What one receiver got from each sender of its room: new, late, twice, or never meant for it. Pure.
//!
//! For each sender it keeps the newest number and which of the 64 up to it came: 16 bytes, whatever the length of a run. A
//! packet that comes more than 64 numbers late counts as reordered, since it cannot be told any more whether it came before.

/// How many numbers up to the newest one are remembered.
const REMEMBERED: u64 = u64::BITS as u64;

/// What an arriving packet is to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// In order; so many numbers before it have not come so far.
    New {
        /// Numbers skipped since the newest one before; none for the first packet of a sender.
        skipped: u64,
    },
    /// For the first time, but after a newer one.
    Reordered,
    /// It came before.
    Duplicate,
    /// From another room, one's own, from a member that does not send, or no number at all.
    Leaked,
}

#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    newest: u64,
    /// Bit `n`: number `newest - n` came.
    seen: u64,
}

/// One receiver's.
#[derive(Debug)]
pub(crate) struct Ledger {
    room: u32,
    member: u32,
    pairs: Box<[Pair]>,
}

impl Ledger {
    /// For the member `member` of `room`, whose first `senders` members send. It takes 16 bytes for each of them.
    pub(crate) fn new(room: u32, member: u32, senders: u32) -> Self {
        Self { room, member, pairs: vec![Pair::default(); senders as usize].into() }
    }

    /// Notes a packet. Numbers begin with 1.
    pub(crate) fn note(&mut self, room: u32, sender: u32, number: u64) -> Arrival {
        if room != self.room || sender == self.member || number == 0 {
            return Arrival::Leaked;
        }
        let Some(pair) = self.pairs.get_mut(sender as usize) else {
            return Arrival::Leaked;
        };
        if number > pair.newest {
            let ahead = number - pair.newest;
            let first = pair.newest == 0;
            pair.seen = if ahead < REMEMBERED { pair.seen << ahead | 1 } else { 1 };
            pair.newest = number;
            return Arrival::New { skipped: if first { 0 } else { ahead - 1 } };
        }
        let behind = pair.newest - number;
        if behind >= REMEMBERED {
            return Arrival::Reordered;
        }
        let bit = 1 << behind;
        if pair.seen & bit != 0 {
            return Arrival::Duplicate;
        }
        pair.seen |= bit;
        Arrival::Reordered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kinds(numbers: &[u64]) -> Vec<Arrival> {
        let mut ledger = Ledger::new(7, 5, 3);
        numbers.iter().map(|number| ledger.note(7, 2, *number)).collect()
    }

    const NEXT: Arrival = Arrival::New { skipped: 0 };

    #[test]
    fn what_is_in_order_is_new() {
        assert_eq!(kinds(&[1, 2, 3]), [NEXT; 3]);
        assert_eq!(kinds(&[9, 10]), [NEXT; 2], "a receiver need not have been there from the first");
    }

    #[test]
    fn loss_duplicates_and_reordering_are_told_apart() {
        assert_eq!(kinds(&[1, 2, 5]), [NEXT, NEXT, Arrival::New { skipped: 2 }]);
        assert_eq!(kinds(&[1, 2, 2]), [NEXT, NEXT, Arrival::Duplicate]);
        assert_eq!(kinds(&[1, 3, 2]), [NEXT, Arrival::New { skipped: 1 }, Arrival::Reordered]);
        assert_eq!(kinds(&[1, 3, 2, 2, 1])[3..], [Arrival::Duplicate, Arrival::Duplicate]);
    }

    #[test]
    fn numbers_too_old_to_remember_count_as_reordered() {
        assert_eq!(kinds(&[1, 64, 1])[2], Arrival::Duplicate);
        assert_eq!(kinds(&[1, 65, 1])[2], Arrival::Reordered);
        assert_eq!(kinds(&[1, 66, 2])[2], Arrival::Reordered);
        assert_eq!(kinds(&[1, 1_000_000, 999_999, 999_999])[2..], [Arrival::Reordered, Arrival::Duplicate]);
    }

    #[test]
    fn packets_of_other_rooms_and_ones_own_are_leaked() {
        let mut ledger = Ledger::new(7, 1, 3);
        assert_eq!(ledger.note(7, 0, 1), NEXT);
        assert_eq!(ledger.note(8, 0, 2), Arrival::Leaked, "another room");
        assert_eq!(ledger.note(7, 1, 1), Arrival::Leaked, "its own");
        assert_eq!(ledger.note(7, 3, 1), Arrival::Leaked, "a member that does not send");
        assert_eq!(ledger.note(7, 0, 0), Arrival::Leaked, "no number");
        assert_eq!(ledger.note(7, 0, 2), NEXT, "none of these counts for the right sender");
    }

    proptest! {
        /// Against a set that remembers everything.
        #[test]
        fn it_agrees_with_a_set(steps in proptest::collection::vec(1_u64..40, 1..200)) {
            let mut ledger = Ledger::new(0, 1, 1);
            let mut seen = std::collections::BTreeSet::new();
            for number in steps {
                let newest = seen.last().copied().unwrap_or(0);
                let expected = if seen.contains(&number) {
                    Arrival::Duplicate
                } else if number > newest {
                    Arrival::New { skipped: if newest == 0 { 0 } else { number - newest - 1 } }
                } else {
                    Arrival::Reordered
                };
                prop_assert_eq!(ledger.note(0, 0, number), expected);
                seen.insert(number);
            }
        }
    }
}
