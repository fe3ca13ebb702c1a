//! Nothing is left behind: joins, leaves, rooms and crashes by the thousand, in five cycles, after which the node holds what
//! it held before. A program of its own, because it counts what belongs to the whole process.
//!
//! Short here; `scripts/soak` runs the full length (`ROOMCAST_SOAK=full`).
#![allow(clippy::unwrap_used)]

use roomcast_testkit::soak::cycles::{Mill, Plan};

/// What memory may grow by from the second cycle to the fifth.
const NOISE: u64 = 8 * 1024 * 1024;
/// Far above what labels of a transport, a class, a reason and a supervisor come to.
const MOST_FIGURES: usize = 400;

/// Makes glibc give back at once what was freed: each QUIC client that is simulated has a receive buffer of megabytes, and
/// an allocator that keeps them makes memory follow how many clients happened to be there at once. The program runs itself
/// again for it, since an allocator reads its settings first of all.
const ALLOCATOR: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "131072"), ("MALLOC_TRIM_THRESHOLD_", "131072")];

#[test]
fn after_five_cycles_of_coming_going_and_crashing_everything_is_back_where_it_was() {
    if std::env::var(ALLOCATOR[0].0).is_ok_and(|value| value == ALLOCATOR[0].1) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(five_cycles());
    }
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    let output = again.arg("--nocapture").envs(ALLOCATOR).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    println!("{}", String::from_utf8_lossy(&said));
    assert!(output.status.success());
}

async fn five_cycles() {
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
