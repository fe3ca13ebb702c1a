//! What one reader has not read yet: a queue bounded in items and bytes. What lives here: that bound and the loss it counts. What
//! does not: where the items come from.
//!
//! When it is full the oldest goes, counted: after a stall, the newest media is worth the most.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;

use crate::{Delivery, Letter};

/// What one subscription or inbox may hold unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferLimits {
    /// Most packets or messages.
    pub packets: usize,
    /// Most payload bytes.
    pub bytes: usize,
}

impl Default for BufferLimits {
    /// A second of a busy room, and no more memory than two full egress queues.
    fn default() -> Self {
        Self { packets: 4_096, bytes: 16 * 1024 * 1024 }
    }
}

/// What a buffer can hold.
pub(crate) trait Item {
    /// The bytes that are counted.
    fn payload(&self) -> &Bytes;

    /// To replace them.
    fn payload_mut(&mut self) -> &mut Bytes;
}

impl Item for Delivery {
    fn payload(&self) -> &Bytes {
        &self.payload
    }

    fn payload_mut(&mut self) -> &mut Bytes {
        &mut self.payload
    }
}

impl Item for Letter {
    fn payload(&self) -> &Bytes {
        &self.payload
    }

    fn payload_mut(&mut self) -> &mut Bytes {
        &mut self.payload
    }
}

/// What one reader has not read yet.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    limits: BufferLimits,
    unread: Mutex<Unread<T>>,
    filled: Notify,
}

#[derive(Debug)]
struct Unread<T> {
    items: VecDeque<T>,
    bytes: usize,
    lost: u64,
    closed: bool,
}

/// Items for which an empty buffer keeps room.
const KEEP_ITEMS: usize = 64;

/// A reader that is so many items behind does not just take its time.
const BACKLOG: usize = 32;

impl<T: Item> Buffer<T> {
    /// An empty one; it allocates on the first push.
    pub(crate) fn new(limits: BufferLimits) -> Self {
        let unread = Unread { items: VecDeque::new(), bytes: 0, lost: 0, closed: false };
        Self { limits, unread: Mutex::new(unread), filled: Notify::new() }
    }

    /// No code that holds the lock can panic half way through a change, so a poisoned one is as good as new.
    fn lock(&self) -> MutexGuard<'_, Unread<T>> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one, at the cost of the oldest where there is no room; what never fits is lost itself. After the end nothing is added.
    pub(crate) fn push(&self, item: T) {
        self.push_into(self.lock(), item);
    }

    /// The same for an item whose payload is a slice of a larger read: where the reader is behind, the payload is copied, so that
    /// what waits holds the bytes that are counted and no others.
    pub(crate) fn push_slice(&self, mut item: T) {
        let unread = self.lock();
        if unread.items.len() >= BACKLOG {
            let payload = item.payload_mut();
            *payload = Bytes::copy_from_slice(payload);
        }
        self.push_into(unread, item);
    }

    fn push_into(&self, mut unread: MutexGuard<'_, Unread<T>>, item: T) {
        if unread.closed {
            return;
        }
        let length = item.payload().len();
        if self.limits.packets == 0 || length > self.limits.bytes {
            unread.lost += 1;
            return;
        }
        while unread.items.len() >= self.limits.packets || unread.bytes + length > self.limits.bytes {
            let Some(oldest) = unread.items.pop_front() else { break };
            unread.bytes -= oldest.payload().len();
            unread.lost += 1;
        }
        let was_empty = unread.items.is_empty();
        unread.bytes += length;
        unread.items.push_back(item);
        drop(unread);
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Counts what was lost on the way here.
    pub(crate) fn lose(&self, count: u64) {
        self.lock().lost += count;
    }

    /// Nothing more comes after what is in it.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// The oldest, once there is one; `None` at the end. Cancel-safe; for one reader.
    pub(crate) async fn pop(&self) -> Option<T> {
        // Before anything is taken: a buffer that is filled as fast as it is read must not keep its reader from ever yielding,
        // since then neither other tasks of the thread nor an abort get their turn.
        consume_budget().await;
        loop {
            {
                let mut unread = self.lock();
                if let Some(item) = unread.items.pop_front() {
                    unread.bytes -= item.payload().len();
                    if unread.items.is_empty() && unread.items.capacity() > KEEP_ITEMS {
                        unread.items = VecDeque::new();
                    }
                    return Some(item);
                }
                if unread.closed {
                    return None;
                }
            }
            // A push between the look and this wait has left its permit, so no wake-up is lost.
            self.filled.notified().await;
        }
    }

    /// How many were lost since the last call.
    pub(crate) fn take_lost(&self) -> u64 {
        std::mem::take(&mut self.lock().lost)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_reader_that_is_never_without_work_lets_others_have_their_turn() {
        let buffer = Arc::new(Buffer::new(BufferLimits::default()));
        let delivery = || Delivery { sender: None, payload: Bytes::from_static(b"packet") };
        buffer.push(delivery());
        let reading = tokio::spawn({
            let buffer = Arc::clone(&buffer);
            async move {
                // A bound, so that this fails and does not hang.
                for _ in 0..10_000_000 {
                    buffer.pop().await;
                    buffer.push(delivery());
                }
            }
        });
        tokio::task::yield_now().await;
        reading.abort();
        let ended = tokio::time::timeout(Duration::from_secs(60), reading).await.unwrap();
        assert!(ended.unwrap_err().is_cancelled());
    }
}
