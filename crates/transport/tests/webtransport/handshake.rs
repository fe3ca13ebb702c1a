//! How a connection begins, or does not.

use std::sync::Arc;
use std::time::Duration;

use roomcast_transport::Refusal;
use roomcast_transport::webtransport::{ConnectError, HandshakeError, Options, connect, connect_with};

use crate::support::{Server, within};

const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_request_is_shown_as_it_was_sent() {
    let server = Server::start(Options::default());
    let url = format!("https://localhost:{}/lobby/ann%40example.com/my%20room?token=a.b-c", server.address().port());
    let mut headers = http::HeaderMap::new();
    headers.insert("origin", "https://meet.example".parse().unwrap());
    headers.insert("x-forwarded-for", "192.0.2.7".parse().unwrap());
    let trust = server.trust();
    let client = Options::client();
    let connecting = connect_with(&url, &trust, &client, headers);
    let accepting = server.accept(|head| {
        assert_eq!(head.target, "/lobby/ann%40example.com/my%20room?token=a.b-c");
        assert_eq!(head.origin, Some("https://meet.example"));
        assert_eq!(head.forwarded_for, Some("192.0.2.7"));
        assert!(head.remote.ip().is_loopback());
        Ok(42)
    });
    let (accepted, connected) = within(async { tokio::join!(accepting, connecting) }).await;
    assert_eq!(accepted.unwrap().0, 42);
    connected.unwrap();
}

#[tokio::test]
async fn a_refusal_is_an_http_status() {
    let server = Server::start(Options::default());
    for (given, seen) in [(400, 400), (401, 401), (403, 403), (404, 404), (503, 503), (200, 403), (7, 403)] {
        let (url, trust) = (server.url(), server.trust());
        let connecting = connect(&url, &trust, TIMEOUT);
        let refusal = Refusal { status: given, message: "no".to_owned() };
        let accepting = server.accept(|_| Err::<(), _>(refusal.clone()));
        let (accepted, connected) = within(async { tokio::join!(accepting, connecting) }).await;
        assert!(matches!(&accepted, Err(HandshakeError::Refused(told)) if *told == refusal), "{:?}", accepted.err());
        let error = connected.err().unwrap();
        assert!(matches!(error, ConnectError::Refused { status } if status == seen), "{given}: {error}");
    }
}

fn quic(server: &Server) -> (quinn::Endpoint, quinn::Connecting) {
    let crypto = server.trust().client_config(&[b"h3"]).unwrap();
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(crypto).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connecting = endpoint.connect_with(config, server.address(), "localhost").unwrap();
    (endpoint, connecting)
}

#[tokio::test]
async fn a_silent_handshake_ends() {
    let server = Server::start(Options { handshake: Duration::from_millis(300), ..Options::default() });
    let settings = {
        let mut settings = web_transport_quinn::proto::Settings::default();
        settings.enable_webtransport(1);
        let mut bytes = Vec::new();
        settings.encode(&mut bytes);
        bytes
    };
    for said in [&b""[..], b"\x00", &settings] {
        let (_endpoint, connecting) = quic(&server);
        let client = async {
            let connection = connecting.await.unwrap();
            let mut control = connection.open_uni().await.unwrap();
            control.write_all(said).await.unwrap();
            connection.closed().await;
        };
        let (accepted, ()) = within(async { tokio::join!(server.accept(|_| Ok(())), client) }).await;
        assert!(matches!(accepted, Err(HandshakeError::Timeout(_))), "{:?}", accepted.err());
    }
}

#[tokio::test]
async fn endless_headers_and_nonsense_end_at_once() {
    let server = Server::start(Options::default());
    let mut settings = web_transport_quinn::proto::Settings::default();
    settings.enable_webtransport(1);
    let mut hello = Vec::new();
    settings.encode(&mut hello);
    // A HEADERS frame of a megabyte; a DATA frame; a HEADERS frame of nonsense.
    for request in [&b"\x01\x80\x10\x00\x00"[..], b"\x00\x01x", b"\x01\x04\xff\xff\xff\xff"] {
        let (_endpoint, connecting) = quic(&server);
        let client = async {
            let connection = connecting.await.unwrap();
            let mut control = connection.open_uni().await.unwrap();
            control.write_all(&hello).await.unwrap();
            let (mut send, _recv) = connection.open_bi().await.unwrap();
            send.write_all(request).await.unwrap();
            connection.closed().await;
        };
        let (accepted, ()) = within(async { tokio::join!(server.accept(|_| Ok(())), client) }).await;
        assert!(matches!(accepted, Err(HandshakeError::Http(_))), "{:?}", accepted.err());
    }
}

#[tokio::test]
async fn nobody_there_is_a_timeout_and_a_bad_url_an_error() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/lobby/a/b", socket.local_addr().unwrap());
    let trust = roomcast_transport::tls::ClientTrust::Insecure;
    let error = connect(&url, &trust, Duration::from_millis(200)).await.err().unwrap();
    assert!(matches!(error, ConnectError::Timeout(_)), "{error}");
    for url in ["", "ws://localhost/lobby/a/b", "https://"] {
        let error = connect(url, &trust, TIMEOUT).await.err().unwrap();
        assert!(matches!(error, ConnectError::Url(..)), "{url}: {error}");
    }
}
