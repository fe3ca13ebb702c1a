//! `bus/link`: watches the bus's client and reports its state. The client itself belongs to the store.

use std::sync::Arc;

use roomcast_supervision::{Context, Failure, Flow, StartError, Worker};

use crate::store::Store;

/// One incarnation of the link's watcher.
pub struct Link;

impl Worker for Link {
    type Message = ();
    type Args = Arc<Store>;

    async fn start(store: Arc<Store>, ctx: &Context<Self>) -> Result<Self, StartError> {
        let mut state = store.bus.state();
        store.bus_is(*state.borrow_and_update());
        ctx.attach("watch", async move {
            while state.changed().await.is_ok() {
                let now = *state.borrow_and_update();
                tracing::info!(state = ?now, "the bus changed its state");
                store.bus_is(now);
            }
            // The bus is gone for good: the node is stopping.
            std::future::pending().await
        });
        Ok(Self)
    }

    async fn handle(&mut self, (): (), _: &Context<Self>) -> Result<Flow, Failure> {
        Ok(Flow::Continue)
    }
}
