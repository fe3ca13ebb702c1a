//! A first measure: what the router's process costs per copy that a receiver got, over plain WebSocket on loopback.
//!
//! It runs the release binary, connects cheap clients (they count frame headers and look at one time stamp), and reads
//! the router's processor time from the operating system over a steady window. No claim of speed comes from it alone:
//! that takes another program beside it in the same run.

mod client;
mod cluster;
mod packet;
mod router;

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::time::{Instant, sleep};

use client::{Counts, connect, receive, send};
use router::Router;

/// Measures the router's processor time per delivered copy.
#[derive(Debug, Parser)]
struct Arguments {
    /// The router's release binary
    #[arg(long, default_value = "target/release/roomcast")]
    router: std::path::PathBuf,
    /// How long each workload is measured, in seconds, after two seconds of warm-up
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How often each workload is run
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Idle connections for the memory figure; 0: none
    #[arg(long, default_value_t = 2_000)]
    idle: usize,
    /// Spread each room's members over so many routers that share one broker, and measure that too; needs scripts/setup
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    nodes: u32,
}

struct Workload {
    name: &'static str,
    rooms: usize,
    members: usize,
    senders: usize,
}

const WORKLOADS: [Workload; 3] = [
    Workload { name: "W1: one room of 100, 20 send", rooms: 1, members: 100, senders: 20 },
    Workload { name: "W2: 100 rooms of 5, all send", rooms: 100, members: 5, senders: 5 },
    Workload { name: "W3: one room of 500, 10 send", rooms: 1, members: 500, senders: 10 },
];

/// Packets per second and sender.
const RATE: u32 = 30;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    println!("{RATE} packets/s per sender, {} bytes each, {} s per round", packet::BYTES, arguments.seconds);
    if arguments.nodes > 1 {
        return cluster::run(&arguments).await;
    }
    println!(
        "workload                        copies/s   lost  reordered  router µs/copy  clients µs/copy  p50 ms  p99 ms"
    );
    for workload in &WORKLOADS {
        for _ in 0..arguments.rounds {
            measure(&arguments, workload).await?;
        }
    }
    if arguments.idle > 0 {
        idle(&arguments).await?;
    }
    Ok(())
}

async fn measure(arguments: &Arguments, workload: &Workload) -> anyhow::Result<()> {
    let mut router = Router::start(&arguments.router, &[]).await?;
    let mut load = Load::begin(workload, std::slice::from_ref(&router)).await?;
    let counts = Arc::clone(&load.counts);
    sleep(Duration::from_secs(2)).await;
    let (before, own_before, got_before) = (router.cpu()?, router::cpu_of("self")?, counts.received());
    counts.reset_delays();
    sleep(Duration::from_secs(arguments.seconds)).await;
    let (after, own_after, got_after) = (router.cpu()?, router::cpu_of("self")?, counts.received());
    let (p50, p99) = counts.delays();
    let lost = load.end().await;
    let copies = got_after - got_before;
    let per_copy = |time: Duration| time.as_secs_f64() * 1e6 / copies.max(1) as f64;
    println!(
        "{:<30} {:>9.0} {:>6} {:>10} {:>15.2} {:>16.2} {:>7.1} {:>7.1}",
        workload.name,
        copies as f64 / arguments.seconds as f64,
        lost,
        counts.reordered(),
        per_copy(after - before),
        per_copy(own_after - own_before),
        p50,
        p99,
    );
    drop(load);
    router.stop().await
}

/// Clients that send at a steady pace and count what they get.
struct Load {
    counts: Arc<Counts>,
    members: u64,
    stop: Arc<std::sync::atomic::AtomicBool>,
    sending: tokio::task::JoinSet<tokio::net::tcp::OwnedWriteHalf>,
    sockets: Vec<tokio::net::tcp::OwnedWriteHalf>,
    _receiving: tokio::task::JoinSet<()>,
}

impl Load {
    /// Joins every room's members, one router after the other, and has the senders begin.
    async fn begin(workload: &Workload, routers: &[Router]) -> anyhow::Result<Self> {
        let counts = Arc::new(Counts::default());
        let mut receiving = tokio::task::JoinSet::new();
        let start = Instant::now();
        let (mut senders, mut sockets) = (Vec::new(), Vec::new());
        for room in 0..workload.rooms {
            for member in 0..workload.members {
                // Names of one length, so that the stamp is at the same place in everybody's packets.
                let user = format!("m{member:03}");
                let router = &routers[member % routers.len()];
                let socket = connect(&router.websocket, &user, &format!("r{room}")).await?;
                let (read, write) = socket.into_split();
                receiving.spawn(receive(read, Arc::clone(&counts), workload.members, start));
                if member < workload.senders {
                    senders.push((user, member, write));
                } else {
                    // Kept open: a dropped half would end the connection.
                    sockets.push(write);
                }
            }
        }
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mut sending = tokio::task::JoinSet::new();
        for (user, member, write) in senders {
            sending.spawn(send(write, user, member, RATE, start, Arc::clone(&counts), Arc::clone(&stop)));
        }
        Ok(Self { counts, members: workload.members as u64, stop, sending, sockets, _receiving: receiving })
    }

    /// Has the senders stop, gives what they sent time to arrive, and says how many copies did not.
    async fn end(&mut self) -> u64 {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        // Kept open until everything that was sent has had time to arrive.
        while let Some(socket) = self.sending.join_next().await {
            self.sockets.extend(socket);
        }
        let expected = self.counts.sent() * (self.members - 1);
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.counts.received() < expected && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        expected.saturating_sub(self.counts.received())
    }
}

async fn idle(arguments: &Arguments) -> anyhow::Result<()> {
    let mut router = Router::start(&arguments.router, &[]).await?;
    let before = router.resident()?;
    let mut sockets = Vec::new();
    for index in 0..arguments.idle {
        sockets.push(connect(&router.websocket, &format!("m{index}"), &format!("r{}", index / 5)).await?);
    }
    sleep(Duration::from_secs(2)).await;
    let after = router.resident()?;
    let each = (after.saturating_sub(before)) as f64 / arguments.idle as f64 / 1024.0;
    println!(
        "idle: {} connections in rooms of 5, {each:.1} KiB resident each ({} MiB in all)",
        arguments.idle,
        after >> 20
    );
    drop(sockets);
    router.stop().await
}
