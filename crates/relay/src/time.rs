//! Time as an argument: microseconds since a start that only the caller knows. No clock lives here.

use std::time::Duration;

/// A point in time: microseconds since an arbitrary start, the same start for all values that meet. Arithmetic saturates,
/// so a clock that steps back reads as no time passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The arbitrary start.
    pub const ZERO: Self = Self(0);

    /// The time this many microseconds after the start.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// The time this many milliseconds after the start.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000))
    }

    /// The time this long after the start; longer than 584,000 years is the last time there is.
    #[must_use]
    pub const fn from_start(elapsed: Duration) -> Self {
        Self(micros(elapsed))
    }

    /// Microseconds since the start.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The time `wait` later, at most the last there is.
    #[must_use]
    pub const fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(micros(wait)))
    }
}

const fn micros(duration: Duration) -> u64 {
    let micros = duration.as_micros();
    if micros > u64::MAX as u128 { u64::MAX } else { micros as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        let (early, late) = (Time::from_micros(5), Time::from_millis(1));
        assert_eq!(late.since(early), Duration::from_micros(995));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(late.after(Duration::MAX), Time::from_micros(u64::MAX));
        assert_eq!(Time::from_start(Duration::MAX).after(Duration::from_secs(1)).as_micros(), u64::MAX);
    }
}
