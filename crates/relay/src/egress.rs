//! The egress queue of one receiver: what waits for its writer, and what goes when there is too much. What lives here: that
//! decision. What does not: locks, wake-ups, writing (the node's), the shared budget itself (`budget.rs`).
//!
//! Order is arrival order, over all senders. What goes, in this order of precedence:
//!
//! - **Late.** Video and opaque media that waited longer than `max_delay`; audio after [`AUDIO_PATIENCE`] times that. Control never.
//! - **Congested.** What would make audio late. Video and opaque media in front of audio that has waited for five sixteenths of
//!   `max_delay`; and, where the receiver's writer is held up, a newcomer of theirs behind more than the link takes in eight or five sixteenths
//!   of `max_delay` (`pace.rs`). A key frame first has deltas and opaque media make way for it.
//! - **No room** in packets, bytes or the node's budget: the oldest of the lowest [`Class`] queued goes, until the newcomer fits.
//!   Where only higher classes are queued, the newcomer goes; where it could not fit even if everything of its own class and
//!   below went, it goes alone, so that nothing is lost for nothing.
//! - **After a gap.** Where a delta or key frame of a flow goes, so do the deltas behind it, queued or still to come, until
//!   that flow's next key frame. Of opaque media only the packet itself goes: there is no telling what depends on it.
//!
//! A receiver whose writer is held up is handed little at a time, since what was handed out cannot be dropped any more.
//!
//! Each push, drop and drained packet costs amortised constant time. While nothing is dropped, no flow is looked up: the index
//! of flows is built at the first drop of video, and forgotten when the queue is empty and no flow waits for a key frame.

mod flows;
mod pace;
mod slots;

#[cfg(test)]
mod tests;

use std::time::Duration;

use roomcast_protocol::{Class, Packet, Tag};

use self::flows::Flows;
use self::pace::Pace;
use self::slots::{List, Order, Slots};
use crate::budget::Share;
use crate::{Budget, DropReason, Time};

/// Audio may wait this many times as long as video: a gap in speech is worse than a late word.
pub const AUDIO_PATIENCE: u32 = 2;

/// Audio that has waited for so many sixteenths of `max_delay`, 156 ms of 500, is worth more than any picture in front of it.
pub const AUDIO_IMPATIENCE: u32 = 5;

/// A picture is taken in where all up to it is at the receiver within so many sixteenths of `max_delay`: 219 ms of 500. Less, and a
/// key frame of usual size would not fit a link that could carry it; more, and audio is late behind one.
pub const LINK_SHARE: u32 = 7;

/// The same for media that nobody can read and that are not much larger than what else waits of them. Such are never known to be
/// useless, so they fill a thin link for good, and audio always waits behind them.
pub const OPAQUE_SHARE: u32 = 5;

/// A writer that is held up is handed what its link takes in this part of `max_delay`.
pub const BATCH_SHARE: u32 = 10;

/// What a queued packet is charged beyond its payload: its slot, its header and the allocation's own cost, rounded up.
pub const PACKET_OVERHEAD: usize = 128;

/// The bounds of one queue. They are live settings, so each call is told them; a queue over a bound that was
/// lowered is cut at the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EgressLimits {
    /// Most packets queued.
    pub packets: usize,
    /// Most payload bytes queued.
    pub bytes: usize,
    /// The longest that video waits.
    pub max_delay: Duration,
}

/// The most that one call to [`EgressQueue::drain`] hands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Packets.
    pub packets: usize,
    /// Payload bytes; a first packet larger than this is handed out alone.
    pub bytes: usize,
}

/// What one call to [`EgressQueue::drain`] handed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Packets.
    pub packets: usize,
    /// Payload bytes.
    pub bytes: usize,
    /// How long the oldest of them had waited.
    pub longest_wait: Duration,
}

/// What became of a pushed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits in a queue that was empty before: wake the writer.
    First,
    /// It waits behind others: the writer has been woken already.
    Queued,
    /// It was dropped; `drops` has been told.
    Dropped(DropReason),
}

/// What an egress queue can hold: a packet, or one with what its writer needs besides.
pub trait Queued {
    /// What the queue decides by.
    fn tag(&self) -> &Tag;

    /// Payload bytes.
    fn length(&self) -> usize;
}

impl Queued for Packet {
    fn tag(&self) -> &Tag {
        Packet::tag(self)
    }

    fn length(&self) -> usize {
        self.payload().len()
    }
}

/// What a link carries for each packet besides its payload, roughly: headers. Without it, the small packets of audio would make a
/// link seem slower than its video finds it.
const WIRE_OVERHEAD: usize = 32;

/// The most payload bytes that one queue holds, whatever its limits: what it counts with.
const MOST_BYTES: usize = u32::MAX as usize;

#[derive(Clone, Copy, Debug)]
struct Rank {
    list: List,
    packets: u32,
    bytes: u32,
}

/// The egress queue of one receiver.
///
/// Every packet that was pushed is exactly once handed out by [`Self::drain`], told to `drops` with its reason, or still queued.
/// After every call the queue is within the limits that the call was given.
#[derive(Debug)]
pub struct EgressQueue<P = Packet> {
    slots: Slots<P>,
    arrival: List,
    ranks: [Rank; Class::ALL.len()],
    packets: u32,
    bytes: u32,
    share: Share,
    pace: Pace,
    /// Only from the first drop of video until the queue is empty and no flow waits.
    flows: Option<Box<Flows>>,
    saturated_since: Option<Time>,
    closed: bool,
}

impl<P: Queued> EgressQueue<P> {
    /// An empty queue, which takes what it holds from this budget and gives it back, at the latest when dropped. It
    /// allocates on the first push.
    #[must_use]
    pub fn new(budget: &Budget) -> Self {
        Self {
            slots: Slots::new(),
            arrival: List::EMPTY,
            ranks: [Rank { list: List::EMPTY, packets: 0, bytes: 0 }; Class::ALL.len()],
            packets: 0,
            bytes: 0,
            share: budget.share(),
            pace: Pace::default(),
            flows: None,
            saturated_since: None,
            closed: false,
        }
    }

    /// Queues a packet, or drops it, or drops others for it. `drops` is told of each dropped packet and why.
    pub fn push(
        &mut self,
        packet: P,
        now: Time,
        limits: &EgressLimits,
        drops: &mut impl FnMut(&P, DropReason),
    ) -> Pushed {
        if self.closed {
            drops(&packet, DropReason::Closed);
            return Pushed::Dropped(DropReason::Closed);
        }
        let was_empty = self.is_empty();
        self.expire(now, limits, drops);
        self.cut(limits, drops);
        let pushed = match self.make_room(&packet, now, limits, drops) {
            Ok(()) => {
                self.append(packet, now);
                if was_empty { Pushed::First } else { Pushed::Queued }
            }
            Err(reason) => {
                if reason != DropReason::WaitingForKeyFrame && is_video(packet.tag()) {
                    self.index_flows().set_waiting(packet.tag(), true);
                }
                drops(&packet, reason);
                Pushed::Dropped(reason)
            }
        };
        self.settle();
        pushed
    }

    /// Moves packets to `out` in arrival order, after dropping what is late. Appends nothing when the queue is empty.
    pub fn drain(
        &mut self,
        now: Time,
        limits: &EgressLimits,
        batch: Batch,
        out: &mut Vec<P>,
        drops: &mut impl FnMut(&P, DropReason),
    ) -> Drained {
        let Some(oldest) = self.oldest() else {
            self.pace.came_back(now, Duration::ZERO, limits.max_delay);
            self.pace.idle();
            self.saturated_since = None;
            return Drained::default();
        };
        self.pace.came_back(now, now.since(oldest), limits.max_delay);
        self.expire(now, limits, drops);
        self.cut(limits, drops);
        let bytes = self.pace.takes(limits.max_delay / BATCH_SHARE).map_or(batch.bytes, |takes| takes.min(batch.bytes));
        let mut drained = Drained::default();
        while let Some(first) = self.arrival.first() {
            let length = self.slots.packet(first).length();
            let full = drained.packets >= batch.packets || drained.bytes.saturating_add(length) > bytes;
            if full && (drained.packets > 0 || batch.packets == 0) {
                break;
            }
            drained.longest_wait = drained.longest_wait.max(now.since(self.slots.arrived(first)));
            drained.packets += 1;
            drained.bytes += length;
            out.push(self.take_out(first));
        }
        if drained.packets > 0 {
            self.pace.handed(now, drained.bytes + drained.packets * WIRE_OVERHEAD);
        }
        if self.len() <= limits.packets / 2 && self.bytes() <= limits.bytes / 2 {
            self.saturated_since = None;
        }
        self.settle();
        drained
    }

    /// The writer has written all that it was handed and could take more, now. A caller that then waits by its own choice
    /// before it drains again should say so, or that wait may be taken for the link's. [`Self::drain`] says it otherwise.
    pub fn ready(&mut self, now: Time, limits: &EgressLimits) {
        self.pace.ready(now, limits.max_delay);
    }

    /// How many payload bytes the receiver's link takes in a second, as far as its writer was held up lately; `None` while it
    /// keeps up.
    #[must_use]
    pub fn bytes_per_second(&self) -> Option<usize> {
        self.pace.takes(Duration::from_secs(1))
    }

    /// Drops everything that waits, and everything pushed from now on, as [`DropReason::Closed`]. For a connection that ends:
    /// senders may still hold this queue.
    pub fn close(&mut self, drops: &mut impl FnMut(&P, DropReason)) {
        self.closed = true;
        while let Some(first) = self.arrival.first() {
            let packet = self.take_out(first);
            drops(&packet, DropReason::Closed);
        }
        self.flows = None;
        self.saturated_since = None;
        self.settle();
    }

    /// Since when control alone has filled the queue: control packets, or others because of them, find no room. Ends when a
    /// drain leaves it at most half full. A receiver that stays so for long is not coming back.
    #[must_use]
    pub fn saturated_since(&self) -> Option<Time> {
        self.saturated_since
    }

    /// Packets queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets as usize
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// Payload bytes queued.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Bytes that the node-wide budget counts for what is queued: payloads and [`PACKET_OVERHEAD`] for each.
    #[must_use]
    pub fn charge(&self) -> usize {
        charge(self.len(), self.bytes())
    }

    /// When the packet that [`Self::drain`] hands out first arrived.
    #[must_use]
    pub fn oldest(&self) -> Option<Time> {
        self.arrival.first().map(|first| self.slots.arrived(first))
    }

    /// Packets that memory is held for, queued or not. At most 16 when the queue is empty.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// Makes the newcomer fit, by dropping what is worth less, or says why it does not.
    fn make_room(
        &mut self,
        newcomer: &P,
        now: Time,
        limits: &EgressLimits,
        drops: &mut impl FnMut(&P, DropReason),
    ) -> Result<(), DropReason> {
        let (tag, length) = (newcomer.tag(), newcomer.length());
        if tag.class < Class::Audio && self.pace.tells() && !self.make_way(tag, length, now, limits, drops) {
            let waits = tag.class == Class::Delta && self.flows.as_ref().is_some_and(|flows| flows.waits(tag));
            return Err(if waits { DropReason::WaitingForKeyFrame } else { DropReason::Congested });
        }
        let most_bytes = limits.bytes.min(MOST_BYTES);
        loop {
            // Again in each round: what was just dropped may have been what the newcomer depends on.
            if tag.class == Class::Delta && self.flows.as_ref().is_some_and(|flows| flows.waits(tag)) {
                return Err(DropReason::WaitingForKeyFrame);
            }
            let reason = if self.len() >= limits.packets {
                DropReason::QueuePackets
            } else if self.bytes().saturating_add(length) > most_bytes {
                DropReason::QueueBytes
            } else if self.share.cover(charge(self.len() + 1, self.bytes() + length)) {
                return Ok(());
            } else {
                DropReason::Budget
            };
            let lowest = self.lowest();
            if reason != DropReason::Budget
                && lowest == Some(Class::Control)
                && (self.len() > limits.packets / 2 || self.bytes() > limits.bytes / 2)
            {
                self.saturated_since.get_or_insert(now);
            }
            match lowest {
                Some(lowest) if lowest <= tag.class && self.could_fit(tag.class, length, limits) => {
                    self.drop_oldest(lowest, reason, drops);
                }
                _ => return Err(reason),
            }
        }
    }

    /// Whether a packet would be within the limits if everything of its class and below were gone.
    fn could_fit(&self, class: Class, length: usize, limits: &EgressLimits) -> bool {
        let above = &self.ranks[class as usize + 1..];
        let packets: u32 = above.iter().map(|rank| rank.packets).sum();
        let bytes: u32 = above.iter().map(|rank| rank.bytes).sum();
        (packets as usize) < limits.packets && (bytes as usize).saturating_add(length) <= limits.bytes.min(MOST_BYTES)
    }

    /// Bytes that the link will have carried when what is queued is at the receiver.
    fn on_the_wire(&self) -> usize {
        self.bytes() + self.len() * WIRE_OVERHEAD
    }

    /// Whether the link takes a picture that comes now, and what waits in front of it, soon enough for the audio behind it. For
    /// a key frame, deltas and opaque media are dropped where it is they that are too much.
    fn make_way(
        &mut self,
        tag: &Tag,
        length: usize,
        now: Time,
        limits: &EgressLimits,
        drops: &mut impl FnMut(&P, DropReason),
    ) -> bool {
        let waited = self.oldest().map_or(Duration::ZERO, |oldest| now.since(oldest));
        let [deltas, opaque, ..] = &self.ranks;
        // Going by size: one that is far larger than those that wait is a key frame, most likely.
        let is_large = length / 2 > (opaque.bytes / opaque.packets.max(1)) as usize;
        let share = if tag.class == Class::Opaque && !is_large { OPAQUE_SHARE } else { LINK_SHARE };
        let time = limits.max_delay / 16 * share;
        let Some((takes, below)) = self.pace.outlook(now, waited, limits.max_delay, time) else { return true };
        let coming = below.saturating_add(length + WIRE_OVERHEAD);
        if self.on_the_wire().saturating_add(coming) <= takes {
            return true;
        }
        let gives_way = match tag.class {
            Class::KeyFrame => deltas.bytes + opaque.bytes,
            Class::Opaque if is_large => deltas.bytes + opaque.bytes,
            Class::Opaque => deltas.bytes,
            _ => 0,
        };
        if (self.on_the_wire() - gives_way as usize).saturating_add(coming) > takes {
            return false;
        }
        while self.on_the_wire().saturating_add(coming) > takes {
            let Some(lowest) = self.lowest() else { break };
            self.drop_oldest(lowest, DropReason::Congested, drops);
        }
        true
    }

    /// Drops what has waited too long, the lowest class first.
    fn expire(&mut self, now: Time, limits: &EgressLimits, drops: &mut impl FnMut(&P, DropReason)) {
        // What came first has waited longest: mostly nothing has waited for long, and that is all there is to see.
        let Some(oldest) = self.oldest() else { return };
        if now.since(oldest) <= limits.max_delay / 16 * AUDIO_IMPATIENCE {
            return;
        }
        for class in [Class::Delta, Class::Opaque, Class::KeyFrame, Class::Audio] {
            let patience = match class {
                Class::Audio => limits.max_delay.saturating_mul(AUDIO_PATIENCE),
                _ => limits.max_delay,
            };
            while let Some(first) = self.ranks[class as usize].list.first()
                && now.since(self.slots.arrived(first)) > patience
            {
                self.drop_oldest(class, DropReason::Late, drops);
            }
        }
        let Some(audio) = self.ranks[Class::Audio as usize].list.first() else { return };
        let audio = self.slots.arrived(audio);
        if now.since(audio) > limits.max_delay / 16 * AUDIO_IMPATIENCE {
            for class in [Class::Delta, Class::Opaque, Class::KeyFrame] {
                while let Some(first) = self.ranks[class as usize].list.first()
                    && self.slots.arrived(first) <= audio
                {
                    self.drop_oldest(class, DropReason::Congested, drops);
                }
            }
        }
    }

    /// Brings the queue within limits that were lowered.
    fn cut(&mut self, limits: &EgressLimits, drops: &mut impl FnMut(&P, DropReason)) {
        while let Some(lowest) = self.lowest() {
            let reason = if self.len() > limits.packets {
                DropReason::QueuePackets
            } else if self.bytes() > limits.bytes {
                DropReason::QueueBytes
            } else if self.share.is_over() {
                DropReason::Budget
            } else {
                break;
            };
            self.drop_oldest(lowest, reason, drops);
            self.share.settle(self.charge());
        }
    }

    /// The lowest class of which something is queued.
    fn lowest(&self) -> Option<Class> {
        Class::ALL.into_iter().find(|class| self.ranks[*class as usize].packets > 0)
    }

    /// Drops the oldest of a class, and the deltas that depend on it.
    fn drop_oldest(&mut self, class: Class, reason: DropReason, drops: &mut impl FnMut(&P, DropReason)) {
        let Some(oldest) = self.ranks[class as usize].list.first() else { return };
        let tag = *self.slots.packet(oldest).tag();
        if !is_video(&tag) {
            let packet = self.take_out(oldest);
            drops(&packet, reason);
            return;
        }
        self.index_flows();
        let (mut behind, mut why) = (Some(oldest), reason);
        while let Some(index) = behind {
            if why == DropReason::WaitingForKeyFrame && self.slots.packet(index).tag().class == Class::KeyFrame {
                return;
            }
            behind = self.slots.next(Order::Flow, index);
            let packet = self.take_out(index);
            drops(&packet, why);
            why = DropReason::WaitingForKeyFrame;
        }
        self.index_flows().set_waiting(&tag, true);
    }

    fn append(&mut self, packet: P, now: Time) {
        let tag = *packet.tag();
        // At most `MOST_BYTES`, as `make_room` has seen to.
        let length = packet.length() as u32;
        let index = self.slots.insert(packet, now);
        self.slots.push_back(Order::Arrival, &mut self.arrival, index);
        let rank = &mut self.ranks[tag.class as usize];
        self.slots.push_back(Order::Class, &mut rank.list, index);
        rank.packets += 1;
        rank.bytes += length;
        self.packets += 1;
        self.bytes += length;
        if let Some(flows) = self.flows.as_mut().filter(|_| is_video(&tag)) {
            flows.with_queued(&tag, |list| self.slots.push_back(Order::Flow, list, index));
            if tag.class == Class::KeyFrame {
                flows.set_waiting(&tag, false);
            }
        }
    }

    fn take_out(&mut self, index: u32) -> P {
        let tag = *self.slots.packet(index).tag();
        self.slots.unlink(Order::Arrival, &mut self.arrival, index);
        let rank = &mut self.ranks[tag.class as usize];
        self.slots.unlink(Order::Class, &mut rank.list, index);
        if let Some(flows) = self.flows.as_mut().filter(|_| is_video(&tag)) {
            flows.with_queued(&tag, |list| self.slots.unlink(Order::Flow, list, index));
        }
        let packet = self.slots.remove(index);
        let length = packet.length() as u32;
        rank.packets -= 1;
        rank.bytes -= length;
        self.packets -= 1;
        self.bytes -= length;
        packet
    }

    /// The index of flows, made from what is queued where there is none: a cost that the pushes since the queue was last
    /// empty have paid for.
    fn index_flows(&mut self) -> &mut Flows {
        self.flows.get_or_insert_with(|| {
            let mut flows = Box::<Flows>::default();
            let mut next = self.arrival.first();
            while let Some(index) = next {
                next = self.slots.next(Order::Arrival, index);
                let tag = *self.slots.packet(index).tag();
                if is_video(&tag) {
                    flows.with_queued(&tag, |list| self.slots.push_back(Order::Flow, list, index));
                }
            }
            flows
        })
    }

    /// Gives back what is no longer needed: budget, and when empty, memory.
    fn settle(&mut self) {
        self.share.settle(self.charge());
        if self.is_empty() {
            self.slots.shrink_empty();
            if self.flows.as_ref().is_some_and(|flows| flows.is_sound()) {
                self.flows = None;
            }
        }
    }
}

fn charge(packets: usize, bytes: usize) -> usize {
    bytes + packets * PACKET_OVERHEAD
}

/// Frames that others depend on or that depend on others.
fn is_video(tag: &Tag) -> bool {
    matches!(tag.class, Class::Delta | Class::KeyFrame)
}
