//! Any actor but a connection, their supervisor and the root.

use std::time::Duration;

use roomcast_testkit::soak::{self, Plan};

use crate::{TURN, conclusive, full, seed, time};

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_every_50_ms_and_nobody_notices() {
    let _turn = TURN.lock().await;
    let plan = if full() {
        Plan {
            seed: seed(),
            time: time(8, 60),
            rooms: 20,
            members: 5,
            distant: 4,
            pause: Duration::from_millis(50),
            stay: 300..1500,
            meetings: 2,
            settings: Vec::new(),
            recovery: Duration::from_millis(50),
        }
    } else {
        Plan {
            seed: seed(),
            time: time(8, 60),
            rooms: 6,
            members: 4,
            distant: 2,
            pause: Duration::from_millis(100),
            stay: 200..800,
            meetings: 1,
            // Where other tests keep the machine busy, a packet may wait for longer than is worth it in a call.
            settings: vec!["egress.max_delay=30s"],
            // A debug build beside other tests on a shared machine.
            recovery: Duration::from_millis(500),
        }
    };
    println!("seed {}", plan.seed);
    let run = async || soak::run(plan.clone()).await;
    conclusive(run, |r| !r.wrong().is_empty(), |r| !r.slow().is_empty(), soak::Report::stood_still).await;
}
