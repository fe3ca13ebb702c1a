//! The pace of a drain: how many connections are to be told by now, and in which order. Pure; telling them is done elsewhere.

use std::time::Duration;

use crate::Time;

/// How many connections are due to be told: those that were told before, and so many of the others. Spread evenly over the
/// window, so that the nodes they go to are not hit by all at once. The first is due at once, all are when the window is over.
///
/// `told` were told so far, whether they are still here or not; `left` are here and were not told.
#[must_use]
pub fn due(begun: Time, now: Time, window: Duration, told: usize, left: usize) -> usize {
    let all = told + left;
    let past = now.since(begun);
    if past >= window {
        return left;
    }
    let share = all as u128 * past.as_micros() / window.as_micros().max(1);
    // Who is told at the very beginning is the first of them.
    let by_now = usize::try_from(share).map_or(all, |share| (share + 1).min(all));
    by_now.saturating_sub(told).min(left)
}

/// Puts rooms in the order in which their members are told: the smallest first, so that the fewest calls are split between
/// nodes for long, and the biggest, whose members are the most work elsewhere, last. Among equals by name.
pub fn order<R: Ord>(rooms: &mut [(usize, R)]) {
    rooms.sort();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    #[test]
    fn connections_are_told_evenly_over_the_window() {
        let begun = at(5);
        let mut told = 0;
        let mut each_second = Vec::new();
        for second in 5..=35 {
            let now = due(begun, at(second), WINDOW, told, 300 - told);
            each_second.push(now);
            told += now;
        }
        assert_eq!(told, 300);
        assert_eq!(each_second[0], 1);
        assert!(each_second[1..30].iter().all(|now| *now == 10), "{each_second:?}");
        assert_eq!(each_second[30], 9);
    }

    #[test]
    fn without_a_window_all_are_due_at_once_and_nobody_is_due_where_nobody_is() {
        assert_eq!(due(at(0), at(0), Duration::ZERO, 0, 1000), 1000);
        assert_eq!(due(at(0), at(10), WINDOW, 7, 0), 0);
        assert_eq!(due(at(0), at(31), WINDOW, 7, 3), 3, "who came late");
    }

    #[test]
    fn the_biggest_rooms_are_last() {
        let mut rooms = [(200, "hall"), (2, "b"), (20, "class"), (2, "a")];
        order(&mut rooms);
        assert_eq!(rooms.map(|(_, room)| room), ["a", "b", "class", "hall"]);
    }

    proptest! {
        #[test]
        fn it_is_never_ahead_of_the_pace_nor_behind_it(
            left in 0_usize..10_000,
            window in 0_u64..100_000,
            mut steps in prop::collection::vec(0_u64..200_000, 1..50),
        ) {
            let window = Duration::from_millis(window);
            steps.sort_unstable();
            let mut told = 0;
            for step in steps {
                let now = due(Time::ZERO, Time::from_millis(step), window, told, left - told);
                prop_assert!(told + now <= left);
                told += now;
                let past = Duration::from_millis(step);
                if past >= window {
                    prop_assert_eq!(told, left);
                } else {
                    let pace = left as f64 * past.as_secs_f64() / window.as_secs_f64();
                    prop_assert!((told as f64 - pace).abs() <= 1.0, "{} of {} at {:?} of {:?}", told, left, past, window);
                }
            }
        }
    }
}
