//! The egress queue keeps its promises, whatever is pushed, drained and changed, in whatever order.

#![allow(clippy::unwrap_used)]

mod link;
mod observer;
mod thin;

use std::time::Duration;

use observer::Observed;
use proptest::prelude::*;
use roomcast_protocol::{Class, SessionId, Tag};
use roomcast_relay::{Batch, Budget, DropReason, EgressLimits, Pushed, Time};

const ALL: Batch = Batch { packets: usize::MAX, bytes: usize::MAX };

#[derive(Clone, Debug)]
enum Step {
    Push { queue: usize, tag: Tag, length: usize },
    Drain { queue: usize, batch: Batch },
    Ready { queue: usize },
    Wait(Duration),
    Limits(EgressLimits),
    Budget(usize),
}

fn tags(senders: u64, flows: u32) -> impl Strategy<Value = Tag> {
    let class = prop_oneof![
        5 => Just(Class::Delta),
        1 => Just(Class::Opaque),
        2 => Just(Class::KeyFrame),
        2 => Just(Class::Audio),
        1 => Just(Class::Control),
    ];
    (0..senders, class, 0..flows).prop_map(|(sender, class, flow)| Tag { sender: SessionId(sender), class, flow })
}

fn limits() -> impl Strategy<Value = EgressLimits> {
    (0_usize..30, prop_oneof![0_usize..200, 200_usize..5_000], 0_u64..100)
        .prop_map(|(packets, bytes, delay)| EgressLimits { packets, bytes, max_delay: Duration::from_millis(delay) })
}

fn batches() -> impl Strategy<Value = Batch> {
    (0_usize..10, 0_usize..1_500).prop_map(|(packets, bytes)| Batch { packets, bytes })
}

fn steps(senders: u64, flows: u32, budgets: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        24 => (0_usize..2, tags(senders, flows), 8_usize..400).prop_map(|(queue, tag, length)| Step::Push { queue, tag, length }),
        4 => (0_usize..2, batches()).prop_map(|(queue, batch)| Step::Drain { queue, batch }),
        2 => (0_usize..2).prop_map(|queue| Step::Ready { queue }),
        4 => (0_u64..60).prop_map(|millis| Step::Wait(Duration::from_millis(millis))),
        1 => limits().prop_map(Step::Limits),
        1 => budgets.prop_map(Step::Budget),
    ];
    prop::collection::vec(step, 1..250)
}

/// Runs the steps on two queues that share a budget. The observers judge each; here, what is shared.
fn run(steps: Vec<Step>, mut limits: EgressLimits, size: usize, lenient: bool) {
    let budget = Budget::new(size);
    let mut queues = [(); 2].map(|()| match Observed::new(&budget) {
        queue if lenient => queue.lenient_about_gaps(),
        queue => queue,
    });
    let mut now = Time::ZERO;
    for step in steps {
        let used = budget.used();
        match step {
            Step::Push { queue, tag, length } => _ = queues[queue].push(tag, length, now, &limits),
            Step::Drain { queue, batch } => _ = queues[queue].drain(now, &limits, batch),
            Step::Ready { queue } => queues[queue].ready(now, &limits),
            Step::Wait(time) => now = now.after(time),
            Step::Limits(new) => limits = new,
            Step::Budget(new) => budget.set_limit(new),
        }
        assert!(budget.used() <= budget.limit().max(used), "the budget grew past its limit");
        let least: usize = queues.iter().map(|queue| queue.queue().charge()).sum();
        let spare = queues.iter().filter(|queue| !queue.queue().is_empty()).count() * 2 * Budget::CHUNK;
        assert!(budget.used() >= least, "{} bytes are queued, {} accounted for", least, budget.used());
        assert!(budget.used() <= least + spare, "{} bytes are queued, {} accounted for", least, budget.used());
    }
    let [mut first, second] = queues;
    first.drain_all(now, &limits);
    drop(second);
    assert_eq!(budget.used(), 0, "what was taken of the budget comes back");
}

proptest! {
    #[test]
    fn every_packet_is_delivered_dropped_for_a_good_reason_or_queued(steps in steps(3, 2, 0..20_000), limits in limits()) {
        run(steps, limits, 1 << 20, false);
    }

    #[test]
    fn a_short_budget_breaks_no_promise(steps in steps(2, 2, 0..6_000), size in 0_usize..6_000) {
        let limits = EgressLimits { packets: 25, bytes: 4_000, max_delay: Duration::from_millis(80) };
        run(steps, limits, size, false);
    }

    #[test]
    fn streams_without_number_break_no_promise(steps in steps(2, 100_000, 0..20_000), limits in limits()) {
        run(steps, limits, 1 << 20, true);
    }
}

fn tag(sender: u64, class: Class) -> Tag {
    Tag { sender: SessionId(sender), class, flow: u32::from(matches!(class, Class::Delta | Class::KeyFrame)) }
}

fn wide() -> EgressLimits {
    EgressLimits { packets: 1_024, bytes: 8 << 20, max_delay: Duration::from_millis(500) }
}

#[test]
fn a_receiver_that_keeps_up_gets_everything() {
    let budget = Budget::new(1 << 30);
    let mut queue = Observed::new(&budget);
    for step in 0..10_000_u64 {
        let now = Time::from_millis(step);
        let class = Class::ALL[step as usize % Class::ALL.len()];
        assert_eq!(queue.push(tag(step % 7, class), 1_200, now, &wide()), Pushed::First);
        assert_eq!(queue.drain(now, &wide(), ALL).len(), 1);
    }
    assert_eq!(queue.delivered(), 10_000);
}

#[test]
fn a_full_queue_gives_up_deltas_then_opaque_then_key_frames_then_audio_then_control() {
    let budget = Budget::new(1 << 30);
    let mut queue = Observed::new(&budget);
    let limits = EgressLimits { packets: 5, ..wide() };
    for class in [Class::Control, Class::Audio, Class::KeyFrame, Class::Opaque, Class::Delta] {
        queue.push(tag(class as u64, class), 100, Time::ZERO, &limits);
    }
    for _ in 0..5 {
        queue.push(tag(9, Class::Control), 100, Time::ZERO, &limits);
    }
    assert_eq!(queue.dropped(DropReason::QueuePackets), 5);
    let left = queue.drain(Time::ZERO, &limits, ALL);
    assert!(left.iter().all(|packet| *packet.tag() == tag(9, Class::Control)), "{left:?}");
}

#[test]
fn a_newcomer_never_displaces_its_betters_and_one_that_cannot_fit_displaces_nothing() {
    let budget = Budget::new(1 << 30);
    let mut queue = Observed::new(&budget);
    let limits = EgressLimits { packets: 4, bytes: 1_000, max_delay: Duration::from_secs(1) };
    for class in [Class::Audio, Class::Audio, Class::Delta] {
        queue.push(tag(1, class), 300, Time::ZERO, &limits);
    }
    let too_large = queue.push(tag(2, Class::Control), 1_001, Time::ZERO, &limits);
    assert_eq!(too_large, Pushed::Dropped(DropReason::QueueBytes));
    let larger_than_what_may_go = queue.push(tag(2, Class::KeyFrame), 401, Time::ZERO, &limits);
    assert_eq!(larger_than_what_may_go, Pushed::Dropped(DropReason::QueueBytes));
    assert_eq!(queue.queue().len(), 3);
    assert_eq!(queue.push(tag(2, Class::Audio), 300, Time::ZERO, &limits), Pushed::Queued);
    let full = EgressLimits { packets: 3, ..limits };
    assert_eq!(queue.push(tag(1, Class::KeyFrame), 8, Time::ZERO, &full), Pushed::Dropped(DropReason::QueuePackets));
}

#[test]
fn video_restarts_at_a_key_frame_only_and_each_stream_for_itself() {
    let budget = Budget::new(1 << 30);
    let mut queue = Observed::new(&budget);
    let limits = EgressLimits { packets: 3, ..wide() };
    for sender in [1, 1, 2] {
        queue.push(tag(sender, Class::Delta), 100, Time::ZERO, &limits);
    }
    // The oldest delta goes, and with it the one that depends on it; the other sender's stays.
    assert_eq!(queue.push(tag(3, Class::Audio), 100, Time::ZERO, &limits), Pushed::Queued);
    assert_eq!(queue.queue().len(), 2);
    let waiting = Pushed::Dropped(DropReason::WaitingForKeyFrame);
    assert_eq!(queue.push(tag(1, Class::Delta), 100, Time::ZERO, &limits), waiting);
    assert_eq!(queue.push(tag(2, Class::Delta), 100, Time::ZERO, &limits), Pushed::Queued);
    queue.drain_all(Time::ZERO, &limits);
    // An empty queue does not forget what its receiver lacks.
    assert_eq!(queue.push(tag(1, Class::Delta), 100, Time::ZERO, &limits), waiting);
    assert_eq!(queue.push(tag(1, Class::KeyFrame), 100, Time::ZERO, &limits), Pushed::First);
    assert_eq!(queue.push(tag(1, Class::Delta), 100, Time::ZERO, &limits), Pushed::Queued);
    queue.drain_all(Time::ZERO, &limits);
    assert_eq!((queue.delivered(), queue.dropped(DropReason::WaitingForKeyFrame)), (5, 3));
}

#[test]
fn video_is_late_before_audio_and_control_never_is() {
    let budget = Budget::new(1 << 30);
    let mut queue = Observed::new(&budget);
    // The audio comes first: nothing in front of it may have to go for it.
    for class in [Class::Audio, Class::Delta, Class::Opaque, Class::KeyFrame, Class::Control] {
        queue.push(tag(class as u64, class), 100, Time::from_millis(u64::from(class != Class::Audio)), &wide());
    }
    let left = |queue: &mut Observed, millis| {
        queue.drain(Time::from_millis(millis), &wide(), Batch { packets: 0, bytes: 0 });
        queue.queue().len()
    };
    assert_eq!(left(&mut queue, 501), 5);
    assert_eq!(left(&mut queue, 502), 2);
    assert_eq!(left(&mut queue, 1_000), 2);
    assert_eq!(left(&mut queue, 1_001), 1);
    assert_eq!(left(&mut queue, 1_000_000_000), 1);
    assert_eq!(queue.dropped(DropReason::Late), 4);
}

#[test]
fn a_queue_full_of_control_says_since_when_until_it_is_half_empty() {
    let budget = Budget::new(1 << 30);
    let mut queue = Observed::new(&budget);
    let limits = EgressLimits { packets: 10, ..wide() };
    for second in 0..10 {
        queue.push(tag(1, Class::Control), 100, Time::from_millis(second * 1_000), &limits);
    }
    assert_eq!(queue.queue().saturated_since(), None, "full, but nothing was lost for it");
    queue.push(tag(1, Class::Delta), 100, Time::from_millis(10_000), &limits);
    queue.push(tag(1, Class::Control), 100, Time::from_millis(11_000), &limits);
    assert_eq!(queue.queue().saturated_since(), Some(Time::from_millis(10_000)));
    let mut drain = |packets| {
        queue.drain(Time::from_millis(12_000), &limits, Batch { packets, bytes: usize::MAX });
        queue.queue().saturated_since().is_some()
    };
    assert!(drain(4), "a trickle is no recovery");
    assert!(!drain(1));
}

#[test]
fn a_queue_full_of_media_is_not_saturated() {
    let budget = Budget::new(1 << 30);
    let mut queue = Observed::new(&budget);
    let limits = EgressLimits { packets: 10, ..wide() };
    for step in 0..100 {
        let class = if step % 10 == 0 { Class::Control } else { Class::Audio };
        queue.push(tag(1, class), 100, Time::from_millis(step), &limits);
        if step < 90 {
            assert_eq!(queue.queue().saturated_since(), None);
        }
    }
}

#[test]
fn slow_receivers_leave_budget_for_the_others() {
    let budget = Budget::new(1 << 20);
    let mut slow: Vec<_> = (0..9).map(|_| Observed::new(&budget)).collect();
    for _ in 0..1_000 {
        for queue in &mut slow {
            queue.push(tag(1, Class::Audio), 1_200, Time::ZERO, &wide());
        }
    }
    assert!(slow.iter().all(|queue| queue.dropped(DropReason::Budget) > 0), "the budget is used up");
    let mut healthy = Observed::new(&budget);
    for _ in 0..30 {
        assert!(!matches!(healthy.push(tag(1, Class::Audio), 1_200, Time::ZERO, &wide()), Pushed::Dropped(_)));
    }
    drop((slow, healthy));
    assert_eq!(budget.used(), 0);
}

#[test]
fn a_closed_queue_counts_what_it_held_and_what_still_comes() {
    let budget = Budget::new(1 << 30);
    let mut queue = roomcast_relay::EgressQueue::new(&budget);
    let mut buffer = roomcast_protocol::PacketBuffer::new();
    let mut dropped = 0;
    let mut push = |queue: &mut roomcast_relay::EgressQueue, dropped: &mut i32| {
        buffer.extend(&[0; 100]);
        let packet = buffer.seal(tag(1, Class::Control), None);
        queue.push(packet, Time::ZERO, &wide(), &mut |_, reason| {
            assert_eq!(reason, DropReason::Closed);
            *dropped += 1;
        })
    };
    for _ in 0..100 {
        push(&mut queue, &mut dropped);
    }
    queue.close(&mut |_, reason| {
        assert_eq!(reason, DropReason::Closed);
        dropped += 1;
    });
    assert_eq!(push(&mut queue, &mut dropped), Pushed::Dropped(DropReason::Closed));
    assert_eq!((dropped, budget.used()), (101, 0));
    assert!(queue.is_empty() && queue.capacity() <= 16);
}
