//! `flushers/{number}`: writes for the egresses of one flush set. The set is the store's: a new incarnation goes on with whoever is
//! next.

use std::sync::Arc;

use roomcast_supervision::{Context, Failure, Flow, StartError, Worker};
use tokio::task::unconstrained;

use crate::store::Store;

/// One incarnation of a flusher.
pub struct Flusher;

impl Worker for Flusher {
    type Message = ();
    /// The node, and the number of the flush set.
    type Args = (Arc<Store>, usize);

    async fn start((store, number): Self::Args, ctx: &Context<Self>) -> Result<Self, StartError> {
        // It yields by itself, after a turn whose length it knows; the runtime's own count would make it look for writes that
        // block where none does.
        ctx.attach("flush", unconstrained(async move { match store.flush_sets.get(number).flush_due(&store).await {} }));
        Ok(Self)
    }

    async fn handle(&mut self, (): (), _: &Context<Self>) -> Result<Flow, Failure> {
        Ok(Flow::Continue)
    }
}
