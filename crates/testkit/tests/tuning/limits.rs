//! `[limits]` on who may be in: lowering one turns nobody out, and counts at the next who comes.

use roomcast_protocol::RoomId;
use roomcast_testkit::{Heard, Member, SOON, Via, eventually};
use tokio::io::AsyncWriteExt;

use crate::bench::{Call, Deadline, ROOM, Tuned};
use crate::raw;

/// What somebody who comes to the call gets: a seat (it hears the call), or a close code.
async fn knock(tuned: &Tuned, via: Via) -> Result<Member, Option<u16>> {
    let mut guest = Member::join(&tuned.node, via, "guest", ROOM).await;
    match guest.hear().await {
        Heard::Packet(_) => Ok(guest),
        Heard::Closed(code) => Err(code),
    }
}

async fn is_refused(tuned: &Tuned, via: Via) {
    assert_eq!(knock(tuned, via).await.map(|_| ()), Err(Some(1013)), "{via:?}");
}

async fn leaves(tuned: &Tuned, guest: Member, left: usize) {
    guest.leave().await;
    let store = tuned.node.node().store();
    eventually("the guest is out", SOON, async || store.connections() == left && store.rooms.members() == left).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_limit_on_who_is_in_turns_nobody_out_and_refuses_until_enough_have_left() {
    for key in ["limits.max_connections", "limits.max_connections_per_ip", "limits.max_room_members"] {
        let tuned = Tuned::start(&[(key, "100")]).await;
        let call = Call::begin(&tuned.node).await;
        let one = knock(&tuned, Via::WebSocket).await.unwrap();
        let two = knock(&tuned, Via::WebTransport).await.unwrap();

        let deadline = tuned.set(&[(key, "5")]).await;
        is_refused(&tuned, Via::WebSocket).await;
        deadline.is_kept();
        is_refused(&tuned, Via::WebTransport).await;
        leaves(&tuned, one, 5).await;
        for via in Via::ALL {
            is_refused(&tuned, via).await;
        }
        leaves(&tuned, two, 4).await;
        let back = knock(&tuned, Via::WebSocket).await.unwrap();
        is_refused(&tuned, Via::WebTransport).await;

        let deadline = tuned.set(&[(key, "100")]).await;
        let more = knock(&tuned, Via::WebSocket).await.unwrap();
        deadline.is_kept();
        let even_more = knock(&tuned, Via::WebTransport).await.unwrap();
        for (guest, left) in [(back, 6), (more, 5), (even_more, 4)] {
            leaves(&tuned, guest, left).await;
        }
        call.end().await;
        tuned.node.stop().await;
    }
}

/// Opens a room of one's own. `None`: refused.
async fn open(tuned: &Tuned, via: Via, room: &str) -> Option<Member> {
    let mut guest = Member::join(&tuned.node, via, "guest", room).await;
    let seated = || {
        let cell = tuned.node.node().store().rooms.get(&RoomId::parse(room).unwrap());
        cell.is_some_and(|cell| cell.members() == 1)
    };
    let mut answer = Vec::new();
    Deadline::soon()
        .shows("there is an answer", async || {
            answer.extend(guest.heard_by_now());
            !answer.is_empty() || seated()
        })
        .await;
    if answer.is_empty() {
        return Some(guest);
    }
    assert_eq!(answer, [Heard::Closed(Some(1013))]);
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_limit_on_rooms_ends_none_and_refuses_new_ones_until_enough_have_ended() {
    let tuned = Tuned::start(&[]).await;
    let call = Call::begin(&tuned.node).await;
    let one = open(&tuned, Via::WebSocket, "one").await.unwrap();
    let two = open(&tuned, Via::WebTransport, "two").await.unwrap();

    let deadline = tuned.set(&[("limits.max_rooms", "2")]).await;
    assert!(open(&tuned, Via::WebSocket, "three").await.is_none());
    deadline.is_kept();
    assert!(open(&tuned, Via::WebTransport, "three").await.is_none());
    let guest = knock(&tuned, Via::WebSocket).await.expect("a room that is there takes members");
    guest.leave().await;
    let rooms = || tuned.node.node().store().rooms.count();
    one.leave().await;
    eventually("a room ends", SOON, async || rooms() == 2).await;
    assert!(open(&tuned, Via::WebSocket, "three").await.is_none());
    two.leave().await;
    eventually("a room ends", SOON, async || rooms() == 1).await;
    let three = open(&tuned, Via::WebTransport, "three").await.unwrap();
    assert!(open(&tuned, Via::WebSocket, "four").await.is_none());

    let deadline = tuned.set(&[("limits.max_rooms", "10")]).await;
    let four = open(&tuned, Via::WebSocket, "four").await.unwrap();
    deadline.is_kept();
    for member in [three, four] {
        member.leave().await;
    }
    call.end().await;
    tuned.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_believed_as_soon_as_it_is_trusted() {
    let tuned = Tuned::start(&[("limits.max_connections_per_ip", "4")]).await;
    let call = Call::begin(&tuned.node).await;
    let forwarded = async || {
        let request =
            raw::request("/lobby/far/elsewhere").replace("\r\n\r\n", "\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n");
        let mut socket = raw::connect(&tuned.node).await;
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tokio::io::AsyncReadExt::read_u8(&mut socket).await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        socket
    };
    assert_eq!(raw::close_code(&mut forwarded().await).await, Some(1013), "counted as the proxy's own");
    let deadline = tuned.set(&[("limits.trusted_proxies", "[\"127.0.0.0/8\"]")]).await;
    let socket = forwarded().await;
    let elsewhere = RoomId::parse("elsewhere").unwrap();
    deadline
        .shows("it is in, by the address behind the proxy", async || {
            tuned.node.node().store().rooms.get(&elsewhere).is_some_and(|cell| cell.members() == 1)
        })
        .await;
    drop(socket);
    let deadline = tuned.set(&[("limits.trusted_proxies", "[]")]).await;
    assert_eq!(raw::close_code(&mut forwarded().await).await, Some(1013));
    deadline.is_kept();
    call.end().await;
    tuned.node.stop().await;
}
