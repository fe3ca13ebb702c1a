//! Guests: they come and go all the time, alone into a room that is in the middle of its call, and by twos into rooms that
//! begin with them and end with them.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use roomcast_protocol::RoomId;
use tokio::time::{Instant, sleep};

use crate::ledger::{Ledger, Numbered};
use crate::node_box::{NodeBox, Via};

use super::crowd::user;
use super::line::Line;
use super::packet;
use super::room::{Room, Speaker, lock};
use super::{Findings, PATIENCE};

/// Guests' ids begin above all residents'.
static NEXT: AtomicU32 = AtomicU32::new(1_000_000);
/// Rooms of two have an index that no room of the crowd has.
static NEXT_ROOM: AtomicU32 = AtomicU32::new(100_000);
/// Packets of each guest.
const WORDS: u32 = 3;

fn number(next: &AtomicU32) -> u32 {
    next.fetch_add(1, Ordering::Relaxed)
}

/// A guest that is in.
struct Guest {
    room: Arc<Room>,
    speaker: Arc<Speaker>,
    ledger: Arc<Mutex<Ledger>>,
    via: Via,
    line: Line,
}

impl Guest {
    async fn join(node: &NodeBox, room: &Arc<Room>, via: Via) -> Result<Self, String> {
        let id = number(&NEXT);
        let speaker = room.enter(id, None);
        let ledger = Arc::new(Mutex::new(Ledger::new(id, room.index)));
        let line = Line::open(node, via, &user(id), &room.name, room.ear(&ledger, None)).await;
        let line = line.map_err(|error| format!("guest {id} did not get in over {via:?}: {error:#}"))?;
        Ok(Self { room: Arc::clone(room), speaker, ledger, via, line })
    }

    async fn speak(&mut self) -> Result<(), String> {
        let id = self.speaker.id;
        let packet = Numbered { room: self.room.index, sender: id, number: self.speaker.next() };
        let sent = self.line.send(packet::media(&user(id), packet)).await;
        sent.map_err(|error| format!("guest {id} could not send: {error}"))
    }

    /// Leaves, and tells what it has heard.
    async fn leave(self, musts: &[(Arc<Speaker>, Range<u32>)]) -> Result<Ledger, String> {
        let Self { speaker, ledger, line, via, .. } = self;
        let left = line.leave().await;
        left.map_err(|ended| format!("guest {} over {via:?} did not leave in order: {ended:?}", speaker.id))?;
        let mut ledger = lock(&ledger).clone();
        for (speaker, must) in musts {
            ledger.settle(speaker.id, speaker.begun(), must.clone());
        }
        Ok(ledger)
    }
}

/// Whether all was heard that must be.
fn has_heard(ledger: &Mutex<Ledger>, musts: &[(Arc<Speaker>, Range<u32>)]) -> bool {
    let ledger = lock(ledger);
    musts.iter().all(|(speaker, must)| must.is_empty() || ledger.next_of(speaker.id) >= must.end)
}

/// One guest after another into one room of the crowd, until told to stop. `residents` is how many are in it at the node.
pub(super) async fn visit(
    node: Arc<NodeBox>,
    room: Arc<Room>,
    residents: usize,
    mut random: fastrand::Rng,
    stay: Range<u64>,
    stop: Arc<AtomicBool>,
) -> Findings {
    let mut findings = Findings::default();
    let all = room.residents();
    while !stop.load(Ordering::Relaxed) {
        let via = Via::ALL[random.usize(..2)];
        let stay = Duration::from_millis(random.u64(stay.clone()));
        if let Err(wrong) = one_visit(&node, &room, &all, via, stay, &mut findings).await {
            findings.wrong.push(wrong);
        }
        let left = Instant::now();
        let id = RoomId::parse(&room.name).expect("a plain name is a room's");
        let gone = || {
            let cell = node.node().store().rooms.get(&id);
            cell.is_some_and(|cell| cell.members() == residents && cell.table().len() == residents)
        };
        if !within(PATIENCE, gone).await {
            findings.wrong.push(format!("a guest of {} is still in the table", room.name));
        }
        findings.leave_times.push(left.elapsed());
    }
    findings
}

async fn one_visit(
    node: &NodeBox,
    room: &Arc<Room>,
    residents: &[Arc<Speaker>],
    via: Via,
    stay: Duration,
    findings: &mut Findings,
) -> Result<(), String> {
    let asked = Instant::now();
    let mut guest = Guest::join(node, room, via).await?;
    findings.join_times.push(asked.elapsed());
    // It has its answer: what is begun from now on it must hear.
    let from: Vec<u32> = residents.iter().map(|speaker| speaker.begun()).collect();
    for _ in 0..WORDS {
        sleep(stay / WORDS).await;
        guest.speak().await?;
    }
    // When all residents have heard a packet, and one of them a later one of the same sender, then it was handed to
    // everybody in the table. So the guest must have it though it leaves now; the wait is for the wire only.
    let must = |(speaker, from): (&Arc<Speaker>, &u32)| {
        (Arc::clone(speaker), *from..speaker.heard_by_all().saturating_sub(1).max(*from))
    };
    let musts: Vec<_> = residents.iter().zip(&from).map(must).collect();
    let ledger = Arc::clone(&guest.ledger);
    let _ = within(PATIENCE, || has_heard(&ledger, &musts)).await; // the ledger says what is missing
    if via == Via::WebTransport {
        // Closing a QUIC connection cuts what is under way; over WebSocket the close comes after what was sent.
        let speaker = Arc::clone(&guest.speaker);
        let _ = within(PATIENCE, || speaker.heard_by_all() >= WORDS).await;
    }
    findings.enter(guest.leave(&musts).await?);
    findings.visits += 1;
    Ok(())
}

/// Two guests at a time make a room, talk and leave, until told to stop; then that room must be over.
pub(super) async fn meet(node: Arc<NodeBox>, mut random: fastrand::Rng, pause: u64, stop: Arc<AtomicBool>) -> Findings {
    let mut findings = Findings::default();
    while !stop.load(Ordering::Relaxed) {
        let index = number(&NEXT_ROOM);
        let room = Room::new(index, format!("{MEETING}{index}"), 0);
        if let Err(wrong) = one_meeting(&node, &room, random.usize(..4), &mut findings).await {
            findings.wrong.push(format!("{}: {wrong}", room.name));
        }
        let id = RoomId::parse(&room.name).expect("a plain name is a room's");
        if !within(PATIENCE, || node.node().store().rooms.get(&id).is_none()).await {
            findings.wrong.push(format!("{} is not over though nobody is in it", room.name));
        }
        findings.meetings += 1;
        sleep(Duration::from_millis(random.u64(..pause))).await;
    }
    findings
}

/// How the names of rooms of two begin.
pub(super) const MEETING: &str = "meeting-";

async fn one_meeting(node: &NodeBox, room: &Arc<Room>, mix: usize, findings: &mut Findings) -> Result<(), String> {
    let asked = Instant::now();
    // At the same time: one of them makes the room, and it is not known which.
    let (one, two) =
        tokio::join!(Guest::join(node, room, Via::ALL[mix / 2]), Guest::join(node, room, Via::ALL[mix % 2]));
    let (mut one, mut two) = (one?, two?);
    findings.join_times.push(asked.elapsed());
    for _ in 0..WORDS {
        let (first, second) = tokio::join!(one.speak(), two.speak());
        first.and(second)?;
    }
    let (of_one, of_two) = ([(Arc::clone(&two.speaker), 0..WORDS)], [(Arc::clone(&one.speaker), 0..WORDS)]);
    let (first, second) = (Arc::clone(&one.ledger), Arc::clone(&two.ledger));
    let _ = within(PATIENCE, || has_heard(&first, &of_one) && has_heard(&second, &of_two)).await;
    let (first, second) = tokio::join!(one.leave(&of_one), two.leave(&of_two));
    findings.enter(first?);
    findings.enter(second?);
    findings.visits += 2;
    Ok(())
}

async fn within(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        sleep(Duration::from_millis(5)).await;
    }
    true
}
