//! The node's clock: the only place where time is read for `relay`, which takes it as an argument.

use tokio::time::Instant;

use roomcast_relay::Time;

/// Monotonic time since the node's start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts at zero.
    #[must_use]
    pub fn start() -> Self {
        // Tokio's instant, so that tests on paused time move this clock as well.
        Self { start: Instant::now() }
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> Time {
        Time::from_micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The runtime's name for a time, to sleep until.
    #[must_use]
    pub fn instant(&self, time: Time) -> Instant {
        self.start + std::time::Duration::from_micros(time.as_micros())
    }
}
