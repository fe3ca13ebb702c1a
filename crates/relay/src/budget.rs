//! The node-wide budget of bytes that wait: in egress queues, and in packets that are still arriving. What lives here: the
//! shared counter and one holder's share of it. What does not: what a holder does when it gets no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that all egress queues of a node may hold together, and packets under way to it with them. Clones share the same
/// counter. What is said of queues here holds for every [`Share`].
///
/// A queue takes its share in chunks of [`Budget::CHUNK`] bytes, so that most pushes touch no shared memory. A share
/// covers what the queue holds ([`crate::EgressQueue::charge`]: payloads and a fixed cost per packet) and exceeds it by
/// less than two chunks; an empty queue has none. So, at any time between calls to queues:
///
/// - the sum of all shares is [`Budget::used`], exactly, and is zero when all queues are empty;
/// - `used` never grows past the limit, and only a lowered limit can leave it above.
///
/// A queue is granted more only where what it then has is at most what then stays free. Hence the full queues of slow
/// receivers never take everything: a share as large as the largest of theirs stays free for the others, and one queue
/// has half of the budget at most.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Counter>);

#[derive(Debug)]
struct Counter {
    limit: AtomicUsize,
    used: AtomicUsize,
}

impl Budget {
    /// How much a queue takes or gives back at once.
    pub const CHUNK: usize = 16 * 1024;

    /// A budget of this many bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Counter { limit: AtomicUsize::new(limit), used: AtomicUsize::new(0) }))
    }

    /// How much a queue keeps for certain when the limit was lowered below what all hold.
    pub const KEPT: usize = 4 * Self::CHUNK;

    /// Changes the limit. Where all together hold more than the new one, nobody gets more until that is over; queues that
    /// hold more than [`Self::KEPT`] are cut at their next call.
    pub fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Ordering::Relaxed);
    }

    /// The limit, in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.0.limit.load(Ordering::Relaxed)
    }

    /// Bytes taken by all queues together.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// A share for somebody new, of nothing yet.
    #[must_use]
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), held: 0 }
    }

    /// Takes `more` bytes for a queue that has `held`, or nothing.
    fn take(&self, held: usize, more: usize) -> bool {
        let limit = self.limit();
        // Relaxed: the counter orders nothing else; its own modification order is all that matters.
        self.0
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                let then_used = used.saturating_add(more);
                let then_free = limit.checked_sub(then_used)?;
                (held.saturating_add(more) <= then_free).then_some(then_used)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One holder's share of the budget; given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    held: usize,
}

impl Share {
    /// Makes the share cover `need` bytes. False, and nothing changed, when the budget has no more for this holder.
    #[must_use]
    pub fn cover(&mut self, need: usize) -> bool {
        let Some(missing) = need.checked_sub(self.held).filter(|missing| *missing > 0) else {
            return true;
        };
        // A whole chunk where there is one; near the limit, what is needed and no more.
        for more in [missing.next_multiple_of(Budget::CHUNK), missing] {
            if self.budget.take(self.held, more) {
                self.held += more;
                return true;
            }
        }
        false
    }

    /// Gives back what `need` bytes do not need: all of it for none, else whole chunks once two are spare.
    pub fn settle(&mut self, need: usize) {
        let spare = self.held.saturating_sub(need);
        let excess = if need == 0 {
            self.held
        } else if spare >= 2 * Budget::CHUNK {
            spare - Budget::CHUNK
        } else {
            0
        };
        if excess > 0 {
            self.held -= excess;
            self.budget.give_back(excess);
        }
    }

    /// Whether the limit was lowered below what all hold, and this is one of those who hold much.
    #[must_use]
    pub fn is_over(&self) -> bool {
        // In this order: most shares are small, and then no shared memory is touched.
        self.held > Budget::KEPT && self.budget.used() > self.budget.limit()
    }

    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.settle(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_taken_in_chunks_and_given_back_whole() {
        let budget = Budget::new(10 * Budget::CHUNK);
        let mut share = budget.share();
        assert!(share.cover(1));
        assert_eq!(budget.used(), Budget::CHUNK);
        assert!(share.cover(Budget::CHUNK));
        assert_eq!(budget.used(), Budget::CHUNK);
        assert!(share.cover(Budget::CHUNK + 1));
        assert_eq!(budget.used(), 2 * Budget::CHUNK);
        share.settle(1);
        assert_eq!(budget.used(), 2 * Budget::CHUNK, "less than two spare chunks are kept");
        drop(share);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn one_queue_never_takes_what_the_others_need() {
        let budget = Budget::new(8 * Budget::CHUNK);
        let mut greedy = budget.share();
        assert!(!greedy.cover(5 * Budget::CHUNK));
        assert!(greedy.cover(4 * Budget::CHUNK));
        assert!(!greedy.cover(4 * Budget::CHUNK + 1));
        let mut modest = budget.share();
        assert!(modest.cover(2 * Budget::CHUNK));
    }

    #[test]
    fn near_the_limit_exactly_what_is_needed_is_taken() {
        let budget = Budget::new(100);
        let mut share = budget.share();
        assert!(share.cover(30));
        assert_eq!(budget.used(), 30);
        budget.set_limit(10);
        assert!(!share.cover(31));
        assert!(share.cover(30), "what is held stays");
        share.settle(0);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn threads_together_never_pass_the_limit_and_leave_nothing_behind() {
        let budget = Budget::new(5 * Budget::CHUNK);
        std::thread::scope(|scope| {
            for seed in 1..5_usize {
                let budget = &budget;
                scope.spawn(move || {
                    let mut share = budget.share();
                    for step in 0..2_000 {
                        let need = (step * 7919 * seed) % (3 * Budget::CHUNK);
                        if share.cover(need) {
                            assert!(budget.used() <= budget.limit());
                        }
                        share.settle(need.min(share.held()));
                    }
                });
            }
        });
        assert_eq!(budget.used(), 0);
    }
}
