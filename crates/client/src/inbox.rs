//! What was received and not yet taken: bounded in packets and bytes, in order.
//!
//! When it is full the connection is not read further; the server then drops for this client, by its own rules and with
//! its own counters. Nothing is lost here.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::outbox::QueueBounds;

/// One packet from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The serialized `PacketWrapper`.
    pub bytes: Bytes,
    /// Which of this client's connections it came by, counted from 1. Between two connections packets may be missing, unless
    /// the client moved from the one to the other (`Stats::handovers`).
    pub connection: u64,
}

/// The packet, and its share of the bytes until it is taken.
type Held = (Received, OwnedSemaphorePermit);

/// Where the connection puts packets.
#[derive(Debug)]
pub(crate) struct InboxWriter {
    packets: mpsc::Sender<Held>,
    bytes: Arc<Semaphore>,
    most_bytes: u32,
}

/// Where the application takes them.
#[derive(Debug)]
pub(crate) struct InboxReader {
    packets: mpsc::Receiver<Held>,
}

/// An empty inbox.
pub(crate) fn inbox(bounds: QueueBounds) -> (InboxWriter, InboxReader) {
    let (writer, reader) = mpsc::channel(bounds.packets.max(1));
    let most_bytes = u32::try_from(bounds.bytes.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
    let bytes = Arc::new(Semaphore::new(most_bytes as usize));
    (InboxWriter { packets: writer, bytes, most_bytes }, InboxReader { packets: reader })
}

impl InboxWriter {
    /// A packet larger than the whole inbox takes all of it.
    fn share(&self, packet: &Received) -> u32 {
        u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX).min(self.most_bytes)
    }

    /// Puts a packet in if there is room now; gives it back if not.
    pub(crate) fn try_put(&self, packet: Received) -> Result<(), Received> {
        let Ok(share) = Arc::clone(&self.bytes).try_acquire_many_owned(self.share(&packet)) else { return Err(packet) };
        self.packets.try_send((packet, share)).map_err(|error| error.into_inner().0)
    }

    /// Waits for room. `false` where nobody takes packets any more.
    pub(crate) async fn put(&self, packet: Received) -> bool {
        let Ok(share) = Arc::clone(&self.bytes).acquire_many_owned(self.share(&packet)).await else { return false };
        self.packets.send((packet, share)).await.is_ok()
    }
}

impl InboxReader {
    /// Waits for a packet; `None` once no more can come. Cancel-safe.
    pub(crate) async fn take(&mut self) -> Option<Received> {
        self.packets.recv().await.map(|(packet, _share)| packet)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(length: usize) -> Received {
        Received { bytes: Bytes::from(vec![7; length]), connection: 1 }
    }

    #[tokio::test]
    async fn it_is_bounded_in_packets_and_in_bytes() {
        let (writer, mut reader) = inbox(QueueBounds { packets: 2, bytes: 10 });
        assert_eq!(writer.try_put(packet(4)), Ok(()));
        assert_eq!(writer.try_put(packet(7)), Err(packet(7)));
        assert_eq!(writer.try_put(packet(6)), Ok(()));
        assert_eq!(writer.try_put(packet(0)), Err(packet(0)));
        assert_eq!(reader.take().await, Some(packet(4)));
        assert_eq!(writer.try_put(packet(5)), Err(packet(5)));
        assert_eq!(writer.try_put(packet(4)), Ok(()));
    }

    #[tokio::test]
    async fn a_packet_larger_than_all_of_it_waits_for_all_of_it() {
        let (writer, mut reader) = inbox(QueueBounds { packets: 4, bytes: 10 });
        writer.try_put(packet(1)).unwrap();
        let (put, taken) = tokio::join!(writer.put(packet(1000)), async { reader.take().await });
        assert!(put);
        assert_eq!(taken, Some(packet(1)));
        assert_eq!(reader.take().await, Some(packet(1000)));
        drop(reader);
        assert!(!writer.put(packet(1)).await);
    }
}
