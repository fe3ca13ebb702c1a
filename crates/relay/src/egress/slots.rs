//! Where the packets of one queue stand, and the three orders they stand in: arrival, class and flow. What lives here: slots and
//! links. What does not: any decision about which packet goes.
//!
//! Every packet has one slot, linked into up to three doubly linked lists by index, so that taking one out from anywhere is
//! constant work and leaves no hole behind.

use crate::Time;

/// The index that is none.
const NONE: u32 = u32::MAX;

/// Slots kept for the next burst when the queue runs empty; more than that is given back.
const KEEP_SLOTS: usize = 16;

/// Which of a slot's links a list uses.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// All packets, by arrival.
    Arrival,
    /// The packets of one class, by arrival.
    Class,
    /// The video packets of one sender's flow, by arrival.
    Flow,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

const UNLINKED: Link = Link { previous: NONE, next: NONE };

/// One of the orders: its first and last slot. Belongs to the [`Slots`] it was used with.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    first: u32,
    last: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self { first: NONE, last: NONE };

    pub(super) fn first(&self) -> Option<u32> {
        (self.first != NONE).then_some(self.first)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first == NONE
    }
}

#[derive(Debug)]
struct Slot<P> {
    /// `None`: free, and its arrival link leads to the next free slot.
    packet: Option<P>,
    arrived: Time,
    links: [Link; 3],
}

/// The slots of one queue. Fewer than `u32::MAX` packets at once; memory cannot hold more.
#[derive(Debug)]
pub(super) struct Slots<P> {
    slots: Vec<Slot<P>>,
    free: u32,
    /// Links followed or changed so far: what a test holds the cost of a push against.
    #[cfg(test)]
    steps: std::cell::Cell<usize>,
}

impl<P> Slots<P> {
    pub(super) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: NONE,
            #[cfg(test)]
            steps: std::cell::Cell::new(0),
        }
    }

    #[cfg(test)]
    pub(super) fn steps(&self) -> usize {
        self.steps.get()
    }

    /// Counts a step, in tests.
    fn step(&self) {
        #[cfg(test)]
        self.steps.set(self.steps.get() + 1);
    }

    /// Finds a place for a packet; it is in no order yet.
    pub(super) fn insert(&mut self, packet: P, arrived: Time) -> u32 {
        let slot = Slot { packet: Some(packet), arrived, links: [UNLINKED; 3] };
        if let Some(free) = self.slots.get_mut(self.free as usize) {
            let index = self.free;
            self.free = free.links[Order::Arrival as usize].next;
            *free = slot;
            index
        } else {
            let index = self.slots.len() as u32;
            self.slots.push(slot);
            index
        }
    }

    /// Takes a packet out. The caller has unlinked it from every order.
    pub(super) fn remove(&mut self, index: u32) -> P {
        let slot = &mut self.slots[index as usize];
        slot.links[Order::Arrival as usize].next = self.free;
        self.free = index;
        slot.packet.take().expect("a linked slot holds a packet")
    }

    /// The packet in a slot.
    pub(super) fn packet(&self, index: u32) -> &P {
        self.slots[index as usize].packet.as_ref().expect("a linked slot holds a packet")
    }

    /// When the packet in a slot arrived.
    pub(super) fn arrived(&self, index: u32) -> Time {
        self.slots[index as usize].arrived
    }

    /// The slot behind this one in an order that it stands in.
    pub(super) fn next(&self, order: Order, index: u32) -> Option<u32> {
        self.step();
        let next = self.slots[index as usize].links[order as usize].next;
        (next != NONE).then_some(next)
    }

    /// Puts a slot last in an order.
    pub(super) fn push_back(&mut self, order: Order, list: &mut List, index: u32) {
        self.step();
        self.slots[index as usize].links[order as usize] = Link { previous: list.last, next: NONE };
        match self.slots.get_mut(list.last as usize) {
            Some(last) => last.links[order as usize].next = index,
            None => list.first = index,
        }
        list.last = index;
    }

    /// Takes a slot out of an order that it stands in.
    pub(super) fn unlink(&mut self, order: Order, list: &mut List, index: u32) {
        self.step();
        let Link { previous, next } =
            std::mem::replace(&mut self.slots[index as usize].links[order as usize], UNLINKED);
        match self.slots.get_mut(previous as usize) {
            Some(slot) => slot.links[order as usize].next = next,
            None => list.first = next,
        }
        match self.slots.get_mut(next as usize) {
            Some(slot) => slot.links[order as usize].previous = previous,
            None => list.last = previous,
        }
    }

    /// Gives back the memory of a large burst once no packet is left; a small one's is kept for the next.
    pub(super) fn shrink_empty(&mut self) {
        if self.slots.capacity() > KEEP_SLOTS {
            *self = Self::new();
        }
    }

    /// Slots that memory is held for.
    pub(super) fn capacity(&self) -> usize {
        self.slots.capacity()
    }
}
