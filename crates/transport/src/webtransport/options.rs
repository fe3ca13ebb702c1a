//! What one WebTransport connection may take, and QUIC's settings made of it.

use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;

use super::Counters;
use super::sequencer::Limits;
use crate::intake::{Bounds, Intake};

/// How long packets wait behind a stream that HTTP/3 may have set aside for itself and that nothing came on.
const SILENT_WAIT: Duration = Duration::from_millis(100);

/// Bounds of a connection. Every default is on purpose: those of QUIC libraries are not meant for a server that strangers
/// connect to.
#[derive(Clone, Debug)]
pub struct Options {
    /// What a packet under way may take. One that is too large ends the connection with 1009; one that takes too long only
    /// its stream, which is abandoned.
    pub intake: Arc<dyn Intake>,
    /// How long everything may take from the first QUIC packet to the session: a slow or silent peer is let go.
    pub handshake: Duration,
    /// How long a connection without any sign of life is kept. A third of it is the pace of QUIC's own keep-alive, so that
    /// two of them may get lost.
    pub idle: Duration,
    /// How many unidirectional streams the peer may have open: packets on their way at once. 256 carry 1,000 packets a
    /// second over a round trip of a quarter second.
    pub max_streams: u32,
    /// How long finished packets wait behind a stream that makes no progress, before it is abandoned. 1 s: a lost packet
    /// is sent again within a few round trips, and later audio is worth more than a packet that late.
    pub stream_wait: Duration,
    /// How many bytes may wait for their turn besides the one largest packet, before the stream that holds them up is
    /// abandoned. 4 MiB: seconds of video at any rate that a call sends.
    pub reorder_bytes: usize,
    /// How much of one stream the peer may send before it is read, in bytes. Smaller than the largest packet, which is
    /// read while it arrives; 1 MiB lets a key frame through in one round trip.
    pub stream_window: u32,
    /// The same of all streams together: the most that an unread connection holds in QUIC's buffers. 2 MiB at 100 ms of
    /// round trip are 20 MB/s.
    pub receive_window: u32,
    /// How much may be written that the peer has not acknowledged, in bytes. 512 KiB at 100 ms of round trip are 40
    /// Mbit/s; more only moves packets out of the egress queue, where drops are decided, into buffers, where they age.
    pub send_window: u32,
    /// How many bytes of datagrams may wait unread, and unsent. 64 KiB: they are small, and old ones are worthless.
    pub datagram_buffer: usize,
    /// Where to count what became of streams; connections that are made with the same options count together.
    pub counters: Arc<Counters>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            intake: Arc::new(Bounds::default()),
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            max_streams: 256,
            stream_wait: Duration::from_secs(1),
            reorder_bytes: 4 << 20,
            stream_window: 1 << 20,
            receive_window: 2 << 20,
            send_window: 512 << 10,
            datagram_buffer: 64 << 10,
            counters: Arc::default(),
        }
    }
}

impl Options {
    /// For a client: the packets of a whole room arrive on one connection, so it takes more at once than a server takes
    /// from each.
    #[must_use]
    pub fn client() -> Self {
        Self {
            max_streams: 2_048,
            reorder_bytes: 16 << 20,
            stream_window: 4 << 20,
            receive_window: 16 << 20,
            send_window: 2 << 20,
            datagram_buffer: 256 << 10,
            ..Self::default()
        }
    }

    /// How often QUIC asks for a sign of life.
    pub(super) fn keep_alive(&self) -> Duration {
        (self.idle / 3).max(Duration::from_millis(1))
    }

    pub(super) fn limits(&self) -> Limits {
        Limits {
            wait: self.stream_wait,
            silent_wait: self.stream_wait.min(SILENT_WAIT),
            packet: self.intake.bounds(),
            reorder_bytes: self.reorder_bytes,
        }
    }

    /// QUIC's settings. Segmentation offload (GSO) stays on: ten datagrams per system call.
    pub(super) fn transport(&self) -> quinn::TransportConfig {
        let mut transport = quinn::TransportConfig::default();
        let idle = u32::try_from(self.idle.as_millis()).unwrap_or(u32::MAX);
        transport
            .max_idle_timeout(Some(VarInt::from_u32(idle).into()))
            .keep_alive_interval(Some(self.keep_alive()))
            // The CONNECT request is the only one.
            .max_concurrent_bidi_streams(VarInt::from_u32(1))
            .max_concurrent_uni_streams(VarInt::from_u32(self.max_streams))
            .stream_receive_window(VarInt::from_u32(self.stream_window))
            .receive_window(VarInt::from_u32(self.receive_window))
            .send_window(u64::from(self.send_window))
            // Streams go out one after the other, as they were written, instead of a piece of each in turn: a packet is
            // worth something only when it is whole.
            .send_fairness(false)
            .datagram_receive_buffer_size(Some(self.datagram_buffer))
            .datagram_send_buffer_size(self.datagram_buffer);
        transport
    }
}
