//! Peers that want to cost memory or time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::{MAX_PACKET_BYTES, PacketBuffer};
use roomcast_transport::intake::{Bounds, Intake, Share};
use roomcast_transport::webtransport::Options;
use roomcast_transport::{Incoming, PacketReader, ReadError};

use crate::support::{Pair, content, next, packet, pair, pair_with, within};

/// Bounds for streams that may take so long, however much they bring.
pub(crate) fn lasting(patience: Duration) -> Arc<dyn Intake> {
    Arc::new(Bounds { patience, least_rate: u32::MAX, ..Bounds::default() })
}

/// A client's side of the handshake without the library; what it returns must be kept.
pub(crate) async fn say_hello(
    connection: &quinn::Connection,
) -> (quinn::SendStream, quinn::SendStream, quinn::RecvStream) {
    let mut settings = web_transport_quinn::proto::Settings::default();
    settings.enable_webtransport(1);
    let mut bytes = Vec::new();
    settings.encode(&mut bytes);
    let mut control = connection.open_uni().await.unwrap();
    control.write_all(&bytes).await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    let request =
        web_transport_quinn::proto::ConnectRequest::new(url::Url::parse("https://localhost/lobby/a/b").unwrap());
    let mut bytes = Vec::new();
    request.encode(&mut bytes).unwrap();
    send.write_all(&bytes).await.unwrap();
    recv.read_chunk(1, true).await.unwrap().unwrap();
    (control, send, recv)
}

#[tokio::test]
async fn ten_thousand_streams_that_end_are_ten_thousand_packets() {
    let Pair { server: _server, mut reader, mut client, .. } = pair(Options::default()).await;
    let batch: Vec<Bytes> = (0..10_000_u32).map(|number| number.to_be_bytes().to_vec().into()).collect();
    let sent = async { client.send(&batch).await.unwrap() };
    let received = async {
        for expected in &batch {
            assert_eq!(packet(&mut reader).await, expected[..]);
        }
    };
    within(async { tokio::join!(sent, received) }).await;
    assert_eq!(reader.waiting(), (0, 0));
}

#[tokio::test]
async fn ten_thousand_streams_that_never_end_cost_no_more_than_the_limit() {
    let options = Options {
        max_streams: 64,
        intake: lasting(Duration::from_millis(20)),
        reorder_bytes: 64 << 10,
        ..Options::default()
    };
    let Pair { server: _server, mut reader, mut client, .. } = pair(options.clone()).await;
    let session = client.session().clone();
    let attack = tokio::spawn(async move {
        for number in 0..10_000_u32 {
            let mut stream = session.open_uni().await.unwrap();
            if stream.write_all(&number.to_be_bytes()).await.is_ok() {
                // Held open until it is given up on.
                tokio::spawn(async move { stream.stopped().await });
            }
        }
    });
    let mut buffer = PacketBuffer::new();
    let mut abandoned = 0;
    let mut most = (0, 0);
    within(async {
        while abandoned < 10_000 {
            tokio::select! {
                biased;
                found = reader.read(&mut buffer) => assert_eq!(found.unwrap(), Incoming::Alive),
                // The reader is not cancel-safe in what it returns; here it returns nothing of worth.
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
            let stats = reader.take_stats();
            abandoned += stats.lost_in();
            most = (most.0.max(reader.waiting().0), most.1.max(reader.waiting().1));
        }
    })
    .await;
    within(attack).await.unwrap();
    assert!(most.0 <= 64, "{most:?}");
    assert!(most.1 <= options.reorder_bytes + MAX_PACKET_BYTES, "{most:?}");
    client.send(&[Bytes::from_static(b"after all")]).await.unwrap();
    assert_eq!(packet(&mut reader).await, b"after all");
    assert_eq!(reader.waiting(), (0, 0));
}

#[tokio::test]
async fn a_peer_that_ignores_being_stopped_blocks_only_itself() {
    let options = Options { max_streams: 16, intake: lasting(Duration::from_millis(20)), ..Options::default() };
    let Pair { server: _server, mut reader, mut client, .. } = pair(options).await;
    let mut held = Vec::new();
    let mut buffer = PacketBuffer::new();
    // As many as it may, all kept open; the next one has no room.
    loop {
        let opened = tokio::select! {
            opened = client.session().open_uni() => opened.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(300)) => break,
            found = async { loop { if reader.read(&mut buffer).await.unwrap() != Incoming::Alive { break } } } => {
                panic!("{found:?}: a packet of nothing")
            }
        };
        held.push(opened);
        assert!(held.len() <= 16);
    }
    let count = held.len();
    drop(held);
    client.send(&[Bytes::from_static(b"well again")]).await.unwrap();
    loop {
        match packet(&mut reader).await {
            found if found.is_empty() => {}
            found => break assert_eq!(found, b"well again"),
        }
    }
    assert!(count >= 8, "{count}");
    assert_eq!(reader.waiting(), (0, 0));
}

#[tokio::test]
async fn large_packets_behind_one_that_never_ends_are_released_before_memory_runs_out() {
    let options = Options {
        intake: Arc::new(Bounds { max_packet_bytes: 100_000, patience: Duration::from_secs(600), ..Bounds::default() }),
        reorder_bytes: 300_000,
        stream_wait: Duration::from_secs(600),
        ..Options::default()
    };
    let Pair { server: _server, mut reader, mut client, .. } = {
        // Little in flight: a datagram that loopback loses must not be mistaken for one more stream that stalls.
        pair_with(options, Options { send_window: 64 << 10, ..Options::client() }).await
    };
    let mut stalled = within(client.session().open_uni()).await.unwrap();
    stalled.write_all(b"never").await.unwrap();
    let packets: Vec<Vec<u8>> = (0..20).map(|seed| content(seed, 90_000)).collect();
    let batch: Vec<Bytes> = packets.iter().cloned().map(Bytes::from).collect();
    let sent = async { client.send(&batch).await.unwrap() };
    let received = async {
        for expected in &packets {
            assert!(packet(&mut reader).await == *expected);
        }
    };
    within(async { tokio::join!(sent, received) }).await;
    let stats = reader.take_stats();
    assert_eq!((stats.memory, stats.lost_in()), (1, 1));
}

#[tokio::test]
async fn streams_of_other_kinds_and_sessions_are_no_packets() {
    let Pair { server: _server, mut reader, mut client, .. } = pair(Options::default()).await;
    let connection: quinn::Connection = quinn::Connection::clone(client.session());
    // QPACK's two streams, as browsers open them; then a third, one without meaning, one of another session, one that ends
    // within its header.
    let mut held = Vec::new();
    for header in [&b"\x02"[..], b"\x03", b"\x02", b"\x21grease", b"\x40\x54\x04other"] {
        let mut stream = within(connection.open_uni()).await.unwrap();
        stream.write_all(header).await.unwrap();
        held.push(stream);
    }
    let mut short = within(connection.open_uni()).await.unwrap();
    short.write_all(b"\x40").await.unwrap();
    short.finish().unwrap();
    connection.send_datagram(Bytes::from_static(b"\x04not mine")).unwrap();
    client.send(&[Bytes::from_static(b"mine")]).await.unwrap();
    assert_eq!(packet(&mut reader).await, b"mine");
    let stopped = within(held[3].stopped()).await.unwrap();
    assert_eq!(stopped.map(quinn::VarInt::into_inner), Some(0x103));
    // The datagram is another way than the streams: it may come later.
    let mut stats = reader.take_stats();
    within(async {
        while stats.foreign < 4 {
            client.send(&[Bytes::from_static(b"more")]).await.unwrap();
            assert_eq!(packet(&mut reader).await, b"more");
            stats.foreign += reader.take_stats().foreign;
        }
    })
    .await;
    assert_eq!((stats.foreign, stats.reset), (4, 1));
    assert_eq!(reader.waiting(), (0, 0));
}

#[derive(Debug)]
struct Poor;

impl Intake for Poor {
    fn bounds(&self) -> Bounds {
        Bounds::default()
    }

    fn share(&self) -> Box<dyn Share> {
        struct Purse;
        impl Share for Purse {
            fn cover(&mut self, bytes: usize) -> bool {
                bytes <= 200_000
            }
        }
        Box::new(Purse)
    }
}

#[tokio::test]
async fn streams_for_which_there_is_no_memory_end_the_connection() {
    let Pair { server: _server, mut reader, mut client, .. } =
        pair(Options { intake: Arc::new(Poor), ..Options::default() }).await;
    client.send(&[content(1, 150_000).into()]).await.unwrap();
    assert_eq!(packet(&mut reader).await, content(1, 150_000));
    let mut held = Vec::new();
    let sending = async {
        for seed in 0..10 {
            let mut stream = client.session().open_uni().await.unwrap();
            stream.write_all(&content(seed, 50_000)).await.unwrap();
            held.push(stream);
        }
        std::future::pending::<()>().await;
    };
    let end = within(async {
        tokio::select! {
            end = async { loop { match next(&mut reader).await { Ok(_) => {} Err(end) => break end } } } => end,
            () = sending => unreachable!("it never ends"),
        }
    });
    let end = end.await;
    assert!(matches!(end, ReadError::NoMemory), "{end:?}");
}
