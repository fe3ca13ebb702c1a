//! `drain`: sends this node's clients elsewhere once that was asked for, spread over `timers.drain`. Until then it waits.
//!
//! What was begun and who was told is in the store: a new incarnation goes on at the same pace. How many are due and in
//! which order is decided in `relay::drain`.

use std::sync::Arc;
use std::time::Duration;

use roomcast_relay::drain::{due, order};
use roomcast_supervision::{Context, Failure, Flow, StartError, Worker};
use tokio::time::{Instant, sleep};

use crate::store::{Egress, Store};

/// Between two looks at who is due.
const STEP: Duration = Duration::from_millis(50);
/// How long clients that were told last have to join elsewhere and leave by themselves, before they are closed.
const PATIENCE: Duration = Duration::from_secs(5);

/// One incarnation of the drain.
pub struct Drain;

impl Worker for Drain {
    type Message = ();
    type Args = Arc<Store>;

    async fn start(store: Arc<Store>, ctx: &Context<Self>) -> Result<Self, StartError> {
        ctx.attach("pace", pace(store));
        Ok(Self)
    }

    async fn handle(&mut self, (): (), _: &Context<Self>) -> Result<Flow, Failure> {
        Ok(Flow::Continue)
    }
}

async fn pace(store: Arc<Store>) -> Result<(), Failure> {
    store.drain.begun().await;
    let begun = store.drain.since().unwrap_or_default();
    let mut last_told = Instant::now();
    loop {
        let waiting = waiting(&store);
        let left = store.rooms.members();
        if left == 0 && store.connections() == 0 {
            break;
        }
        let window = store.live().timers.drain;
        let told = store.drain.told();
        let now = due(begun, store.clock.now(), window, told, waiting.len());
        for egress in waiting.iter().take(now) {
            // Counted first: a successor tells nobody more than the pace allows.
            store.drain.count_told();
            egress.tell_to_leave();
            last_told = Instant::now();
        }
        // Who was told and does not leave is closed with the rest when the tree stops.
        if waiting.len() == now && store.clock.now().since(begun) >= window && last_told.elapsed() >= PATIENCE {
            break;
        }
        sleep(STEP).await;
    }
    tracing::info!(left = store.connections(), "drained");
    store.drain.finish();
    // There is nothing left to do, and no reason to be started again.
    std::future::pending().await
}

/// Who was not told yet, in the order in which they are to be told.
fn waiting(store: &Store) -> Vec<Arc<Egress>> {
    let mut rooms: Vec<_> = store.rooms.all().into_iter().map(|cell| (cell.members(), cell.id().clone())).collect();
    order(&mut rooms);
    let cells = rooms.into_iter().filter_map(|(_, id)| store.rooms.get(&id));
    cells.flat_map(|cell| cell.occupants()).filter(|egress| !egress.is_told()).collect()
}
