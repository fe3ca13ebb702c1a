//! How fast a receiver takes what it is handed, as far as its writer is held up. What lives here: that measure. What does not: any
//! decision about which packet goes, and any clock.
//!
//! A receiver that keeps up has no measure: its writer comes back at once, and how fast its link is cannot be known. One whose
//! writer is held up takes what it is handed between the ends of two writes that were held up, since what lies below the queue is as
//! full at the one as at the other; that is a sample. From the beginning of a busy time to its first such end is one too, but
//! for what is thought to wait below. Time in which the writer waits by its own choice, or for a processor, is no time of the link: see
//! [`Pace::ready`].

use std::time::Duration;

use crate::Time;

/// The measure is forgotten when so many bytes more than it allows for were taken: twice it, and what the system's buffers take.
const DISPROOF_BYTES: u64 = 64 * 1024;

/// What waits below the queue of a receiver that is held up, in a socket that holds 4 KiB at most and asks for more when it is half
/// empty. How much it is at a time, nobody can tell.
const BELOW: u64 = 3 * 1024;

/// A sample of fewer bytes tells little.
const LEAST_SAMPLE: u64 = 8 * 1024;

/// The most that is taken to wait there and in the network behind it: where the measure is too low, what is thought to wait would
/// grow without end.
const MOST_BELOW: u64 = 16 * 1024;

/// While nothing is held up the measure grows by half, first after so many times `max_delay`: 2 s for 500 ms. A link that has become
/// faster must be found out, and where only audio is sent nothing else tells.
const RAISE_AFTER: u32 = 4;

/// What was too much for the link after such a raise makes the next wait four times as long, so many times at most: to 128 s.
const MOST_FAILURES: u8 = 3;

/// How fast one receiver takes what it is handed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    /// When something was last handed out.
    handed_at: Time,
    /// When the sample under way began: when a write that was held up ended, or the writer's first work after it was idle.
    since: Time,
    /// When a write that was held up last ended, or the measure was raised.
    settled: Time,
    /// Bytes handed out last.
    batch: u32,
    /// Bytes handed out since `since`.
    taken: u32,
    /// Bytes handed out since `settled`.
    passed: u32,
    /// Bytes that, by the measure, the link had still to carry of all that was handed out, at `handed_at`.
    below: u32,
    /// The same when the sample under way began.
    below_then: u32,
    /// Bytes a millisecond; 0: not known.
    rate: u32,
    /// Something was handed out, and nothing is known of its end.
    writing: bool,
    /// The writer has found nothing to write since it was last handed something.
    idle: bool,
    /// Whether the measure is a first guess, from too small a sample.
    rough: bool,
    /// Whether the measure is a guess: raised since the last sample.
    raised: bool,
    /// Guesses that were wrong, one after the other.
    failures: u8,
}

impl Pace {
    /// A write that takes longer than this was held up by the link.
    const fn held_up(max_delay: Duration) -> u64 {
        micros(max_delay) / 16
    }

    /// The writer could take more, as it says itself: how long its write took is exact.
    pub(super) fn ready(&mut self, now: Time, max_delay: Duration) {
        if self.writing {
            self.writing = false;
            self.judge(now, now.since(self.handed_at), Self::held_up(max_delay), max_delay);
        }
    }

    /// The writer has come back to a queue whose oldest packet has waited so long, and did not say since when it could. It may
    /// have waited for more to come, or for a processor; so only a long wait tells.
    pub(super) fn came_back(&mut self, now: Time, oldest_wait: Duration, max_delay: Duration) {
        if self.writing {
            self.writing = false;
            self.judge(now, oldest_wait, micros(max_delay) / 4, max_delay);
        }
    }

    fn judge(&mut self, now: Time, held: Duration, least: u64, max_delay: Duration) {
        if micros(held) >= least.max(1) {
            (self.settled, self.passed) = (now, 0);
            self.measure(now, max_delay);
            let left = self.left(now).clamp(BELOW, MOST_BELOW);
            self.below = u32::try_from(left.saturating_add(self.carried(now))).unwrap_or(u32::MAX);
        } else if self.rate != 0 {
            let lately = micros(now.since(self.settled));
            let expected = u64::from(self.rate) * 2 * lately / 1_000;
            if u64::from(self.passed) > expected + DISPROOF_BYTES {
                self.forget();
            } else if lately > self.raise_after(max_delay) {
                self.rate = self.rate.saturating_add(self.rate.div_ceil(2));
                (self.settled, self.passed, self.raised) = (now, 0, true);
            }
        }
    }

    /// How long nothing must have been held up for the measure to be raised.
    fn raise_after(&self, max_delay: Duration) -> u64 {
        if self.rough { micros(max_delay) } else { (u64::from(RAISE_AFTER) * micros(max_delay)) << (2 * self.failures) }
    }

    /// A write that was held up has ended: takes a sample, if there is enough to it.
    fn measure(&mut self, now: Time, max_delay: Duration) {
        let time = micros(now.since(self.since)).max(1);
        // Less, and how much waited in the socket and behind it at either end would matter more than what went through.
        if time < micros(max_delay) / 4 || u64::from(self.taken) < LEAST_SAMPLE {
            if self.rate == 0 {
                // Too low, most likely: the first packets wait behind what the socket and the network took in at once. That is
                // the right side to begin on.
                self.rate = (u64::from(self.taken) * 1_000 / time).clamp(1, u64::from(u32::MAX)) as u32;
                self.rough = true;
            }
            return;
        }
        // At most what waits now: a rate that is too high costs audio, one that is too low some video.
        let taken = (u64::from(self.taken) + u64::from(self.below_then).min(BELOW)).saturating_sub(BELOW);
        let sample = (taken * 1_000 / time).clamp(1, u64::from(u32::MAX)) as u32;
        if self.raised && !self.rough && sample < self.rate {
            self.failures = (self.failures + 1).min(MOST_FAILURES);
            self.rate = sample;
        } else {
            if self.raised {
                self.failures = 0;
            }
            // Half of the old and half of the new: a system's buffers fill and empty in steps.
            self.rate = if self.rate == 0 || self.rough { sample } else { self.rate / 2 + sample.div_ceil(2) };
        }
        self.rough = false;
        (self.since, self.taken, self.below_then, self.raised) = (now, 0, BELOW as u32, false);
    }

    /// Bytes that the link has carried since something was last handed out, by the measure.
    fn carried(&self, now: Time) -> u64 {
        u64::from(self.rate).saturating_mul(micros(now.since(self.handed_at))) / 1_000
    }

    /// Bytes that it has still to carry.
    fn left(&self, now: Time) -> u64 {
        u64::from(self.below).saturating_sub(self.carried(now))
    }

    fn forget(&mut self) {
        (self.rate, self.rough, self.raised, self.failures) = (0, false, false, 0);
    }

    /// The writer found nothing to write.
    pub(super) fn idle(&mut self) {
        self.idle = true;
    }

    /// So many bytes were handed to the writer.
    pub(super) fn handed(&mut self, now: Time, bytes: usize) {
        self.batch = u32::try_from(bytes).unwrap_or(u32::MAX);
        let left = if self.rate == 0 { 0 } else { self.left(now) as u32 };
        if std::mem::take(&mut self.idle) {
            (self.since, self.taken, self.below_then) = (now, 0, left);
        }
        self.below = left.saturating_add(self.batch);
        self.handed_at = now;
        self.passed = self.passed.saturating_add(self.batch);
        self.taken = self.taken.saturating_add(self.batch);
        self.writing = true;
    }

    /// The most that the receiver takes in a time, in bytes. `None` where nothing is known: it keeps up.
    pub(super) fn takes(&self, time: Duration) -> Option<usize> {
        (self.rate != 0).then(|| (u64::from(self.rate).saturating_mul(micros(time)) / 1_000) as usize)
    }

    /// Whether something may be known of the receiver, now or soon: false on the way of every packet to one that keeps up.
    pub(super) fn tells(&self) -> bool {
        self.rate != 0 || self.writing
    }

    /// The most that the receiver takes in a time, and how much of what was handed out it still has to take, in bytes. Also by a
    /// write that is not at its end yet, where the oldest packet waits so long behind it that it must be held up.
    pub(super) fn outlook(
        &self,
        now: Time,
        oldest_wait: Duration,
        max_delay: Duration,
        time: Duration,
    ) -> Option<(usize, usize)> {
        let held = micros(now.since(self.handed_at));
        let mut known = if self.rate == 0 { u64::MAX } else { u64::from(self.rate) };
        if self.writing && micros(oldest_wait) >= Self::held_up(max_delay) * 2 {
            known = known.min((u64::from(self.batch) * 1_000 / held.max(1)).max(1));
        }
        if known == u64::MAX {
            return None;
        }
        let left = u64::from(self.below).saturating_sub(known.saturating_mul(held) / 1_000);
        Some(((known.saturating_mul(micros(time)) / 1_000) as usize, left as usize))
    }
}

const fn micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(duration.subsec_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_millis(500);
    const SECOND: Duration = Duration::from_secs(1);

    /// A link of so many bytes a millisecond with so many bytes of buffer, that is handed `batch` bytes at a time.
    fn run(rate: u64, buffer: u64, batch: u64, millis: u64, pace: &mut Pace) {
        let (mut inside, mut at) = (0, 0);
        let (mut left, mut handed) = (0, false);
        while at < millis {
            at += 1;
            inside = u64::saturating_sub(inside, rate);
            // The system wakes a writer when its buffer is half empty.
            if inside * 2 > buffer {
                continue;
            }
            loop {
                let fits = left.min(buffer.saturating_sub(inside));
                (left, inside) = (left - fits, inside + fits);
                if left > 0 {
                    break;
                }
                if handed {
                    pace.ready(Time::from_millis(at), DELAY);
                }
                pace.handed(Time::from_millis(at), batch as usize);
                (left, handed) = (batch, true);
            }
        }
    }

    #[test]
    fn the_rate_of_a_link_is_found_whatever_the_batches_and_the_buffer_below() {
        for rate in [10_u64, 62, 250, 1_000] {
            for buffer in [2_000, 16_000] {
                for batch in [2_500, 30_000] {
                    let mut pace = Pace::default();
                    pace.idle();
                    run(rate, buffer, batch, 30_000, &mut pace);
                    // A fast link's small writes are never held up for long: then there is nothing to know.
                    let Some(found) = pace.takes(SECOND) else {
                        assert!(buffer.max(batch) / rate < 70, "{rate} {buffer} {batch}");
                        continue;
                    };
                    let found = found as u64 / 1_000;
                    assert!(found * 10 >= rate * 9 && found * 10 <= rate * 13, "{rate} {buffer} {batch}: {found}");
                }
            }
        }
    }

    #[test]
    fn a_writer_that_waits_by_its_own_choice_is_not_held_up() {
        let mut pace = Pace::default();
        for step in 0..100 {
            let now = Time::from_millis(step * 100);
            pace.came_back(now, Duration::from_millis(99), DELAY);
            pace.handed(now, 100);
            pace.ready(now, DELAY);
            assert_eq!(pace.takes(SECOND), None);
        }
    }

    #[test]
    fn a_measure_is_forgotten_when_more_was_taken_and_raised_ever_more_seldom_while_that_proves_wrong() {
        let held_up = |pace: &mut Pace| {
            pace.idle();
            pace.handed(Time::ZERO, 13_072);
            pace.ready(Time::from_millis(1_000), DELAY);
            assert_eq!(pace.takes(SECOND), Some(10_000));
        };
        let mut pace = Pace::default();
        held_up(&mut pace);
        let mut now = Time::from_millis(1_000);
        pace.handed(now, 70_000);
        now = Time::from_millis(1_005);
        pace.ready(now, DELAY);
        assert_eq!(pace.takes(SECOND), None, "70 kB in 5 ms");
        let mut pace = Pace::default();
        held_up(&mut pace);
        let mut now = 1_000;
        for seconds in [2, 8, 32, 128, 128] {
            let mut waited = 0;
            while pace.takes(SECOND) == Some(10_000) {
                (now, waited) = (now + 100, waited + 100);
                pace.handed(Time::from_millis(now), 100);
                pace.ready(Time::from_millis(now), DELAY);
            }
            assert_eq!((pace.takes(SECOND), waited), (Some(15_000), seconds * 1_000 + 100));
            pace.idle();
            pace.handed(Time::from_millis(now), 13_072);
            now += 1_000;
            pace.ready(Time::from_millis(now), DELAY);
        }
    }

    #[test]
    fn a_write_that_does_not_end_tells_that_the_link_is_at_most_so_fast() {
        let mut pace = Pace::default();
        pace.handed(Time::ZERO, 10_000);
        let outlook = |millis, waited| {
            pace.outlook(Time::from_millis(millis), Duration::from_millis(waited), DELAY, Duration::from_millis(100))
        };
        assert_eq!(outlook(50, 50), None);
        assert_eq!(outlook(100, 70), Some((10_000, 0)));
        assert_eq!(outlook(1_000, 900), Some((1_000, 0)));
        assert_eq!(outlook(1_000, 10), None, "it may be idle and not have said so");
    }
}
