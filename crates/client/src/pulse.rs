//! Signs of life: when to send one, and when the server counts as dead.
//!
//! What lives here: decisions over times that are passed in. What does not: a clock, and what a ping is.

use std::time::{Duration, Instant};

/// How the client notices that a server is gone without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// How often to ping. Must be shorter than the server's idle timeout.
    pub every: Duration,
    /// A WebSocket server that sends nothing for so long, not even a pong, is dead. Longer than `every`. (WebTransport
    /// notices by QUIC's own idle timeout, since its `ping` has no answer.) Also the longest that one write may take, on
    /// either.
    pub dead_after: Duration,
}

impl Default for KeepAlive {
    /// A ping every 5 s, dead after 15 s.
    fn default() -> Self {
        Self { every: Duration::from_secs(5), dead_after: Duration::from_secs(15) }
    }
}

/// One connection's signs of life.
#[derive(Debug)]
pub(crate) struct Pulse {
    settings: KeepAlive,
    /// Whether the server answers pings, so that silence means something.
    answered: bool,
    heard: Instant,
    pinged: Instant,
    /// Not listening, since the application does not take what came before: the silence is this side's.
    deaf: bool,
}

impl Pulse {
    /// A connection made just now.
    pub(crate) fn new(settings: KeepAlive, answered: bool, now: Instant) -> Self {
        Self { settings, answered, heard: now, pinged: now, deaf: false }
    }

    /// Something came.
    pub(crate) fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// From now on nothing is read, or it is again.
    pub(crate) fn set_deaf(&mut self, deaf: bool, now: Instant) {
        self.deaf = deaf;
        self.heard = now;
    }

    /// A ping was sent.
    pub(crate) fn pinged(&mut self, now: Instant) {
        self.pinged = now;
    }

    /// When to send the next ping.
    pub(crate) fn next_ping(&self) -> Instant {
        self.pinged + self.settings.every
    }

    /// When the server counts as dead if nothing comes; `None` while silence means nothing.
    pub(crate) fn dead_at(&self) -> Option<Instant> {
        (self.answered && !self.deaf).then(|| self.heard + self.settings.dead_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn it_pings_at_intervals_and_gives_up_after_silence() {
        let start = Instant::now();
        let mut pulse = Pulse::new(KeepAlive::default(), true, start);
        assert_eq!(pulse.next_ping(), start + seconds(5));
        pulse.pinged(start + seconds(6));
        assert_eq!(pulse.next_ping(), start + seconds(11));
        assert_eq!(pulse.dead_at(), Some(start + seconds(15)));
        pulse.heard(start + seconds(14));
        assert_eq!(pulse.dead_at(), Some(start + seconds(29)));
    }

    #[test]
    fn silence_means_nothing_while_this_side_does_not_listen_or_is_not_answered() {
        let start = Instant::now();
        let mut pulse = Pulse::new(KeepAlive::default(), true, start);
        pulse.set_deaf(true, start);
        assert_eq!(pulse.dead_at(), None);
        pulse.set_deaf(false, start + seconds(60));
        assert_eq!(pulse.dead_at(), Some(start + seconds(75)));
        assert_eq!(Pulse::new(KeepAlive::default(), false, start).dead_at(), None);
    }
}
