//! `telemetry`: keeps the gauges that nobody else sets, and folds histograms, every few seconds.

use std::sync::Arc;
use std::time::Duration;

use roomcast_supervision::{Context, Failure, Flow, StartError, Worker};
use tokio::time::{MissedTickBehavior, interval};

use crate::store::Store;

/// Short enough that a scrape is fresh, long enough to cost nothing.
const PERIOD: Duration = Duration::from_secs(5);

/// One incarnation of telemetry.
pub struct Telemetry;

impl Worker for Telemetry {
    type Message = ();
    type Args = Arc<Store>;

    async fn start(store: Arc<Store>, ctx: &Context<Self>) -> Result<Self, StartError> {
        ctx.attach("upkeep", async move {
            let mut ticks = interval(PERIOD);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                store.collect();
                store.metrics.upkeep();
            }
        });
        Ok(Self)
    }

    async fn handle(&mut self, (): (), _: &Context<Self>) -> Result<Flow, Failure> {
        Ok(Flow::Continue)
    }
}
