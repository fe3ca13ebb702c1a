//! Every line of the table once, with a short outage; `scripts/faults` runs the full length, many times.
//!
//! `ROOMCAST_FAULTS_SEED` repeats a run's choices.

use roomcast_testkit::cluster::run::{Plan, run};
use roomcast_testkit::cluster::table::{FAULTS, fault};

use crate::program;

/// One at a time: each of these keeps the machine busy by itself, and times are what is measured.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Timers that come later than this show a machine that stands still for times of which expectations are made.
const STANDSTILL_MS: f64 = 100.0;

/// A run on a machine that stood still says little about times, nor about what waits for how long: it is repeated, a few times.
/// What is wrong is wrong on any machine.
async fn meets_what_is_expected(name: &str) {
    let _turn = TURN.lock().await;
    let seed =
        std::env::var("ROOMCAST_FAULTS_SEED").map_or_else(|_| fastrand::u64(..1 << 32), |seed| seed.parse().unwrap());
    let fault = fault(name).unwrap();
    for _ in 0..3 {
        let figures = run(fault, &Plan::short(program().to_owned(), seed)).await;
        println!("{figures}");
        assert!(figures.wrong.is_empty(), "{figures}");
        if figures.unmet.is_empty() {
            return;
        }
        assert!(figures.timer_lag_ms > STANDSTILL_MS, "not as expected, and not for want of a processor:\n{figures}");
        println!("inconclusive: the machine stood still; once more");
    }
    println!(
        "INCONCLUSIVE: {name} was never run on a machine that had the time; scripts/faults --only {name} says more"
    );
}

macro_rules! each_is_a_test {
    ($($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                meets_what_is_expected(stringify!($name)).await;
            }
        )*

        #[test]
        fn no_line_of_the_table_is_left_out() {
            assert_eq!(FAULTS.map(|fault| fault.name), [$(stringify!($name)),*]);
        }
    };
}

each_is_a_test! {
    baseline
    broker_killed
    all_brokers_stopped
    node_killed
    node_frozen_briefly
    node_frozen_long
    cut_to_the_broker
    cut_from_the_broker
    cut_both_ways
    broker_slow
    broker_stalled
    rolling_restart
    link_killed
}
