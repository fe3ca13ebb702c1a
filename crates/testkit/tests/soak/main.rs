//! The promise under load: crash anything, drop nobody. Short here; `scripts/soak` runs the full length.
//!
//! `ROOMCAST_SOAK_SEED` repeats a run's choices, `ROOMCAST_SOAK_SECONDS` sets its length, `ROOMCAST_SOAK=full` the load.
#![allow(clippy::unwrap_used)]

mod actors;
mod connections;
mod give_up;

use std::time::Duration;

/// One at a time: each of these keeps the machine busy by itself.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn full() -> bool {
    std::env::var("ROOMCAST_SOAK").is_ok_and(|value| value == "full")
}

fn seed() -> u64 {
    std::env::var("ROOMCAST_SOAK_SEED").map_or_else(|_| fastrand::u64(..1 << 32), |seed| seed.parse().unwrap())
}

fn time(short: u64, long: u64) -> Duration {
    let seconds = std::env::var("ROOMCAST_SOAK_SECONDS").map(|seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(if full() { long } else { short }))
}

/// A run on a machine that stood still says little about times: it is repeated, a few times where tests run beside others.
/// What is wrong is wrong on any machine.
async fn conclusive<R: std::fmt::Display>(
    run: impl AsyncFn() -> R,
    wrong: impl Fn(&R) -> bool,
    slow: impl Fn(&R) -> bool,
    stood_still: impl Fn(&R) -> bool,
) {
    for _ in 0..3 {
        let report = run().await;
        println!("{report}");
        assert!(!wrong(&report), "the promise was broken:\n{report}");
        if !slow(&report) {
            return;
        }
        assert!(stood_still(&report), "the promise was broken, and not for want of a processor:\n{report}");
        println!("inconclusive: the machine stood still; once more");
    }
    assert!(!full(), "inconclusive: give it an idle machine");
}
