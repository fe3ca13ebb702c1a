//! Delays in buckets whose width grows with the value: quantiles to within 1.6 %, in 16 KiB however many are counted. Pure.

/// Buckets per power of two: 64 make each at most 1/64 of its value wide.
const STEPS: u64 = 64;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Values from here on share the last bucket: 2^36 µs are 19 hours.
const TOP_BITS: u32 = 36;
const BUCKETS: usize = ((TOP_BITS - STEP_BITS + 1) as usize) * STEPS as usize;

/// How often each value came, in microseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
    sum: u128,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; BUCKETS].into(), count: 0, sum: 0, max: 0 }
    }
}

/// The bucket of a value.
fn bucket(value: u64) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let shift = (u64::BITS - 1 - value.leading_zeros()) - STEP_BITS;
    let index = u64::from(shift) * STEPS + (value >> shift);
    (index as usize).min(BUCKETS - 1)
}

/// The smallest value of a bucket, and how many values it spans.
fn span(bucket: usize) -> (u64, u64) {
    let bucket = bucket as u64;
    if bucket < STEPS {
        return (bucket, 1);
    }
    let shift = bucket / STEPS - 1;
    ((bucket - shift * STEPS) << shift, 1 << shift)
}

impl Histogram {
    /// Counts one value.
    pub fn add(&mut self, value: u64) {
        self.buckets[bucket(value)] += 1;
        self.count += 1;
        self.sum += u128::from(value);
        self.max = self.max.max(value);
    }

    /// Counts all of another's values.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets.fill(0);
        (self.count, self.sum, self.max) = (0, 0, 0);
    }

    /// How many values were counted.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The largest value, exactly; 0 without values.
    #[must_use]
    pub const fn max(&self) -> u64 {
        self.max
    }

    /// The mean, exactly; 0 without values.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.sum as f64 / self.count.max(1) as f64
    }

    /// The value that `part` (0 to 1) of all values do not exceed, as the top of its bucket but never over the largest
    /// value; 0 without values.
    #[must_use]
    pub fn quantile(&self, part: f64) -> u64 {
        let rank = ((self.count as f64 * part).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                let (low, width) = span(index);
                return (low + width - 1).min(self.max);
            }
        }
        self.max
    }

    /// The buckets that hold something: smallest value, width, count.
    pub fn filled(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        self.buckets.iter().enumerate().filter(|(_, count)| **count > 0).map(|(index, count)| {
            let (low, width) = span(index);
            (low, width, *count)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_of_known_values() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.5), histogram.max(), histogram.mean()), (0, 0, 0.0));
        (1..=1000).for_each(|value| histogram.add(value * 10));
        assert_eq!((histogram.count(), histogram.max()), (1000, 10_000));
        assert!((histogram.mean() - 5_005.0).abs() < 1e-9);
        for (part, exact) in [(0.5, 5_000.0), (0.99, 9_900.0), (0.999, 9_990.0), (0.001, 10.0)] {
            let got = histogram.quantile(part) as f64;
            assert!(got >= exact && got <= exact * (1.0 + 1.0 / 64.0), "{part}: {got}");
        }
        assert_eq!(histogram.quantile(1.0), 10_000);
        let mut other = Histogram::default();
        other.add(50_000);
        other.merge(&histogram);
        assert_eq!((other.count(), other.max()), (1001, 50_000));
        other.clear();
        assert_eq!((other.count(), other.quantile(0.9), other.filled().count()), (0, 0, 0));
    }

    #[test]
    fn what_is_too_large_is_kept_in_the_last_bucket() {
        let mut histogram = Histogram::default();
        histogram.add(u64::MAX);
        assert_eq!(histogram.quantile(0.5), span(BUCKETS - 1).0 + span(BUCKETS - 1).1 - 1);
        assert_eq!(histogram.max(), u64::MAX);
    }

    proptest! {
        #[test]
        fn every_value_lies_in_its_bucket(value in 0_u64..1 << TOP_BITS) {
            let (low, width) = span(bucket(value));
            prop_assert!(low <= value && value < low + width);
            prop_assert!(width == 1 || width * STEPS <= low);
        }

        #[test]
        fn a_quantile_is_at_most_a_64th_over_the_exact_one(mut values in proptest::collection::vec(0_u64..10_000_000, 1..200), part in 0.01_f64..1.0) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.add(*value));
            values.sort_unstable();
            let exact = values[((values.len() as f64 * part).ceil() as usize).max(1) - 1];
            let got = histogram.quantile(part);
            prop_assert!(got >= exact && got <= exact + exact / 64, "{} for {}", got, exact);
        }
    }
}
