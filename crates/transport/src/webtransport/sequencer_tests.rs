use super::*;
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    wait: Duration::from_secs(1),
    silent_wait: Duration::from_secs(1),
    packet: Bounds { max_packet_bytes: 10_000, patience: Duration::from_secs(30), least_rate: u32::MAX },
    reorder_bytes: 8 * ENTRY_BYTES,
};

struct Clock(Instant);

impl Clock {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn at(&self, milliseconds: u64) -> Instant {
        self.0 + Duration::from_millis(milliseconds)
    }
}

fn three_open(clock: &Clock) -> Sequencer<&'static str> {
    let mut sequencer = Sequencer::new(LIMITS);
    for id in [1, 2, 3] {
        sequencer.opened(id, clock.at(0));
    }
    sequencer
}

#[test]
fn packets_leave_in_the_order_of_opening_whatever_ends_first() {
    let clock = Clock::new();
    let mut sequencer = three_open(&clock);
    assert!(sequencer.finished(3, "c", 1, clock.at(1)));
    assert!(sequencer.finished(2, "b", 1, clock.at(2)));
    assert_eq!(sequencer.release(), None);
    assert!(sequencer.finished(1, "a", 1, clock.at(3)));
    let all: Vec<_> = std::iter::from_fn(|| sequencer.release()).collect();
    assert_eq!(all, ["a", "b", "c"]);
    assert_eq!(sequencer.len(), 0);
    assert_eq!(sequencer.held(), 0);
}

#[test]
fn a_stream_told_of_late_still_takes_its_place() {
    let clock = Clock::new();
    let mut sequencer = Sequencer::new(LIMITS);
    sequencer.opened(5, clock.at(0));
    sequencer.opened(2, clock.at(0));
    sequencer.opened(2, clock.at(1));
    sequencer.finished(5, "five", 1, clock.at(1));
    assert_eq!(sequencer.release(), None);
    sequencer.finished(2, "two", 1, clock.at(1));
    assert_eq!((sequencer.release(), sequencer.release()), (Some("two"), Some("five")));
}

#[test]
fn a_head_that_stalls_is_blamed_only_while_something_waits_for_it() {
    let clock = Clock::new();
    let mut sequencer = three_open(&clock);
    assert_eq!(sequencer.overdue(clock.at(29_999)), None, "nobody waits");
    assert_eq!(sequencer.deadline(), Some(clock.at(30_000)));

    sequencer.finished(2, "b", 1, clock.at(500));
    assert_eq!(sequencer.deadline(), Some(clock.at(1_500)));
    sequencer.progressed(1, 100, clock.at(1_000));
    assert_eq!(sequencer.deadline(), Some(clock.at(2_000)), "progress buys time");
    assert_eq!(sequencer.overdue(clock.at(1_999)), None);
    assert_eq!(sequencer.overdue(clock.at(2_000)), Some((1, Abandoned::Stalled)));

    assert!(sequencer.gone(1));
    assert_eq!(sequencer.release(), Some("b"));
    assert_eq!(sequencer.release(), None);
    assert_eq!(sequencer.overdue(clock.at(2_000)), None, "nobody waits for the third");
    assert!(!sequencer.finished(1, "a", 1, clock.at(3_000)), "too late");
    assert_eq!(sequencer.release(), None);
}

#[test]
fn several_stalled_streams_are_waited_for_together() {
    let clock = Clock::new();
    let mut sequencer = three_open(&clock);
    sequencer.finished(3, "c", 1, clock.at(100));
    for id in [1, 2] {
        assert_eq!(sequencer.overdue(clock.at(1_100)), Some((id, Abandoned::Stalled)));
        sequencer.gone(id);
    }
    assert_eq!(sequencer.release(), Some("c"));
}

#[test]
fn a_head_that_trickles_ends_with_its_lifetime() {
    let clock = Clock::new();
    let mut sequencer = three_open(&clock);
    sequencer.finished(2, "b", 1, clock.at(0));
    for step in 1..60 {
        let now = clock.at(step * 500);
        assert_eq!(sequencer.overdue(now), None, "half a second without progress is no stall");
        sequencer.progressed(1, step as usize, now);
    }
    assert_eq!(sequencer.deadline(), Some(clock.at(30_000)));
    assert_eq!(sequencer.overdue(clock.at(29_999)), None);
    assert_eq!(sequencer.overdue(clock.at(30_000)), Some((1, Abandoned::Overdue)));
}

#[test]
fn a_head_has_more_time_the_more_it_brings_and_other_bounds_act_at_once() {
    let clock = Clock::new();
    let mut sequencer = three_open(&clock);
    sequencer.rebound(Bounds { least_rate: 1_000, ..LIMITS.packet });
    sequencer.progressed(1, 5_000, clock.at(29_000));
    assert_eq!(sequencer.deadline(), Some(clock.at(35_000)));
    assert_eq!(sequencer.overdue(clock.at(34_999)), None);
    sequencer.rebound(Bounds { patience: Duration::from_secs(2), least_rate: 1_000, ..LIMITS.packet });
    assert_eq!(sequencer.overdue(clock.at(6_999)), None);
    assert_eq!(sequencer.overdue(clock.at(7_000)), Some((1, Abandoned::Overdue)));
    sequencer.rebound(Bounds { max_packet_bytes: 0, ..LIMITS.packet });
    assert_eq!(sequencer.overdue(clock.at(0)), Some((1, Abandoned::Memory)), "5,000 bytes are over the eight entries");
}

#[test]
fn memory_has_a_bound_of_bytes_and_of_entries() {
    let clock = Clock::new();
    let mut sequencer = three_open(&clock);
    sequencer.progressed(2, 9_000, clock.at(0));
    sequencer.progressed(3, 1_000, clock.at(0));
    assert_eq!(sequencer.overdue(clock.at(0)), None);
    sequencer.progressed(3, 3_000, clock.at(0));
    assert_eq!(sequencer.overdue(clock.at(0)), Some((1, Abandoned::Memory)));

    let mut sequencer = Sequencer::new(LIMITS);
    sequencer.opened(0, clock.at(0));
    for id in 1..=47 {
        sequencer.opened(id, clock.at(0));
        sequencer.finished(id, "", 0, clock.at(0));
    }
    assert_eq!(sequencer.overdue(clock.at(0)), Some((0, Abandoned::Memory)), "empty packets are not free");
}

#[test]
fn what_is_gone_holds_nothing_up() {
    let clock = Clock::new();
    let mut sequencer = three_open(&clock);
    sequencer.finished(3, "c", 1, clock.at(0));
    assert!(sequencer.gone(2));
    assert!(!sequencer.gone(2));
    assert_eq!(sequencer.release(), None);
    assert!(sequencer.gone(1));
    assert_eq!(sequencer.release(), Some("c"));
    assert_eq!(sequencer.len(), 0);
}

/// What may happen to a connection's streams.
#[derive(Clone, Debug)]
enum Step {
    Open,
    Progress(usize, usize),
    Finish(usize),
    Gone(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Open),
        4 => (0_usize..20, 0_usize..4_000).prop_map(|(at, bytes)| Step::Progress(at, bytes)),
        4 => (0_usize..20).prop_map(Step::Finish),
        1 => (0_usize..20).prop_map(Step::Gone),
        3 => (1_u64..2_000).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn order_bounds_and_progress_hold_for_any_history(steps in proptest::collection::vec(step(), 0..200)) {
        let clock = Clock::new();
        let mut now = 0;
        let mut sequencer = Sequencer::new(LIMITS);
        let mut next = 0;
        let mut open: Vec<(u64, usize)> = Vec::new();
        let mut finished = Vec::new();
        let mut released = Vec::new();

        for step in steps.into_iter().chain([Step::Wait(100_000)]) {
            let pick = |at: usize| open.get(at % open.len().max(1)).copied();
            match step {
                Step::Open => {
                    sequencer.opened(next, clock.at(now));
                    open.push((next, 0));
                    next += 1;
                }
                Step::Progress(at, more) => if let Some((id, bytes)) = pick(at) {
                    prop_assert!(sequencer.progressed(id, bytes + more, clock.at(now)));
                    for entry in open.iter_mut().filter(|entry| entry.0 == id) {
                        entry.1 += more;
                    }
                },
                Step::Finish(at) => if let Some((id, bytes)) = pick(at) {
                    prop_assert!(sequencer.finished(id, id, bytes, clock.at(now)));
                    open.retain(|entry| entry.0 != id);
                    finished.push(id);
                },
                Step::Gone(at) => if let Some((id, _)) = pick(at) {
                    prop_assert!(sequencer.gone(id));
                    open.retain(|entry| entry.0 != id);
                },
                Step::Wait(milliseconds) => now += milliseconds,
            }
            loop {
                if let Some(id) = sequencer.release() {
                    released.push(id);
                } else if let Some((id, _)) = sequencer.overdue(clock.at(now)) {
                    prop_assert_eq!(open.first().map(|entry| entry.0), Some(id), "only the oldest open one is blamed");
                    prop_assert!(sequencer.gone(id));
                    open.remove(0);
                } else {
                    break;
                }
            }
            prop_assert!(sequencer.held() <= LIMITS.bytes());
            prop_assert!(sequencer.len() >= open.len());
            prop_assert_eq!(sequencer.len() == 0, open.is_empty(), "what is finished waits only behind what is open");
            if let Some(deadline) = sequencer.deadline() {
                prop_assert!(deadline > clock.at(now));
                prop_assert!(sequencer.overdue(deadline).is_some());
                prop_assert_eq!(sequencer.overdue(deadline - Duration::from_nanos(1)), None);
            }
        }

        prop_assert!(sequencer.len() == 0, "time ends every wait");
        prop_assert_eq!(sequencer.held(), 0);
        prop_assert!(released.is_sorted_by(|a, b| a < b));
        finished.sort_unstable();
        prop_assert_eq!(released, finished, "each finished packet is released once");
    }
}

#[test]
fn streams_that_http3_may_have_set_aside_hold_up_packets_only_briefly_and_only_while_they_are_silent() {
    let ms = Duration::from_millis;
    let limits = Limits { silent_wait: ms(100), ..LIMITS };
    let start = Instant::now();
    let mut sequencer = Sequencer::new(limits);
    for id in [1, 2, 3] {
        sequencer.opened(id, start);
    }
    sequencer.finished(3, "packet", 6, start + ms(10));
    assert_eq!(sequencer.overdue(start + ms(109)), None);
    assert_eq!(sequencer.deadline(), Some(start + ms(110)));
    assert_eq!(sequencer.overdue(start + ms(110)), Some((1, Abandoned::Stalled)));
    sequencer.gone(1);
    assert_eq!(sequencer.overdue(start + ms(110)), Some((2, Abandoned::Stalled)), "both were waited for at once");
    sequencer.progressed(2, 1, start + ms(110));
    assert_eq!(sequencer.overdue(start + ms(1_109)), None, "a byte came: it is a packet, and waited for as one");
    assert_eq!(sequencer.overdue(start + ms(1_110)), Some((2, Abandoned::Stalled)));
    sequencer.gone(2);
    assert_eq!(sequencer.release(), Some("packet"));

    let mut later = Sequencer::new(limits);
    later.opened(3, start);
    later.opened(4, start);
    later.finished(4, "packet", 6, start);
    assert_eq!(later.overdue(start + ms(999)), None, "no other stream is set aside");
}
