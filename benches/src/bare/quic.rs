//! The bare WebTransport broadcaster: each packet, one unidirectional stream, to each other member of the room, on one thread.
//!
//! A task per client reads its streams one after the other, and another one opens streams to it. Between them stands a bounded
//! channel, so that a slow client holds up nobody.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};
use web_transport_quinn::{Request, Session};

use super::certificate;

/// Packets that wait for one recipient at most, as in the router.
const MAX_QUEUED: usize = 1_024;

/// The largest packet, as the router's default has it.
const MAX_PACKET: usize = 4_000_000;

/// Streams that a client may have open at once, as the router has it.
const MAX_STREAMS: u32 = 256;

/// So that idle connections stay.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(10);

type Members = Vec<(u64, Sender<Bytes>)>;

/// Who is in which room. One thread uses it, so its lock is never waited for.
#[derive(Debug, Default)]
struct Rooms {
    rooms: Mutex<HashMap<String, Arc<Mutex<Members>>>>,
    next: AtomicU64,
    dropped: AtomicU64,
}

/// A listening endpoint; serves once [`Broadcaster::run`] runs.
#[derive(Debug)]
pub struct Broadcaster {
    endpoint: quinn::Endpoint,
    rooms: Arc<Rooms>,
}

impl Broadcaster {
    /// Binds a port on loopback; 0: any that is free. To be called in a tokio runtime.
    ///
    /// # Errors
    /// When the port or a certificate cannot be had.
    pub fn bind(port: u16) -> anyhow::Result<Self> {
        let (certificate, key) = certificate::self_signed()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        tls.alpn_protocols = vec![web_transport_quinn::ALPN.as_bytes().to_vec()];
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls)?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let mut transport = quinn::TransportConfig::default();
        transport.max_concurrent_uni_streams(MAX_STREAMS.into()).keep_alive_interval(Some(KEEP_ALIVE));
        config.transport_config(Arc::new(transport));
        let endpoint = quinn::Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], port)))?;
        Ok(Self { endpoint, rooms: Arc::default() })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Packets that were not handed to a recipient because too many waited for it.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.rooms.dropped.load(Ordering::Relaxed)
    }

    /// Serves until the endpoint is closed.
    pub async fn run(&self) {
        while let Some(incoming) = self.endpoint.accept().await {
            let rooms = Arc::clone(&self.rooms);
            tokio::spawn(async move {
                // A client that cannot be served, or leaves, is no business of the others.
                let _ = serve(incoming, &rooms).await;
            });
        }
    }
}

async fn serve(incoming: quinn::Incoming, rooms: &Rooms) -> anyhow::Result<()> {
    let request = Request::accept(incoming.await?).await?;
    let path = request.url.path().to_owned();
    let room = path.strip_prefix("/lobby/").and_then(|rest| rest.split('/').nth(1)).context("another path")?;
    let own = rooms.next.fetch_add(1, Ordering::Relaxed);
    let (sender, receiver) = channel(MAX_QUEUED);
    let members = Arc::clone(lock(&rooms.rooms).entry(room.to_owned()).or_default());
    lock(&members).push((own, sender));
    let served = async {
        let session = request.ok().await?;
        tokio::try_join!(read(&session, own, &members, rooms), write(&session, receiver))
    };
    let result = served.await.map(|_| ());
    lock(&members).retain(|(member, _)| *member != own);
    result
}

async fn read(session: &Session, own: u64, members: &Mutex<Members>, rooms: &Rooms) -> anyhow::Result<()> {
    loop {
        let mut stream = session.accept_uni().await?;
        let Ok(packet) = stream.read_to_end(MAX_PACKET).await else { continue };
        let packet = Bytes::from(packet);
        for (member, sender) in &*lock(members) {
            if *member != own
                && let Err(TrySendError::Full(_)) = sender.try_send(packet.clone())
            {
                rooms.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

async fn write(session: &Session, mut packets: Receiver<Bytes>) -> anyhow::Result<()> {
    while let Some(packet) = packets.recv().await {
        let mut stream = session.open_uni().await?;
        stream.write_chunk(packet).await?;
        stream.finish()?;
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics while it is held; and then the content is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
