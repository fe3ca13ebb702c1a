//! When a connection was last heard of, for who closes the silent ones: also while a long packet is still on its way.
//!
//! What does not live here: how long silence may last.

use std::fmt::{self, Debug};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

/// One connection's signs of life. Clones watch the same connection.
#[derive(Clone)]
pub struct Pulse(Source);

#[derive(Clone)]
enum Source {
    Marked(Arc<Mark>),
    Sampled(Arc<dyn Sample>),
}

impl Pulse {
    /// When the peer was last heard. Where [`Self::is_sampled`], that is when it was first asked about what it heard, so it
    /// must be asked now and then.
    #[must_use]
    pub fn last(&self) -> Instant {
        match &self.0 {
            Source::Marked(mark) => mark.last(),
            Source::Sampled(sample) => sample.sample(),
        }
    }

    /// Whether nobody notes the time as bytes arrive, only whether some have arrived since it was last asked.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        matches!(self.0, Source::Sampled(_))
    }

    pub(crate) const fn sampled(sample: Arc<dyn Sample>) -> Self {
        Self(Source::Sampled(sample))
    }
}

impl Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse").field("sampled", &self.is_sampled()).finish()
    }
}

/// Knows whether anything was heard since it was last asked.
pub(crate) trait Sample: Send + Sync {
    /// When it was found out that something had been heard.
    fn sample(&self) -> Instant;
}

/// The reader's end of a pulse: notes the time of each arrival.
#[derive(Debug)]
pub(crate) struct Mark {
    start: Instant,
    /// Microseconds from `start` to the last arrival.
    at: AtomicU64,
}

impl Mark {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), at: AtomicU64::new(0) })
    }

    pub(crate) fn pulse(self: &Arc<Self>) -> Pulse {
        Pulse(Source::Marked(Arc::clone(self)))
    }

    /// Something arrived.
    pub(crate) fn beat(&self) {
        let micros = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.at.store(micros, Ordering::Relaxed);
    }

    fn last(&self) -> Instant {
        self.start + std::time::Duration::from_micros(self.at.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_mark_is_as_late_as_the_last_beat() {
        let mark = Mark::new();
        let (pulse, start) = (mark.pulse(), Instant::now());
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(pulse.last(), start);
        mark.beat();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(pulse.last(), start + Duration::from_secs(3));
        assert!(!pulse.is_sampled());
    }
}
