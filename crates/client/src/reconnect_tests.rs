//! Decisions after ends and failures, on given times and seeds.

use proptest::prelude::*;

use super::*;

const LONG: Option<Duration> = Some(Duration::from_secs(60));
const SHORT: Option<Duration> = Some(Duration::from_millis(5));

fn machine(endpoints: usize) -> Reconnect {
    let policy = ReconnectPolicy { jitter: 0.0, ..ReconnectPolicy::default() };
    Reconnect::new(policy, endpoints, 1)
}

fn lost() -> Ended {
    Ended::Lost("reset".into())
}

fn refused(status: u16) -> Ended {
    Ended::Refused { status, message: "no".into() }
}

fn connect(milliseconds: u64, endpoint: usize, attempt: u32) -> Plan {
    Plan::Connect { after: Duration::from_millis(milliseconds), endpoint, attempt }
}

#[test]
fn waits_double_up_to_the_longest() {
    let mut machine = machine(1);
    assert_eq!(machine.start(Instant::now()), connect(0, 0, 1));
    let waits = [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000];
    for (attempt, wait) in (2..).zip(waits) {
        assert_eq!(machine.after(&lost(), None, Instant::now()), connect(wait, 0, attempt));
    }
}

#[test]
fn a_connection_that_stays_up_clears_the_count_and_a_short_one_does_not() {
    let mut machine = machine(1);
    assert_eq!(machine.after(&lost(), None, Instant::now()), connect(250, 0, 2));
    assert_eq!(machine.after(&lost(), SHORT, Instant::now()), connect(500, 0, 3));
    assert_eq!(machine.after(&lost(), LONG, Instant::now()), connect(250, 0, 2));
}

#[test]
fn endpoints_take_turns() {
    let mut machine = machine(3);
    for endpoint in [1, 2, 0, 1] {
        let Plan::Connect { endpoint: next, .. } = machine.after(&lost(), None, Instant::now()) else {
            panic!("gave up")
        };
        assert_eq!(next, endpoint);
    }
}

#[test]
fn a_draining_node_is_left_at_once_but_not_in_a_loop() {
    let mut machine = machine(2);
    let draining = Ended::Closed(Some(1001));
    assert_eq!(machine.after(&draining, LONG, Instant::now()), connect(0, 1, 1));
    assert_eq!(machine.after(&draining, SHORT, Instant::now()), connect(0, 0, 1));
    assert_eq!(machine.after(&draining, SHORT, Instant::now()), connect(250, 1, 2));
    assert_eq!(machine.after(&draining, SHORT, Instant::now()), connect(500, 0, 3));
    assert_eq!(machine.after(&draining, LONG, Instant::now()), connect(0, 1, 1));
}

#[test]
fn what_would_happen_again_is_fatal_and_says_why() {
    for (ended, reason) in [
        (Ended::Closed(Some(1000)), "the call is over"),
        (Ended::Closed(Some(1008)), "the server closed with 1008 (against policy)"),
        (Ended::Closed(Some(1009)), "the server closed with 1009 (message too large)"),
        (Ended::Closed(Some(1003)), "the server closed with 1003 (unsupported message)"),
        (refused(400), "the server refused with 400: no"),
        (refused(401), "the server refused with 401: no"),
        (refused(403), "the server refused with 403: no"),
        (refused(404), "the server refused with 404: no"),
        (refused(302), "the server refused with 302: no"),
        (Ended::Untrusted("hash".into()), "the server's certificate is not trusted: hash"),
    ] {
        let Plan::Finish(why) = machine(3).after(&ended, None, Instant::now()) else {
            panic!("{ended:?} is not fatal")
        };
        assert_eq!(why.to_string(), reason);
    }
}

#[test]
fn what_may_pass_is_tried_again_later() {
    let closes = [None, Some(1005), Some(1006), Some(1011), Some(1012), Some(1013), Some(4000)].map(Ended::Closed);
    let refusals = [200, 408, 421, 425, 429, 500, 502, 503].map(refused);
    let others = [lost(), Ended::Unreachable("x".into()), Ended::Misbehaved("x".into())];
    for ended in closes.into_iter().chain(refusals).chain(others) {
        assert_eq!(machine(1).after(&ended, SHORT, Instant::now()), connect(250, 0, 2), "{ended:?}");
    }
    assert_eq!(machine(1).after(&Ended::Untrusted("x".into()), SHORT, Instant::now()), connect(250, 0, 2));
}

#[test]
fn it_gives_up_after_the_allowed_failures() {
    let policy = ReconnectPolicy { attempts: Some(3), ..ReconnectPolicy::default() };
    let mut machine = Reconnect::new(policy, 1, 1);
    assert!(matches!(machine.after(&lost(), None, Instant::now()), Plan::Connect { .. }));
    assert!(matches!(machine.after(&lost(), None, Instant::now()), Plan::Connect { .. }));
    let Plan::Finish(reason) = machine.after(&lost(), None, Instant::now()) else { panic!("went on") };
    assert_eq!(reason.to_string(), "gave up after 3 failures; the last one: connection lost: reset");
}

#[test]
fn values_out_of_bounds_are_refused() {
    let good = ReconnectPolicy::default();
    assert_eq!(good.validate(), Ok(()));
    for (bad, error) in [
        (ReconnectPolicy { initial: Duration::ZERO, ..good.clone() }, PolicyError::Initial),
        (ReconnectPolicy { max: Duration::from_millis(1), ..good.clone() }, PolicyError::Max),
        (ReconnectPolicy { factor: 0.9, ..good.clone() }, PolicyError::Factor),
        (ReconnectPolicy { factor: f64::NAN, ..good.clone() }, PolicyError::Factor),
        (ReconnectPolicy { factor: f64::INFINITY, ..good.clone() }, PolicyError::Factor),
        (ReconnectPolicy { jitter: 1.1, ..good.clone() }, PolicyError::Jitter),
        (ReconnectPolicy { jitter: f64::NAN, ..good.clone() }, PolicyError::Jitter),
        (ReconnectPolicy { max: Duration::MAX, ..good.clone() }, PolicyError::Longer),
        (ReconnectPolicy { spread: Duration::MAX, ..good.clone() }, PolicyError::Longer),
        (ReconnectPolicy { avoid: Duration::MAX, ..good.clone() }, PolicyError::Longer),
        (ReconnectPolicy { forget_after: Duration::MAX, ..good }, PolicyError::Longer),
    ] {
        assert_eq!(bad.validate(), Err(error));
    }
}

/// A client of so many endpoints that has been in the room at the first one, and its seed.
fn settled(endpoints: usize, seed: u64) -> Reconnect {
    let mut machine = Reconnect::new(ReconnectPolicy::default(), endpoints, seed);
    assert!(matches!(machine.start(Instant::now()), Plan::Connect { after: Duration::ZERO, endpoint: 0, .. }));
    machine
}

#[test]
fn the_clients_of_a_lost_node_come_back_elsewhere_and_not_at_once() {
    let mut places = [0_u32; 4];
    let mut moments = [0_u32; 5];
    for seed in 0..4000 {
        let Plan::Connect { after, endpoint, .. } = settled(4, seed).after(&lost(), LONG, Instant::now()) else {
            panic!("gave up")
        };
        places[endpoint] += 1;
        moments[(after.as_millis() / 100) as usize] += 1;
    }
    assert_eq!(places[0], 0);
    assert!(places[1..].iter().all(|clients| (1150..1520).contains(clients)), "{places:?}");
    assert!(moments.iter().all(|clients| (650..950).contains(clients)), "{moments:?}");
}

#[test]
fn a_lost_connection_without_another_place_to_go_is_waited_for() {
    // The only endpoint, then one whose neighbour has just failed.
    let now = Instant::now();
    let (low, high) = ReconnectPolicy::default().delay_range(1);
    let Plan::Connect { after, endpoint: 0, .. } = settled(1, 1).after(&lost(), LONG, now) else { panic!("not there") };
    assert!((low..=high).contains(&after));
    let mut machine = settled(2, 1);
    let Plan::Connect { endpoint: 1, .. } = machine.after(&lost(), LONG, now) else { panic!("not elsewhere") };
    let Plan::Connect { after, endpoint: 0, .. } = machine.after(&lost(), LONG, now) else { panic!("not there") };
    assert!((low..=high).contains(&after), "both are avoided: {after:?}");
}

#[test]
fn the_first_connection_goes_anywhere_where_that_is_wanted() {
    let policy = ReconnectPolicy { random_first: true, ..ReconnectPolicy::default() };
    let mut places = [0_u32; 3];
    for seed in 0..3000 {
        let plan = Reconnect::new(policy.clone(), 3, seed).start(Instant::now());
        let Plan::Connect { endpoint, .. } = plan else { panic!("gave up") };
        places[endpoint] += 1;
    }
    assert!(places.iter().all(|clients| (850..1150).contains(clients)), "{places:?}");
}

#[test]
fn a_move_goes_elsewhere_at_once_and_then_waits_longer_and_longer() {
    let now = Instant::now();
    let mut machine = settled(3, 5);
    machine.asked_to_leave(now);
    let (after, first) = machine.next_move(now);
    assert!(after.is_zero() && first != 0);
    machine.move_failed(first, now);
    let (after, second) = machine.next_move(now);
    let (low, high) = ReconnectPolicy::default().delay_range(1);
    assert!((low..=high).contains(&after));
    assert_eq!(second, 3 - first, "the other one is not avoided");
    machine.move_failed(second, now);
    let (after, _) = machine.next_move(now);
    let (low, high) = ReconnectPolicy::default().delay_range(2);
    assert!((low..=high).contains(&after));
    machine.moved(second, Duration::from_secs(60));
    let Plan::Connect { endpoint, .. } = machine.after(&lost(), LONG, now) else { panic!("gave up") };
    assert_ne!(endpoint, second, "it counts from where it is now");
}

#[test]
fn nodes_that_all_drain_are_not_asked_in_a_busy_loop() {
    let mut now = Instant::now();
    let began = now;
    let mut machine = settled(3, 9);
    for _ in 0..20 {
        machine.asked_to_leave(now);
        let (after, endpoint) = machine.next_move(now);
        now += after;
        machine.moved(endpoint, Duration::from_millis(1));
    }
    assert!(now - began > Duration::from_secs(60), "{:?}", now - began);
}

proptest! {
    #[test]
    fn a_wait_is_in_its_range_and_ranges_do_not_shrink(
        initial in 1_u64..10_000,
        above in 0_u64..1_000_000,
        factor in 1.0..10.0_f64,
        jitter in 0.0..=1.0_f64,
        failures in prop_oneof![1_u32..40, Just(u32::MAX)],
        random in 0.0..=1.0_f64,
    ) {
        let policy = ReconnectPolicy {
            initial: Duration::from_millis(initial),
            max: Duration::from_millis(initial + above),
            factor,
            jitter,
            ..ReconnectPolicy::default()
        };
        prop_assert_eq!(policy.validate(), Ok(()));
        let (low, high) = policy.delay_range(failures);
        let delay = policy.delay(failures, random);
        prop_assert!(low <= delay && delay <= high && high <= policy.max);
        let (next_low, next_high) = policy.delay_range(failures.saturating_add(1));
        prop_assert!(low <= next_low && high <= next_high);
    }

    /// Whatever happens, the waits are in their bounds, and only so many attempts come without one.
    #[test]
    fn waits_are_bounded_and_it_never_loops_busily(
        endpoints in 1_usize..5,
        ends in prop::collection::vec((0_u8..6, prop::option::of(0_u64..15_000)), 1..200),
        seed: u64,
    ) {
        let policy = ReconnectPolicy::default();
        let mut machine = Reconnect::new(policy.clone(), endpoints, seed);
        let mut now = Instant::now();
        machine.start(now);
        let mut quick = 0;
        for (kind, up_for) in ends {
            let up_for = up_for.map(Duration::from_millis);
            let ended = match kind {
                0 => Ended::Closed(Some(1001)),
                1 => Ended::Closed(Some(1013)),
                2 => Ended::Unreachable("x".into()),
                3 => Ended::Refused { status: 503, message: "full".into() },
                _ => lost(),
            };
            now += up_for.unwrap_or_default();
            if up_for.is_some_and(|up| up >= policy.forget_after) {
                quick = 0;
            }
            let Plan::Connect { after, endpoint, .. } = machine.after(&ended, up_for, now) else {
                return Err(TestCaseError::fail("gave up"));
            };
            prop_assert!(endpoint < endpoints);
            prop_assert!(after <= policy.max);
            // Besides the backoff: leaving a draining node once an endpoint, and the first attempt after a loss.
            if after < policy.delay_range(1).0 {
                quick += 1;
                prop_assert!(quick <= endpoints + 1, "{quick} attempts without a wait");
            }
            now += after;
        }
    }
}
