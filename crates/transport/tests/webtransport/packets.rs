//! Packets there and back, and the order they come in.

use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::PacketBuffer;
use roomcast_transport::webtransport::Options;
use roomcast_transport::{Incoming, PacketReader, PacketWriter};

use crate::support::{Pair, content, next, packet, pair, pair_with, sealed, within};

#[tokio::test]
async fn streams_carry_packets_of_every_size_both_ways_in_order() {
    let Pair { server: _server, mut reader, mut writer, mut client_reader, mut client } =
        pair(Options::default()).await;
    let sizes = [0, 1, 125, 1_200, 65_536, 1, 4_000_000, 17];
    let packets: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(seed, &size)| content(seed, size)).collect();

    let batch: Vec<Bytes> = packets.iter().cloned().map(Bytes::from).collect();
    let sent = async { client.send(&batch).await.unwrap() };
    let received = async {
        for expected in &packets {
            assert!(packet(&mut reader).await == *expected, "{} bytes", expected.len());
        }
    };
    within(async { tokio::join!(sent, received) }).await;

    let batch: Vec<_> = packets.iter().map(|packet| sealed(packet)).collect();
    let sent = async { writer.write(&batch).await.unwrap() };
    let received = async {
        for expected in &packets {
            assert!(packet(&mut client_reader).await == *expected, "{} bytes", expected.len());
        }
    };
    within(async { tokio::join!(sent, received) }).await;
    assert_eq!(reader.take_stats(), roomcast_transport::webtransport::Stats::default());
    assert_eq!(reader.waiting(), (0, 0));
}

#[tokio::test]
async fn windows_smaller_than_a_packet_let_it_through() {
    let small =
        Options { stream_window: 16 << 10, receive_window: 32 << 10, send_window: 16 << 10, ..Options::default() };
    let Pair { server: _server, mut reader, mut client, .. } = pair_with(small.clone(), small).await;
    let big = content(1, 1_000_000);
    let batch = [Bytes::from(big.clone())];
    let (sent, received) = within(async { tokio::join!(client.send(&batch), packet(&mut reader)) }).await;
    sent.unwrap();
    assert!(received == big);
}

#[tokio::test]
async fn datagrams_are_packets_and_ping_is_a_sign_of_life() {
    let Pair { server: _server, mut reader, mut client, .. } = pair(Options::default()).await;
    client.send_datagram(Bytes::from_static(b"pin")).unwrap();
    assert_eq!(packet(&mut reader).await, b"pin");
    client.send_datagram(Bytes::from_static(b"ping")).unwrap();
    client.send_datagram(Bytes::from_static(b"pings")).unwrap();
    let mut buffer = PacketBuffer::new();
    assert_eq!(within(reader.read(&mut buffer)).await.unwrap(), Incoming::Alive);
    assert!(buffer.payload().is_empty());
    assert_eq!(within(reader.read(&mut buffer)).await.unwrap(), Incoming::Packet);
    assert_eq!(buffer.payload(), b"pings");
    assert!(client.send_datagram(Bytes::from(vec![0; 70_000])).is_err());
}

#[tokio::test]
async fn the_stream_opened_first_is_released_first_although_it_ends_last() {
    let Pair { server: _server, mut reader, client, .. } = pair(Options::default()).await;
    let session = client.session();
    let mut first = within(session.open_uni()).await.unwrap();
    let mut second = within(session.open_uni()).await.unwrap();
    let mut third = within(session.open_uni()).await.unwrap();
    third.write_all(b"third").await.unwrap();
    third.finish().unwrap();
    second.write_all(b"second").await.unwrap();
    second.finish().unwrap();
    first.write_all(b"fir").await.unwrap();
    // The later ones are there, and wait.
    let waiting = async {
        while reader.waiting().1 < "secondthird".len() {
            tokio::select! {
                biased;
                found = packet(&mut reader) => panic!("released {found:?} too early"),
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    };
    within(waiting).await;
    first.write_all(b"st").await.unwrap();
    first.finish().unwrap();
    for expected in [&b"first"[..], b"second", b"third"] {
        assert_eq!(packet(&mut reader).await, expected[..]);
    }
    assert_eq!(reader.take_stats().lost_in(), 0);
}

#[tokio::test]
async fn a_stream_whose_first_bytes_come_late_still_goes_first() {
    let Pair { server: _server, mut reader, client, .. } = pair(Options::default()).await;
    // Below the session: a stream that is opened and says nothing is known to the peer by the next one's number only.
    let connection: &quinn::Connection = client.session();
    let mut early = within(connection.open_uni()).await.unwrap();
    let mut late = within(connection.open_uni()).await.unwrap();
    assert!(early.id().index() < late.id().index());
    late.write_all(b"\x40\x54\x00late").await.unwrap();
    late.finish().unwrap();
    // Until the datagram arrives, the stream before it has arrived too, most probably; the order holds either way.
    client.session().send_datagram(Bytes::from_static(b"ping")).unwrap();
    let mut buffer = PacketBuffer::new();
    assert_eq!(within(reader.read(&mut buffer)).await.unwrap(), Incoming::Alive);
    for byte in b"\x40\x54\x00early" {
        early.write_all(&[*byte]).await.unwrap();
    }
    early.finish().unwrap();
    assert_eq!(packet(&mut reader).await, b"early");
    assert_eq!(packet(&mut reader).await, b"late");
}

#[tokio::test]
async fn a_stalled_stream_is_abandoned_and_the_later_ones_pass() {
    let options = Options { stream_wait: Duration::from_millis(200), ..Options::default() };
    let Pair { server: _server, mut reader, mut client, .. } = pair(options).await;
    let mut stalled = within(client.session().open_uni()).await.unwrap();
    stalled.write_all(b"half").await.unwrap();
    client.send(&[Bytes::from_static(b"one"), Bytes::from_static(b"two")]).await.unwrap();
    assert_eq!(packet(&mut reader).await, b"one");
    assert_eq!(packet(&mut reader).await, b"two");
    let stats = reader.take_stats();
    assert_eq!((stats.stalled, stats.lost_in()), (1, 1));
    assert_eq!(reader.take_stats().lost_in(), 0, "taken once");
    assert_eq!(within(stalled.stopped()).await.unwrap(), Some(1), "and its sender is told");
    client.send(&[Bytes::from_static(b"three")]).await.unwrap();
    assert_eq!(packet(&mut reader).await, b"three");
}

#[tokio::test]
async fn a_stream_that_never_sends_its_header_holds_up_no_more_than_any_other() {
    let options = Options { stream_wait: Duration::from_millis(200), ..Options::default() };
    let Pair { server: _server, mut reader, mut client, .. } = pair(options).await;
    let connection: &quinn::Connection = client.session();
    let mut silent = within(connection.open_uni()).await.unwrap();
    let mut half = within(connection.open_uni()).await.unwrap();
    half.write_all(&[0x40]).await.unwrap();
    client.send(&[Bytes::from_static(b"after")]).await.unwrap();
    assert_eq!(packet(&mut reader).await, b"after");
    assert!(within(half.stopped()).await.unwrap().is_some(), "half a header is no excuse");
    // As browsers do with the streams that HTTP/3 sets aside: opened first, used long after, and never to be stopped.
    assert_eq!(reader.take_stats().stalled, 1, "the silent one is none");
    silent.write_all(&[0x02]).await.unwrap();
    client.send(&[Bytes::from_static(b"more")]).await.unwrap();
    assert_eq!(packet(&mut reader).await, b"more");
    assert!(tokio::time::timeout(Duration::ZERO, silent.stopped()).await.is_err(), "it was not stopped");
}

#[tokio::test]
async fn a_first_packet_that_was_taken_for_one_of_http3s_own_streams_is_late_but_not_lost() {
    let Pair { server: _server, mut reader, mut client, .. } = pair(Options::default()).await;
    let connection: &quinn::Connection = client.session();
    // The second and third stream, which nothing comes on in time, as when their datagrams are lost.
    let mut whole = within(connection.open_uni()).await.unwrap();
    let mut halting = within(connection.open_uni()).await.unwrap();
    client.send(&[Bytes::from_static(b"after")]).await.unwrap();
    assert_eq!(packet(&mut reader).await, b"after");
    whole.write_all(b"\x40\x54\x00late").await.unwrap();
    whole.finish().unwrap();
    assert_eq!(packet(&mut reader).await, b"late");
    halting.write_all(b"\x40\x54\x00la").await.unwrap();
    let seen = async {
        while reader.waiting().0 == 0 {
            tokio::select! {
                biased;
                found = packet(&mut reader) => panic!("released {found:?} too early"),
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
        }
    };
    within(seen).await;
    halting.write_all(b"ter").await.unwrap();
    halting.finish().unwrap();
    assert_eq!(packet(&mut reader).await, b"later");
    assert_eq!(reader.take_stats().lost_in(), 0);
    assert_eq!(reader.waiting(), (0, 0));
}

#[tokio::test]
async fn a_reset_stream_is_skipped_and_counted() {
    let Pair { server: _server, mut reader, mut client, .. } = pair(Options::default()).await;
    let mut broken = within(client.session().open_uni()).await.unwrap();
    broken.write_all(&content(1, 5_000)).await.unwrap();
    client.send(&[Bytes::from_static(b"whole")]).await.unwrap();
    broken.reset(7).unwrap();
    assert_eq!(packet(&mut reader).await, b"whole");
    let stats = reader.take_stats();
    assert_eq!((stats.reset, stats.lost_in()), (1, 1));
}

#[tokio::test]
async fn a_packet_broken_off_in_the_middle_never_looks_whole() {
    // A client that takes little and reads nothing, so that a write cannot end.
    let tight = Options { stream_window: 8 << 10, receive_window: 8 << 10, ..Options::client() };
    let options = Options { send_window: 8 << 10, ..Options::default() };
    let Pair { server: _server, reader: _reader, mut writer, mut client_reader, .. } = pair_with(options, tight).await;
    let big = [sealed(&content(1, 200_000))];
    tokio::select! {
        biased;
        result = writer.write(&big) => panic!("written whole: {result:?}"),
        () = tokio::time::sleep(Duration::from_millis(100)) => {}
    }
    let small = [sealed(b"next")];
    let (written, received) = within(async { tokio::join!(writer.write(&small), packet(&mut client_reader)) }).await;
    written.unwrap();
    assert_eq!(received, b"next");
    assert_eq!(client_reader.take_stats().reset, 1);
}

#[tokio::test]
async fn a_peer_that_stops_a_stream_loses_that_packet_only() {
    let tight = Options { stream_window: 8 << 10, ..Options::client() };
    let Pair { server: _server, mut reader, mut writer, client_reader, client } =
        pair_with(Options { send_window: 8 << 10, ..Options::default() }, tight).await;
    let batch = [sealed(&content(1, 200_000)), sealed(b"next")];
    let write = async { writer.write(&batch).await.unwrap() };
    let refuse = async {
        // Not through the reader, which would take it.
        let mut first = client.session().accept_uni().await.unwrap();
        first.stop(3).unwrap();
        let mut second = client.session().accept_uni().await.unwrap();
        second.read_to_end(100).await.unwrap()
    };
    let ((), second) = within(async { tokio::join!(write, refuse) }).await;
    assert_eq!(second, b"next");
    assert_eq!(reader.take_stats().refused, 1);
    drop(client_reader);
}

#[tokio::test]
async fn a_quiet_peer_is_alive_as_long_as_quic_hears_of_it() {
    let options = Options { idle: Duration::from_millis(600), ..Options::default() };
    let Pair { server: _server, mut reader, client_reader: _reader, client: _client, .. } = pair(options).await;
    let mut buffer = PacketBuffer::new();
    // Four times a third of the idle time: longer than an idle connection would live.
    for _ in 0..4 {
        assert_eq!(within(reader.read(&mut buffer)).await.unwrap(), Incoming::Alive);
    }
}

#[tokio::test]
async fn what_was_sent_before_the_end_is_read_before_the_end() {
    let Pair { server: _server, mut reader, mut client, .. } = pair(Options::default()).await;
    let batch: Vec<Bytes> = (0..100).map(|seed| content(seed, 1_000).into()).collect();
    client.send(&batch).await.unwrap();
    client.close(roomcast_protocol::CloseCode::Done, "").await;
    for expected in &batch {
        assert_eq!(packet(&mut reader).await, expected[..]);
    }
    assert_eq!(next(&mut reader).await.unwrap(), None);
}

#[tokio::test]
async fn a_ping_is_answered_by_a_peer_that_says_nothing() {
    let Pair { server: _server, reader, client_reader: _reader, client: _client, mut writer } =
        pair(Options::default()).await;
    let pulse = reader.pulse().unwrap();
    assert!(pulse.is_sampled());
    for _ in 0..5 {
        // What the handshake still had to say is over once nothing comes for a while.
        let mut quiet = pulse.last();
        while quiet.elapsed() < Duration::from_millis(100) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            quiet = pulse.last();
        }
        writer.ping().await.unwrap();
        within(async {
            while pulse.last() == quiet {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}
