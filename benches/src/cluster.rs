//! The same load spread over several routers that share one broker: what a copy costs them all, and what a message on the bus
//! costs the broker.

use std::time::{Duration, Instant};

use anyhow::Context;
use roomcast_bus::testing::{Broker, BrokerOptions};

use crate::load;
use crate::process::{self, Binaries, Server};
use crate::workload::{RATE, Transport, WORKLOADS, Workload};

/// The workloads of this measure: the first three.
const MEASURED: usize = 3;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Routers that share one broker
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    nodes: u32,
    /// How often each workload is run
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// How long each is measured, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let binaries = Binaries::beside_this()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    println!(
        "each room's members spread over {} routers that share one broker; {RATE} packets/s per sender, {} s per round",
        arguments.nodes, arguments.seconds
    );
    println!("the broker's columns are over the whole run, the others over the measured window");
    println!(
        "workload                        copies/s   lost  reordered  routers µs/copy  bus msgs/s in   out  \
         broker µs/msg out  p50 ms  p99 ms"
    );
    for workload in &WORKLOADS[..MEASURED] {
        for _ in 0..arguments.rounds {
            measure(arguments, workload, &binaries, &runtime)?;
        }
    }
    Ok(())
}

fn measure(
    arguments: &Arguments,
    workload: &Workload,
    binaries: &Binaries,
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<()> {
    let broker = runtime.block_on(Broker::start(&BrokerOptions::default()));
    let mut routers = Vec::new();
    for number in 0..arguments.nodes {
        let settings = [
            "bus.kind=nats".to_owned(),
            format!("bus.nats.urls=[\"{}\"]", broker.url()),
            format!("node.name=n{number}"),
        ];
        routers.push(Server::router(binaries, Transport::Plain, &settings)?);
    }
    let process = broker.pid().context("the broker ended")?;
    let window = Duration::from_secs(arguments.seconds);
    let (start, cpu_before, before) = (Instant::now(), process::cpu(process)?, runtime.block_on(broker.counters()));
    // The warm-up is also the time in which the routers find each other.
    let mut given = workload.arguments(RATE);
    given.extend(["--warmup".to_owned(), "3s".to_owned()]);
    let report = load::run(binaries, &routers.iter().collect::<Vec<_>>(), &given, window, || {})?;
    let (took, cpu_after, after) = (start.elapsed(), process::cpu(process)?, runtime.block_on(broker.counters()));
    let (into, out) = (after.in_msgs - before.in_msgs, after.out_msgs - before.out_msgs);
    println!(
        "{:<30} {:>9.0} {:>6} {:>10} {:>16.2} {:>14.0} {:>5.0} {:>18.2} {:>7.1} {:>7.1}",
        format!("{}: {}", workload.name, workload.what),
        report.delivered as f64 / report.seconds,
        report.lost,
        report.reordered,
        report.routers()?.us_per_copy,
        into as f64 / took.as_secs_f64(),
        out as f64 / took.as_secs_f64(),
        (cpu_after - cpu_before).as_secs_f64() * 1e6 / out.max(1) as f64,
        report.delay_ms.p50,
        report.delay_ms.p99,
    );
    Ok(())
}
