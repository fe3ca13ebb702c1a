//! `listeners/webtransport`: accepts QUIC connections and begins their handshakes. The endpoint and the handshakes
//! belong to the store: this actor may die at any time, and no client that waits or shakes hands notices.

use std::sync::Arc;

use roomcast_supervision::{Context, Failure, Flow, StartError, Worker};
use roomcast_transport::RequestHead;
use roomcast_transport::webtransport::{self, HandshakeError};
use tokio::sync::OwnedSemaphorePermit;

use super::connection;
use crate::metrics::Transport;
use crate::store::{Lane, Store};

/// One incarnation of the listener.
pub struct WebTransportListener;

impl Worker for WebTransportListener {
    type Message = ();
    type Args = Arc<Store>;

    async fn start(store: Arc<Store>, ctx: &Context<Self>) -> Result<Self, StartError> {
        ctx.attach("accept", accept(store));
        Ok(Self)
    }

    async fn handle(&mut self, (): (), _: &Context<Self>) -> Result<Flow, Failure> {
        Ok(Flow::Continue)
    }
}

async fn accept(store: Arc<Store>) -> Result<(), Failure> {
    let Some(endpoint) = &store.sockets.webtransport else { return Ok(()) };
    loop {
        let permit = Arc::clone(&store.handshakes).acquire_owned().await?;
        let Some(incoming) = endpoint.accept().await else {
            // The endpoint was closed: the node is stopping.
            return std::future::pending().await;
        };
        if store.is_draining() {
            // Told at once: who is only not answered tries elsewhere seconds later.
            incoming.refuse();
            continue;
        }
        // Nothing awaits between the accept and the spawn: a kill loses no client.
        let lane = store.lanes.next();
        store.tasks.spawn_on(shake_hands(Arc::clone(&store), Arc::clone(lane), incoming, permit), &lane.runtime());
    }
}

async fn shake_hands(store: Arc<Store>, lane: Arc<Lane>, incoming: quinn::Incoming, permit: OwnedSemaphorePermit) {
    let remote = incoming.remote_address();
    let options = store.webtransport_options();
    let decide = |head: RequestHead<'_>| store.examine(Transport::WebTransport, head);
    let shaken = webtransport::accept_then(incoming, &options, decide, |candidate| store.seat(candidate, &lane)).await;
    drop(permit);
    match shaken {
        Ok((welcome, reader, writer)) => {
            connection::begin(&store, Transport::WebTransport, welcome, reader, writer).await;
        }
        // Counted where it was decided.
        Err(HandshakeError::Refused(_)) => {}
        Err(error) => {
            store.metrics.refused(Transport::WebTransport, error.reason());
            tracing::debug!(%remote, %error, "no connection");
        }
    }
}
