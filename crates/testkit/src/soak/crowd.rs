//! The residents: in their rooms from before the first fault to after the last, all sending at a steady pace.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::ledger::{Ledger, Numbered};
use crate::node_box::{NodeBox, Via, eventually};

use super::line::Line;
use super::packet;
use super::room::{Room, Speaker, lock};
use super::{Findings, PATIENCE};

/// Residents' ids are their room's index times this, plus their place.
pub(super) const ID_STRIDE: u32 = 100;
/// How long the last copies are waited for. Residents are silent then and answer no pings, so this is less than
/// `timers.idle`: what is lost must not look as if connections were.
const LAST_COPIES: Duration = Duration::from_secs(20);

struct Resident {
    room: Arc<Room>,
    speaker: Arc<Speaker>,
    ledger: Arc<Mutex<Ledger>>,
    talking: JoinHandle<(Line, Option<String>)>,
}

/// All residents of all rooms.
pub(super) struct Crowd {
    pub(super) rooms: Vec<Arc<Room>>,
    residents: Vec<Resident>,
    stop: Arc<AtomicBool>,
}

impl Crowd {
    /// Everybody joins, then everybody begins to talk. `distant` rooms have their last resident on the other node.
    pub(super) async fn gather(
        node: &NodeBox,
        other: Option<&NodeBox>,
        (rooms, members, distant): (usize, usize, usize),
        pause: Duration,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut seated = Vec::new();
        let mut all = Vec::new();
        for index in 0..rooms {
            let away = other.filter(|_| index < distant);
            let residents = members + usize::from(away.is_some());
            let number = u32::try_from(index).expect("there are few rooms");
            let room = Room::new(number, format!("room-{index}"), residents);
            for slot in 0..residents {
                let id = number * ID_STRIDE + u32::try_from(slot).expect("there are few members");
                let speaker = room.enter(id, Some(slot));
                let ledger = Arc::new(Mutex::new(Ledger::new(id, number)));
                let via = Via::ALL[(index + slot) % 2];
                let at = away.filter(|_| slot >= members).unwrap_or(node);
                let line = Line::open(at, via, &user(id), &room.name, room.ear(&ledger, Some(slot))).await;
                seated.push((Arc::clone(&room), speaker, ledger, line.expect("a resident joins a calm node")));
            }
            all.push(room);
        }
        let everybody = u32::try_from(seated.len()).expect("there are few residents");
        let begin = Instant::now();
        let residents = (0..everybody).zip(seated).map(|(turn, (room, speaker, ledger, line))| {
            // Spread over the pause, so that the crowd does not speak in chorus.
            let first = begin + pause * turn / everybody;
            let talking = talk(line, Arc::clone(&speaker), room.index, first, pause, Arc::clone(&stop));
            Resident { talking: tokio::spawn(talking), room, speaker, ledger }
        });
        let residents = residents.collect();
        Self { rooms: all, residents, stop }
    }

    /// Waits until everybody has spoken some more and all that was heard.
    pub(super) async fn speaks(&self) {
        const MORE: u32 = 3;
        let before: Vec<u32> = self.residents.iter().map(|resident| resident.speaker.begun()).collect();
        eventually("everybody has spoken and was heard", PATIENCE, async || {
            self.residents.iter().zip(&before).all(|(resident, before)| {
                resident.talking.is_finished() || resident.speaker.heard_by_all() >= before + MORE
            })
        })
        .await;
    }

    /// Everybody stops, hears what is under way, leaves, and is asked what it has heard.
    pub(super) async fn disperse(self, findings: &mut Findings) {
        self.stop.store(true, Ordering::Relaxed);
        let mut lines = Vec::new();
        for resident in self.residents {
            let (line, failure) = resident.talking.await.expect("talking does not panic");
            findings.wrong.extend(failure);
            lines.push((resident.room, resident.speaker, resident.ledger, line));
        }
        let deadline = Instant::now() + LAST_COPIES;
        let heard = || self.rooms.iter().flat_map(|room| room.speakers()).all(|who| who.heard_by_all() >= who.begun());
        while !heard() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let leaving = lines.into_iter().map(|(room, speaker, ledger, line)| {
            tokio::spawn(async move { (room, speaker.id, ledger, line.leave().await) })
        });
        for resident in leaving.collect::<Vec<_>>() {
            let (room, id, ledger, ended) = resident.await.expect("leaving does not panic");
            if let Err(ended) = ended {
                findings.closed += 1;
                findings.wrong.push(format!("resident {id} was closed: {ended:?}"));
            }
            let mut ledger = lock(&ledger).clone();
            for speaker in room.speakers().into_iter().filter(|speaker| speaker.id != id) {
                ledger.settle(speaker.id, speaker.begun(), 0..speaker.begun());
            }
            findings.copies += ledger.packets();
            findings.enter(ledger);
        }
        findings.sent +=
            self.rooms.iter().flat_map(|room| room.residents()).map(|who| u64::from(who.begun())).sum::<u64>();
    }
}

pub(super) fn user(id: u32) -> String {
    format!("u{id:07}")
}

/// Sends at the pace given until told to stop; says what went wrong.
async fn talk(
    mut line: Line,
    speaker: Arc<Speaker>,
    room: u32,
    first: Instant,
    pause: Duration,
    stop: Arc<AtomicBool>,
) -> (Line, Option<String>) {
    let user = user(speaker.id);
    let mut pace = interval_at(first, pause);
    // Whoever was kept from speaking makes up for it: the load is what was asked for.
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let packet = Numbered { room, sender: speaker.id, number: speaker.next() };
        if let Err(error) = line.send(packet::media(&user, packet)).await {
            return (line, Some(format!("resident {} could not send: {error}", speaker.id)));
        }
        if line.is_over() {
            return (line, Some(format!("resident {}'s connection ended", speaker.id)));
        }
    }
    (line, None)
}
