//! How a connection ends, and what the other side learns of it.

use std::time::Duration;

use bytes::Bytes;
use roomcast_protocol::{CloseCode, PacketBuffer};
use roomcast_transport::intake::Bounds;
use roomcast_transport::webtransport::{Options, connect};
use roomcast_transport::{Incoming, PacketReader, PacketWriter, ReadError};

use crate::support::{Pair, Server, closed, next, pair, sealed, within};

#[tokio::test]
async fn each_sides_code_reaches_the_other() {
    for code in [CloseCode::Done, CloseCode::Draining, CloseCode::Policy, CloseCode::TooLarge, CloseCode::TryAgainLater]
    {
        let mut pair = pair(Options::default()).await;
        let (seen, ()) =
            within(async { tokio::join!(closed(&mut pair.client_reader), pair.writer.close(code, "because")) }).await;
        assert_eq!(seen, Some(code.number()));
        // The side that closed sees an end in order too; the peer may have echoed the code.
        let echo = closed(&mut pair.reader).await;
        assert!(echo.is_none_or(|echo| echo == code.number()), "{echo:?}");
        pair.writer.close(CloseCode::Crashed, "a second time does nothing").await;
    }
    let mut pair = pair(Options::default()).await;
    let (seen, ()) =
        within(async { tokio::join!(closed(&mut pair.reader), pair.client.close(CloseCode::Done, "")) }).await;
    assert_eq!(seen, Some(1000));
    assert!(pair.writer.write(&[sealed(b"too late")]).await.is_err());
}

#[tokio::test]
async fn halves_dropped_without_a_word_are_a_crash() {
    let Pair { server: _server, reader, writer, mut client_reader, client: _client } = pair(Options::default()).await;
    drop(reader);
    drop(writer);
    assert_eq!(closed(&mut client_reader).await, Some(CloseCode::Crashed.number()));
}

#[tokio::test]
async fn one_half_alone_keeps_the_connection() {
    let Pair { server: _server, reader, mut writer, mut client_reader, client: _client } =
        pair(Options::default()).await;
    drop(reader);
    writer.write(&[sealed(b"still here")]).await.unwrap();
    assert_eq!(crate::support::packet(&mut client_reader).await, b"still here");
}

#[tokio::test]
async fn a_too_large_packet_ends_with_1009() {
    let options = Options {
        intake: std::sync::Arc::new(Bounds { max_packet_bytes: 1_000, ..Bounds::default() }),
        ..Options::default()
    };
    let Pair { server: _server, mut reader, mut writer, mut client_reader, mut client } = pair(options).await;
    client.send(&[Bytes::from(vec![1; 1_000]), Bytes::from(vec![2; 1_001])]).await.unwrap();
    assert_eq!(next(&mut reader).await.unwrap(), Some(vec![1; 1_000]));
    let error = next(&mut reader).await.unwrap_err();
    assert!(matches!(error, ReadError::TooLarge(1_000)), "{error}");
    let code = error.close_code().unwrap();
    let (seen, ()) = within(async { tokio::join!(closed(&mut client_reader), writer.close(code, "")) }).await;
    assert_eq!(seen, Some(1009));
}

#[tokio::test]
async fn an_application_that_goes_away_has_closed_without_a_code() {
    let Pair { server: _server, mut reader, client, .. } = pair(Options::default()).await;
    // H3_NO_ERROR: what a browser says when a tab is closed.
    quinn::Connection::close(client.session(), 0x100_u32.into(), b"");
    assert_eq!(closed(&mut reader).await, None);
}

#[tokio::test]
async fn a_peer_that_vanishes_is_gone_after_the_idle_time() {
    let server = Server::start(Options { idle: Duration::from_millis(600), ..Options::default() });
    let (url, trust) = (server.url(), server.trust());
    // A runtime that ends takes its sockets along and says nothing to anybody.
    let client = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connected = runtime.block_on(connect(&url, &trust, Duration::from_secs(30))).unwrap();
        std::mem::forget(connected);
        runtime.shutdown_background();
    });
    let ((), mut reader, _writer) = within(server.accept(|_| Ok(()))).await.unwrap();
    within(client).await.unwrap();
    let mut buffer = PacketBuffer::new();
    let end = within(async {
        loop {
            match reader.read(&mut buffer).await {
                Ok(Incoming::Alive) => {}
                end => return end,
            }
        }
    });
    let end = end.await;
    assert!(matches!(end, Err(ReadError::Gone(_))), "{end:?}");
}

#[tokio::test]
async fn closing_takes_about_a_second_at_most_whatever_the_peer_does() {
    // A client below the session layer, which does not answer the closing capsule.
    let server = Server::start(Options::default());
    let crypto = server.trust().client_config(&[b"h3"]).unwrap();
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(crypto).unwrap();
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let config = quinn::ClientConfig::new(std::sync::Arc::new(crypto));
    let client = async {
        let connection = endpoint.connect_with(config, server.address(), "localhost").unwrap().await.unwrap();
        let held = crate::hostile::say_hello(&connection).await;
        (connection, held)
    };
    let (accepted, (connection, _held)) = within(async { tokio::join!(server.accept(|_| Ok(())), client) }).await;
    let ((), _reader, mut writer) = accepted.unwrap();
    let started = std::time::Instant::now();
    within(writer.close(CloseCode::Draining, "")).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let end = within(connection.closed()).await;
    let code = web_transport_quinn::proto::error_to_http3(1001);
    assert!(
        matches!(&end, quinn::ConnectionError::ApplicationClosed(close) if close.error_code.into_inner() == code),
        "{end:?}"
    );
}
