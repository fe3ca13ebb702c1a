//! A client and a server exchange packets, whole and in order, on either transport.
#![allow(clippy::unwrap_used)]

mod support;

use bytes::Bytes;
use roomcast_client::{Client, ClosedReason, SendError, State, Transport};
use support::{KINDS, Kind, Server, state, within};

#[tokio::test]
async fn it_joins_with_encoded_names_and_tells_where_it_is() {
    for kind in KINDS {
        let mut server = Server::start(kind).await;
        let client = Client::connect(server.options()).unwrap();
        let accepted = server.accept().await;
        let lobby = roomcast_protocol::Lobby::parse(&accepted.target).unwrap();
        assert_eq!((lobby.user.as_str(), lobby.room.as_str()), ("alice@x", "the room"), "{kind:?}");
        within(client.joined()).await.unwrap();
        let State::Connected { endpoint, transport, number, .. } = client.state().borrow().clone() else {
            panic!("not connected")
        };
        assert_eq!(endpoint, server.url());
        assert_eq!(transport == Transport::WebTransport, kind == Kind::Wt);
        assert_eq!(number, 1);
    }
}

#[tokio::test]
async fn packets_of_all_sizes_go_both_ways_in_order() {
    for kind in KINDS {
        let mut server = Server::start(kind).await;
        let mut client = Client::connect(server.options()).unwrap();
        let mut accepted = server.accept().await;
        within(client.joined()).await.unwrap();
        let packets: Vec<Bytes> =
            [1, 125, 126, 1200, 65_535, 65_536, 300_000].iter().map(|&n| Bytes::from(vec![n as u8; n])).collect();
        for packet in &packets {
            within(client.send(packet.clone())).await.unwrap();
        }
        for packet in &packets {
            assert!(accepted.packet().await == packet, "{kind:?}: {} bytes", packet.len());
        }
        for packet in &packets {
            accepted.write(&[packet]).await;
        }
        for packet in &packets {
            let received = within(client.recv()).await.unwrap();
            assert!(received.bytes == packet, "{kind:?}: {} bytes", packet.len());
            assert_eq!(received.connection, 1);
        }
        let stats = client.stats();
        let bytes: usize = packets.iter().map(Bytes::len).sum();
        assert_eq!((stats.received, stats.received_bytes), (7, bytes as u64));
        assert_eq!((stats.sent, stats.sent_bytes, stats.unconfirmed, stats.dropped), (7, bytes as u64, 0, 0));
    }
}

#[tokio::test]
async fn a_close_delivers_what_waits_and_says_goodbye() {
    for kind in KINDS {
        let mut server = Server::start(kind).await;
        let client = Client::connect(server.options()).unwrap();
        let mut accepted = server.accept().await;
        within(client.joined()).await.unwrap();
        for number in 0..500_u32 {
            within(client.send(Bytes::copy_from_slice(&number.to_be_bytes()))).await.unwrap();
        }
        let closing = tokio::spawn(client.close());
        for number in 0..500_u32 {
            assert_eq!(accepted.packet().await[..], number.to_be_bytes(), "{kind:?}");
        }
        assert_eq!(accepted.closed().await, Some(1000), "{kind:?}");
        let (reason, stats) = within(closing).await.unwrap();
        assert_eq!(reason, ClosedReason::Local);
        assert_eq!((stats.sent, stats.unconfirmed, stats.dropped), (500, 0, 0));
    }
}

#[tokio::test]
async fn a_dropped_client_leaves() {
    for kind in KINDS {
        let mut server = Server::start(kind).await;
        let client = Client::connect(server.options()).unwrap();
        let mut accepted = server.accept().await;
        within(client.joined()).await.unwrap();
        let sender = client.sender().clone();
        drop(client);
        assert_eq!(accepted.closed().await, Some(1000), "{kind:?}");
        assert_eq!(sender.try_send(Bytes::from_static(b"late")), Err(SendError::Closed));
    }
}

#[tokio::test]
async fn what_may_be_lost_arrives_all_the_same_on_a_quiet_line() {
    for kind in KINDS {
        let mut server = Server::start(kind).await;
        let client = Client::connect(server.options()).unwrap();
        let mut accepted = server.accept().await;
        within(client.joined()).await.unwrap();
        client.sender().try_send_unreliable(Bytes::from_static(b"small")).unwrap();
        assert_eq!(accepted.packet().await, "small");
        client.sender().try_send_unreliable(Bytes::from(vec![1; 2000])).unwrap();
        assert_eq!(accepted.packet().await.len(), 2000);
    }
}

#[tokio::test]
async fn a_full_queue_says_so_and_nothing_is_lost_without_a_count() {
    let mut server = Server::start(Kind::Ws).await;
    let mut options = server.options();
    options.send_queue.packets = 4;
    options.send_timeout = std::time::Duration::from_millis(50);
    let client = Client::connect(options).unwrap();
    let mut accepted = server.accept().await;
    within(client.joined()).await.unwrap();
    // Nobody reads on the other side, so the system's buffers fill up, then the queue.
    let large = Bytes::from(vec![7; 1_000_000]);
    let mut taken = 0;
    let refused = loop {
        match within(client.send(large.clone())).await {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 1000, "the queue is never full");
    };
    assert_eq!(refused, SendError::Full);
    for _ in 0..taken {
        assert_eq!(accepted.packet().await.len(), large.len());
    }
    let (_, stats) = within(client.close()).await;
    assert_eq!((stats.sent, stats.refused), (taken, 1));
}

#[tokio::test]
async fn an_application_that_does_not_read_slows_the_server_and_loses_nothing() {
    let mut server = Server::start(Kind::Ws).await;
    let mut options = server.options();
    options.receive_queue.bytes = 10_000;
    let mut client = Client::connect(options).unwrap();
    let mut accepted = server.accept().await;
    let write = tokio::spawn(async move {
        for _ in 0..200 {
            accepted.write(&[&[9; 100_000]]).await;
        }
        accepted
    });
    state(&client, |state| matches!(state, State::Connected { .. })).await;
    for _ in 0..200 {
        assert_eq!(within(client.recv()).await.unwrap().bytes.len(), 100_000);
    }
    within(write).await.unwrap();
}
