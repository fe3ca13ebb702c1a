//! An independent observer of one egress queue: keeps its own books of what was pushed, and holds every drop and every delivery
//! against what the queue promises. It knows nothing of how the queue works inside.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use roomcast_protocol::{Class, Packet, PacketBuffer, SessionId, Tag};
use roomcast_relay::{Batch, Budget, DropReason, EgressLimits, EgressQueue, Pushed, Time};

/// A pushed packet, as the observer knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    number: u64,
    tag: Tag,
    length: usize,
    arrived: Time,
}

/// One frame in the history of a flow.
#[derive(Clone, Copy, Debug)]
struct Frame {
    number: u64,
    key: bool,
    dropped: bool,
}

#[derive(Debug, Default)]
struct Books {
    queued: VecDeque<Entry>,
    newcomer: Option<Entry>,
    flows: HashMap<(SessionId, u32), Vec<Frame>>,
    pushed: u64,
    delivered: u64,
    dropped: BTreeMap<&'static str, u64>,
    /// When something was last handed to the writer, if it has not come back since.
    writing_since: Option<Time>,
    /// How long the oldest had waited when the newcomer came.
    waited: Duration,
    /// Whether a write ever took long.
    was_held_up: bool,
    /// Judge only that no delta follows a gap, not that each delta dropped for one had one.
    lenient_about_gaps: bool,
}

/// A queue under observation.
#[derive(Debug)]
pub(crate) struct Observed {
    queue: EgressQueue,
    books: Books,
}

fn is_video(class: Class) -> bool {
    matches!(class, Class::Delta | Class::KeyFrame)
}

fn patience(class: Class, limits: &EgressLimits) -> Option<Duration> {
    match class {
        Class::Control => None,
        Class::Audio => Some(limits.max_delay * 2),
        Class::Delta | Class::KeyFrame | Class::Opaque => Some(limits.max_delay),
    }
}

fn number_of(packet: &Packet) -> u64 {
    u64::from_be_bytes(packet.payload()[..8].try_into().unwrap())
}

fn make(number: u64, tag: Tag, length: usize) -> Packet {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(length.max(8), 0);
    let mut buffer = PacketBuffer::new();
    buffer.extend(&payload);
    buffer.seal(tag, None)
}

impl Books {
    fn bytes(&self) -> usize {
        self.queued.iter().map(|entry| entry.length).sum()
    }

    /// Whether a frame of this flow was dropped since the flow's last key frame before `number`, or that key frame was.
    fn gap_before(&self, tag: &Tag, number: u64) -> bool {
        let history = self.flows.get(&(tag.sender, tag.flow)).map(Vec::as_slice).unwrap_or_default();
        let before: Vec<_> = history.iter().take_while(|frame| frame.number < number).collect();
        let start = before.iter().rposition(|frame| frame.key).unwrap_or(0);
        before[start..].iter().any(|frame| frame.dropped)
    }

    fn saw_drop(&mut self, packet: &Packet, reason: DropReason, now: Time, limits: &EgressLimits) {
        let number = number_of(packet);
        let position = self.queued.iter().position(|entry| entry.number == number);
        let newcomer = self.newcomer.filter(|newcomer| newcomer.number == number);
        let entry = match (position, newcomer) {
            (Some(position), None) => self.queued[position],
            (None, Some(newcomer)) => newcomer,
            _ => panic!("{number} was dropped ({reason:?}) but is neither queued nor new"),
        };
        let class = entry.tag.class;
        match reason {
            DropReason::QueuePackets | DropReason::QueueBytes | DropReason::Budget => {
                self.check_drop_for_room(entry, reason, newcomer.is_some(), limits);
            }
            DropReason::Late => {
                let patience = patience(class, limits).expect("control is never late");
                assert!(now.since(entry.arrived) > patience, "{entry:?} was dropped as late at {now:?}");
            }
            DropReason::Congested => self.check_drop_for_audio(entry, newcomer.is_some(), now, limits),
            DropReason::WaitingForKeyFrame => {
                assert_eq!(class, Class::Delta);
                if !self.lenient_about_gaps {
                    assert!(self.gap_before(&entry.tag, number), "{entry:?} was dropped for a gap that is not there");
                }
            }
            other => panic!("{other:?} is no reason of an open queue"),
        }
        match position {
            Some(position) => _ = self.queued.remove(position),
            None => self.newcomer = None,
        }
        if is_video(class) {
            let history = self.flows.get_mut(&(entry.tag.sender, entry.tag.flow)).unwrap();
            history.iter_mut().find(|frame| frame.number == number).unwrap().dropped = true;
        }
        *self.dropped.entry(reason.label()).or_default() += 1;
    }

    /// A picture goes for audio that waits behind it, or since a writer that is held up has enough.
    fn check_drop_for_audio(&self, entry: Entry, is_newcomer: bool, now: Time, limits: &EgressLimits) {
        assert!(entry.tag.class < Class::Audio, "{entry:?} was dropped for audio");
        let audio = self.queued.iter().find(|queued| queued.tag.class == Class::Audio);
        if audio.is_some_and(|audio| {
            entry.arrived <= audio.arrived && now.since(audio.arrived) > limits.max_delay / 16 * 5 && !is_newcomer
        }) {
            return;
        }
        let is_held_up = self.writing_since.is_some_and(|_| self.waited >= limits.max_delay / 8);
        assert!(self.was_held_up || is_held_up, "{entry:?} was dropped for a writer that keeps up");
        if !is_newcomer {
            let newcomer = self.newcomer.expect("what waits makes way for a newcomer only");
            assert!(matches!(newcomer.tag.class, Class::KeyFrame | Class::Opaque), "{entry:?} went for {newcomer:?}");
            assert!(entry.tag.class < Class::KeyFrame && entry.tag.class <= newcomer.tag.class, "{entry:?}");
        }
    }

    /// The writer has come back, as it says itself or by draining.
    fn came_back(&mut self, now: Time, exact: bool, limits: &EgressLimits) {
        let waited = self.queued.front().map_or(Duration::ZERO, |oldest| now.since(oldest.arrived));
        if let Some(since) = self.writing_since.take() {
            self.was_held_up |= match exact {
                true => now.since(since) >= limits.max_delay / 16,
                false => waited >= limits.max_delay / 4,
            };
        }
    }

    fn check_drop_for_room(&self, entry: Entry, reason: DropReason, is_newcomer: bool, limits: &EgressLimits) {
        let class = entry.tag.class;
        let (packets, bytes) = (self.queued.len(), self.bytes());
        let coming = self.newcomer.map_or(0, |newcomer| newcomer.length);
        match reason {
            // Without a newcomer, or before it is looked at, the limits were lowered.
            DropReason::QueuePackets => {
                assert!(
                    packets + usize::from(self.newcomer.is_some()) > limits.packets,
                    "{packets} packets were not too many"
                );
            }
            DropReason::QueueBytes => {
                assert!(bytes + coming > limits.bytes, "{bytes} + {coming} bytes were not too many");
            }
            _ => {}
        }
        if is_newcomer {
            let above: Vec<_> = self.queued.iter().filter(|queued| queued.tag.class > class).collect();
            let hopeless = reason != DropReason::Budget
                && (above.len() + 1 > limits.packets
                    || above.iter().map(|queued| queued.length).sum::<usize>() + entry.length > limits.bytes);
            assert!(
                hopeless || above.len() == packets,
                "{entry:?} was refused ({reason:?}) while something no better was queued"
            );
        } else {
            let over = packets > limits.packets || bytes > limits.bytes;
            let lowest = self.queued.iter().map(|queued| queued.tag.class).min();
            assert_eq!(lowest, Some(class), "{entry:?} was dropped ({reason:?}) while something worse was queued");
            let oldest = self.queued.iter().find(|queued| queued.tag.class == class);
            assert_eq!(oldest, Some(&entry), "of its class, the oldest goes first");
            if !over {
                let newcomer = self.newcomer.expect("within its limits a queue drops for a newcomer only");
                assert!(class <= newcomer.tag.class, "{entry:?} was dropped for the lesser {newcomer:?}");
            }
        }
    }
}

impl Observed {
    pub(crate) fn new(budget: &Budget) -> Self {
        Self { queue: EgressQueue::new(budget), books: Books::default() }
    }

    pub(crate) fn lenient_about_gaps(mut self) -> Self {
        self.books.lenient_about_gaps = true;
        self
    }

    pub(crate) fn queue(&self) -> &EgressQueue {
        &self.queue
    }

    pub(crate) fn push(&mut self, tag: Tag, length: usize, now: Time, limits: &EgressLimits) -> Pushed {
        let Self { queue, books } = self;
        let number = books.pushed;
        books.pushed += 1;
        let packet = make(number, tag, length);
        let entry = Entry { number, tag, length: packet.payload().len(), arrived: now };
        let was_empty = books.queued.is_empty();
        if is_video(tag.class) {
            let frame = Frame { number, key: tag.class == Class::KeyFrame, dropped: false };
            books.flows.entry((tag.sender, tag.flow)).or_default().push(frame);
        }
        books.newcomer = Some(entry);
        books.waited = books.queued.front().map_or(Duration::ZERO, |oldest| now.since(oldest.arrived));
        let pushed = queue.push(packet, now, limits, &mut |packet, reason| books.saw_drop(packet, reason, now, limits));
        match books.newcomer.take() {
            Some(entry) => {
                assert_eq!(pushed, if was_empty { Pushed::First } else { Pushed::Queued });
                books.queued.push_back(entry);
            }
            None => assert!(matches!(pushed, Pushed::Dropped(_)), "{pushed:?}"),
        }
        self.check(now, limits);
        pushed
    }

    /// The writer says that it could take more.
    pub(crate) fn ready(&mut self, now: Time, limits: &EgressLimits) {
        self.queue.ready(now, limits);
        self.books.came_back(now, true, limits);
    }

    /// Drains once; the numbers of what came out.
    pub(crate) fn drain(&mut self, now: Time, limits: &EgressLimits, batch: Batch) -> Vec<Packet> {
        let Self { queue, books } = self;
        let mut out = Vec::new();
        books.came_back(now, false, limits);
        let drained = queue.drain(now, limits, batch, &mut out, &mut |packet, reason| {
            books.saw_drop(packet, reason, now, limits);
        });
        let bytes: usize = out.iter().map(|packet| packet.payload().len()).sum();
        assert_eq!((drained.packets, drained.bytes), (out.len(), bytes));
        assert!(out.len() <= batch.packets && (bytes <= batch.bytes || out.len() == 1), "{drained:?} in {batch:?}");
        if !out.is_empty() {
            books.writing_since = Some(now);
        }
        let oldest = books.queued.front().filter(|_| !out.is_empty());
        assert_eq!(drained.longest_wait, oldest.map_or(Duration::ZERO, |entry| now.since(entry.arrived)));
        for packet in &out {
            let entry = books.queued.pop_front().expect("nothing comes out that is not queued");
            assert_eq!(number_of(packet), entry.number, "packets come out in the order in which they arrived");
            assert_eq!(*packet.tag(), entry.tag);
            if entry.tag.class == Class::Delta {
                assert!(!books.gap_before(&entry.tag, entry.number), "{entry:?} was delivered after a gap");
            }
            books.delivered += 1;
        }
        assert!(!out.is_empty() || books.queued.is_empty() || batch.packets == 0, "a drain makes progress");
        self.check(now, limits);
        out
    }

    pub(crate) fn drain_all(&mut self, now: Time, limits: &EgressLimits) {
        // One that was held up is handed little at a time.
        while !self.drain(now, limits, Batch { packets: usize::MAX, bytes: usize::MAX }).is_empty() {}
        assert!(self.queue.is_empty());
    }

    /// What holds after every call.
    fn check(&self, now: Time, limits: &EgressLimits) {
        let Self { queue, books } = self;
        assert_eq!((queue.len(), queue.bytes()), (books.queued.len(), books.bytes()));
        assert_eq!(queue.oldest(), books.queued.front().map(|entry| entry.arrived));
        assert!(queue.len() <= limits.packets && queue.bytes() <= limits.bytes, "the queue is over its limits");
        for entry in &books.queued {
            let patience = patience(entry.tag.class, limits).unwrap_or(Duration::MAX);
            assert!(now.since(entry.arrived) <= patience, "{entry:?} is late and still queued at {now:?}");
        }
        let dropped: u64 = books.dropped.values().sum();
        assert_eq!(
            books.pushed,
            books.delivered + dropped + queue.len() as u64,
            "something is missing, or counted twice"
        );
        assert!(!queue.is_empty() || queue.capacity() <= 16, "an empty queue holds {} slots", queue.capacity());
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.books.dropped.get(reason.label()).copied().unwrap_or(0)
    }

    /// What is queued, for a test that looks at it.
    pub(crate) fn number(packet: &Packet) -> u64 {
        number_of(packet)
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.books.delivered
    }
}
