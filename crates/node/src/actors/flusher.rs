//! `flushers/{number}`: writes for the egresses of one lane. Who they are is in the store: a new incarnation goes on with
//! whoever is next.

use std::sync::Arc;

use roomcast_supervision::{Context, Failure, Flow, StartError, Worker};
use tokio::task::unconstrained;

use crate::store::Store;

/// One incarnation of a flusher.
pub struct Flusher;

impl Worker for Flusher {
    type Message = ();
    /// The node, and the number of the lane.
    type Args = (Arc<Store>, usize);

    async fn start((store, number): Self::Args, ctx: &Context<Self>) -> Result<Self, StartError> {
        // It yields by itself, after a turn whose length it knows; the runtime's own count would make it look for writes that
        // block where none does.
        let lane = Arc::clone(store.lanes.get(number));
        let runtime = lane.runtime();
        let flush = unconstrained(async move { match lane.flush.flush_due(&store).await {} });
        ctx.attach_on("flush", flush, &runtime);
        Ok(Self)
    }

    async fn handle(&mut self, (): (), _: &Context<Self>) -> Result<Flow, Failure> {
        Ok(Flow::Continue)
    }
}
