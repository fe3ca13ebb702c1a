//! What a subscription or an inbox has not read yet: bounded in items and bytes, each loss counted. What does not live here: where
//! it comes from.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::{Delivery, Letter};

/// What one subscription may hold unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferLimits {
    /// Most packets.
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

/// What a buffer holds.
pub(crate) trait Item {
    /// Payload bytes.
    fn length(&self) -> usize;
}

impl Item for Delivery {
    fn length(&self) -> usize {
        self.payload.len()
    }
}

impl Item for Letter {
    fn length(&self) -> usize {
        self.subject.len() + self.payload.len()
    }
}

/// What one subscription has not read yet. One reader.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
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

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        let unread = Unread { items: VecDeque::new(), bytes: 0, lost: 0, closed: false };
        Self { unread: Mutex::new(unread), filled: Notify::new() }
    }
}

/// Items for which an empty buffer keeps room.
const KEEP_ITEMS: usize = 64;

impl<T: Item> Buffer<T> {
    fn lock(&self) -> MutexGuard<'_, Unread<T>> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an item in; the oldest make room.
    pub(crate) fn push(&self, item: T, limits: BufferLimits) {
        let mut unread = self.lock();
        let length = item.length();
        if limits.packets == 0 || length > limits.bytes {
            unread.lost += 1;
            return;
        }
        while unread.items.len() >= limits.packets || unread.bytes + length > limits.bytes {
            let Some(oldest) = unread.items.pop_front() else { break };
            unread.bytes -= oldest.length();
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

    /// After what is there, nothing comes any more.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// The oldest item; `None` once it is closed and empty. Cancel-safe.
    pub(crate) async fn pop(&self) -> Option<T> {
        loop {
            {
                let mut unread = self.lock();
                if let Some(item) = unread.items.pop_front() {
                    unread.bytes -= item.length();
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

    /// Items lost since the last call.
    pub(crate) fn take_lost(&self) -> u64 {
        std::mem::take(&mut self.lock().lost)
    }
}
