//! What many children cost under one dynamic supervisor: the time to start, count and stop them, the resident memory of
//! each (Linux only), and the time until all run again after they crashed at once.
//!
//! `cargo run --release -p roomcast-supervision --example scale -- 100000`

use std::sync::Arc;
use std::time::Instant;

use roomcast_supervision::{
    ChildSpec, Context, Failure, Fault, Flow, Policies, Policy, PolicySet, StartError, SupervisorSlot, SupervisorSpec,
    System, SystemOptions, Worker,
};
use tokio::sync::Semaphore;

/// Does nothing but tell that it is up.
struct Idle;

impl Worker for Idle {
    type Message = ();
    type Args = Arc<Semaphore>;

    async fn start(up: Arc<Semaphore>, _: &Context<Self>) -> Result<Self, StartError> {
        up.add_permits(1);
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

/// Processor time of all threads so far, in seconds.
fn processor() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let times = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok());
    times.filter_map(|times| times.split_whitespace().next()?.parse::<f64>().ok()).sum::<f64>() / 1e9
}

/// What something takes, by the wall clock and in processor time, which other programs do not lengthen.
struct Watch {
    begun: Instant,
    processor: f64,
}

impl Watch {
    fn start() -> Self {
        Self { begun: Instant::now(), processor: processor() }
    }

    fn read(&self, count: u32) -> String {
        let (wall, busy) = (self.begun.elapsed().as_secs_f64(), processor() - self.processor);
        let each = |seconds: f64| seconds * 1e6 / f64::from(count);
        format!("{:.1} ms, {:.1} µs each; {:.1} µs of processor time each", wall * 1e3, each(wall), each(busy))
    }
}

async fn start(count: u32) -> Result<(System, SupervisorSlot, Arc<Semaphore>), Box<dyn std::error::Error>> {
    let (slot, up) = (SupervisorSlot::new(), Arc::new(Semaphore::new(0)));
    let policy = Policy { intensity: u32::MAX, ..Policy::default() }; // they are to crash
    let policies = Arc::new(Policies::new(PolicySet::new(policy)));
    let options = SystemOptions { policies, ..SystemOptions::default() };
    let system = System::start(SupervisorSpec::dynamic(Vec::new, &slot), options).await?;
    for id in 0..count {
        let up = Arc::clone(&up);
        slot.start_child(ChildSpec::worker::<Idle>(id.to_string(), move || Arc::clone(&up))).await?;
    }
    up.acquire_many(count).await?.forget();
    Ok((system, slot, up))
}

async fn idle(count: u32) -> Result<(), Box<dyn std::error::Error>> {
    println!("{count} idle children");
    let (before, watch) = (resident(), Watch::start());
    let (system, slot, _) = start(count).await?;
    println!("  start one after the other: {}", watch.read(count));
    println!("  memory: {} bytes each", resident().saturating_sub(before) / u64::from(count));
    let watch = Watch::start();
    let counts = slot.count_children();
    println!("  count: {} of {} active, {}", counts.active, counts.specs, watch.read(count));
    let watch = Watch::start();
    let children = slot.which_children().len();
    println!("  which_children: {children}, {}", watch.read(count));
    let watch = Watch::start();
    system.stop().await;
    println!("  stop with the supervisor: {}", watch.read(count));

    let (system, slot, _) = start(count).await?;
    let watch = Watch::start();
    for id in 0..count {
        slot.terminate_child(id.to_string()).await?;
    }
    println!("  terminate one after the other: {}", watch.read(count));
    system.stop().await;
    Ok(())
}

async fn crash(count: u32) -> Result<(), Box<dyn std::error::Error>> {
    let (system, _, up) = start(count).await?;
    for fault in [Fault::Kill, Fault::Panic] {
        let watch = Watch::start();
        system.tree().inject("*", fault)?;
        up.acquire_many(count).await?.forget();
        println!("  {count} at once ({fault:?}), until all run again: {}", watch.read(count));
    }
    system.stop().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A line for each of a hundred thousand panics would be what is measured.
    std::panic::set_hook(Box::new(|_| {}));
    let count = std::env::args().nth(1).map_or(Ok(100_000), |text| text.parse())?;
    idle(count).await?;
    println!("crashes");
    for count in [100, 1_000, 10_000] {
        crash(count).await?;
    }
    Ok(())
}
