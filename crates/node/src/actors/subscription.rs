//! `rooms/{id}/subscription`: carries what other nodes publish in the room to its members here.
//!
//! The stream belongs to the room's cell: a new incarnation reads on where the last one stopped, and nothing in between
//! is lost.

use std::sync::Arc;

use roomcast_protocol::{PacketBuffer, SessionId, Tag, peek};
use roomcast_relay::DropReason;
use roomcast_supervision::{ChildSpec, Failure};

use crate::store::{RoomCell, Store};

/// The child of a room's supervisor that carries. A task: nobody writes to it, and a mailbox would cost most of its memory.
pub(crate) fn subscription(store: Arc<Store>, cell: Arc<RoomCell>) -> ChildSpec {
    ChildSpec::task("subscription", move |task| {
        let deliver = deliver(Arc::clone(&store), Arc::clone(&cell));
        async move {
            tokio::select! {
                () = task.stopping() => Ok(()),
                ended = deliver => ended,
            }
        }
    })
}

async fn deliver(store: Arc<Store>, cell: Arc<RoomCell>) -> Result<(), Failure> {
    // Before it is clear who else is there, a node of the other dialect could not be told apart.
    store.presence.settled().await;
    let stream = Arc::clone(&cell.subscription);
    let mut stream = stream.lock().await;
    if stream.is_none() {
        *stream = Some(store.bus.subscribe(cell.id()).await?);
    }
    let Some(stream) = stream.as_mut() else { return Ok(()) };
    let mut buffer = PacketBuffer::new();
    // From here to the fan-out there is no await but `next`, which is cancel-safe: a kill loses nothing.
    while let Some(delivery) = stream.next().await {
        store.metrics.bus_deliveries.increment(1);
        let lost = stream.take_lost();
        if lost > 0 {
            store.metrics.dropped(DropReason::BusLost, lost);
        }
        if delivery.sender.is_some_and(|sender| store.presence.refuses(sender)) {
            store.metrics.dropped(DropReason::Dialect, 1);
            continue;
        }
        let Ok(header) = peek::peek(store.dialect, &delivery.payload) else {
            store.metrics.dropped(DropReason::Malformed, 1);
            continue;
        };
        // A foreign server may name no session; zero is nobody's, so the packet goes to every member.
        let sender = delivery.sender.unwrap_or(SessionId(0));
        let tag: Tag = header.tag(sender, delivery.payload.len());
        buffer.clear();
        buffer.extend(&delivery.payload);
        let packet = buffer.seal(tag, None);
        cell.fan_out(&packet, &store.live());
    }
    // The bus closed for good: the node is stopping.
    std::future::pending().await
}
