//! Connections.

use std::time::Duration;

use roomcast_testkit::soak::returning::{self, Plan, Report};

use crate::{TURN, conclusive, full, seed, time};

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_every_50_ms_and_only_its_own_client_notices() {
    let _turn = TURN.lock().await;
    let (rooms, spared, hunted) = if full() { (20, 2, 3) } else { (4, 2, 3) };
    let plan = Plan { seed: seed(), time: time(4, 60), rooms, spared, hunted, pause: Duration::from_millis(50) };
    println!("seed {}", plan.seed);
    let run = async || returning::run(plan.clone()).await;
    let failed = |r: &Report| r.cuts <= 10 || !r.wrong().is_empty();
    conclusive(run, failed, |r| !r.slow().is_empty(), Report::stood_still).await;
}
