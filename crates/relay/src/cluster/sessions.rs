//! A set of sessions as ranges of their numbers, asked for each packet from other nodes once two dialects meet.

use std::ops::Range;

use roomcast_protocol::SessionId;

/// Sessions have numbers below this.
const END: u64 = 1 << 53;
/// More than any node gives out while it runs: a range that is longer would refuse whom it does not name, and is no range.
const LONGEST: u64 = 1 << 32;

/// Ranges that neither overlap nor touch, in order.
#[derive(Debug, Default)]
pub(super) struct Sessions(Vec<Range<u64>>);

impl Sessions {
    /// What is in any of them; what makes no sense as a range is left out.
    pub(super) fn of(ranges: impl Iterator<Item = Range<u64>>) -> Self {
        let makes_sense =
            |range: &Range<u64>| range.start < range.end && range.end <= END && range.end - range.start <= LONGEST;
        let mut ranges: Vec<Range<u64>> = ranges.filter(makes_sense).collect();
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|next, last| {
            let joins = next.start <= last.end;
            if joins {
                last.end = last.end.max(next.end);
            }
            joins
        });
        Self(ranges)
    }

    pub(super) fn contain(&self, session: SessionId) -> bool {
        let after = self.0.partition_point(|range| range.start <= session.0);
        after > 0 && session.0 < self.0[after - 1].end
    }
}
