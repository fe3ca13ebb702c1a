//! Runs the table of faults many times and prints what each cost. `scripts/faults` builds and starts it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Parser;
use roomcast_testkit::cluster::figures::{Figures, Line};
use roomcast_testkit::cluster::run::{Plan, run};
use roomcast_testkit::cluster::table::{FAULTS, Fault, fault};

/// Breaks a cluster of three nodes and three brokers under load, again and again, and says what it cost.
#[derive(Debug, Parser)]
struct Options {
    /// How often each fault is run, with another seed each time.
    #[arg(default_value_t = 20)]
    runs: u64,
    /// The first run's seed; each run after it has the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this fault; may be given many times.
    #[arg(long = "only", value_name = "FAULT")]
    only: Vec<String>,
    /// Short outages, as the tests have them.
    #[arg(long)]
    short: bool,
    /// Print what the nodes logged.
    #[arg(long)]
    logs: bool,
    /// Where to write all figures of all runs.
    #[arg(long, value_name = "FILE", overrides_with = "json")]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let own = std::env::current_exe().context("where this program is")?;
    let program = own.with_file_name("roomcast-testkit-node");
    if !program.exists() {
        bail!("{} is not there; start this with scripts/faults, which builds both", program.display());
    }
    let mut faults: Vec<&'static Fault> = Vec::new();
    for name in &options.only {
        let known = || FAULTS.map(|fault| fault.name).join(", ");
        faults.push(fault(name).with_context(|| format!("no fault {name}; there are: {}", known()))?);
    }
    if faults.is_empty() {
        faults = FAULTS.iter().collect();
    }
    let mut lines = Vec::new();
    for fault in faults {
        let mut line = Line::new(fault);
        for number in 0..options.runs {
            let seed = options.seed + number;
            let mut plan = Plan::full(program.clone(), seed);
            (plan.full, plan.logs) = (!options.short, options.logs);
            let began = Instant::now();
            // A run that cannot be carried out is a bad one, and no reason to leave out the others.
            let figures = tokio::spawn(async move { run(fault, &plan).await }).await.unwrap_or_else(|error| Figures {
                fault: fault.name.to_owned(),
                seed,
                unmet: vec![format!("could not be carried out: {error}")],
                ..Figures::default()
            });
            let verdict = if figures.unmet.is_empty() { "as expected".to_owned() } else { figures.unmet.join("; ") };
            let took = began.elapsed().as_secs();
            eprintln!("{} {}/{} (seed {seed}, {took} s): {verdict}", fault.name, number + 1, options.runs);
            line.runs.push(figures);
        }
        println!("{}\n{line}", Line::HEAD);
        lines.push(line);
        // After every fault, so that a run that is cut short has left something.
        if let Some(file) = &options.json {
            std::fs::write(file, serde_json::to_vec_pretty(&lines)?)
                .with_context(|| format!("{} cannot be written", file.display()))?;
        }
    }
    println!("\n{}", Line::HEAD);
    lines.iter().for_each(|line| println!("{line}"));
    let bad: usize = lines.iter().map(Line::bad).sum();
    println!("\n{bad} of {} runs were not as expected", lines.iter().map(|line| line.runs.len()).sum::<usize>());
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
