//! What became of streams and datagrams that did not become packets, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use super::sequencer::Abandoned;

/// Counts of one connection, shared by its two halves.
#[derive(Debug, Default)]
pub struct Counters {
    stalled: AtomicU64,
    overdue: AtomicU64,
    memory: AtomicU64,
    reset: AtomicU64,
    cut: AtomicU64,
    foreign: AtomicU64,
    refused: AtomicU64,
}

/// Counts since the last time they were taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Incoming streams abandoned because later packets waited for them too long.
    pub stalled: u64,
    /// Incoming streams abandoned because they did not end in their lifetime.
    pub overdue: u64,
    /// Incoming streams abandoned because too much memory waited for them.
    pub memory: u64,
    /// Incoming streams that the peer reset, or ended within their header.
    pub reset: u64,
    /// Incoming streams that were not whole when the connection ended.
    pub cut: u64,
    /// Incoming streams and datagrams that are not this session's.
    pub foreign: u64,
    /// Outgoing packets that the peer told this side to stop sending.
    pub refused: u64,
}

impl Stats {
    /// Packets that never came to be, whatever the reason.
    #[must_use]
    pub fn lost_in(&self) -> u64 {
        self.stalled + self.overdue + self.memory + self.reset + self.cut
    }
}

impl Counters {
    /// The counts so far, which start again at zero.
    pub fn take(&self) -> Stats {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        Stats {
            stalled: take(&self.stalled),
            overdue: take(&self.overdue),
            memory: take(&self.memory),
            reset: take(&self.reset),
            cut: take(&self.cut),
            foreign: take(&self.foreign),
            refused: take(&self.refused),
        }
    }

    pub(super) fn abandoned(&self, why: Abandoned) {
        add(match why {
            Abandoned::Stalled => &self.stalled,
            Abandoned::Overdue => &self.overdue,
            Abandoned::Memory => &self.memory,
        });
    }

    pub(super) fn reset(&self) {
        add(&self.reset);
    }

    pub(super) fn cut(&self) {
        add(&self.cut);
    }

    pub(super) fn foreign(&self) {
        add(&self.foreign);
    }

    pub(super) fn refused(&self) {
        add(&self.refused);
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}
