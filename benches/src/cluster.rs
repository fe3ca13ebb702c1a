//! The same load spread over several routers that share one broker: what a copy costs them all, and what a message on the bus
//! costs the broker.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use roomcast_bus::testing::{Broker, BrokerOptions};
use tokio::time::{Instant, sleep};

use crate::router::{self, Router};
use crate::{Arguments, Load, WORKLOADS, Workload};

/// How long routers may take to find each other.
const FOUND: Duration = Duration::from_secs(10);

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    println!("each room's members spread over {} routers that share one broker", arguments.nodes);
    println!(
        "workload                        copies/s   lost  reordered  routers µs/copy  bus msgs/s in  out  \
         broker µs/msg out  p50 ms  p99 ms"
    );
    for workload in &WORKLOADS {
        for _ in 0..arguments.rounds {
            measure(arguments, workload).await?;
        }
    }
    Ok(())
}

async fn measure(arguments: &Arguments, workload: &Workload) -> anyhow::Result<()> {
    let broker = Broker::start(&BrokerOptions::default()).await;
    let mut routers = Vec::new();
    for number in 0..arguments.nodes {
        let settings = [
            "bus.kind=nats".to_owned(),
            format!("bus.nats.urls=[\"{}\"]", broker.url()),
            format!("node.name=n{number}"),
        ];
        routers.push(Router::start(&arguments.router, &settings).await?);
    }
    // Until then they share no rooms.
    sleep(Duration::from_secs(1)).await;
    let mut load = Load::begin(workload, &routers).await?;
    let counts = Arc::clone(&load.counts);
    let deadline = Instant::now() + FOUND;
    while counts.received() == 0 && Instant::now() < deadline {
        sleep(Duration::from_millis(20)).await;
    }
    sleep(Duration::from_secs(2)).await;
    let broker_process = broker.pid().context("the broker ended")?.to_string();
    let all = || routers.iter().map(Router::cpu).sum::<anyhow::Result<Duration>>();
    let (before, broker_before) = (all()?, router::cpu_of(&broker_process)?);
    let (got_before, bus_before) = (counts.received(), broker.counters().await);
    counts.reset_delays();
    sleep(Duration::from_secs(arguments.seconds)).await;
    let (after, broker_after) = (all()?, router::cpu_of(&broker_process)?);
    let (got_after, bus_after) = (counts.received(), broker.counters().await);
    let (p50, p99) = counts.delays();
    let lost = load.end().await;
    let copies = got_after - got_before;
    let (into, out) = (bus_after.in_msgs - bus_before.in_msgs, bus_after.out_msgs - bus_before.out_msgs);
    let per = |time: Duration, count: u64| time.as_secs_f64() * 1e6 / count.max(1) as f64;
    let a_second = |count: u64| count as f64 / arguments.seconds as f64;
    println!(
        "{:<30} {:>9.0} {:>6} {:>10} {:>16.2} {:>14.0} {:>5.0} {:>18.2} {:>7.1} {:>7.1}",
        workload.name,
        a_second(copies),
        lost,
        counts.reordered(),
        per(after - before, copies),
        a_second(into),
        a_second(out),
        per(broker_after - broker_before, out),
        p50,
        p99,
    );
    drop(load);
    for mut router in routers {
        router.stop().await?;
    }
    Ok(())
}
