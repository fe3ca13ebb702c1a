//! What a reader may take while a packet is still arriving. The connection's owner says it, and is asked each time, so
//! that it may change under way.
//!
//! What does not live here: who counts the memory, and what the bounds are set to: the node decides.

use std::fmt::Debug;
use std::time::Duration;

use roomcast_protocol::MAX_PACKET_BYTES;

/// What a reader holds of packets under way before it must ask for memory. Most packets are smaller, and so ask for none.
pub const FREE: usize = 16 * 1024;

/// A reader's owner, as it is asked while packets arrive. Called on the media path: it must be quick.
pub trait Intake: Debug + Send + Sync + 'static {
    /// The bounds that hold now.
    fn bounds(&self) -> Bounds;

    /// A reader's share of the memory for packets under way, of nothing yet. Dropping it gives all of it back.
    fn share(&self) -> Box<dyn Share>;
}

/// The bounds of one packet under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The largest packet, in bytes.
    pub max_packet_bytes: usize,
    /// How long a packet may take from its first byte to its last, however small it is.
    pub patience: Duration,
    /// What a packet must bring in a second once its patience is used up, in bytes; at least 1. A slow link stays welcome,
    /// and nobody holds memory for next to nothing.
    pub least_rate: u32,
}

impl Default for Bounds {
    /// The protocol's largest packet; 30 s; 64 kB/s.
    fn default() -> Self {
        Self { max_packet_bytes: MAX_PACKET_BYTES, patience: Duration::from_secs(30), least_rate: 64_000 }
    }
}

impl Bounds {
    /// How long a packet of which so many bytes are here may have taken so far.
    #[must_use]
    pub fn time_for(&self, bytes: usize) -> Duration {
        let micros = (bytes as u64).saturating_mul(1_000_000) / u64::from(self.least_rate.max(1));
        self.patience.saturating_add(Duration::from_micros(micros))
    }
}

/// Fixed bounds, and memory without any: for clients, who chose their server, and for tests.
impl Intake for Bounds {
    fn bounds(&self) -> Bounds {
        *self
    }

    fn share(&self) -> Box<dyn Share> {
        struct Boundless;
        impl Share for Boundless {
            fn cover(&mut self, _: usize) -> bool {
                true
            }
        }
        Box::new(Boundless)
    }
}

/// Memory that one reader holds.
pub trait Share: Send {
    /// Makes it cover so many bytes, more or fewer than before. False, and nothing changed, where there is no more.
    fn cover(&mut self, bytes: usize) -> bool;
}

/// One reader's account of what it holds: asks for a share only past [`FREE`], and has none most of the time.
pub(crate) struct Account(Option<Box<dyn Share>>);

impl Account {
    pub(crate) const fn new() -> Self {
        Self(None)
    }

    /// Whether so many bytes may be held; what is not needed any more is given back.
    pub(crate) fn holds(&mut self, bytes: usize, intake: &dyn Intake) -> bool {
        if bytes <= FREE {
            self.0 = None;
            return true;
        }
        self.0.get_or_insert_with(|| intake.share()).cover(bytes - FREE)
    }
}

impl Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Account").field(&self.0.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_large_packet_has_the_time_that_the_least_rate_takes() {
        let bounds = Bounds { patience: Duration::from_secs(10), least_rate: 1_000, ..Bounds::default() };
        assert_eq!(bounds.time_for(0), Duration::from_secs(10));
        assert_eq!(bounds.time_for(5_000), Duration::from_secs(15));
        assert_eq!(Bounds { least_rate: 0, ..bounds }.time_for(1), Duration::from_secs(11), "no division by zero");
        assert!(bounds.time_for(usize::MAX) > Duration::from_secs(1 << 30));
    }

    /// An owner that grants up to 100 bytes and knows how much is out.
    #[derive(Debug, Default)]
    struct Miser(Arc<AtomicUsize>);

    struct Coins(Arc<AtomicUsize>);

    impl Intake for Miser {
        fn bounds(&self) -> Bounds {
            Bounds::default()
        }

        fn share(&self) -> Box<dyn Share> {
            Box::new(Coins(Arc::clone(&self.0)))
        }
    }

    impl Share for Coins {
        fn cover(&mut self, bytes: usize) -> bool {
            let fits = bytes <= 100;
            if fits {
                self.0.store(bytes, Ordering::Relaxed);
            }
            fits
        }
    }

    impl Drop for Coins {
        fn drop(&mut self) {
            self.0.store(0, Ordering::Relaxed);
        }
    }

    #[test]
    fn memory_is_asked_for_only_past_what_is_free_and_given_back() {
        let miser = Miser::default();
        let out = Arc::clone(&miser.0);
        let mut account = Account::new();
        assert!(account.holds(FREE, &miser));
        assert_eq!(out.load(Ordering::Relaxed), 0);
        assert!(account.holds(FREE + 70, &miser));
        assert_eq!(out.load(Ordering::Relaxed), 70);
        assert!(!account.holds(FREE + 101, &miser));
        assert_eq!(out.load(Ordering::Relaxed), 70, "a refusal changes nothing");
        assert!(account.holds(FREE - 1, &miser));
        assert_eq!(out.load(Ordering::Relaxed), 0);
    }
}
