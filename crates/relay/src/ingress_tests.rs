//! Ingress verdicts, one behaviour each.

use std::time::Duration;

use proptest::prelude::*;
use roomcast_protocol::Class;

use super::*;

const LIMITS: IngressLimits =
    IngressLimits { packets_per_second: 1_000, bytes_per_second: 20_000_000, max_packet_bytes: 4_000_000 };

fn ingress(dialect: Dialect) -> Ingress {
    Ingress::new(dialect, UserId::parse("alice@example.com").unwrap(), SessionId(42))
}

/// A wrapper, written by hand: its type, its user, its data.
fn wrapper(kind: u8, user: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    if kind > 0 {
        bytes.extend([0x08, kind]);
    }
    for (field, content) in [(0x12, user.as_bytes()), (0x1a, data)] {
        if !content.is_empty() {
            assert!(content.len() < 16_384);
            bytes.extend([field, (content.len() as u8 & 0x7f) | 0x80, (content.len() >> 7) as u8]);
            bytes.extend_from_slice(content);
        }
    }
    bytes
}

fn control(user: &str) -> Vec<u8> {
    wrapper(1, user, b"key")
}

fn is_relayed(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Relay { .. })
}

#[test]
fn a_packet_of_the_connections_own_user_is_relayed_with_what_the_media_path_must_know() {
    let mut ingress = ingress(Dialect::Seed);
    let verdict = ingress.judge(&control("alice@example.com"), Time::ZERO, &LIMITS);
    let tag = Tag { sender: SessionId(42), class: Class::Control, flow: 0 };
    assert_eq!(verdict, Verdict::Relay { tag, stamp: None });
    // A MediaPacket: VIDEO is 0, so absent; frame_type "key".
    let key_frame = wrapper(2, "alice@example.com", &[0x22, 3, b'k', b'e', b'y']);
    match ingress.judge(&key_frame, Time::ZERO, &LIMITS) {
        Verdict::Relay { tag, .. } => assert_eq!((tag.sender, tag.class), (SessionId(42), Class::KeyFrame)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_packet_of_another_user_or_of_none_is_dropped_and_the_connection_stays() {
    for dialect in [Dialect::Seed, Dialect::Sessions] {
        let mut ingress = ingress(dialect);
        for user in ["mallory@example.com", "alice@example.co", "alice@example.comm", "Alice@example.com", ""] {
            let verdict = ingress.judge(&control(user), Time::ZERO, &LIMITS);
            assert_eq!(verdict, Verdict::Drop(DropReason::Identity), "{user}");
        }
        assert!(is_relayed(ingress.judge(&control("alice@example.com"), Time::ZERO, &LIMITS)));
    }
}

#[test]
fn of_a_repeated_user_the_last_counts() {
    let mut ingress = ingress(Dialect::Seed);
    let twice = |first: &str, last: &str| [control(first), control(last)].concat();
    let disguised = ingress.judge(&twice("alice@example.com", "mallory@example.com"), Time::ZERO, &LIMITS);
    assert_eq!(disguised, Verdict::Drop(DropReason::Identity));
    assert!(is_relayed(ingress.judge(&twice("mallory@example.com", "alice@example.com"), Time::ZERO, &LIMITS)));
}

#[test]
fn what_does_not_parse_to_its_last_byte_is_dropped() {
    let mut ingress = ingress(Dialect::Seed);
    let good = control("alice@example.com");
    for bytes in [&good[..good.len() - 1], &[&good[..], &[0xff]].concat(), &[0x0b, 0x0c]] {
        assert_eq!(ingress.judge(bytes, Time::ZERO, &LIMITS), Verdict::Drop(DropReason::Malformed), "{bytes:?}");
    }
}

#[test]
fn the_sessions_dialect_stamps_the_connections_session() {
    let verdict = ingress(Dialect::Sessions).judge(&control("alice@example.com"), Time::ZERO, &LIMITS);
    assert!(matches!(verdict, Verdict::Relay { stamp: Some(SessionId(42)), .. }), "{verdict:?}");
}

#[test]
fn a_packet_over_the_size_limit_closes_the_connection() {
    let mut ingress = ingress(Dialect::Seed);
    let limits = IngressLimits { max_packet_bytes: 30, ..LIMITS };
    let bytes = wrapper(1, "alice@example.com", &[0; 6]);
    assert!(bytes.len() > 30);
    assert!(matches!(ingress.judge(&bytes, Time::ZERO, &limits), Verdict::Close(CloseCode::TooLarge, _)));
    let limits = IngressLimits { max_packet_bytes: bytes.len(), ..LIMITS };
    assert!(is_relayed(ingress.judge(&bytes, Time::ZERO, &limits)));
}

#[test]
fn packets_over_the_rate_are_dropped_and_the_rate_comes_back_with_time() {
    let mut ingress = ingress(Dialect::Seed);
    let limits = IngressLimits { packets_per_second: 10, ..LIMITS };
    let packet = control("alice@example.com");
    let mut relayed = |at| (0..100).filter(|_| is_relayed(ingress.judge(&packet, at, &limits))).count();
    assert_eq!(relayed(Time::ZERO), 10, "a second's worth at once");
    assert_eq!(relayed(Time::from_millis(99)), 0);
    assert_eq!(relayed(Time::from_millis(100)), 1);
    assert_eq!(relayed(Time::from_millis(600)), 5);
    assert_eq!(relayed(Time::from_millis(500)), 0, "a clock that steps back gives nothing");
    assert_eq!(relayed(Time::from_millis(600)), 0, "nor does its way forward again");
    assert_eq!(relayed(Time::from_millis(3_600_000)), 10, "what is not used is not saved up");
    assert_eq!(ingress.judge(&packet, Time::from_millis(3_600_000), &limits), Verdict::Drop(DropReason::RatePackets));
}

#[test]
fn bytes_over_the_rate_are_dropped() {
    let mut ingress = ingress(Dialect::Seed);
    let packet = wrapper(1, "alice@example.com", &[0; 970]);
    let limits = IngressLimits { bytes_per_second: 10 * packet.len() as u64, max_packet_bytes: 1_000, ..LIMITS };
    let relayed = (0..100).filter(|_| is_relayed(ingress.judge(&packet, Time::ZERO, &limits))).count();
    assert_eq!(relayed, 10);
    assert_eq!(ingress.judge(&packet, Time::ZERO, &limits), Verdict::Drop(DropReason::RateBytes));
    assert!(is_relayed(ingress.judge(&packet, Time::from_millis(100), &limits)));
}

#[test]
fn the_largest_packet_passes_a_lower_rate_now_and_then() {
    let mut ingress = ingress(Dialect::Seed);
    let packet = wrapper(1, "alice@example.com", &[0; 10_000]);
    let limits = IngressLimits { bytes_per_second: 1_000, max_packet_bytes: packet.len(), ..LIMITS };
    let relayed =
        (0..100_u64).filter(|second| is_relayed(ingress.judge(&packet, Time::from_millis(second * 1_000), &limits)));
    assert_eq!(relayed.count(), 10);
}

#[test]
fn a_rate_of_zero_is_no_limit_and_a_changed_one_acts_at_once() {
    let mut ingress = ingress(Dialect::Seed);
    let packet = control("alice@example.com");
    let free = IngressLimits { packets_per_second: 0, bytes_per_second: 0, ..LIMITS };
    assert!((0..100_000).all(|_| is_relayed(ingress.judge(&packet, Time::ZERO, &free))));
    let narrow = IngressLimits { packets_per_second: 3, ..free };
    assert_eq!((0..100).filter(|_| is_relayed(ingress.judge(&packet, Time::ZERO, &narrow))).count(), 3);
    let wider = IngressLimits { packets_per_second: 5, ..free };
    assert_eq!((0..100).filter(|_| is_relayed(ingress.judge(&packet, Time::ZERO, &wider))).count(), 2);
}

#[test]
fn a_burst_that_was_allowed_is_not_paid_off_at_a_lower_rate() {
    let mut ingress = ingress(Dialect::Seed);
    let packet = control("alice@example.com");
    let wide = IngressLimits { packets_per_second: 1_000, bytes_per_second: 0, ..LIMITS };
    assert!((0..1_000).all(|_| is_relayed(ingress.judge(&packet, Time::ZERO, &wide))));
    let narrow = IngressLimits { packets_per_second: 10, ..wide };
    assert_eq!(ingress.judge(&packet, Time::ZERO, &narrow), Verdict::Drop(DropReason::RatePackets));
    assert!(is_relayed(ingress.judge(&packet, Time::from_millis(100), &narrow)));
    assert_eq!(
        (0..100).filter(|_| is_relayed(ingress.judge(&packet, Time::from_millis(1_100), &narrow))).count(),
        10,
        "a second later all of the new burst is there"
    );
}

proptest! {
    /// Over any stretch of time, no more than the rate and one burst goes through; and a sender within the rate loses nothing.
    #[test]
    fn a_bucket_holds_its_rate(rate in 1_u64..50, gaps in prop::collection::vec(0_u64..200_000, 1..300)) {
        let mut bucket = Bucket::default();
        let (mut now, mut taken_at) = (Time::ZERO, Vec::new());
        for gap in gaps {
            now = now.after(Duration::from_micros(gap));
            if bucket.take(1, rate, rate, now) {
                taken_at.push(now.as_micros());
            } else {
                let recent = taken_at.iter().filter(|at| **at + 1_000_000 > now.as_micros()).count() as u64;
                prop_assert!(recent > 0, "refused after a second of silence");
            }
        }
        for (index, start) in taken_at.iter().enumerate() {
            let span = taken_at.last().unwrap() - start;
            let allowed = rate + (span * rate) / 1_000_000 + 1;
            prop_assert!((taken_at.len() - index) as u64 <= allowed);
        }
    }

    #[test]
    fn a_sender_within_the_rate_loses_nothing(rate in 1_u64..1_000, extra in prop::collection::vec(0_u64..5_000, 1..200)) {
        let mut bucket = Bucket::default();
        let mut now = Time::ZERO;
        for extra in extra {
            now = now.after(Duration::from_micros(1_000_000 / rate + 1 + extra));
            prop_assert!(bucket.take(1, rate, 1, now));
        }
    }

    #[test]
    fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..300), millis: u64) {
        for dialect in [Dialect::Seed, Dialect::Sessions] {
            let verdict = ingress(dialect).judge(&bytes, Time::from_millis(millis), &LIMITS);
            prop_assert!(!matches!(verdict, Verdict::Close(..)));
        }
    }
}
