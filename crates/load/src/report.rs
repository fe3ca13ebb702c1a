//! What came of a run: as JSON for programs, as a table for people. Pure.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::counts::Counts;
use crate::histogram::Histogram;
use crate::plan::grouped;
use crate::process::Usage;

/// The share of its threads' time from which on the load tool is taken for the bottleneck.
const BUSY: f64 = 0.9;
/// The share of late sends from which on it is: its one thread goes through all members in turn, and so reads late too.
const LATE: f64 = 0.05;

/// Everything a run found out. Serialized, it is what `--json` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The measured window, in seconds.
    pub seconds: f64,
    /// Packets that were sent in the window.
    pub sent: u64,
    /// The copies that are owed of these.
    pub offered: u64,
    /// Owed copies that came in the window.
    pub delivered: u64,
    /// Of the offered copies, those that never came, after a last wait.
    pub lost: u64,
    /// Copies that came more than once, over the whole run.
    pub duplicated: u64,
    /// Copies that came after a newer one of the same sender, over the whole run.
    pub reordered: u64,
    /// Copies that came to a member that they are not for, over the whole run.
    pub leaked: u64,
    /// Of the offered copies, from sending to having all of it.
    pub delay_ms: Delays,
    /// This tool's own part.
    pub generator: Generator,
    /// The routers' part, where processes were named and could be looked at.
    pub routers: Option<Routers>,
    /// Members that joined.
    pub connections: u64,
    /// Members that the router, or the network, threw out.
    pub disconnected: u64,
    /// Why the first of these was; in the table only.
    #[serde(skip)]
    pub first_disconnected: Option<String>,
    /// From connecting to being in the room.
    pub joined_ms: Joins,
}

/// Delays in milliseconds, to within 1.6 %; `max` and `mean` exactly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Delays {
    /// Half of the copies took no longer.
    pub p50: f64,
    /// Of a hundred copies 99 took no longer.
    pub p99: f64,
    /// Of a thousand copies 999 took no longer.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
    /// The mean.
    pub mean: f64,
}

/// How long joining took, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Joins {
    /// Half of the joins took no longer.
    pub p50: f64,
    /// Of a hundred joins 99 took no longer.
    pub p99: f64,
}

/// What this tool used, and whether it kept up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Generator {
    /// Processor time in the window.
    pub cpu_seconds: f64,
    /// The same by all copies that came in the window, in microseconds.
    pub us_per_copy: f64,
    /// The same by the time of its threads.
    pub busy: f64,
    /// Sends that began more than 5 ms late, not counting those that the router held up.
    pub late_sends: u64,
    /// It did not keep up: the other figures say more about it than about the router.
    pub bottleneck: bool,
}

/// What the routers used in the window, all together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Routers {
    /// Their processes.
    pub pids: Vec<u32>,
    /// Processor time.
    pub cpu_seconds: f64,
    /// The same by all copies that came in the window, those of churning members among them, in microseconds.
    pub us_per_copy: f64,
    /// Resident memory at the window's end, in bytes.
    pub resident_bytes: u64,
    /// The most that was resident since they started.
    pub peak_bytes: u64,
    /// System calls of the `read` family. Linux does not count `recv` among them.
    pub read_calls: u64,
    /// System calls of the `write` family. Linux does not count `send` among them.
    pub write_calls: u64,
    /// How often their threads gave up the processor.
    pub switches_voluntary: u64,
    /// How often it was taken from them.
    pub switches_involuntary: u64,
}

/// What a report is made of.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    pub(crate) window: Duration,
    pub(crate) counts: &'a Counts,
    pub(crate) threads: u32,
    pub(crate) own_cpu: Duration,
    pub(crate) pids: &'a [u32],
    /// The routers' use at the window's begin and end.
    pub(crate) routers: Option<(Usage, Usage)>,
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}

fn per_copy(time: Duration, copies: u64) -> f64 {
    if copies == 0 { 0.0 } else { time.as_secs_f64() * 1e6 / copies as f64 }
}

impl Report {
    pub(crate) fn new(found: &Findings<'_>) -> Self {
        let counts = found.counts;
        let busy = found.own_cpu.as_secs_f64() / (found.window.as_secs_f64() * f64::from(found.threads));
        let late = counts.late as f64 > counts.sent as f64 * LATE;
        let at = |delays: &Histogram, part| millis(delays.quantile(part));
        Self {
            seconds: found.window.as_secs_f64(),
            sent: counts.sent,
            offered: counts.offered,
            delivered: counts.delivered,
            lost: counts.offered.saturating_sub(counts.arrived),
            duplicated: counts.duplicated,
            reordered: counts.reordered,
            leaked: counts.leaked,
            delay_ms: Delays {
                p50: at(&counts.delays, 0.5),
                p99: at(&counts.delays, 0.99),
                p999: at(&counts.delays, 0.999),
                max: millis(counts.delays.max()),
                mean: counts.delays.mean() / 1e3,
            },
            generator: Generator {
                cpu_seconds: found.own_cpu.as_secs_f64(),
                us_per_copy: per_copy(found.own_cpu, counts.copies),
                busy,
                late_sends: counts.late,
                bottleneck: busy > BUSY || late,
            },
            routers: found.routers.map(|(before, after)| {
                let cpu = after.cpu.saturating_sub(before.cpu);
                Routers {
                    pids: found.pids.to_vec(),
                    cpu_seconds: cpu.as_secs_f64(),
                    us_per_copy: per_copy(cpu, counts.copies),
                    resident_bytes: after.resident,
                    peak_bytes: after.peak,
                    read_calls: after.reads.saturating_sub(before.reads),
                    write_calls: after.writes.saturating_sub(before.writes),
                    switches_voluntary: after.voluntary.saturating_sub(before.voluntary),
                    switches_involuntary: after.involuntary.saturating_sub(before.involuntary),
                }
            }),
            connections: counts.joined,
            disconnected: counts.disconnected,
            first_disconnected: counts.why.clone(),
            joined_ms: Joins { p50: at(&counts.joins, 0.5), p99: at(&counts.joins, 0.99) },
        }
    }

    /// One JSON object, ending with a line's end.
    #[must_use]
    pub fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("numbers and lists of numbers can all be written");
        text.push('\n');
        text
    }

    /// A table, below a line that says what was run.
    #[must_use]
    pub fn table(&self, summary: &str) -> String {
        let mut out = format!("{summary}\n{:.1} s measured\n\n", self.seconds);
        let mut row = |name: &str, text: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{name:<12}{text}");
        };
        // Where nobody sends there is nothing to be said of it.
        if self.sent > 0 {
            let a_second = |count: u64| grouped((count as f64 / self.seconds).round() as u64);
            row("sent", format!("{} packets, {}/s", grouped(self.sent), a_second(self.sent)));
            row("offered", format!("{} copies, {}/s", grouped(self.offered), a_second(self.offered)));
            row("delivered", format!("{} copies, {}/s", grouped(self.delivered), a_second(self.delivered)));
            let share = if self.offered == 0 { 0.0 } else { self.lost as f64 * 100.0 / self.offered as f64 };
            let share = if self.lost == 0 { String::new() } else { format!(" ({share:.3} %)") };
            row("lost", format!("{}{share}", grouped(self.lost)));
            row(
                "wrong",
                format!(
                    "{} duplicated, {} reordered, {} leaked",
                    grouped(self.duplicated),
                    grouped(self.reordered),
                    grouped(self.leaked)
                ),
            );
            let Delays { p50, p99, p999, max, mean } = self.delay_ms;
            row(
                "delay",
                format!("p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, max {max:.2} ms, mean {mean:.2} ms"),
            );
        }
        let why = self.first_disconnected.as_ref().map_or_else(String::new, |why| format!(", the first: {why}"));
        row(
            "members",
            format!(
                "{} joined, p50 {:.1} ms, p99 {:.1} ms; {} thrown out{why}",
                grouped(self.connections),
                self.joined_ms.p50,
                self.joined_ms.p99,
                grouped(self.disconnected)
            ),
        );
        if let Some(routers) = &self.routers {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let (cpu, cores) = (routers.cpu_seconds, routers.cpu_seconds / self.seconds);
            let each = match self.delivered {
                0 => String::new(),
                _ => format!(", {:.2} µs per copy", routers.us_per_copy),
            };
            row("router CPU", format!("{cpu:.2} s ({cores:.2} cores){each}"));
            row(
                "memory",
                format!("{:.1} MiB resident, {:.1} MiB at most", mib(routers.resident_bytes), mib(routers.peak_bytes)),
            );
            row(
                "system",
                format!(
                    "{} read and {} write calls (recv and send not counted), {} switches, {} forced",
                    grouped(routers.read_calls),
                    grouped(routers.write_calls),
                    grouped(routers.switches_voluntary),
                    grouped(routers.switches_involuntary)
                ),
            );
        }
        let own = &self.generator;
        row(
            "this tool",
            format!(
                "{:.2} s CPU, {:.0} % busy, {:.2} µs per copy, {} late sends",
                own.cpu_seconds,
                own.busy * 100.0,
                own.us_per_copy,
                grouped(own.late_sends)
            ),
        );
        if own.bottleneck {
            let what = if own.busy > BUSY { "these figures" } else { "these delays (CPU per copy stands)" };
            // Writing to a string cannot fail.
            let _ = write!(
                out,
                "\nThe load tool itself is the bottleneck: do not believe {what}. Use more --threads, a quieter machine \
                 or another one, or less load.\n"
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(change: impl FnOnce(&mut Counts), own_cpu: Duration) -> Report {
        let mut counts = Counts { sent: 600, offered: 1_200_000, arrived: 1_200_000, ..Counts::default() };
        (counts.delivered, counts.copies, counts.joined) = (1_199_000, 1_200_000, 2_001);
        (1..=100).for_each(|value| counts.delays.add(value * 1_000));
        change(&mut counts);
        let used = |millis| Usage { cpu: Duration::from_millis(millis), resident: 3 << 20, ..Usage::default() };
        Report::new(&Findings {
            window: Duration::from_secs(10),
            counts: &counts,
            threads: 1,
            own_cpu,
            pids: &[7],
            routers: Some((used(1_000), used(4_000))),
        })
    }

    #[test]
    fn times_are_divided_by_copies_and_loss_is_what_never_came() {
        let report = report(|counts| counts.arrived = 1_199_994, Duration::from_secs(6));
        assert_eq!(report.lost, 6);
        let routers = report.routers.as_ref().unwrap();
        assert!((routers.us_per_copy - 2.5).abs() < 1e-9 && (report.generator.us_per_copy - 5.0).abs() < 1e-9);
        assert!((report.generator.busy - 0.6).abs() < 1e-9 && !report.generator.bottleneck);
        let table = report.table("a run");
        for line in ["lost        6 (0.001 %)", "2.50 µs per copy", "1,200,000 copies, 120,000/s", "max 100.00 ms"] {
            assert!(table.contains(line), "{line} in {table}");
        }
        assert!(!table.contains("bottleneck"));
    }

    #[test]
    fn a_tool_that_does_not_keep_up_says_so() {
        assert!(report(|_| {}, Duration::from_millis(9_100)).generator.bottleneck);
        assert!(report(|counts| counts.late = 31, Duration::from_secs(1)).generator.bottleneck);
        let fine = report(|counts| counts.late = 30, Duration::from_secs(9));
        assert!(!fine.generator.bottleneck);
        let table = report(|_| {}, Duration::from_secs(11)).table("");
        assert!(table.contains("do not believe these figures"), "{table}");
        let table = report(|counts| counts.late = 31, Duration::from_secs(1)).table("");
        assert!(table.contains("do not believe these delays"), "{table}");
    }

    #[test]
    fn json_has_the_names_that_others_read() {
        let value: serde_json::Value = serde_json::from_str(&report(|_| {}, Duration::ZERO).json()).unwrap();
        let keys = |value: &serde_json::Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        let mut top = keys(&value);
        top.sort_unstable();
        assert_eq!(
            top.join(" "),
            "connections delay_ms delivered disconnected duplicated generator joined_ms leaked lost offered reordered \
             routers seconds sent"
        );
        for (part, names) in [
            ("delay_ms", "max mean p50 p99 p999"),
            ("generator", "bottleneck busy cpu_seconds late_sends us_per_copy"),
            (
                "routers",
                "cpu_seconds peak_bytes pids read_calls resident_bytes switches_involuntary switches_voluntary \
                 us_per_copy write_calls",
            ),
            ("joined_ms", "p50 p99"),
        ] {
            let mut names_there = keys(&value[part]);
            names_there.sort_unstable();
            assert_eq!(names_there.join(" "), names);
        }
    }

    #[test]
    fn nothing_sent_divides_by_nothing() {
        let report = Report::new(&Findings {
            window: Duration::from_secs(1),
            counts: &Counts::default(),
            threads: 1,
            own_cpu: Duration::ZERO,
            pids: &[],
            routers: None,
        });
        assert_eq!((report.lost, report.generator.us_per_copy, report.generator.bottleneck), (0, 0.0, false));
        assert!(report.json().contains("\"routers\": null"));
        assert!(!report.table("idle").contains("delay"));
    }
}
