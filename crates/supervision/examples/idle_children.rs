//! What an idle child costs: starts many workers under one dynamic supervisor and prints the time and the resident
//! memory of each. Linux only. `cargo run --release -p roomcast-supervision --example idle_children -- 20000`

use std::time::Instant;

use roomcast_supervision::{
    ChildSpec, Context, Failure, Flow, StartError, SupervisorSlot, SupervisorSpec, System, SystemOptions, Worker,
};

struct Idle;

impl Worker for Idle {
    type Message = ();
    type Args = ();

    async fn start((): (), _: &Context<Self>) -> Result<Self, StartError> {
        Ok(Self)
    }

    async fn handle(&mut self, (): (), _: &Context<Self>) -> Result<Flow, Failure> {
        Ok(Flow::Continue)
    }
}

/// Resident memory in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u64 = std::env::args().nth(1).map_or(Ok(20_000), |text| text.parse())?;
    let handle = SupervisorSlot::new();
    let system = System::start(SupervisorSpec::dynamic(Vec::new, &handle), SystemOptions::default()).await?;
    for round in 1..=3 {
        let (before, begun) = (resident(), Instant::now());
        for id in 0..count {
            handle.start_child(ChildSpec::worker::<Idle>(id.to_string(), || ())).await?;
        }
        let (started, memory) = (begun.elapsed(), resident().saturating_sub(before));
        let begun = Instant::now();
        for id in 0..count {
            handle.terminate_child(id.to_string()).await?;
        }
        println!(
            "round {round}: {count} children: start {:.1} µs each, stop {:.1} µs each, {} bytes each (rounds after the first reuse memory)",
            started.as_secs_f64() * 1e6 / count as f64,
            begun.elapsed().as_secs_f64() * 1e6 / count as f64,
            memory / count,
        );
    }
    system.stop().await;
    Ok(())
}
