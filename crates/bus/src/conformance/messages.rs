//! The cases of messages that are no packets: [`Bus::send`] and [`Bus::receive`]. What lives here: those cases. What does not: the
//! cases of rooms, and how a suite is run.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::subject::ServerName;
use roomcast_protocol::{SessionId, Subject};

use super::{Broker, PROBE, next, open, packet, probe_number, publish, room, subscribed, up, within};
use crate::{Bus, BusState, Inbox, Letter, Published, SubscribeError};

/// Every node's inbox but the sender's gets a message, byte for byte, in order, with the subject that it was sent on.
pub async fn sends_messages_to_the_inboxes_of_all_other_nodes(broker: &impl Broker) {
    let (from, left, right) = (up(broker).await, up(broker).await, up(broker).await);
    let subject = reports("all");
    let (mut own, mut left, mut right) =
        (inbox(&from, &[&subject]).await, inbox(&left, &[&subject]).await, inbox(&right, &[&subject]).await);
    open_inbox(&from, &subject, &mut left).await;
    open_inbox(&from, &subject, &mut right).await;
    for payload in
        [Bytes::from_static(b"one"), Bytes::new(), Bytes::from(vec![7; 100_000]), Bytes::from_static(b"four")]
    {
        send(&from, &subject, &payload).await;
        for inbox in [&mut left, &mut right] {
            assert_eq!(letter(inbox).await, Letter { subject: subject.to_string(), payload: payload.clone() });
        }
    }
    // Once the others have all of it, an echo would be on its way before this.
    let other = up(broker).await;
    within("the first message of another", async {
        loop {
            send(&other, &subject, &Bytes::from_static(b"another's")).await;
            if let Ok(heard) = tokio::time::timeout(Duration::from_millis(50), own.next()).await {
                assert_eq!(heard.expect("the bus is open").payload, "another's");
                break;
            }
        }
    })
    .await;
}

/// One inbox receives on several subjects, a token of which may stand for any; what it did not ask for never comes.
pub async fn receives_by_wildcard_and_keeps_subjects_apart(broker: &impl Broker) {
    let (from, to) = (up(broker).await, up(broker).await);
    let (one, two) = (reports("one"), reports("tw.o"));
    let (other, outside) = (Subject::connections(&server("other")), Subject::connections(&server("outside")));
    let mut inbox = inbox(&to, &[&Subject::all_health(), &other]).await;
    for subject in [&one, &two, &other] {
        open_inbox(&from, subject, &mut inbox).await;
    }
    for subject in [&one, &outside, &two, &outside, &other] {
        send(&from, subject, &Bytes::copy_from_slice(subject.as_str().as_bytes())).await;
    }
    let mut heard = Vec::new();
    for _ in 0..3 {
        let letter = letter(&mut inbox).await;
        assert_eq!(letter.payload, letter.subject, "a message came on another subject than it was sent on");
        heard.push(letter.subject);
    }
    // Between what different patterns match there is no order.
    heard.retain(|subject| subject != other.as_str());
    assert_eq!(heard, [one.as_str(), two.as_str()]);
}

/// A message on a room's subject reaches who subscribes to the room, in order with the packets, and is not echoed.
pub async fn sends_a_rooms_events_to_its_subscriptions(broker: &impl Broker) {
    let (from, to) = (up(broker).await, up(broker).await);
    let room = room("events");
    let (mut own, mut others) = (subscribed(&from, &room).await, subscribed(&to, &room).await);
    open(&from, &room, &mut others).await;
    open(&to, &room, &mut own).await;
    send(&from, &Subject::system(&room), &Bytes::from_static(b"event")).await;
    publish(&from, &room, &packet(4, b"packet")).await;
    send(&from, &Subject::session(&room, SessionId(9)), &Bytes::from_static(b"for nine")).await;
    for (sender, payload) in [(None, "event"), (Some(SessionId(4)), "packet"), (Some(SessionId(9)), "for nine")] {
        let delivery = next(&mut others).await;
        assert_eq!((delivery.sender, &delivery.payload[..]), (sender, payload.as_bytes()));
    }
    publish(&to, &room, &packet(5, b"answer")).await;
    assert_eq!(next(&mut own).await.payload, "answer");
}

/// A room's packets are for a subscription: an inbox of them is refused.
pub async fn keeps_rooms_out_of_inboxes(broker: &impl Broker) {
    let bus = up(broker).await;
    let room = room("private");
    for subject in [Subject::room(&room), Subject::system(&room)] {
        let refused = within("an answer", bus.receive(vec![reports("fine"), subject.clone()])).await;
        assert!(matches!(refused, Err(SubscribeError::RoomSubject(named)) if named == subject.as_str()));
    }
}

/// An inbox that is not read holds a bounded number of messages, in order; each one that it lost is counted.
pub async fn bounds_an_inbox_and_counts_the_loss(broker: &impl Broker) {
    let (from, to, witness) = (up(broker).await, up(broker).await, up(broker).await);
    let subject = reports("bounded");
    let (mut read, mut unread) = (inbox(&witness, &[&subject]).await, inbox(&to, &[&subject]).await);
    open_inbox(&from, &subject, &mut read).await;
    open_inbox(&from, &subject, &mut unread).await;
    let sent = broker.buffer_packets() as u64 * 8;
    for number in 0..sent {
        send(&from, &subject, &Bytes::copy_from_slice(&number.to_be_bytes())).await;
        // The witness has it, so it is the unread buffer that fills up and nothing on the way.
        assert_eq!(letter(&mut read).await.payload, number.to_be_bytes().as_slice());
    }
    let (mut received, mut lost, mut last) = (0, unread.take_lost(), None);
    within("the loss to be counted", async {
        while lost + (broker.buffer_packets() as u64) < sent {
            tokio::time::sleep(Duration::from_millis(1)).await;
            lost += unread.take_lost();
        }
    })
    .await;
    within("an end of what was sent", async {
        while received + lost < sent {
            if let Ok(heard) = tokio::time::timeout(Duration::from_millis(100), unread.next()).await {
                let payload = heard.expect("the bus is open").payload;
                let number = u64::from_be_bytes(payload[..].try_into().expect("a number"));
                assert!(last < Some(number), "{number} came after {last:?}");
                last = Some(number);
                received += 1;
            }
            lost += unread.take_lost();
        }
    })
    .await;
    assert_eq!(received + lost, sent, "each message is either received or counted");
    assert!(received > 0 && lost > 0, "{received} received, {lost} lost");
    assert!(received <= broker.buffer_packets() as u64, "more was buffered than allowed");
}

/// A dropped inbox hears nothing more; a closed bus ends its own, and sends and receives no more.
pub async fn ends_inboxes_when_dropped_and_when_closed(broker: &impl Broker) {
    let (from, to) = (up(broker).await, up(broker).await);
    let (subject, other) = (reports("ended"), reports("kept"));
    let mut first = inbox(&to, &[&subject]).await;
    let mut kept = inbox(&to, &[&other]).await;
    open_inbox(&from, &subject, &mut first).await;
    open_inbox(&from, &other, &mut kept).await;
    drop(first);
    send(&from, &subject, &Bytes::from_static(b"between")).await;
    send(&from, &other, &Bytes::from_static(b"after it")).await;
    assert_eq!(letter(&mut kept).await.payload, "after it");
    let mut second = inbox(&to, &[&subject]).await;
    open_inbox(&from, &subject, &mut second).await;
    send(&from, &subject, &Bytes::from_static(b"after")).await;
    assert_eq!(letter(&mut second).await.payload, "after");
    // The end reaches who waits already.
    let ended = async { while second.next().await.is_some() {} };
    within("the end of an inbox", async { tokio::join!(ended, to.close()) }).await;
    assert_eq!(*to.state().borrow(), BusState::Closed);
    assert_eq!(to.send(&subject, Bytes::new()), Published::Down);
    assert!(matches!(to.receive(vec![subject]).await, Err(SubscribeError::Closed)));
}

fn reports(name: &str) -> Subject {
    Subject::health(&server(name))
}

fn server(name: &str) -> ServerName {
    ServerName::new("region", "service", name).expect("a valid name")
}

async fn inbox(bus: &Arc<dyn Bus>, subjects: &[&Subject]) -> Box<dyn Inbox> {
    let subjects = subjects.iter().map(|subject| (*subject).clone()).collect();
    within("receiving", bus.receive(subjects)).await.expect("an inbox")
}

/// Sends, waiting while the outgoing buffer is full.
async fn send(bus: &Arc<dyn Bus>, subject: &Subject, payload: &Bytes) {
    within("sending", async {
        loop {
            match bus.send(subject, payload.clone()) {
                Published::Sent => break,
                Published::Full => tokio::task::yield_now().await,
                Published::Down => panic!("the bus is down"),
            }
        }
    })
    .await;
}

/// Waits until an inbox hears a bus on this subject, and has nothing of that left unread.
async fn open_inbox(from: &Arc<dyn Bus>, subject: &Subject, inbox: &mut Box<dyn Inbox>) {
    let number = probe_number().to_be_bytes();
    let (probe, fence) = ([PROBE, b"?", &number].concat(), [PROBE, b"!", &number].concat());
    within("the way to open", async {
        loop {
            send(from, subject, &Bytes::copy_from_slice(&probe)).await;
            if tokio::time::timeout(Duration::from_millis(50), hear(inbox, &probe)).await.is_ok() {
                break;
            }
        }
        send(from, subject, &Bytes::copy_from_slice(&fence)).await;
        hear(inbox, &fence).await;
    })
    .await;
}

async fn hear(inbox: &mut Box<dyn Inbox>, probe: &[u8]) {
    loop {
        let payload = inbox.next().await.expect("the bus is open").payload;
        if payload == probe {
            return;
        }
        assert!(payload.starts_with(PROBE), "unexpected {payload:?}");
    }
}

/// The next message that is not a probe.
async fn letter(inbox: &mut Box<dyn Inbox>) -> Letter {
    within("a message", async {
        loop {
            let letter = inbox.next().await.expect("the bus is open");
            if !letter.payload.starts_with(PROBE) {
                return letter;
            }
        }
    })
    .await
}
