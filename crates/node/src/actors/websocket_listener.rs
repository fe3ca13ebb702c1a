//! `listeners/websocket`: accepts TCP connections and begins their handshakes. The socket and the handshakes belong to
//! the store: this actor may die at any time, and no client that waits or shakes hands notices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use roomcast_supervision::{Context, Failure, Flow, StartError, Worker};
use roomcast_transport::RequestHead;
use roomcast_transport::websocket::{self, HandshakeError, Options};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;

use super::connection;
use crate::metrics::Transport;
use crate::store::{Lane, Store};

/// How long accepting pauses when the system is out of something (file descriptors, memory).
const PAUSE: Duration = Duration::from_millis(50);

/// One incarnation of the listener.
pub struct WebSocketListener;

impl Worker for WebSocketListener {
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
    let acceptor = store.sockets.websocket_identity.as_ref().map(|identity| TlsAcceptor::from(identity.tls_config()));
    loop {
        let permit = Arc::clone(&store.handshakes).acquire_owned().await?;
        // Looked at anew each time: a draining node has none any more, and the last one who holds it closes it.
        let Some(listener) = store.sockets.websocket.load_full() else { return std::future::pending().await };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = store.drain.begun() => continue,
        };
        match accepted {
            // Nothing awaits between the accept and the spawn: a kill loses no client.
            Ok((socket, remote)) => {
                let lane = store.lanes.next();
                let handshake =
                    shake_hands(Arc::clone(&store), Arc::clone(lane), acceptor.clone(), socket, remote, permit);
                store.tasks.spawn_on(handshake, &lane.runtime());
            }
            Err(error) => {
                store.metrics.accept_failed(Transport::WebSocket);
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn shake_hands(
    store: Arc<Store>,
    lane: Arc<Lane>,
    acceptor: Option<TlsAcceptor>,
    socket: TcpStream,
    remote: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    // From the listener's runtime to this one.
    let socket = match socket.into_std().and_then(TcpStream::from_std) {
        Ok(socket) => socket,
        Err(error) => return tracing::debug!(%remote, %error, "no connection"),
    };
    let options = Options { intake: store.intake(), handshake: store.live().timers.handshake };
    let decide = |head: RequestHead<'_>| store.examine(Transport::WebSocket, head);
    let enter = |candidate| store.seat(candidate, &lane);
    let shaken = websocket::accept_then(socket, acceptor.as_ref(), remote, &options, decide, enter).await;
    drop(permit);
    match shaken {
        Ok((welcome, reader, writer)) => connection::begin(&store, Transport::WebSocket, welcome, reader, writer).await,
        // Counted where it was decided.
        Err(HandshakeError::Refused(refusal)) if !matches!(refusal.status, 405 | 426) => {}
        Err(error) => {
            store.metrics.refused(Transport::WebSocket, error.reason());
            tracing::debug!(%remote, %error, "no connection");
        }
    }
}
