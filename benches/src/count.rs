//! Instructions per copy, counted by valgrind and held against a committed file: a guard that does not depend on the clock.
//!
//! Each scenario runs twice, once for longer: the difference is free of what starting costs. The counts depend on the compiler,
//! so with another one than the file was made with, a difference is told and is no failure.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

/// All scenarios of the program `counted`, and how often the shorter run goes through them: some 20,000 copies.
const SCENARIOS: [(&str, u64); 5] = [
    ("room-of-100", 16),
    ("room-of-100-encrypted", 16),
    ("room-of-5", 5_000),
    ("room-of-5-encrypted", 5_000),
    ("room-of-5-under-pressure", 320),
];

/// How much more a copy may cost than the file says, in per cent.
const TOLERANCE: f64 = 5.0;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Take the new counts: write them into benches/counts.toml
    #[arg(long)]
    accept: bool,
}

/// What is committed.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Expected {
    /// The compiler's version.
    rustc: String,
    instructions_per_copy: BTreeMap<String, f64>,
}

/// A count against what was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    Better,
    Worse,
    New,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("counts.toml");
    let expected: Option<Expected> = match std::fs::read_to_string(&path) {
        Ok(text) => Some(toml::from_str(&text).with_context(|| format!("{} is not understood", path.display()))?),
        Err(_) => None,
    };
    let rustc = version()?;
    let program = std::env::current_exe()?.with_file_name("counted");
    let mut counted = BTreeMap::new();
    let mut worse = Vec::new();
    println!("{:<28} {:>12} {:>12}", "instructions per copy", "expected", "counted");
    for (name, times) in SCENARIOS {
        let (less, more) = (count(&program, name, times)?, count(&program, name, 4 * times)?);
        let each = (more.0.saturating_sub(less.0)) as f64 / (more.1.saturating_sub(less.1)).max(1) as f64;
        let each = (each * 10.0).round() / 10.0;
        let before = expected.as_ref().and_then(|expected| expected.instructions_per_copy.get(name).copied());
        let verdict = judge(before, each);
        let remark = match verdict {
            Verdict::Same => "",
            Verdict::Better => "better: take it with scripts/count --accept",
            Verdict::Worse => "WORSE",
            Verdict::New => "not in the file: take it with scripts/count --accept",
        };
        let shown = before.map_or_else(|| "-".to_owned(), |before| format!("{before:.1}"));
        println!("{name:<28} {shown:>12} {each:>12.1}  {remark}");
        if matches!(verdict, Verdict::Worse | Verdict::New) {
            worse.push(name);
        }
        counted.insert(name.to_owned(), each);
    }
    if arguments.accept {
        let text = toml::to_string(&Expected { rustc, instructions_per_copy: counted })?;
        let note = "# Instructions per delivered copy; made by scripts/count --accept, held by scripts/count.\n";
        std::fs::write(&path, format!("{note}{text}"))?;
        println!("benches/counts.toml is written");
        return Ok(());
    }
    if worse.is_empty() {
        return Ok(());
    }
    let expected = expected.context("benches/counts.toml is missing; make it with scripts/count --accept")?;
    if expected.rustc != rustc {
        println!("the counts were taken with Rust {} and this is {rustc}: a warning only", expected.rustc);
        return Ok(());
    }
    bail!("more than {TOLERANCE} % above benches/counts.toml, or not in it: {}", worse.join(", "))
}

fn judge(before: Option<f64>, now: f64) -> Verdict {
    let Some(before) = before else { return Verdict::New };
    let change = (now - before) / before * 100.0;
    if change > TOLERANCE {
        Verdict::Worse
    } else if change < -TOLERANCE {
        Verdict::Better
    } else {
        Verdict::Same
    }
}

/// Instructions of a whole run, and the copies it made.
fn count(program: &Path, name: &str, times: u64) -> anyhow::Result<(u64, u64)> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([name, &times.to_string()])
        .output()
        .context("valgrind cannot be run; install it (scripts/setup does)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed: {said}");
    let instructions = collected(&said).with_context(|| format!("valgrind says no count: {said}"))?;
    let copies = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    Ok((instructions, copies))
}

/// The number in callgrind's `Collected : N`.
fn collected(said: &str) -> Option<u64> {
    let (_, rest) = said.split_once("Collected :")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn version() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("--version").output().context("rustc cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split(' ').nth(1).context("rustc tells no version")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_the_tolerance_is_worse() {
        assert_eq!(judge(Some(100.0), 105.0), Verdict::Same);
        assert_eq!(judge(Some(100.0), 105.1), Verdict::Worse);
        assert_eq!(judge(Some(100.0), 94.9), Verdict::Better);
        assert_eq!(judge(None, 1.0), Verdict::New);
    }

    #[test]
    fn the_count_is_found_in_what_callgrind_prints() {
        let said = "==7== Events    : Ir\n==7== Collected : 2108312\n==7== \n==7== I   refs:      2,108,312\n";
        assert_eq!(collected(said), Some(2_108_312));
        assert_eq!(collected("valgrind: command not found"), None);
    }

    #[test]
    fn the_committed_counts_are_of_these_scenarios() {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("counts.toml")).unwrap();
        let expected: Expected = toml::from_str(&text).unwrap();
        let names: Vec<&str> = expected.instructions_per_copy.keys().map(String::as_str).collect();
        let mut scenarios = SCENARIOS.map(|(name, _)| name);
        scenarios.sort_unstable();
        assert_eq!(names, scenarios);
    }
}
