//! Nothing is left behind: joins, leaves, rooms and crashes by the thousand, in five cycles, after which the node holds what
//! it held before. A program of its own, because it counts what belongs to the whole process.
//!
//! Short here; `scripts/soak` runs the full length (`ROOMCAST_SOAK=full`).
#![allow(clippy::unwrap_used)]

use roomcast_testkit::soak::cycles::{Mill, Plan};

/// What memory may grow by from the second cycle to the fifth: what an allocator with an arena a thread keeps for itself.
const NOISE: u64 = 8 * 1024 * 1024;
/// Far above what labels of a transport, a class, a reason and a supervisor come to.
const MOST_FIGURES: usize = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_five_cycles_of_coming_going_and_crashing_everything_is_back_where_it_was() {
    let full = std::env::var("ROOMCAST_SOAK").is_ok_and(|value| value == "full");
    let seed =
        std::env::var("ROOMCAST_SOAK_SEED").map_or_else(|_| fastrand::u64(..1 << 32), |seed| seed.parse().unwrap());
    let plan = if full {
        Plan { seed, joins: 10_000, rooms: 1_000, crashes: 1_000, at_once: 16 }
    } else {
        Plan { seed, joins: 100, rooms: 20, crashes: 40, at_once: 8 }
    };
    println!("{plan:?}");
    let mut mill = Mill::start(plan).await;
    let before = mill.census();
    println!("before: {before:?}");
    let mut cycles = Vec::new();
    for number in 1..=5 {
        let cycle = mill.turn(&before).await;
        println!("cycle {number}: {cycle}");
        cycles.push(cycle);
    }
    assert!(cycles[4].figures < MOST_FIGURES, "labels are not bounded: {} figures", cycles[4].figures);
    let grown = cycles[4].resident.saturating_sub(cycles[1].resident);
    println!("resident memory from the second cycle to the fifth: {grown} bytes more");
    assert!(grown <= NOISE, "memory grew by {grown} bytes in three cycles");
    mill.stop().await;
}
