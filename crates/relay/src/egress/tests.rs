//! What can be seen from inside only: the cost of each step, the memory of flows and its bounds. The promises themselves are
//! tested from outside, in `tests/egress`.

use std::time::Duration;

use roomcast_protocol::{Class, Packet, PacketBuffer, SessionId, Tag};

use super::flows::FLOWS_PER_SENDER;
use super::*;

fn packet(tag: Tag) -> Packet {
    let mut buffer = PacketBuffer::new();
    buffer.extend(&[0; 40]);
    buffer.seal(tag, None)
}

fn video(class: Class, sender: u64, flow: u32) -> Packet {
    packet(Tag { sender: SessionId(sender), class, flow })
}

fn limits(packets: usize) -> EgressLimits {
    EgressLimits { packets, bytes: usize::MAX, max_delay: Duration::from_secs(3_600) }
}

const ALL: Batch = Batch { packets: usize::MAX, bytes: usize::MAX };

struct Harness {
    queue: EgressQueue,
    limits: EgressLimits,
    dropped: usize,
}

impl Harness {
    fn new(packets: usize) -> Self {
        Self { queue: EgressQueue::new(&Budget::new(usize::MAX)), limits: limits(packets), dropped: 0 }
    }

    fn push(&mut self, packet: Packet) -> Pushed {
        self.queue.push(packet, Time::ZERO, &self.limits, &mut |_, _| self.dropped += 1)
    }

    fn drain(&mut self) -> usize {
        self.queue.drain(Time::ZERO, &self.limits, ALL, &mut Vec::new(), &mut |_, _| self.dropped += 1).packets
    }
}

/// Slots looked at per push, while the queue is kept full of this many packets by streams of a kind.
fn steps_per_push(packets: usize, make: impl Fn(usize) -> Packet) -> usize {
    let mut harness = Harness::new(packets);
    let pushes = packets * 8;
    for number in 0..pushes {
        harness.push(make(number));
    }
    assert!(harness.dropped >= packets, "the queue must have been full");
    assert!(harness.queue.capacity() <= 2 * packets, "a slot that was left is used again");
    harness.queue.slots.steps() / pushes
}

#[test]
fn a_push_to_a_full_queue_costs_the_same_whatever_its_length() {
    type Kind = (&'static str, fn(usize) -> Packet);
    let kinds: [Kind; 4] = [
        ("one stream", |n| video(if n % 50 == 0 { Class::KeyFrame } else { Class::Delta }, 1, 1)),
        ("a stream for each packet", |n| video(Class::Delta, n as u64, 1)),
        ("a stream of one sender for each packet", |n| video(Class::Delta, 1, n as u32)),
        ("all classes", |n| packet(Tag { sender: SessionId(n as u64 % 9), class: Class::ALL[n * 7 % 5], flow: 1 })),
    ];
    for (kind, make) in kinds {
        let (short, long) = (steps_per_push(64, make), steps_per_push(8_192, make));
        assert!(long <= 16 && long <= short + 2, "{kind}: {short} slots for a short queue, {long} for a long one");
    }
}

#[test]
fn a_lowered_budget_cuts_the_queues_that_hold_much_and_leaves_the_others() {
    let budget = Budget::new(usize::MAX);
    let control = || packet(Tag { sender: SessionId(1), class: Class::Control, flow: 0 });
    let mut queues = [(); 2].map(|()| EgressQueue::new(&budget));
    let [long, short] = &mut queues;
    let limits = limits(usize::MAX);
    let mut dropped = 0;
    for number in 0..5_000 {
        long.push(control(), Time::ZERO, &limits, &mut |_, _| dropped += 1);
        if number % 50 == 0 {
            short.push(control(), Time::ZERO, &limits, &mut |_, _| dropped += 1);
        }
    }
    assert_eq!((dropped, long.len(), short.len()), (0, 5_000, 100));
    budget.set_limit(300_000);
    assert_eq!(long.len(), 5_000, "nothing goes before the next call");
    short.drain(Time::ZERO, &limits, Batch { packets: 0, bytes: 0 }, &mut Vec::new(), &mut |_, _| dropped += 1);
    assert_eq!((dropped, short.len()), (0, 100), "it holds little");
    long.drain(Time::ZERO, &limits, Batch { packets: 0, bytes: 0 }, &mut Vec::new(), &mut |_, reason| {
        assert_eq!(reason, DropReason::Budget);
        dropped += 1;
    });
    assert_eq!(dropped + long.len(), 5_000);
    assert!(budget.used() <= 300_000, "{}", budget.used());
    assert!(long.charge() >= 200_000, "no more than needed went: {}", long.charge());
    budget.set_limit(0);
    long.drain(Time::ZERO, &limits, Batch { packets: 0, bytes: 0 }, &mut Vec::new(), &mut |_, _| {});
    assert!(long.charge() > Budget::KEPT - 2 * Budget::CHUNK, "something is left to every queue: {}", long.charge());
}

#[test]
fn a_receiver_that_keeps_up_has_no_index_of_flows() {
    let mut harness = Harness::new(100);
    for number in 0..1_000_u64 {
        harness.push(video(Class::Delta, number % 5, 1));
        if number % 20 == 19 {
            assert_eq!(harness.drain(), 20);
        }
        assert!(harness.queue.flows.is_none());
    }
}

#[test]
fn the_index_of_flows_goes_when_every_stream_has_had_its_key_frame() {
    let mut harness = Harness::new(2);
    for sender in [1, 2, 3] {
        harness.push(video(Class::Delta, sender, 1));
    }
    assert_eq!(harness.dropped, 1);
    harness.drain();
    assert!(harness.queue.flows.is_some(), "the first sender's receiver still lacks a frame");
    harness.push(video(Class::KeyFrame, 1, 1));
    harness.drain();
    assert!(harness.queue.flows.is_none());
}

/// Loses one delta of each of these streams to a queue of one place.
fn lose(harness: &mut Harness, sender: u64, flows: std::ops::Range<u32>) {
    harness.limits.packets = 1;
    for flow in flows {
        harness.drain();
        harness.push(packet(Tag { sender: SessionId(0), class: Class::Control, flow: 0 }));
        assert!(matches!(harness.push(video(Class::Delta, sender, flow)), Pushed::Dropped(_)));
    }
    harness.drain();
}

#[test]
fn a_sender_of_streams_without_number_costs_bounded_memory_and_still_no_delta_follows_a_gap() {
    let mut harness = Harness::new(1);
    let streams = FLOWS_PER_SENDER * 50;
    lose(&mut harness, 7, 0..streams);
    for flow in 0..streams {
        assert!(matches!(harness.push(video(Class::Delta, 7, flow)), Pushed::Dropped(_)), "stream {flow} has a gap");
    }
    assert!(harness.queue.flows.as_ref().unwrap().remembered() <= FLOWS_PER_SENDER as usize);
    // Another sender's streams are not taken for his.
    assert_eq!(harness.push(video(Class::Delta, 8, 1)), Pushed::First);
    harness.drain();
    // As many streams as a client can really have come back with their key frames; for the rest, key frames only.
    let mut restarted = 0;
    for flow in 0..streams {
        assert_eq!(harness.push(video(Class::KeyFrame, 7, flow)), Pushed::First);
        harness.drain();
        restarted += u32::from(harness.push(video(Class::Delta, 7, flow)) == Pushed::First);
        harness.drain();
    }
    assert_eq!(restarted, FLOWS_PER_SENDER);
    assert!(harness.queue.flows.as_ref().unwrap().remembered() <= FLOWS_PER_SENDER as usize);
}

#[test]
fn senders_without_number_cost_bounded_memory() {
    let mut harness = Harness::new(1);
    for sender in 1..10_000 {
        lose(&mut harness, sender, 0..1);
        assert!(harness.queue.flows.as_ref().unwrap().remembered() <= super::flows::FLOWS);
    }
    // Whoever lost a frame last still waits.
    assert!(matches!(harness.push(video(Class::Delta, 9_999, 0)), Pushed::Dropped(_)));
}

#[test]
fn senders_without_number_that_have_streams_without_number_cost_bounded_memory() {
    const SENDERS: u64 = 1_100;
    let mut harness = Harness::new(1);
    for sender in 1..=SENDERS {
        lose(&mut harness, sender, 0..FLOWS_PER_SENDER + 1);
        assert!(harness.queue.flows.as_ref().unwrap().senders() <= super::flows::TURNED_SENDERS);
    }
    assert!(matches!(harness.push(video(Class::Delta, SENDERS, 0)), Pushed::Dropped(_)));
}

#[test]
fn a_sender_turns_around_with_frames_queued_on_both_sides_of_a_gap() {
    let mut harness = Harness::new(1);
    lose(&mut harness, 7, 0..FLOWS_PER_SENDER - 1);
    harness.limits.packets = 10;
    // Sound streams with a frame queued: one that will lose its next frame as the last that fits the memory, one as the
    // first that does not, one that loses none.
    let (last, first_too_many, sound) = (1_000, 1_001, 1_002);
    for flow in [last, first_too_many, sound] {
        assert!(!matches!(harness.push(video(Class::Delta, 7, flow)), Pushed::Dropped(_)));
    }
    // A delta larger than the queue is refused: a gap behind what is queued.
    harness.limits.bytes = 160;
    for flow in [last, first_too_many] {
        let mut buffer = PacketBuffer::new();
        buffer.extend(&[0; 161]);
        let large = buffer.seal(Tag { sender: SessionId(7), class: Class::Delta, flow }, None);
        assert_eq!(harness.push(large), Pushed::Dropped(DropReason::QueueBytes));
    }
    for (flow, goes_on) in [(last, false), (first_too_many, false), (sound, true), (5, false), (2_000, false)] {
        let pushed = harness.push(video(Class::Delta, 7, flow));
        assert_eq!(!matches!(pushed, Pushed::Dropped(_)), goes_on, "stream {flow}: {pushed:?}");
    }
    // A key frame behind the gap stands behind what was queued before it: when that goes, the stream goes on all the same.
    harness.limits = limits(5);
    assert_eq!(harness.push(video(Class::KeyFrame, 7, first_too_many)), Pushed::Queued);
    harness.limits.packets = 3;
    assert_eq!(harness.push(packet(Tag { sender: SessionId(1), class: Class::Control, flow: 0 })), Pushed::Queued);
    harness.limits.packets = 10;
    assert_eq!(harness.push(video(Class::Delta, 7, first_too_many)), Pushed::Queued);
    assert_eq!(harness.drain(), 3, "the key frame, control, and the delta behind the key frame");
}
