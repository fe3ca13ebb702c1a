//! Fairness: a room whose members send more than they may does not hold up another.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use roomcast_testkit::soak::line::Line;
use roomcast_testkit::thin::{Kind, Lettering, Picture, make, now_micros, read};
use roomcast_testkit::{NodeBox, SOON, Via, eventually};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// Packets a second that a member may send; each of the flooded room tries twice that.
const ALLOWED: u32 = 100;
const FLOODERS: usize = 6;
/// What the small room's delay may grow by. The machine is shared with all the clients, the flooding ones included.
const BOUND: Duration = Duration::from_millis(50);
const MEASURED: usize = 200;

/// Sends audio every 20 ms until so many were heard; the delay that one in a hundred exceeds.
async fn p99(speaker: &mut Line, delays: &Mutex<Vec<u64>>) -> Duration {
    delays.lock().unwrap().clear();
    let (mut next, end) = (Instant::now(), Instant::now() + 3 * SOON);
    let mut number = 0;
    while delays.lock().unwrap().len() < MEASURED {
        assert!(Instant::now() < end, "the small room is heard");
        sleep_until(next).await;
        next += Duration::from_millis(20);
        let picture = Picture { sender: 9, number, kind: Kind::Audio, sent: now_micros() };
        number += 1;
        speaker.send(make("speaker", picture, Lettering::Hinted, 100)).await.unwrap();
    }
    let mut delays = delays.lock().unwrap().clone();
    delays.sort_unstable();
    Duration::from_micros(delays[delays.len() * 99 / 100])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_is_flooded_does_not_hold_up_another() {
    let node = NodeBox::start_with(&[&format!("limits.ingress_packets_per_second={ALLOWED}")]).await;
    let delays = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&delays);
    let hear = move |bytes: &[u8]| {
        if let Some(picture) = read(bytes) {
            heard.lock().unwrap().push(now_micros().saturating_sub(picture.sent));
        }
    };
    let listener = Line::open(&node, Via::WebSocket, "listener", "small", hear).await.unwrap();
    let mut speaker = Line::open(&node, Via::WebSocket, "speaker", "small", |_: &[u8]| {}).await.unwrap();
    let alone = p99(&mut speaker, &delays).await;
    let (end, ending) = watch::channel(false);
    let mut flooders = Vec::new();
    for index in 0..FLOODERS {
        let user = format!("f{index}");
        let mut line = Line::open(&node, Via::WebSocket, &user, "flooded", |_: &[u8]| {}).await.unwrap();
        let ending = ending.clone();
        flooders.push(tokio::spawn(async move {
            let mut number = 0;
            while !*ending.borrow() {
                for _ in 0..2 {
                    let picture = Picture { sender: index as u32, number, kind: Kind::Delta, sent: now_micros() };
                    number += 1;
                    line.send(make(&user, picture, Lettering::Hinted, 1_200)).await.unwrap();
                }
                sleep(Duration::from_secs(1) / ALLOWED).await;
            }
        }));
    }
    let refused = async || node.metric("roomcast_drops_total", &["reason=\"rate_packets\""]).await;
    eventually("members are at their limit", SOON, async || refused().await > 100.0).await;
    let before = refused().await;
    let beside = p99(&mut speaker, &delays).await;
    let flooding = refused().await - before;
    println!(
        "small room: delay p99 {alone:.1?} alone, {beside:.1?} beside a flooded room ({flooding} refused meanwhile)"
    );
    end.send_replace(true);
    for flooder in flooders {
        flooder.await.unwrap();
    }
    assert!(flooding > 0.0, "the other room was flooded all the while");
    assert!(beside <= alone + BOUND, "{beside:?} beside a flooded room, {alone:?} alone");
    drop(listener);
    node.stop().await;
}
