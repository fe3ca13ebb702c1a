//! The figures of all rounds, and what is reckoned of them: medians, spreads, ratios. Pure.

use serde::Serialize;

use super::Arguments;
use super::calls::Counted;
use super::machine::Machine;
use super::quiet::OthersUsed;
use crate::load::Report;
use crate::workload::{COALESCE_MS, Workload};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Side {
    Router,
    Bare,
}

impl Side {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Bare => "bare",
        }
    }
}

/// What a figure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Subject {
    pub(super) workload: &'static str,
    pub(super) side: Side,
}

/// One round of one of the two.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Round {
    pub(super) subject: Subject,
    pub(super) number: u32,
    /// Packets a second and sender.
    pub(super) rate: u32,
    pub(super) report: Report,
    pub(super) others: OthersUsed,
}

impl Round {
    pub(super) fn us_per_copy(&self) -> f64 {
        self.report.routers.as_ref().map_or(f64::NAN, |routers| routers.us_per_copy)
    }
}

/// System calls and switches, by delivered copy.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Calls {
    pub(super) subject: Subject,
    pub(super) per_copy: f64,
    /// The most frequent, by copy.
    pub(super) by_name: Vec<(String, f64)>,
    pub(super) switches_voluntary: f64,
    pub(super) switches_involuntary: f64,
}

impl Calls {
    pub(super) fn new(
        subject: Subject,
        counted: &Counted,
        window: std::time::Duration,
        report: &Report,
    ) -> anyhow::Result<Self> {
        let routers = report.routers()?;
        // The counter's window lies within the report's; the pace is the same in both.
        let copies = report.delivered as f64 / report.seconds * window.as_secs_f64();
        let by_copy = |count: u64| count as f64 / copies.max(1.0);
        let mut by_name: Vec<(String, f64)> =
            counted.by_name.iter().map(|(name, count)| (name.clone(), by_copy(*count))).collect();
        by_name.sort_by(|one, two| two.1.total_cmp(&one.1));
        by_name.retain(|(_, each)| *each >= 0.001);
        by_name.truncate(5);
        let delivered = report.delivered.max(1) as f64;
        Ok(Self {
            subject,
            per_copy: by_copy(counted.all),
            by_name,
            switches_voluntary: routers.switches_voluntary as f64 / delivered,
            switches_involuntary: routers.switches_involuntary as f64 / delivered,
        })
    }
}

/// Memory of idle connections.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Idle {
    pub(super) side: Side,
    pub(super) number: u32,
    pub(super) connections: u32,
    pub(super) before_bytes: u64,
    pub(super) resident_bytes: u64,
    pub(super) each_kib: f64,
    /// What idle connections cost in processor time, as a part of a core.
    pub(super) cores: f64,
}

impl Idle {
    pub(super) fn new(side: Side, number: u32, connections: u32, before: u64, report: &Report) -> anyhow::Result<Self> {
        anyhow::ensure!(
            report.connections == u64::from(connections) && report.disconnected == 0,
            "{} of {connections} idle connections were made and {} lost",
            report.connections,
            report.disconnected
        );
        let routers = report.routers()?;
        Ok(Self {
            side,
            number,
            connections,
            before_bytes: before,
            resident_bytes: routers.resident_bytes,
            each_kib: routers.resident_bytes.saturating_sub(before) as f64 / f64::from(connections) / 1024.0,
            cores: routers.cpu_seconds / report.seconds,
        })
    }
}

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Results {
    pub(super) machine: Machine,
    pub(super) rounds: u32,
    pub(super) seconds: f64,
    pub(super) cpu: Vec<Round>,
    pub(super) delay: Vec<Round>,
    pub(super) calls_by: String,
    pub(super) calls: Vec<Calls>,
    pub(super) idle: Vec<Idle>,
}

impl Results {
    pub(super) fn new(machine: Machine, arguments: &Arguments) -> Self {
        Self {
            machine,
            rounds: arguments.rounds(),
            seconds: arguments.window().as_secs_f64(),
            cpu: Vec::new(),
            delay: Vec::new(),
            calls_by: String::new(),
            calls: Vec::new(),
            idle: Vec::new(),
        }
    }
}

/// The middle of some values, and between which they lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Self { median, least, most })
    }
}

/// The rounds of one workload, in pairs.
pub(super) struct Pairs<'a>(Vec<(&'a Round, &'a Round)>);

impl<'a> Pairs<'a> {
    /// The router's round and the bare broadcaster's that came right behind it.
    pub(super) fn of(rounds: &'a [Round], workload: &Workload) -> Self {
        let of = |side| rounds.iter().filter(move |round| round.subject == Subject { workload: workload.name, side });
        Self(of(Side::Router).zip(of(Side::Bare)).collect())
    }

    pub(super) fn router(&self) -> impl Iterator<Item = &'a Round> + '_ {
        self.0.iter().map(|(router, _)| *router)
    }

    pub(super) fn bare(&self) -> impl Iterator<Item = &'a Round> + '_ {
        self.0.iter().map(|(_, bare)| *bare)
    }

    /// Of one quantity: the router's, the bare broadcaster's, and the ratios of the pairs. `None` when nothing was measured.
    pub(super) fn spreads(&self, of: impl Fn(&Round) -> f64) -> Option<(Spread, Spread, Spread)> {
        let ratios = self.0.iter().map(|(router, bare)| of(router) / of(bare));
        Some((Spread::of(self.router().map(&of))?, Spread::of(self.bare().map(&of))?, Spread::of(ratios)?))
    }
}

/// Whether the router's 99th percentile is at most the bare broadcaster's and the wait for a batch, by the medians.
pub(super) fn delay_met(router: &Spread, bare: &Spread) -> bool {
    router.median <= bare.median + COALESCE_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_and_the_spread_at_the_ends() {
        let odd = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!(odd, Spread { median: 2.0, least: 1.0, most: 3.0 });
        let even = Spread::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!(even, Spread { median: 2.5, least: 1.0, most: 4.0 });
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn a_delay_may_exceed_the_bare_one_by_the_wait_for_a_batch() {
        let at = |median| Spread { median, least: median, most: median };
        assert!(delay_met(&at(14.0), &at(9.5)));
        assert!(!delay_met(&at(14.6), &at(9.5)));
    }
}
