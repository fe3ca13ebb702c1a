//! Clients that cost next to nothing: one read for all that waits, a walk over frame headers, one look at a stamp.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep_until};

use crate::packet::{self, MARK, STAMP};

/// Delays are counted in steps of a tenth of a millisecond, up to five seconds.
const STEPS: usize = 50_000;

/// What all clients count together.
pub(crate) struct Counts {
    sent: AtomicU64,
    received: AtomicU64,
    reordered: AtomicU64,
    delays: Vec<AtomicU64>,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            reordered: AtomicU64::new(0),
            delays: (0..STEPS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Counts {
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(crate) fn reordered(&self) -> u64 {
        self.reordered.load(Ordering::Relaxed)
    }

    pub(crate) fn reset_delays(&self) {
        self.delays.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }

    /// The median and the 99th percentile, in milliseconds.
    pub(crate) fn delays(&self) -> (f64, f64) {
        let counts: Vec<u64> = self.delays.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let all: u64 = counts.iter().sum();
        let at = |part: f64| {
            let mut left = (all as f64 * part) as u64;
            let step = counts.iter().position(|count| {
                let over = *count > left;
                left = left.saturating_sub(*count);
                over
            });
            step.unwrap_or(STEPS) as f64 / 10.0
        };
        (at(0.5), at(0.99))
    }
}

/// Joins a room over plain WebSocket.
pub(crate) async fn connect(address: &str, user: &str, room: &str) -> anyhow::Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let request = format!(
        "GET /lobby/{user}/{room} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        ensure!(answer.len() < 4096, "the answer has no end");
        answer.push(socket.read_u8().await?);
    }
    ensure!(answer.starts_with(b"HTTP/1.1 101"), "refused: {}", String::from_utf8_lossy(&answer));
    Ok(socket)
}

/// Counts what arrives until the connection ends.
pub(crate) async fn receive(mut socket: OwnedReadHalf, counts: Arc<Counts>, senders: usize, start: Instant) {
    let mut buffer = vec![0; 64 * 1024];
    let mut filled = 0;
    let mut mark = None;
    let mut newest = vec![0_u64; senders];
    while let Ok(read) = socket.read(&mut buffer[filled..]).await {
        if read == 0 {
            return;
        }
        filled += read;
        let now = start.elapsed().as_micros() as u64;
        let (mut at, mut received) = (0, 0);
        while let Some(length) = frame_length(&buffer[at..filled]) {
            let frame = &buffer[at..at + length];
            at += length;
            if frame[0] != 0x82 {
                continue; // a ping: the router takes the next packet as a sign of life as well
            }
            received += 1;
            let mark = *mark
                .get_or_insert_with(|| frame.windows(MARK.len()).position(|window| window == MARK).unwrap_or_default());
            let word = |index: usize| {
                let from = mark + MARK.len() + index * 8;
                frame.get(from..from + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
            };
            let step = (now.saturating_sub(word(0)) / 100) as usize;
            counts.delays[step.min(STEPS - 1)].fetch_add(1, Ordering::Relaxed);
            if let Some(newest) = newest.get_mut(word(1) as usize) {
                if word(2) <= *newest {
                    counts.reordered.fetch_add(1, Ordering::Relaxed);
                }
                *newest = word(2);
            }
        }
        counts.received.fetch_add(received, Ordering::Relaxed);
        buffer.copy_within(at..filled, 0);
        filled -= at;
    }
}

/// The length of the frame at the beginning, if all of it is there.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let length = match *bytes.get(1)? {
        126 => 4 + usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        // No packet of this measure is that large.
        127 => return None,
        short => 2 + usize::from(short),
    };
    (bytes.len() >= length).then_some(length)
}

/// Sends at a steady pace, from a moment of its own, until told to stop; gives the socket back, still open.
pub(crate) async fn send(
    mut socket: OwnedWriteHalf,
    user: String,
    sender: usize,
    rate: u32,
    start: Instant,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
) -> OwnedWriteHalf {
    let (mut frame, mark) = packet::frame(&user);
    let period = Duration::from_secs(1) / rate;
    let mut next = Instant::now() + period.mul_f64(fastrand::f64());
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        sleep_until(next).await;
        next += period;
        number += 1;
        let stamp = [start.elapsed().as_micros() as u64, sender as u64, number];
        for (index, word) in stamp.iter().enumerate() {
            let from = mark + MARK.len() + index * 8;
            frame[from..from + 8].copy_from_slice(&word.to_be_bytes());
        }
        debug_assert!(mark + STAMP <= frame.len());
        if socket.write_all(&frame).await.is_err() {
            break;
        }
        counts.sent.fetch_add(1, Ordering::Relaxed);
    }
    socket
}
