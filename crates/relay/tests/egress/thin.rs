//! A receiver on a thin link keeps its audio, and of the video what the link can carry, from key frames on.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use roomcast_protocol::{Class, SessionId};
use roomcast_relay::{DropReason, Time};

use crate::link::{LIMITS, Link, Receiver, Sender};

const STEP: Duration = Duration::from_micros(500);
const IN_TIME: Duration = Duration::from_millis(300);
const SECONDS: u64 = 12;
/// What is sent later may still be under way at the end.
const JUDGED_UNTIL: Time = Time::from_millis(SECONDS * 1_000 - 400);
/// What the node lets a WebSocket's socket hold unsent.
const SOCKET: usize = 4 * 1024;

/// What a receiver had of a call.
#[derive(Debug)]
struct Had {
    audio_sent: usize,
    audio_in_time: usize,
    audio_p50: Duration,
    audio_p99: Duration,
    key_frames: usize,
    deltas: usize,
    opaque: usize,
}

impl Had {
    fn frames_per_second(&self) -> f64 {
        (self.key_frames + self.deltas + self.opaque) as f64 / SECONDS as f64
    }
}

fn call(link: Link, senders: &[Sender]) -> (Had, Receiver) {
    let mut receiver = Receiver::new(link);
    let (mut audio_sent, mut sent) = (0, 0);
    for millis in 0..SECONDS * 1_000 {
        for half in 0..2 {
            let now = Time::from_micros(millis * 1_000 + half * 500);
            if half == 0 {
                for (tag, length) in senders.iter().flat_map(|sender| sender.sends(millis)) {
                    // What is under way at the end is not judged.
                    audio_sent += usize::from(tag.class == Class::Audio && now < JUDGED_UNTIL);
                    sent += 1;
                    receiver.push(tag, length, now);
                }
            }
            receiver.pass(STEP, now);
        }
    }
    let dropped: u64 = DropReason::ALL.iter().map(|reason| receiver.dropped(*reason)).sum();
    assert_eq!(sent, receiver.arrived.len() + receiver.under_way() + dropped as usize, "nothing is lost silently");
    let mut last: HashMap<SessionId, usize> = HashMap::new();
    for arrival in &receiver.arrived {
        let before = last.insert(arrival.tag.sender, arrival.number);
        assert!(before.is_none_or(|before| before < arrival.number), "a sender's packets keep their order");
    }
    let of = |class| receiver.arrived.iter().filter(move |arrival| arrival.tag.class == class);
    let mut delays: Vec<_> = of(Class::Audio).map(|arrival| arrival.delay).collect();
    delays.sort_unstable();
    let percentile = |part: usize| delays[(delays.len() * part / 100).min(delays.len() - 1)];
    let had = Had {
        audio_sent,
        audio_in_time: of(Class::Audio).filter(|audio| audio.sent < JUDGED_UNTIL && audio.delay <= IN_TIME).count(),
        audio_p50: percentile(50),
        audio_p99: percentile(99),
        key_frames: of(Class::KeyFrame).count(),
        deltas: of(Class::Delta).count(),
        opaque: of(Class::Opaque).count(),
    };
    (had, receiver)
}

fn judge(had: &Had, receiver: &Receiver, link: Link) {
    let (packets, bytes) = receiver.most_queued;
    assert!(packets <= LIMITS.packets && bytes <= LIMITS.bytes);
    let share = had.audio_in_time * 1_000 / had.audio_sent;
    assert!(share >= 990, "{share} per mille of the audio in time over {link:?}: {had:?}");
}

fn senders(count: u64, phases: &[u64], opaque: bool) -> Vec<Sender> {
    let sender = |id| Sender {
        id,
        audio: 100,
        delta: 2_500,
        key: 10_000,
        group: 60,
        phase: phases[id as usize % phases.len()],
        opaque,
    };
    (0..count).map(sender).collect()
}

fn thin(kilobits: usize, tells: bool) -> Link {
    Link { bytes_per_second: kilobits * 125, socket: SOCKET, latency: Duration::from_millis(20), tells }
}

#[test]
fn a_call_of_two_megabits_over_five_hundred_kilobits_keeps_its_audio_and_restarts_at_key_frames() {
    for tells in [true, false] {
        for opaque in [false, true] {
            let link = thin(500, tells);
            let (had, receiver) = call(link, &senders(3, &[0, 300, 1_100], opaque));
            println!(
                "500 kbit/s, {}, writer {}: audio p50 {:?}, p99 {:?}, {} of {} in time; {} key frames, {} deltas, {} unreadable; {:?} B/s found",
                if opaque { "by size" } else { "hinted" },
                if tells { "tells" } else { "does not tell" },
                had.audio_p50,
                had.audio_p99,
                had.audio_in_time,
                had.audio_sent,
                had.key_frames,
                had.deltas,
                had.opaque,
                receiver.bytes_per_second(),
            );
            judge(&had, &receiver, link);
            assert!(had.frames_per_second() >= 3.0, "{had:?}");
            if !opaque {
                assert!(had.key_frames >= 6, "{had:?}");
            }
        }
    }
}

#[test]
fn a_link_that_carries_everything_loses_nothing() {
    // Three senders, 2 Mbit/s, key frames that take a hundred milliseconds on the wire.
    for opaque in [false, true] {
        let link = thin(3_000, true);
        let (had, receiver) = call(link, &senders(3, &[0, 300, 1_100], opaque));
        let dropped: u64 = DropReason::ALL.iter().map(|reason| receiver.dropped(*reason)).sum();
        assert_eq!(dropped, 0, "{had:?}");
        judge(&had, &receiver, link);
    }
}

#[test]
fn one_stream_that_fits_its_link_on_average_is_not_cut_for_its_key_frames() {
    for opaque in [false, true] {
        let sender = Sender { id: 1, audio: 100, delta: 900, key: 8_000, group: 60, phase: 0, opaque };
        let (had, receiver) = call(thin(500, true), &[sender]);
        let dropped: u64 = DropReason::ALL.iter().map(|reason| receiver.dropped(*reason)).sum();
        // Going by size, one in a hundred.
        assert!(dropped <= if opaque { 3 } else { 0 }, "{dropped}: {had:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_link_and_the_mix_audio_is_in_time(
        kilobits in 350_usize..2_500,
        count in 1_u64..5,
        phases in prop::collection::vec(0_u64..2_000, 5),
        delta_share in 5_usize..60,
        key_share in 70_usize..150,
        group in 20_u64..120,
        opaque: bool,
    ) {
        // As encoders do: a key frame that takes up to 150 ms of the link, and deltas that are smaller.
        let (key, delta) = (kilobits * key_share / 8, kilobits * delta_share / 8);
        let mut senders = senders(count, &phases, opaque);
        for sender in &mut senders {
            (sender.delta, sender.key, sender.group) = (delta, key, group);
        }
        let link = thin(kilobits, true);
        let (had, receiver) = call(link, &senders);
        judge(&had, &receiver, link);
        prop_assert!(had.frames_per_second() >= 0.5, "{had:?}");
        prop_assert!(opaque || had.key_frames > 2, "{had:?}");
    }
}
