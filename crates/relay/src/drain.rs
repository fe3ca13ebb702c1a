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

    /// Whole numbers: what is exactly on the pace is so.
    fn pace(all: usize, past: u64, window: u64) -> u64 {
        all as u64 * past / window
    }

    proptest! {
        #[test]
        fn it_is_never_ahead_of_the_pace_nor_behind_it(
            left in 0_usize..10_000,
            window in 0_u64..100_000,
            mut steps in prop::collection::vec(0_u64..200_000, 1..50),
        ) {
            steps.sort_unstable();
            let mut told = 0;
            for past in steps {
                let now = due(at(5), at(5).after(Duration::from_millis(past)), Duration::from_millis(window), told, left - told);
                prop_assert!(told + now <= left);
                told += now;
                if past >= window {
                    prop_assert_eq!(told, left);
                } else {
                    prop_assert_eq!(told as u64, (pace(left, past, window) + 1).min(left as u64));
                }
            }
        }

        /// Some come while the door closes, some leave by themselves.
        #[test]
        fn everybody_who_stays_is_told_once_and_by_the_end_of_the_window(
            there in 0_usize..300,
            window in 1_u64..60_000,
            steps in prop::collection::vec((1_u64..2_000, 0_usize..20, 0_usize..20), 1..100),
        ) {
            let mut waiting: std::collections::VecDeque<usize> = (0..there).collect();
            let (mut told, mut past, mut next) = (std::collections::BTreeSet::new(), 0, there);
            for (wait, come, go) in steps {
                let before = told.len();
                let now = due(at(0), Time::from_millis(past), Duration::from_millis(window), told.len(), waiting.len());
                for client in waiting.drain(..now) {
                    prop_assert!(told.insert(client), "told twice");
                }
                if past >= window {
                    prop_assert!(waiting.is_empty(), "told by the end of the window, and newcomers at once from then on");
                } else {
                    // Who was told too early, as others have left since, is not told again: nobody more is, until the pace is there.
                    let most = pace(told.len() + waiting.len(), past, window) as usize + 1;
                    prop_assert!(told.len() <= most.max(before), "{} told, {most} due", told.len());
                    prop_assert!(told.len() >= most.min(told.len() + waiting.len()), "{} told, {most} due", told.len());
                }
                waiting.extend(next..next + come);
                next += come;
                waiting.truncate(waiting.len().saturating_sub(go));
                past += wait;
            }
        }

        #[test]
        fn rooms_go_from_the_smallest_to_the_biggest_whatever_order_they_come_in(
            rooms in prop::collection::vec((0_usize..6, 0_u8..9), 0..40),
        ) {
            let (mut ordered, mut reversed) = (rooms.clone(), rooms.into_iter().rev().collect::<Vec<_>>());
            order(&mut ordered);
            order(&mut reversed);
            prop_assert!(ordered.is_sorted_by_key(|(members, _)| *members));
            prop_assert_eq!(ordered, reversed, "two looks at the same rooms see the same order");
        }
    }
}
