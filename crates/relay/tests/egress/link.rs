//! A link of so many bytes a second in simulated time, with the socket above it: what waits there cannot be dropped any more, and
//! its time counts as the receiver's does. Before it the queue, under observation, and the writer that drains it.

use std::collections::VecDeque;
use std::time::Duration;

use roomcast_protocol::{Class, Packet, SessionId, Tag};
use roomcast_relay::{Batch, Budget, DropReason, EgressLimits, Pushed, Time};

use crate::observer::Observed;

/// As the node has it.
pub(crate) const LIMITS: EgressLimits =
    EgressLimits { packets: 1_024, bytes: 8 << 20, max_delay: Duration::from_millis(500) };
const BATCH: Batch = Batch { packets: 256, bytes: 256 * 1024 };
const COALESCE: Duration = Duration::from_millis(5);
/// What a frame, a segment and an IP packet add to each packet, roughly.
const OVERHEAD: usize = 60;

/// What the receiver's side of it is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) bytes_per_second: usize,
    /// What the socket holds unsent.
    pub(crate) socket: usize,
    /// From the last byte's sending to its arrival.
    pub(crate) latency: Duration,
    /// Whether the writer says when it could take more.
    pub(crate) tells: bool,
}

/// A packet at its receiver.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) number: usize,
    pub(crate) tag: Tag,
    pub(crate) sent: Time,
    pub(crate) delay: Duration,
}

/// A queue, its writer and its link.
pub(crate) struct Receiver {
    queue: Observed,
    link: Link,
    sent: Vec<(Time, Tag)>,
    /// Handed to the writer, not yet in the socket: packets and bytes still to go in.
    writing: VecDeque<(Packet, usize)>,
    /// In the socket: pieces of packets, with what is not sent of each, and whether it is the packet's last.
    socket: VecDeque<(Packet, usize, bool)>,
    unsent: usize,
    blocked: bool,
    coalesce_until: Time,
    /// Fractions of a byte that the link could have sent, in millionths.
    credit: usize,
    pub(crate) arrived: Vec<Arrival>,
    pub(crate) most_queued: (usize, usize),
}

impl Receiver {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            queue: Observed::new(&Budget::new(1 << 30)),
            link,
            sent: Vec::new(),
            writing: VecDeque::new(),
            socket: VecDeque::new(),
            unsent: 0,
            blocked: false,
            coalesce_until: Time::ZERO,
            credit: 0,
            arrived: Vec::new(),
            most_queued: (0, 0),
        }
    }

    pub(crate) fn push(&mut self, tag: Tag, length: usize, now: Time) -> Pushed {
        self.sent.push((now, tag));
        let pushed = self.queue.push(tag, length, now, &LIMITS);
        let queue = self.queue.queue();
        self.most_queued = (self.most_queued.0.max(queue.len()), self.most_queued.1.max(queue.bytes()));
        pushed
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.queue.dropped(reason)
    }

    pub(crate) fn bytes_per_second(&self) -> Option<usize> {
        self.queue.queue().bytes_per_second()
    }

    /// Packets that are on their way.
    pub(crate) fn under_way(&self) -> usize {
        let sending = self.socket.iter().filter(|(_, _, last)| *last).count();
        self.queue.queue().len() + self.writing.len() + sending
    }

    /// Lets the link send for a time that ends now, and the writer write.
    pub(crate) fn pass(&mut self, step: Duration, now: Time) {
        self.credit += self.link.bytes_per_second * step.as_micros() as usize;
        while let Some((packet, left, last)) = self.socket.front_mut() {
            let bytes = (*left).min(self.credit / 1_000_000);
            *left -= bytes;
            self.credit -= bytes * 1_000_000;
            self.unsent -= bytes;
            if *left > 0 {
                break;
            }
            if *last {
                let number = Observed::number(packet) as usize;
                let (at, tag) = self.sent[number];
                self.arrived.push(Arrival { number, tag, sent: at, delay: now.since(at) + self.link.latency });
            }
            self.socket.pop_front();
        }
        if self.socket.is_empty() {
            self.credit = self.credit.min(1_000_000);
        }
        self.write(now);
    }

    fn write(&mut self, now: Time) {
        if self.blocked && self.unsent * 2 > self.link.socket {
            return;
        }
        loop {
            while let Some((packet, left)) = self.writing.front_mut() {
                let room = self.link.socket.saturating_sub(self.unsent);
                let bytes = (*left).min(room);
                if bytes > 0 {
                    *left -= bytes;
                    self.socket.push_back((packet.clone(), bytes, *left == 0));
                    self.unsent += bytes;
                }
                if *left > 0 {
                    self.blocked = true;
                    return;
                }
                self.writing.pop_front();
                self.coalesce_until = now.after(COALESCE);
            }
            self.blocked = false;
            if self.link.tells {
                self.queue.ready(now, &LIMITS);
            }
            let waiting = self.queue.queue().len();
            if waiting > 0 && waiting < 64 && now < self.coalesce_until {
                return;
            }
            let batch = self.queue.drain(now, &LIMITS, BATCH);
            if batch.is_empty() {
                return;
            }
            self.writing.extend(batch.into_iter().map(|packet| {
                let length = packet.payload().len() + OVERHEAD;
                (packet, length)
            }));
        }
    }
}

/// One sender's share of what a call sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sender {
    pub(crate) id: u64,
    pub(crate) audio: usize,
    pub(crate) delta: usize,
    pub(crate) key: usize,
    /// Frames from a key frame to the next.
    pub(crate) group: u64,
    /// When it began, so that senders are not in step.
    pub(crate) phase: u64,
    /// Nobody can tell its video but by size.
    pub(crate) opaque: bool,
}

impl Sender {
    /// What it sends in the millisecond that begins at this one: audio every 20, a frame every 33.
    pub(crate) fn sends(&self, millis: u64) -> Vec<(Tag, usize)> {
        let Some(own) = millis.checked_sub(self.phase) else { return Vec::new() };
        let tag = |class, flow| Tag { sender: SessionId(self.id), class, flow };
        let mut packets = Vec::new();
        if own % 20 == 0 {
            packets.push((tag(Class::Audio, 0), self.audio));
        }
        if own % 33 == 0 {
            let frame = own / 33;
            let key = frame % self.group == 0;
            // Sizes differ by a third, as encoders' do.
            let length = if key { self.key } else { self.delta * (5 + (frame * 7 % 3) as usize) / 6 };
            packets.push(match (self.opaque, key) {
                (true, _) => (tag(Class::Opaque, 0), length),
                (false, true) => (tag(Class::KeyFrame, 1), length),
                (false, false) => (tag(Class::Delta, 1), length),
            });
        }
        packets
    }
}
