//! The verdict on one incoming packet: size, rate, shape, identity, and what is appended before it goes on. What lives here: that
//! decision for one connection. What does not: reading, sending, counting.

use roomcast_protocol::{CloseCode, Dialect, SessionId, Tag, UserId, peek};

use crate::{DropReason, Time};

/// What one connection may send. Live settings, so each call is told them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IngressLimits {
    /// Packets in a second, and at once; 0: no limit.
    pub packets_per_second: u64,
    /// Bytes in a second, and at once (but always one largest packet at once); 0: no limit.
    pub bytes_per_second: u64,
    /// The largest packet, in bytes. A larger one closes the connection.
    pub max_packet_bytes: usize,
}

/// What becomes of an incoming packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the rest of the room.
    Relay {
        /// What the media path must know of it.
        tag: Tag,
        /// Appended as `PacketWrapper.session_id`, whatever the client wrote there.
        stamp: Option<SessionId>,
    },
    /// It was for the server and goes no further. Not a drop.
    Consume,
    /// It goes nowhere, counted by the reason. The connection stays.
    Drop(DropReason),
    /// The connection is closed with this code and reason.
    Close(CloseCode, &'static str),
}

/// Judges the packets of one connection.
#[derive(Clone, Debug)]
pub struct Ingress {
    dialect: Dialect,
    user: UserId,
    session: SessionId,
    packets: Bucket,
    bytes: Bucket,
}

impl Ingress {
    /// For a connection that starts with its whole burst.
    #[must_use]
    pub fn new(dialect: Dialect, user: UserId, session: SessionId) -> Self {
        Self { dialect, user, session, packets: Bucket::default(), bytes: Bucket::default() }
    }

    /// Judges one packet that has just been read. The rates are looked at first, so that a flood costs next to nothing;
    /// every packet counts towards them, also one that is then dropped for another reason.
    pub fn judge(&mut self, bytes: &[u8], now: Time, limits: &IngressLimits) -> Verdict {
        if bytes.len() > limits.max_packet_bytes {
            return Verdict::Close(CloseCode::TooLarge, "the packet is too large");
        }
        if !self.packets.take(1, limits.packets_per_second, limits.packets_per_second, now) {
            return Verdict::Drop(DropReason::RatePackets);
        }
        // A limit below the largest packet must slow that packet down, not shut it out for good.
        let burst = limits.bytes_per_second.max(limits.max_packet_bytes as u64);
        if !self.bytes.take(bytes.len() as u64, limits.bytes_per_second, burst, now) {
            return Verdict::Drop(DropReason::RateBytes);
        }
        let Ok(header) = peek::peek(self.dialect, bytes) else {
            return Verdict::Drop(DropReason::Malformed);
        };
        if header.user != self.user.as_str().as_bytes() {
            return Verdict::Drop(DropReason::Identity);
        }
        let stamp = match self.dialect {
            Dialect::Seed => None,
            Dialect::Sessions => Some(self.session),
        };
        Verdict::Relay { tag: header.tag(self.session, bytes.len()), stamp }
    }
}

/// A token bucket. The rate and the burst are told at each call, since they may change.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// What was taken and has not flowed back, in millionths, so that a microsecond's flow is a whole number.
    taken: u64,
    /// When `taken` was last reckoned.
    at: Time,
}

impl Bucket {
    const UNIT: u64 = 1_000_000;

    /// Takes `amount`, or nothing when there is less. `rate` flows back in a second; no more than `burst` is ever taken.
    fn take(&mut self, amount: u64, rate: u64, burst: u64, now: Time) -> bool {
        if rate == 0 {
            return true;
        }
        let elapsed = now.since(self.at).as_micros() as u64;
        self.at = self.at.max(now);
        // A burst that was lowered meanwhile is not paid off at the new rate: the most that is waited for is one burst.
        self.taken = self.taken.min(burst.saturating_mul(Self::UNIT)).saturating_sub(elapsed.saturating_mul(rate));
        let then_taken = self.taken.saturating_add(amount.saturating_mul(Self::UNIT));
        let fits = then_taken <= burst.saturating_mul(Self::UNIT);
        if fits {
            self.taken = then_taken;
        }
        fits
    }
}

#[cfg(test)]
#[path = "ingress_tests.rs"]
mod tests;
