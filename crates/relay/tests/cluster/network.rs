//! A bus between simulated nodes: it delays, drops, repeats and reorders, as far as its weather and the cuts in it say. What
//! a node makes of it is not known here.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use bytes::Bytes;

/// A small generator, so that a run is the same for the same seed.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Under `most`, which is at least one.
    pub(crate) fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    fn percent(&mut self, percent: u8) -> bool {
        self.below(100) < u64::from(percent)
    }
}

/// What becomes of messages on their way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// The longest way, in microseconds.
    pub(crate) delay: u64,
    pub(crate) dropped_percent: u8,
    pub(crate) repeated_percent: u8,
}

/// A message on its way to one run of a node.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Flight {
    pub(crate) at: u64,
    number: u64,
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Which of the receiver's connections it is meant for.
    pub(crate) epoch: u64,
    pub(crate) subject: String,
    pub(crate) payload: Bytes,
}

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) weather: Weather,
    /// Whether what one publishes on one subject stays in order for each receiver, as NATS keeps it.
    ordered: bool,
    /// Places that do not reach others: from and to.
    pub(crate) cuts: BTreeSet<(usize, usize)>,
    random: Random,
    flights: BinaryHeap<Reverse<Flight>>,
    number: u64,
    last: HashMap<(usize, usize, String), u64>,
}

impl Network {
    pub(crate) fn new(seed: u64, ordered: bool, weather: Weather) -> Self {
        let (random, cuts) = (Random::new(seed), BTreeSet::new());
        Self { weather, ordered, cuts, random, flights: BinaryHeap::new(), number: 0, last: HashMap::new() }
    }

    /// Sends a message on its way to one receiver, unless the weather takes it.
    pub(crate) fn send(&mut self, now: u64, (from, to): (usize, usize), epoch: u64, subject: &str, payload: &Bytes) {
        if self.random.percent(self.weather.dropped_percent) {
            return;
        }
        let copies = 1 + u64::from(self.random.percent(self.weather.repeated_percent));
        for _ in 0..copies {
            let mut at = now + 1 + self.random.below(self.weather.delay.max(1));
            if self.ordered {
                let last = self.last.entry((from, to, subject.to_owned())).or_default();
                at = at.max(*last);
                *last = at;
            }
            self.number += 1;
            self.flights.push(Reverse(Flight {
                at,
                number: self.number,
                from,
                to,
                epoch,
                subject: subject.to_owned(),
                payload: payload.clone(),
            }));
        }
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.flights.peek().map(|flight| flight.0.at)
    }

    pub(crate) fn take(&mut self) -> Option<Flight> {
        self.flights.pop().map(|flight| flight.0)
    }
}
