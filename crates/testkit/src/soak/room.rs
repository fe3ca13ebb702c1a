//! A room of the crowd, as the test knows it: who speaks in it, how far, and how far each has been heard.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ledger::{Ledger, Numbered};

use super::packet;

/// One who sends numbered packets.
pub(super) struct Speaker {
    pub(super) id: u32,
    /// Its place among the residents; `None`: a guest.
    slot: Option<usize>,
    /// Packets whose sending has begun.
    begun: AtomicU32,
    /// By resident: one past the highest number that it heard of this speaker.
    heard: Vec<AtomicU32>,
}

impl Speaker {
    /// Takes the next number, before anything of the packet is written.
    pub(super) fn next(&self) -> u32 {
        self.begun.fetch_add(1, Ordering::SeqCst)
    }

    pub(super) fn begun(&self) -> u32 {
        self.begun.load(Ordering::SeqCst)
    }

    /// Gives back a number whose packet was not taken.
    pub(super) fn take_back(&self) {
        self.begun.fetch_sub(1, Ordering::SeqCst);
    }

    /// The resident in this place has heard so far.
    pub(super) fn note_heard(&self, slot: usize, number: u32) {
        self.heard[slot].fetch_max(number + 1, Ordering::SeqCst);
    }

    /// One past the highest number that every resident but itself has heard.
    pub(super) fn heard_by_all(&self) -> u32 {
        let others = self.heard.iter().enumerate().filter(|(slot, _)| Some(*slot) != self.slot);
        others.map(|(_, heard)| heard.load(Ordering::SeqCst)).min().unwrap_or(0)
    }
}

/// One room.
pub(super) struct Room {
    pub(super) index: u32,
    pub(super) name: String,
    residents: usize,
    speakers: Mutex<HashMap<u32, Arc<Speaker>>>,
}

impl Room {
    pub(super) fn new(index: u32, name: String, residents: usize) -> Arc<Self> {
        Arc::new(Self { index, name, residents, speakers: Mutex::default() })
    }

    /// Makes somebody known before it joins.
    pub(super) fn enter(&self, id: u32, slot: Option<usize>) -> Arc<Speaker> {
        let heard = (0..self.residents).map(|_| AtomicU32::new(0)).collect();
        let speaker = Arc::new(Speaker { id, slot, begun: AtomicU32::new(0), heard });
        lock(&self.speakers).insert(id, Arc::clone(&speaker));
        speaker
    }

    /// All who ever spoke here.
    pub(super) fn speakers(&self) -> Vec<Arc<Speaker>> {
        lock(&self.speakers).values().cloned().collect()
    }

    /// Those who stay from the beginning to the end.
    pub(super) fn residents(&self) -> Vec<Arc<Speaker>> {
        self.speakers().into_iter().filter(|speaker| speaker.slot.is_some()).collect()
    }

    /// What somebody here does with a packet: checks it, enters it, and lets the others know how far it has heard.
    pub(super) fn ear(
        self: &Arc<Self>,
        ledger: &Arc<Mutex<Ledger>>,
        slot: Option<usize>,
    ) -> impl FnMut(&[u8]) + Send + 'static {
        let (room, ledger) = (Arc::clone(self), Arc::clone(ledger));
        let mut known: HashMap<u32, Arc<Speaker>> = HashMap::new();
        move |bytes| {
            let Some(packet) = packet::read(bytes) else { return lock(&ledger).hear_changed() };
            lock(&ledger).hear(packet);
            let (Some(slot), Numbered { sender, number, .. }) = (slot, packet) else { return };
            let speaker = match known.entry(sender) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let Some(speaker) = lock(&room.speakers).get(&sender).cloned() else { return };
                    entry.insert(speaker)
                }
            };
            speaker.note_heard(slot, number);
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
