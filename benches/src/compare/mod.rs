//! The comparison: what is run in which order, told while it runs. The figures, the page and the pictures are made in the modules.

mod calls;
mod chart;
mod figures;
mod machine;
mod page;
mod quiet;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::load;
use crate::process::{Binaries, Server};
use crate::workload::{IDLE, RATE, Transport, WORKLOADS, Workload};
use figures::{Calls, Idle, Results, Round, Side, Subject};
use machine::Machine;
use quiet::Others;

/// What is measured, in this order; `--only` may name them besides workloads.
const PARTS: [&str; 4] = ["cpu", "delay", "calls", "idle"];

/// How long system calls are counted.
const CALLS_WINDOW: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often each workload is run with the router and with the bare broadcaster, in turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How long each is measured, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only these workloads (W1, W2, W3, W4, W1-TLS, W2-TLS, WT) and parts (cpu, delay, calls, idle), separated by commas
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// One round of three seconds each: to see that it works
    #[arg(long)]
    quick: bool,
    /// Write every round into this file
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the page though something was left out
    #[arg(long)]
    write: bool,
}

impl Arguments {
    fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.rounds }
    }

    fn window(&self) -> Duration {
        Duration::from_secs(if self.quick { 3 } else { self.seconds })
    }

    fn wants(&self, workload: &Workload) -> bool {
        let named = |name: &String| WORKLOADS.iter().any(|workload| workload.name.eq_ignore_ascii_case(name));
        !self.only.iter().any(named) || self.only.iter().any(|name| workload.name.eq_ignore_ascii_case(name))
    }

    fn wants_part(&self, part: &str) -> bool {
        let mut parts = self.only.iter().filter(|name| PARTS.contains(&name.as_str())).peekable();
        match (parts.peek(), self.only.is_empty()) {
            (Some(_), _) => parts.any(|name| name == part),
            (None, true) => true,
            // Workloads were named and no parts: what is measured of workloads, and not the idle connections.
            (None, false) => part != "idle",
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        for name in &self.only {
            let known = PARTS.contains(&name.as_str())
                || WORKLOADS.iter().any(|workload| workload.name.eq_ignore_ascii_case(name));
            if !known {
                let names: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).chain(PARTS).collect();
                bail!("--only {name}: there is no such workload or part; there are {}", names.join(", "));
            }
        }
        Ok(())
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    arguments.check()?;
    let binaries = Binaries::beside_this()?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let machine = Machine::look(&root);
    println!("{machine}");
    let load = quiet::load_average();
    if load > quiet::MOST_LOAD {
        println!("NOT QUIET: the load average is {load:.2} before anything was started");
    }
    let mut session = Session { arguments, binaries, results: Results::new(machine, arguments) };
    for part in PARTS.into_iter().filter(|part| arguments.wants_part(part)) {
        match part {
            "cpu" => session.processor()?,
            "delay" => session.delays()?,
            "calls" => session.calls()?,
            _ => session.idle()?,
        }
    }
    let results = session.results;
    println!("\n{}", page::summary(&results));
    if let Some(path) = &arguments.json {
        std::fs::write(path, serde_json::to_vec_pretty(&results)?)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    if arguments.write || (arguments.only.is_empty() && !arguments.quick) {
        page::write(&root.join("docs"), &results)?;
        println!("docs/benchmarks.md and its pictures are written");
    } else {
        println!(
            "docs/benchmarks.md is left alone, since not everything was measured (--write: write it all the same)"
        );
    }
    Ok(())
}

struct Session<'a> {
    arguments: &'a Arguments,
    binaries: Binaries,
    results: Results,
}

impl Session<'_> {
    fn processor(&mut self) -> anyhow::Result<()> {
        println!("\nprocessor time per delivered copy, {RATE} packets/s per sender");
        let rounds = self.in_turns(RATE)?;
        self.results.cpu = rounds;
        Ok(())
    }

    fn delays(&mut self) -> anyhow::Result<()> {
        println!("\ndelays at half load: the same senders, {} packets/s each", RATE / 2);
        let rounds = self.in_turns(RATE / 2)?;
        self.results.delay = rounds;
        Ok(())
    }

    /// Every workload, router and bare broadcaster in turns.
    fn in_turns(&self, rate: u32) -> anyhow::Result<Vec<Round>> {
        let mut rounds = Vec::new();
        println!("{}", page::ROUND_HEADING);
        for workload in WORKLOADS.iter().filter(|workload| self.arguments.wants(workload)) {
            for number in 1..=self.arguments.rounds() {
                for side in [Side::Router, Side::Bare] {
                    let round = self.round(workload, side, number, rate)?;
                    println!("{}", page::round(&round));
                    rounds.push(round);
                }
            }
        }
        Ok(rounds)
    }

    fn start(&self, side: Side, transport: Transport) -> anyhow::Result<Server> {
        match side {
            Side::Router => Server::router(&self.binaries, transport, &[]),
            Side::Bare => Server::bare(&self.binaries, transport),
        }
    }

    fn round(&self, workload: &Workload, side: Side, number: u32, rate: u32) -> anyhow::Result<Round> {
        let server = self.start(side, workload.transport)?;
        let mut others = None;
        let mut given = workload.arguments(rate);
        given.extend(["--ramp".to_owned(), "0".to_owned()]);
        let report = load::run(&self.binaries, &[&server], &given, self.arguments.window(), || {
            others = Some(Others::begin(server.pid()));
        })?;
        let others = others.map(Others::end).unwrap_or_default();
        let subject = Subject { workload: workload.name, side };
        Ok(Round { subject, number, rate, report, others })
    }

    fn calls(&mut self) -> anyhow::Result<()> {
        let Some(counter) = calls::Counter::find() else {
            println!("\nsystem calls are not counted: neither perf with its tracepoints nor strace is there");
            return Ok(());
        };
        println!("\nsystem calls and context switches per delivered copy, {}", counter.describe());
        self.results.calls_by = counter.describe().to_owned();
        for workload in WORKLOADS.iter().filter(|workload| self.arguments.wants(workload)) {
            for side in [Side::Router, Side::Bare] {
                let server = self.start(side, workload.transport)?;
                let rate = counter.rate();
                let mut given = workload.arguments(rate);
                given.extend(["--ramp".to_owned(), "0".to_owned()]);
                let mut counting = None;
                let window = CALLS_WINDOW + Duration::from_secs(1);
                let report = load::run(&self.binaries, &[&server], &given, window, || {
                    counting = Some(counter.begin(server.pid(), CALLS_WINDOW));
                })?;
                let counted = counting.context("the measured window did not begin")??.end()?;
                let subject = Subject { workload: workload.name, side };
                let calls = Calls::new(subject, &counted, CALLS_WINDOW, &report)?;
                println!("{}", page::calls(&calls));
                self.results.calls.push(calls);
            }
        }
        Ok(())
    }

    fn idle(&mut self) -> anyhow::Result<()> {
        println!("\nresident memory of idle connections, in rooms of 5 over plain WebSocket");
        for connections in IDLE {
            for number in 1..=self.arguments.rounds().min(3) {
                for side in [Side::Router, Side::Bare] {
                    let server = self.start(side, Transport::Plain)?;
                    let before = server.resident()?;
                    let rooms = (connections / 5).to_string();
                    let given = ["--rooms", &rooms, "--members", "5", "--idle", "--ramp", "1000/s"].map(str::to_owned);
                    let report = load::run(&self.binaries, &[&server], &given, Duration::from_secs(2), || {})?;
                    let idle = Idle::new(side, number, connections, before, &report)?;
                    println!("{}", page::idle(&idle));
                    self.results.idle.push(idle);
                }
            }
        }
        Ok(())
    }
}
