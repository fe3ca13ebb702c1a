//! Whether this node was held up: a broker cuts off who does not read, and says nothing. What lives here: how that is noticed. What does
//! not: any timer.

use std::time::Duration;

use tokio::time::Instant;

/// How often the node's time is looked at.
pub(super) const TICK: Duration = Duration::from_millis(100);

/// A look that comes so late says that nothing was read meanwhile.
const LATE: Duration = Duration::from_millis(500);

/// How long after it a lost connection is put down to that.
const MEMORY: Duration = Duration::from_secs(5);

/// When the node was held up last.
#[derive(Debug)]
pub(super) struct Stalls {
    expected: Instant,
    last: Option<(Instant, Duration)>,
}

impl Stalls {
    pub(super) fn new(now: Instant) -> Self {
        Self { expected: now + TICK, last: None }
    }

    /// To be called every [`TICK`].
    pub(super) fn look(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.expected);
        if late >= LATE {
            self.last = Some((now, late));
        }
        self.expected = now + TICK;
    }

    /// For how long the node was held up, where that was not long ago.
    pub(super) fn recent(&mut self, now: Instant) -> Option<Duration> {
        self.look(now);
        self.last.filter(|(when, _)| now.saturating_duration_since(*when) <= MEMORY).map(|(_, late)| late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_look_is_remembered_for_a_while_and_a_timely_one_is_nothing() {
        let start = Instant::now();
        let mut stalls = Stalls::new(start);
        let mut now = start;
        for _ in 0..10 {
            now += TICK + LATE / 2;
            stalls.look(now);
        }
        assert_eq!(stalls.recent(now + TICK), None);
        now += TICK * 2 + LATE * 2;
        assert_eq!(stalls.recent(now), Some(LATE * 2), "seen at the end as well");
        let mut later = now;
        while later < now + MEMORY {
            later += TICK;
            stalls.look(later);
        }
        assert_eq!(stalls.recent(later), Some(LATE * 2));
        assert_eq!(stalls.recent(later + TICK), None);
    }
}
