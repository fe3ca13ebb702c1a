//! The results in words: lines while it runs, a summary at its end, and the generated part of `docs/benchmarks.md`. Pure, but
//! for the writing of the files at the end.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;

use super::chart;
use super::figures::{Calls, Idle, Pairs, Results, Round, Side, Spread, delay_met};
use crate::workload::{COALESCE_MS, IDLE, IDLE_TARGET_KIB, RATE, WORKLOADS, Workload};

pub(super) const BEGIN: &str = "<!-- bench:begin -->";
pub(super) const END: &str = "<!-- bench:end -->";

/// Above the lines of [`round`].
pub(super) const ROUND_HEADING: &str =
    "workload round side      copies/s      lost   µs/copy  clients' µs  p50 ms   p99 ms  p99.9 ms  peak MiB";

/// A round, in a line.
pub(super) fn round(round: &Round) -> String {
    let report = &round.report;
    let mut line = format!(
        "{:<8} {:>5} {:<7} {:>10.0} {:>9} {:>9.2} {:>12.2} {:>7.1} {:>8.1} {:>9.1} {:>9.0}",
        round.subject.workload,
        round.number,
        round.subject.side.name(),
        report.delivered as f64 / report.seconds,
        report.lost,
        round.us_per_copy(),
        report.generator.us_per_copy,
        report.delay_ms.p50,
        report.delay_ms.p99,
        report.delay_ms.p999,
        report.routers.as_ref().map_or(0, |routers| routers.peak_bytes) as f64 / f64::from(1 << 20),
    );
    let bottleneck = report.generator.bottleneck.then(|| "the load tool did not keep up".to_owned());
    let faults = Some(report.faults()).filter(|faults| !faults.is_empty());
    for remark in [bottleneck, faults, round.others.complaint()].into_iter().flatten() {
        let _ = write!(line, "  {remark}");
    }
    line
}

pub(super) fn calls(calls: &Calls) -> String {
    let names: Vec<String> = calls.by_name.iter().map(|(name, each)| format!("{name} {each:.3}")).collect();
    format!(
        "{:<8} {:<7} {:>7.3} calls ({}); {:.4} voluntary switches, {:.4} others",
        calls.subject.workload,
        calls.subject.side.name(),
        calls.per_copy,
        names.join(", "),
        calls.switches_voluntary,
        calls.switches_involuntary,
    )
}

pub(super) fn idle(idle: &Idle) -> String {
    format!(
        "{:>6} connections, round {}, {:<6}: {:>5.1} KiB each, {:.0} MiB in all, {:.2} % of a core",
        idle.connections,
        idle.number,
        idle.side.name(),
        idle.each_kib,
        idle.resident_bytes as f64 / f64::from(1 << 20),
        idle.cores * 100.0
    )
}

/// The tables without their pictures, for the terminal.
pub(super) fn summary(results: &Results) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = tables(&mut out, results);
    out
}

/// Puts the generated part between its two marks, and draws the pictures.
pub(super) fn write(docs: &Path, results: &Results) -> anyhow::Result<()> {
    let path = docs.join("benchmarks.md");
    let page = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut part = String::new();
    let _ = generated(&mut part, results);
    let page = replace(&page, &part).with_context(|| format!("{} has no {BEGIN} before an {END}", path.display()))?;
    let pictures = docs.join("pictures");
    std::fs::write(pictures.join("bench-ratios.svg"), chart::ratios(&ratios(results)))?;
    std::fs::write(pictures.join("bench-delays.svg"), chart::delays(&delays(results)))?;
    std::fs::write(path, page)?;
    Ok(())
}

/// A page with another part between its marks.
fn replace(page: &str, part: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{part}{END}{after}"))
}

fn ratios(results: &Results) -> Vec<chart::Ratio> {
    let measured = |workload: &Workload| {
        let (.., ratio) = Pairs::of(&results.cpu, workload).spreads(Round::us_per_copy)?;
        Some(chart::Ratio { name: workload.name, ratio, target: workload.target })
    };
    WORKLOADS.iter().filter_map(measured).collect()
}

fn delays(results: &Results) -> Vec<chart::Delay> {
    let measured = |workload: &Workload| {
        let pairs = Pairs::of(&results.delay, workload);
        let of = |part: fn(&Round) -> f64| pairs.spreads(part).map(|(router, bare, _)| [router.median, bare.median]);
        Some(chart::Delay {
            name: workload.name,
            p50: of(|round| round.report.delay_ms.p50)?,
            p99: of(|round| round.report.delay_ms.p99)?,
            p999: of(|round| round.report.delay_ms.p999)?,
        })
    };
    WORKLOADS.iter().filter_map(measured).collect()
}

fn generated(out: &mut String, results: &Results) -> std::fmt::Result {
    writeln!(out, "<!-- Made by scripts/bench; what is written here by hand is lost. -->\n")?;
    writeln!(
        out,
        "{}. Rounds for each: {}, of {:.0} s, router and bare broadcaster in turns, {RATE} packets a second and sender; medians, and in \
         brackets the least and the most. A ratio is of two rounds that followed each other.\n",
        results.machine, results.rounds, results.seconds
    )?;
    let rounds = || results.cpu.iter().chain(&results.delay);
    let noisy = rounds().filter(|round| round.others.complaint().is_some()).count();
    if noisy > 0 {
        let all = rounds().count();
        writeln!(out, "**The machine was not quiet in {noisy} of {all} rounds: take the figures with care.**\n")?;
    }
    if !results.cpu.is_empty() {
        writeln!(
            out,
            "![The router's processor time per copy, as a part of the bare broadcaster's](pictures/bench-ratios.svg)\n"
        )?;
    }
    if !results.delay.is_empty() {
        writeln!(out, "![Delays at half load](pictures/bench-delays.svg)\n")?;
    }
    tables(out, results)
}

fn spread(spread: &Spread, digits: usize) -> String {
    format!("{:.digits$} ({:.digits$}–{:.digits$})", spread.median, spread.least, spread.most)
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "**not met**" }
}

fn tables(out: &mut String, results: &Results) -> std::fmt::Result {
    if !results.cpu.is_empty() {
        processor(out, results)?;
    }
    if !results.delay.is_empty() {
        half_load(out, results)?;
    }
    if !results.calls.is_empty() {
        writeln!(out, "### System calls and context switches per delivered copy\n")?;
        writeln!(out, "System calls {}; switches from `/proc`.\n", results.calls_by)?;
        writeln!(
            out,
            "| workload | | calls per copy | most of them | voluntary switches | involuntary |\n|---|---|---|---|---|---|"
        )?;
        for calls in &results.calls {
            let names: Vec<String> = calls.by_name.iter().map(|(name, each)| format!("{name} {each:.3}")).collect();
            writeln!(
                out,
                "| {} | {} | {:.3} | {} | {:.4} | {:.4} |",
                calls.subject.workload,
                calls.subject.side.name(),
                calls.per_copy,
                names.join(", "),
                calls.switches_voluntary,
                calls.switches_involuntary
            )?;
        }
        writeln!(out)?;
    }
    if !results.idle.is_empty() {
        idle_memory(out, results)?;
    }
    Ok(())
}

fn processor(out: &mut String, results: &Results) -> std::fmt::Result {
    writeln!(out, "### Processor time per delivered copy\n")?;
    writeln!(
        out,
        "| workload | copies/s | router, µs | bare, µs | ratio | at most | | lost: router, bare | peak memory, MiB: router, bare |\n\
         |---|---|---|---|---|---|---|---|---|"
    )?;
    for workload in &WORKLOADS {
        let pairs = Pairs::of(&results.cpu, workload);
        let Some((router, bare, ratio)) = pairs.spreads(Round::us_per_copy) else { continue };
        let lost = |rounds: &mut dyn Iterator<Item = &Round>| {
            let (lost, offered) =
                rounds.fold((0, 0), |sum, round| (sum.0 + round.report.lost, sum.1 + round.report.offered));
            match lost {
                0 => "0".to_owned(),
                lost => format!("{:.2} %", lost as f64 * 100.0 / offered.max(1) as f64),
            }
        };
        let peak = |rounds: &mut dyn Iterator<Item = &Round>| {
            let most = rounds.filter_map(|round| round.report.routers.as_ref()).map(|routers| routers.peak_bytes).max();
            most.unwrap_or(0) >> 20
        };
        let lost_by_router: u64 = pairs.router().map(|round| round.report.lost).sum();
        let (target, met) = match workload.target {
            Some(target) => (format!("{target:.1}"), verdict(ratio.median <= target && lost_by_router == 0)),
            None => ("–".to_owned(), ""),
        };
        writeln!(
            out,
            "| {}: {} | {:.0} of {} | {} | {} | {} | {target} | {met} | {}, {} | {}, {} |",
            workload.name,
            workload.what,
            Spread::of(pairs.router().map(|round| round.report.delivered as f64 / round.report.seconds))
                .map_or(0.0, |copies| copies.median),
            workload.offered(RATE),
            spread(&router, 2),
            spread(&bare, 2),
            spread(&ratio, 2),
            lost(&mut pairs.router()),
            lost(&mut pairs.bare()),
            peak(&mut pairs.router()),
            peak(&mut pairs.bare()),
        )?;
    }
    let faults: Vec<String> = results
        .cpu
        .iter()
        .chain(&results.delay)
        .filter(|round| round.subject.side == Side::Router && !round.report.faults().is_empty())
        .map(|round| format!("{} {}", round.subject.workload, round.report.faults()))
        .collect();
    let faults = if faults.is_empty() {
        "The router reordered, duplicated, leaked and disconnected nothing.".to_owned()
    } else {
        format!("**The router: {}.**", faults.join("; "))
    };
    let slow = results.cpu.iter().filter(|round| round.report.generator.bottleneck).count();
    let slow = if slow > 0 {
        format!(" In {slow} of {} rounds the load tool did not keep up.", results.cpu.len())
    } else {
        String::new()
    };
    writeln!(out, "\n{faults}{slow}\n")
}

fn half_load(out: &mut String, results: &Results) -> std::fmt::Result {
    writeln!(out, "### Delays at half load\n")?;
    writeln!(
        out,
        "The same members and senders, each with {} packets a second instead of {RATE}. The router's 99th percentile is to be at most \
         the bare broadcaster's and {COALESCE_MS} ms (`egress.coalesce`).\n",
        RATE / 2
    )?;
    writeln!(
        out,
        "| workload | router, p99 ms | bare, p99 ms | | p50 ms: router, bare | p99.9 ms: router, bare | ratio of processor time |\n\
         |---|---|---|---|---|---|---|"
    )?;
    for workload in &WORKLOADS {
        let pairs = Pairs::of(&results.delay, workload);
        let Some((router, bare, _)) = pairs.spreads(|round| round.report.delay_ms.p99) else { continue };
        let medians = |of: fn(&Round) -> f64| {
            pairs
                .spreads(of)
                .map_or_else(String::new, |(router, bare, _)| format!("{:.1}, {:.1}", router.median, bare.median))
        };
        let ratio = pairs.spreads(Round::us_per_copy).map_or_else(String::new, |(.., ratio)| spread(&ratio, 2));
        writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {ratio} |",
            workload.name,
            spread(&router, 1),
            spread(&bare, 1),
            verdict(delay_met(&router, &bare)),
            medians(|round| round.report.delay_ms.p50),
            medians(|round| round.report.delay_ms.p999),
        )?;
    }
    writeln!(out)
}

fn idle_memory(out: &mut String, results: &Results) -> std::fmt::Result {
    writeln!(out, "### Idle connections\n")?;
    writeln!(out, "Resident memory above that of the server without any, in rooms of five over plain WebSocket.\n")?;
    writeln!(
        out,
        "| connections | router, KiB each | at most | | bare, KiB each | router in all, MiB | router's processor time, % of a core |\n\
         |---|---|---|---|---|---|---|"
    )?;
    for connections in IDLE {
        let of = |side: Side, figure: fn(&Idle) -> f64| {
            let rounds = results.idle.iter().filter(|idle| idle.side == side && idle.connections == connections);
            Spread::of(rounds.map(figure))
        };
        let each: fn(&Idle) -> f64 = |idle| idle.each_kib;
        let (Some(router), Some(bare)) = (of(Side::Router, each), of(Side::Bare, each)) else { continue };
        let all =
            of(Side::Router, |idle| idle.resident_bytes as f64 / f64::from(1 << 20)).map_or(0.0, |all| all.median);
        let cores = of(Side::Router, |idle| idle.cores * 100.0).map_or(0.0, |cores| cores.median);
        writeln!(
            out,
            "| {connections} | {} | {IDLE_TARGET_KIB} | {} | {} | {all:.0} | {cores:.1} |",
            spread(&router, 1),
            verdict(router.median <= IDLE_TARGET_KIB),
            spread(&bare, 1),
        )?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = format!("# Title\n\nby hand\n{BEGIN}\nold\n{END}\n\nalso by hand\n");
        let again = replace(&page, "new\n").unwrap();
        assert_eq!(again, format!("# Title\n\nby hand\n{BEGIN}\nnew\n{END}\n\nalso by hand\n"));
        assert_eq!(replace("no marks", "new"), None);
    }

    #[test]
    fn the_page_that_is_written_into_has_its_marks() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
        let page = std::fs::read_to_string(path).unwrap();
        assert!(replace(&page, "").is_some(), "docs/benchmarks.md has lost its marks");
    }
}
