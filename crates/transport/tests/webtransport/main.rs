//! What a WebTransport connection promises, over real QUIC on loopback.
#![allow(clippy::unwrap_used, missing_docs)]

mod certificates;
mod closing;
mod handshake;
mod hostile;
mod lossy;
mod packets;
mod support;
