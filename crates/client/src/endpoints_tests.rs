//! The choice of an endpoint, on given times and random numbers.

use proptest::prelude::*;

use super::*;

const AVOID: Duration = Duration::from_secs(10);

/// The endpoints that are chosen, over all random numbers.
fn chosen(endpoints: &Endpoints, except: Option<usize>, now: Instant) -> Vec<usize> {
    let mut all: Vec<usize> =
        (0..1000).map(|step| endpoints.choose(except, false, now, f64::from(step) / 1000.0)).collect();
    all.dedup();
    all
}

#[test]
fn one_that_failed_is_avoided_for_a_while_and_longer_each_time() {
    let start = Instant::now();
    let mut endpoints = Endpoints::new(3, AVOID);
    let mut now = start;
    for times in [1, 2, 4, 8, 8, 8] {
        endpoints.failed(1, now);
        assert_eq!(chosen(&endpoints, None, now), [0, 2]);
        now += AVOID * times;
        assert_eq!(chosen(&endpoints, None, now - Duration::from_millis(1)), [0, 2]);
        assert_eq!(chosen(&endpoints, None, now), [0, 1, 2]);
    }
    // Left alone for as long as it was avoided, it starts over; so does one to which a connection stayed up.
    endpoints.failed(1, now + AVOID * 9);
    assert_eq!(chosen(&endpoints, None, now + AVOID * 10), [0, 1, 2]);
    endpoints.failed(1, now + AVOID * 10);
    endpoints.is_good(1);
    assert_eq!(chosen(&endpoints, None, now + AVOID * 10), [0, 1, 2]);
}

#[test]
fn the_order_counts_where_it_is_asked_for_and_only_among_the_healthy() {
    let now = Instant::now();
    let mut endpoints = Endpoints::new(3, AVOID);
    assert_eq!(endpoints.choose(None, true, now, 0.9), 0);
    endpoints.failed(0, now);
    assert_eq!(endpoints.choose(None, true, now, 0.9), 1);
    endpoints.drains(1, now);
    assert_eq!(endpoints.choose(None, true, now, 0.0), 2);
    assert_eq!(endpoints.choose(Some(2), true, now, 0.0), 0, "all are avoided: the one that is free first");
    assert_eq!(endpoints.choose(Some(2), true, now + AVOID, 0.0), 0);
}

#[test]
fn the_only_one_is_chosen_whatever_it_did() {
    let now = Instant::now();
    let mut endpoints = Endpoints::new(1, AVOID);
    endpoints.failed(0, now);
    assert_eq!(endpoints.choose(Some(0), false, now, 0.5), 0);
    assert!(!endpoints.has_healthy(0, now));
}

#[test]
fn clients_spread_evenly_over_what_is_left() {
    let now = Instant::now();
    let mut dice = fastrand::Rng::with_seed(7);
    let mut clients = [0; 5];
    for _ in 0..10_000 {
        let mut endpoints = Endpoints::new(5, AVOID);
        endpoints.failed(2, now);
        clients[endpoints.choose(Some(2), false, now, dice.f64())] += 1;
    }
    assert_eq!(clients[2], 0);
    for endpoint in [0, 1, 3, 4] {
        assert!((2200..2800).contains(&clients[endpoint]), "{clients:?}");
    }
}

proptest! {
    /// Whatever fails when: none is left out for longer than it may be avoided, as long as anything is tried at all.
    #[test]
    fn no_endpoint_starves(
        count in 1_usize..6,
        fates in prop::collection::vec((0_usize..3, 0_u64..20_000), 200..400),
        seed: u64,
    ) {
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut endpoints = Endpoints::new(count, AVOID);
        let mut now = Instant::now();
        let mut last = vec![(now, 0_u32); count]; // when it was tried, and how often others were since it was free
        let mut except = None;
        for (fate, pause) in fates {
            let next = endpoints.choose(except, false, now, dice.f64());
            prop_assert!(next < count);
            if count > 1 {
                prop_assert!(Some(next) != except);
            }
            for (endpoint, (at, passed_over)) in last.iter_mut().enumerate() {
                if endpoint == next {
                    (*at, *passed_over) = (now, 0);
                } else if now - *at > AVOID * 8 && Some(endpoint) != except {
                    *passed_over += 1; // it was free, and it was for chance to decide
                    prop_assert!(*passed_over < 150, "{endpoint} of {count} was passed over again and again");
                }
            }
            match fate {
                0 => endpoints.failed(next, now),
                1 => endpoints.drains(next, now),
                _ => endpoints.is_good(next),
            }
            except = (fate < 2).then_some(next);
            now += Duration::from_millis(pause);
        }
    }
}
