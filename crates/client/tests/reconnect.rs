//! A client comes back after what may pass, and stays away after what would happen again.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use bytes::Bytes;
use roomcast_client::{Client, ClientTrust, ClosedReason, SendError, State};
use roomcast_protocol::{CloseCode, seed};
use support::{KINDS, Kind, Server, state, within};

fn media() -> Bytes {
    // PacketWrapper { packet_type: MEDIA, data: 1 byte }, in the seed dialect.
    Bytes::from_static(&[8, 2, 0x1a, 1, 7])
}

fn key() -> Bytes {
    Bytes::from_static(&[8, 1, 0x1a, 1, 7])
}

#[test]
fn the_packets_of_these_tests_are_what_they_say() {
    use prost::Message as _;
    let kind = |packet: &Bytes| seed::PacketWrapper::decode(packet.as_ref()).unwrap().packet_type();
    assert_eq!(kind(&media()), seed::packet_wrapper::PacketType::Media);
    assert_eq!(kind(&key()), seed::packet_wrapper::PacketType::AesKey);
}

#[tokio::test]
async fn a_crash_a_full_or_a_draining_node_is_come_back_from() {
    for kind in KINDS {
        for code in [CloseCode::Crashed, CloseCode::TryAgainLater, CloseCode::Draining] {
            let mut server = Server::start(kind).await;
            let mut client = Client::connect(server.options()).unwrap();
            let mut first = server.accept().await;
            within(client.joined()).await.unwrap();
            first.close(code).await;
            let mut second = server.accept().await;
            state(&client, |state| matches!(state, State::Connected { number: 2, .. })).await;
            second.write(&[b"again"]).await;
            let received = within(client.recv()).await.unwrap();
            assert_eq!((&received.bytes[..], received.connection), (&b"again"[..], 2), "{kind:?} {code:?}");
            assert_eq!(client.stats().connections, 2);
        }
    }
}

#[tokio::test]
async fn a_connection_that_just_breaks_is_come_back_from() {
    for kind in KINDS {
        let mut server = Server::start(kind).await;
        let client = Client::connect(server.options()).unwrap();
        let first = server.accept().await;
        within(client.joined()).await.unwrap();
        drop(first);
        let _accepted = server.accept().await;
        state(&client, |state| matches!(state, State::Connected { number: 2, .. })).await;
    }
}

#[tokio::test]
async fn an_orderly_end_and_what_would_happen_again_are_final() {
    for kind in KINDS {
        for (code, reason) in [
            (CloseCode::Done, ClosedReason::Done),
            (CloseCode::Policy, ClosedReason::Rejected { code: 1008 }),
            (CloseCode::TooLarge, ClosedReason::Rejected { code: 1009 }),
        ] {
            let mut server = Server::start(kind).await;
            let mut client = Client::connect(server.options()).unwrap();
            let mut first = server.accept().await;
            within(client.joined()).await.unwrap();
            first.write(&[b"last words"]).await;
            assert_eq!(within(client.recv()).await.unwrap().bytes, "last words");
            first.close(code).await;
            let closed = state(&client, |state| matches!(state, State::Closed(_))).await;
            assert_eq!(closed, State::Closed(reason.clone()), "{kind:?}");
            assert_eq!(within(client.recv()).await, None);
            assert_eq!(client.try_send(key()), Err(SendError::Closed));
            assert_eq!(within(client.joined()).await, Err(reason));
            assert_eq!(client.stats().connections, 1);
        }
    }
}

#[tokio::test]
async fn a_refusal_is_final_and_says_why_and_a_busy_server_is_asked_again() {
    for kind in KINDS {
        for status in [400, 401, 403, 404] {
            let server = Server::start(kind).await;
            server.refuse_next(status, "bad user name");
            let client = Client::connect(server.options()).unwrap();
            let Err(ClosedReason::Refused { status: told, message }) = within(client.joined()).await else {
                panic!("{kind:?}: not refused with {status}")
            };
            assert_eq!(told, status);
            assert!(!message.is_empty());
            if kind != Kind::Wt {
                assert_eq!(message, "bad user name");
            }
        }
        let mut server = Server::start(kind).await;
        server.refuse_next(503, "full");
        server.refuse_next(429, "slower");
        let client = Client::connect(server.options()).unwrap();
        let _accepted = server.accept().await;
        within(client.joined()).await.unwrap();
    }
}

#[tokio::test]
async fn a_strange_certificate_is_final_and_says_so() {
    for kind in [Kind::Wss, Kind::Wt] {
        for trust in [ClientTrust::Hashes(vec![[0; 32]]), ClientTrust::SystemRoots] {
            let server = Server::start(kind).await;
            let mut options = server.options();
            options.trust = trust;
            let client = Client::connect(options).unwrap();
            let reason = within(client.joined()).await;
            assert!(matches!(reason, Err(ClosedReason::Untrusted(_))), "{kind:?}: {reason:?}");
        }
        let mut server = Server::start(kind).await;
        let mut options = server.options();
        options.trust = ClientTrust::Insecure;
        let client = Client::connect(options).unwrap();
        let _accepted = server.accept().await;
        within(client.joined()).await.unwrap();
    }
}

#[tokio::test]
async fn nobody_listening_is_tried_again_as_often_as_allowed() {
    for kind in KINDS {
        let server = Server::start(kind).await;
        let mut options = server.options();
        options.reconnect.attempts = Some(3);
        // QUIC hears of nobody listening only by silence.
        options.connect_timeout = Duration::from_millis(200);
        drop(server);
        let client = Client::connect(options).unwrap();
        let reason = within(client.joined()).await;
        assert!(matches!(reason, Err(ClosedReason::GaveUp { failures: 3, .. })), "{kind:?}: {reason:?}");
    }
}

#[tokio::test]
async fn the_next_endpoint_takes_over() {
    let gone = Server::start(Kind::Ws).await;
    let gone_url = gone.url();
    drop(gone);
    for kind in KINDS {
        let mut server = Server::start(kind).await;
        let mut options = server.options();
        options.endpoints.insert(0, gone_url.clone());
        let client = Client::connect(options).unwrap();
        let _accepted = server.accept().await;
        within(client.joined()).await.unwrap();
    }
}

#[tokio::test]
async fn a_draining_node_is_left_for_another_without_a_wait() {
    let mut draining = Server::start(Kind::Ws).await;
    let mut other = Server::start(Kind::Wt).await;
    let mut options = draining.options();
    options.endpoints.push(other.url());
    options.trust = ClientTrust::Hashes(vec![other.hash]);
    options.reconnect.initial = Duration::from_secs(3600);
    options.reconnect.max = Duration::from_secs(3600);
    let client = Client::connect(options).unwrap();
    let mut accepted = draining.accept().await;
    within(client.joined()).await.unwrap();
    accepted.close(CloseCode::Draining).await;
    let _accepted = other.accept().await;
    state(&client, |state| matches!(state, State::Connected { number: 2, .. })).await;
}

#[tokio::test]
async fn without_a_connection_media_is_refused_and_the_rest_is_sent_later() {
    for kind in KINDS {
        let mut server = Server::start(kind).await;
        server.refuse_next(503, "full");
        let mut options = server.options();
        options.reconnect.initial = Duration::from_millis(50);
        options.reconnect.max = Duration::from_millis(50);
        let client = Client::connect(options).unwrap();
        assert_eq!(client.try_send(media()), Err(SendError::Disconnected));
        assert_eq!(client.try_send(key()), Ok(()));
        let mut accepted = server.accept().await;
        assert_eq!(accepted.packet().await, key());
        within(client.joined()).await.unwrap();
        assert_eq!(client.try_send(media()), Ok(()));
        assert_eq!(accepted.packet().await, media());
        let stats = client.stats();
        assert_eq!((stats.refused, stats.dropped), (1, 0));
    }
}

#[tokio::test]
async fn a_close_ends_the_waiting_and_the_connecting() {
    let server = Server::start(Kind::Ws).await;
    let mut options = server.options();
    options.reconnect.initial = Duration::from_secs(3600);
    options.reconnect.max = Duration::from_secs(3600);
    drop(server);
    let client = Client::connect(options).unwrap();
    client.try_send(key()).unwrap();
    state(&client, |state| matches!(state, State::Waiting { .. })).await;
    let (reason, stats) = within(client.close()).await;
    assert_eq!(reason, ClosedReason::Local);
    assert_eq!((stats.sent, stats.dropped), (0, 1));

    // Someone who listens and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = Server::start(Kind::Ws).await.options();
    options.endpoints = vec![format!("ws://{}", silent.local_addr().unwrap()).parse().unwrap()];
    options.connect_timeout = Duration::from_secs(3600);
    let client = Client::connect(options).unwrap();
    let _socket = within(silent.accept()).await.unwrap();
    assert_eq!(within(client.close()).await.0, ClosedReason::Local);
}
