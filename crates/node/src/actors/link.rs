//! `bus/link`: watches over the bus's client and reports its state. The client itself belongs to the store; where a bug ends it,
//! this actor fails, and its next incarnation begins it again.

use std::sync::Arc;

use roomcast_bus::BusState;
use roomcast_supervision::{Context, Failure, Flow, StartError, Worker};

use crate::store::Store;

/// One incarnation of the link's watcher.
pub struct Link;

impl Worker for Link {
    type Message = ();
    type Args = Arc<Store>;

    async fn start(store: Arc<Store>, ctx: &Context<Self>) -> Result<Self, StartError> {
        let mut state = store.bus.state();
        let bus = Arc::clone(&store.bus);
        store.bus_is(*state.borrow_and_update());
        ctx.attach("watch", async move {
            while state.changed().await.is_ok() {
                let now = *state.borrow_and_update();
                match now {
                    BusState::Down => tracing::warn!("the bus is lost: rooms go on, each node for itself"),
                    BusState::Up => {
                        let broker = store.bus.broker().map(|broker| broker.url);
                        tracing::info!(broker, "the bus is up");
                    }
                    BusState::Connecting | BusState::Closed => tracing::info!(state = ?now, "the bus"),
                }
                store.bus_is(now);
            }
            // The bus is gone for good: the node is stopping.
            std::future::pending().await
        });
        ctx.attach("watch over", async move {
            let why = bus.watch_over().await;
            Err(Failure::from(std::io::Error::other(format!("the bus's client ended: {why}"))))
        });
        Ok(Self)
    }

    async fn handle(&mut self, (): (), _: &Context<Self>) -> Result<Flow, Failure> {
        Ok(Flow::Continue)
    }
}
