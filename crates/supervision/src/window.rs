//! The restart intensity window: how many restarts lie within the period. Pure; the time is an argument.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The restarts that still count. Holds at most `intensity + 1` times (the one too many makes the supervisor give up).
#[derive(Debug, Default)]
pub(crate) struct RestartWindow {
    restarts: VecDeque<Instant>,
}

impl RestartWindow {
    /// Notes a restart at `now` and says whether there are now more than `intensity` within `period`.
    ///
    /// Both limits are read anew at each call, so that changed ones act at once. `now` must not go backwards.
    pub(crate) fn exceeds(&mut self, now: Instant, intensity: u32, period: Duration) -> bool {
        while self.restarts.front().is_some_and(|&earlier| now.saturating_duration_since(earlier) > period) {
            self.restarts.pop_front();
        }
        self.restarts.push_back(now);
        self.restarts.len() > usize::try_from(intensity).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn intensity_zero_allows_no_restart() {
        assert!(RestartWindow::default().exceeds(Instant::now(), 0, SECOND));
    }

    #[test]
    fn a_restart_exactly_one_period_ago_still_counts() {
        let (mut window, start) = (RestartWindow::default(), Instant::now());
        assert!(!window.exceeds(start, 1, SECOND));
        assert!(window.exceeds(start + SECOND, 1, SECOND));
        let mut window = RestartWindow::default();
        assert!(!window.exceeds(start, 1, SECOND));
        assert!(!window.exceeds(start + SECOND + Duration::from_nanos(1), 1, SECOND));
    }

    #[test]
    fn a_shrunk_intensity_acts_at_the_next_restart() {
        let (mut window, start) = (RestartWindow::default(), Instant::now());
        assert!(!(0..5).any(|_| window.exceeds(start, 10, SECOND)));
        assert!(window.exceeds(start, 3, SECOND));
    }

    proptest! {
        #[test]
        fn it_agrees_with_counting_the_whole_history(
            steps in proptest::collection::vec(0_u64..400, 1..200), intensity in 0_u32..8, period in 1_u64..2000,
        ) {
            let (mut window, start, period) = (RestartWindow::default(), Instant::now(), Duration::from_millis(period));
            let (mut now, mut history) = (start, Vec::new());
            for step in steps {
                now += Duration::from_millis(step);
                history.push(now);
                let within = history.iter().filter(|&&at| now - at <= period).count();
                prop_assert_eq!(window.exceeds(now, intensity, period), within > intensity as usize);
            }
        }
    }
}
