//! When a receiver's packets are written: at once where they come rarely, after a short wait for company where they come densely. What
//! lives here: that decision. What does not: queues, timers, writing.
//!
//! A write costs the same for one packet as for several, so a short wait buys much where packets come one after the other, and
//! nothing but delay where they do not. How dense a connection is follows from what its writer found waiting each time.

use std::time::Duration;

use crate::Time;

/// A wait pays off where at least a third of a packet is expected to come meanwhile: where packets come no further apart than this
/// many waits. A batch of 1.33 costs a quarter less than single writes; sparser traffic would pay less and less for the same delay.
/// With a wait of 4 ms that is 12 ms: what one other member sends, sound and pictures, comes further apart, what two send does not.
const COMPANY: u32 = 3;

/// After this many waits without a packet a connection is quiet, whatever it was before; and no gap counts for more.
const QUIET: u32 = 4;

/// How dense one receiver's packets come.
#[derive(Clone, Copy, Debug)]
pub struct Density {
    /// When the writer last took something.
    taken: Time,
    /// The mean time between two packets, in microseconds: a moving average over the last few takings.
    gap: u32,
}

impl Default for Density {
    fn default() -> Self {
        Self { taken: Time::ZERO, gap: u32::MAX }
    }
}

impl Density {
    /// When to write a packet that has come at `now` and waits alone; `coalesce` is the most that it may wait. `None`: at once.
    #[must_use]
    pub fn due(&self, now: Time, coalesce: Duration) -> Option<Time> {
        let dense = micros(coalesce * COMPANY) >= self.gap && now.since(self.taken) < coalesce * QUIET;
        dense.then(|| now.after(coalesce))
    }

    /// The writer has taken what waited: so many packets, at least one.
    pub fn took(&mut self, packets: usize, now: Time, coalesce: Duration) {
        let most = micros(coalesce * QUIET);
        let gap = now.since(self.taken).as_micros() / packets.max(1) as u128;
        let gap = u32::try_from(gap).unwrap_or(u32::MAX).min(most);
        let before = self.gap.min(most);
        self.gap = before - before / 4 + gap / 4;
        self.taken = now;
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COALESCE: Duration = Duration::from_millis(4);

    /// Plays packets `gap` microseconds apart for a second; gives how many writes they took and the longest wait.
    fn play(density: &mut Density, from: Time, gap: u64) -> (usize, Duration) {
        let (mut writes, mut longest) = (0, Duration::ZERO);
        let (mut waiting, mut due) = (0, None::<Time>);
        let mut first = Time::ZERO;
        for at in (0..1_000_000).step_by(gap as usize).map(|at| from.after(Duration::from_micros(at))) {
            if let Some(then) = due.filter(|then| *then <= at) {
                density.took(waiting, then, COALESCE);
                longest = longest.max(then.since(first));
                (writes, waiting, due) = (writes + 1, 0, None);
            }
            waiting += 1;
            if waiting == 1 {
                first = at;
                due = density.due(at, COALESCE);
                if due.is_none() {
                    density.took(waiting, at, COALESCE);
                    (writes, waiting) = (writes + 1, 0);
                }
            }
        }
        (writes, longest)
    }

    #[test]
    fn where_packets_come_rarely_none_waits() {
        for gap in [12_500, 20_000, 33_000, 1_000_000] {
            let (writes, longest) = play(&mut Density::default(), Time::from_millis(1_000), gap);
            assert_eq!((writes, longest), (1_000_000_usize.div_ceil(gap as usize), Duration::ZERO), "{gap}");
        }
    }

    #[test]
    fn where_they_come_densely_they_share_writes_and_none_waits_longer_than_it_may() {
        for (gap, most) in [(100, 260), (1_000, 260), (3_000, 520)] {
            let (writes, longest) = play(&mut Density::default(), Time::from_millis(1_000), gap);
            assert!(writes <= most, "{writes} writes of packets {gap} µs apart");
            assert_eq!(longest, COALESCE);
        }
    }

    #[test]
    fn after_a_silence_the_first_packet_does_not_wait() {
        let mut density = Density::default();
        play(&mut density, Time::from_millis(1_000), 1_000);
        let end = Time::from_millis(2_000);
        assert!(density.due(end, COALESCE).is_some(), "dense until now");
        assert_eq!(density.due(end.after(COALESCE * QUIET), COALESCE), None);
    }

    #[test]
    fn without_a_wait_allowed_nothing_waits() {
        let mut density = Density::default();
        for at in 0..1_000 {
            let now = Time::from_micros(1_000_000 + at);
            assert_eq!(density.due(now, Duration::ZERO), None);
            density.took(1, now, Duration::ZERO);
        }
    }
}
