//! The decisions that a packet goes through, in a row and without sockets: the verdict, the framing, the push to each recipient's
//! queue, the drain by its writer.

use std::time::Duration;

use roomcast_protocol::{Dialect, Packet, PacketBuffer, SessionId, UserId};
use roomcast_relay::{Batch, Budget, DropReason, EgressLimits, EgressQueue, Ingress, IngressLimits, Time, Verdict};

use crate::samples::USER;

/// The router's defaults, but without a bound on the rate.
pub const INGRESS: IngressLimits = IngressLimits {
    packets_per_second: 1_000_000_000,
    bytes_per_second: 1_000_000_000_000,
    max_packet_bytes: 4_000_000,
};

/// The router's defaults.
pub const EGRESS: EgressLimits =
    EgressLimits { packets: 1_024, bytes: 8 * 1024 * 1024, max_delay: Duration::from_millis(500) };

/// What a writer takes at once.
pub const BATCH: Batch = Batch { packets: 256, bytes: 256 * 1024 };

/// A budget that is never reached.
const BUDGET: usize = 1 << 30;

/// One sender and the queues of its recipients.
#[derive(Debug)]
pub struct MediaPath {
    ingress: Ingress,
    buffer: PacketBuffer,
    queues: Vec<EgressQueue>,
    limits: EgressLimits,
    out: Vec<Packet>,
    now: Time,
    dropped: u64,
}

impl MediaPath {
    /// For so many recipients, whose queues have these bounds.
    ///
    /// # Panics
    /// Never: the sender's name is a valid one.
    #[must_use]
    pub fn new(dialect: Dialect, recipients: usize, limits: EgressLimits) -> Self {
        let user = UserId::parse(USER).expect("the samples' user has a valid name");
        let budget = Budget::new(BUDGET);
        Self {
            ingress: Ingress::new(dialect, user, SessionId(1)),
            buffer: PacketBuffer::new(),
            queues: (0..recipients).map(|_| EgressQueue::new(&budget)).collect(),
            limits,
            out: Vec::with_capacity(BATCH.packets),
            now: Time::ZERO,
            dropped: 0,
        }
    }

    /// The verdict on a packet as it was read; framed, if it goes on.
    pub fn take_in(&mut self, payload: &[u8]) -> Option<Packet> {
        self.now = self.now.after(Duration::from_micros(10));
        self.buffer.extend(payload);
        match self.ingress.judge(self.buffer.payload(), self.now, &INGRESS) {
            Verdict::Relay { tag, stamp } => Some(self.buffer.seal(tag, stamp)),
            _ => {
                self.buffer.clear();
                None
            }
        }
    }

    /// Pushes a packet to every recipient.
    pub fn fan_out(&mut self, packet: &Packet) {
        let dropped = &mut self.dropped;
        let mut drops = |_: &Packet, _: DropReason| *dropped += 1;
        for queue in &mut self.queues {
            let _ = queue.push(packet.clone(), self.now, &self.limits, &mut drops);
        }
    }

    /// Takes all that waits, as each recipient's writer does; how many copies that were.
    pub fn drain(&mut self) -> u64 {
        let dropped = &mut self.dropped;
        let mut drops = |_: &Packet, _: DropReason| *dropped += 1;
        let mut copies = 0;
        for queue in &mut self.queues {
            while queue.drain(self.now, &self.limits, BATCH, &mut self.out, &mut drops).packets > 0 {
                copies += self.out.len() as u64;
                self.out.clear();
            }
        }
        copies
    }

    /// Takes in so many packets and drains once; copies that were handed out.
    pub fn batch(&mut self, payloads: &[Vec<u8>], packets: usize) -> u64 {
        for payload in payloads.iter().cycle().take(packets) {
            if let Some(packet) = self.take_in(payload) {
                self.fan_out(&packet);
            }
        }
        self.drain()
    }

    /// Copies that found no room.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{Media, packet};

    #[test]
    fn every_packet_reaches_every_recipient_and_what_finds_no_room_is_counted() {
        let payloads = [packet(Dialect::Seed, Media::Delta, 1_200, false)];
        let mut path = MediaPath::new(Dialect::Seed, 4, EGRESS);
        assert_eq!(path.batch(&payloads, 16), 64);
        assert_eq!(path.dropped(), 0);
        let mut narrow = MediaPath::new(Dialect::Seed, 4, EgressLimits { packets: 8, ..EGRESS });
        let copies = narrow.batch(&payloads, 16);
        assert!(narrow.dropped() > 0);
        assert_eq!(copies + narrow.dropped(), 64);
    }
}
