//! The HTTP answers, byte by byte, over an in-memory stream with paused time.

use tokio::io::DuplexStream;

use super::*;

const LIMIT: Duration = Duration::from_secs(10);

/// The example of RFC 6455, section 1.3.
const PROPER: &str = "GET /lobby/alice/standup HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
                      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

type Served = Result<(String, DuplexStream, Bytes), HandshakeError>;

fn remote() -> SocketAddr {
    ([192, 0, 2, 7], 4000).into()
}

/// Accepts lobby paths; says what it saw.
fn decide(head: RequestHead<'_>) -> Result<String, Refusal> {
    if !head.target.starts_with("/lobby/") {
        return Err(Refusal { status: 404, message: "no such path".into() });
    }
    Ok(format!("{} {:?} {:?} {}", head.target, head.origin, head.forwarded_for, head.remote))
}

fn start() -> (DuplexStream, tokio::task::JoinHandle<Served>) {
    let (client, server) = tokio::io::duplex(4096);
    let deadline = Instant::now() + LIMIT;
    (client, tokio::spawn(async move { serve(server, remote(), deadline, decide, std::future::ready).await }))
}

/// Sends a request and reads the answer to its end.
async fn ask(request: &str) -> (String, HandshakeError) {
    let (mut client, server) = start();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    drop(client);
    (answer, server.await.unwrap().expect_err("no upgrade"))
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

fn refused(error: &HandshakeError) -> Option<(u16, &str)> {
    match error {
        HandshakeError::Refused(refusal) => Some((refusal.status, &refusal.message)),
        _ => None,
    }
}

#[tokio::test]
async fn a_proper_upgrade_is_answered_and_what_followed_it_is_kept() {
    let (mut client, server) = start();
    client.write_all(format!("{PROPER}\r\nfirst frames").as_bytes()).await.unwrap();
    let (accepted, io, ahead) = server.await.unwrap().unwrap();
    assert_eq!(accepted, "/lobby/alice/standup None None 192.0.2.7:4000");
    assert_eq!(&ahead[..], b"first frames");
    drop(io);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert_eq!(header(&answer, "sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(header(&answer, "upgrade"), Some("websocket"));
}

#[tokio::test]
async fn the_decision_sees_the_target_as_sent_and_the_headers_it_needs() {
    let (mut client, server) = start();
    let request = PROPER.replace("/alice/", "/al%69ce%2F/").replace("/standup", "/standup?token=a.b.c");
    let request = format!(
        "{request}Origin: https://a.test\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2, 10.0.0.3\r\n\r\n"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let (accepted, ..) = server.await.unwrap().unwrap();
    let expected =
        r#"/lobby/al%69ce%2F/standup?token=a.b.c Some("https://a.test") Some("10.0.0.1, 10.0.0.2, 10.0.0.3")"#;
    assert_eq!(accepted, format!("{expected} 192.0.2.7:4000"));
}

#[tokio::test]
async fn another_method_is_405_and_says_which() {
    for request in [
        "POST /lobby/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
        "HEAD /lobby/a/b HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let (answer, error) = ask(request).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
        assert_eq!(header(&answer, "allow"), Some("GET"));
        assert_eq!(refused(&error).unwrap().0, 405);
    }
}

#[tokio::test]
async fn a_refusal_carries_its_status_and_its_message() {
    let (answer, error) = ask("GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nno such path\n"), "{answer}");
    assert_eq!(header(&answer, "connection"), Some("close"));
    assert!(header(&answer, "content-type").unwrap().starts_with("text/plain"));
    assert_eq!(refused(&error), Some((404, "no such path")));
}

#[tokio::test]
async fn a_lobby_path_without_an_upgrade_is_426() {
    for request in [
        "GET /lobby/a/b HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        format!("{}\r\n", PROPER.replace("Upgrade: WebSocket\r\n", "")),
        format!("{}\r\n", PROPER.replace("Upgrade: WebSocket", "Upgrade: h2c")),
        format!("{}\r\n", PROPER.replace("keep-alive, Upgrade", "keep-alive")),
        format!("{}\r\n", PROPER.replace("HTTP/1.1", "HTTP/1.0")),
    ] {
        let (answer, error) = ask(&request).await;
        assert!(answer[8..].starts_with(" 426 "), "{request}{answer}");
        assert_eq!(header(&answer, "upgrade"), Some("websocket"));
        assert_eq!(refused(&error).unwrap().0, 426);
    }
}

#[tokio::test]
async fn another_version_is_426_and_says_which() {
    for version in ["Sec-WebSocket-Version: 8\r\n", ""] {
        let request = PROPER.replace("Sec-WebSocket-Version: 13\r\n", version);
        let (answer, _) = ask(&format!("{request}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
        assert_eq!(header(&answer, "sec-websocket-version"), Some("13"));
    }
}

#[tokio::test]
async fn a_key_that_is_none_is_400() {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let twice = key.repeat(2);
    for bad in ["", "Sec-WebSocket-Key: short\r\n", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n", twice.as_str()] {
        let (answer, error) = ask(&format!("{}\r\n", PROPER.replace(key, bad))).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{bad}{answer}");
        assert_eq!(refused(&error).unwrap().0, 400);
    }
}

#[tokio::test]
async fn an_origin_that_cannot_be_judged_is_400() {
    for origin in ["Origin: https://a.test\r\nOrigin: https://b.test\r\n", "Origin: https://\u{e9}.test\r\n"] {
        let (answer, _) = ask(&format!("{PROPER}{origin}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_400() {
    for garbage in [
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\r\n\r\n",
        "GET /lobby/a/b\r\n\r\n",
        "GET /lo\0bby HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
    ] {
        let (answer, error) = ask(garbage).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{garbage:?}: {answer}");
        assert!(matches!(error, HandshakeError::Malformed(_)), "{garbage:?}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn endless_headers_are_431_and_their_sender_is_left_behind() {
    let (client, server) = start();
    let (mut read, mut write) = tokio::io::split(client);
    let flood = tokio::spawn(async move {
        write.write_all(b"GET /lobby/a/b HTTP/1.1\r\n").await?;
        let mut sent = 0usize;
        loop {
            write.write_all(b"X-Endless: 0123456789012345678901234567890123456789\r\n").await?;
            sent += 51;
            assert!(sent < 64 * 1024 * 1024, "nobody stops the flood");
        }
        #[allow(unreachable_code)]
        Ok::<(), std::io::Error>(())
    });
    let mut answer = String::new();
    read.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert!(matches!(server.await.unwrap(), Err(HandshakeError::Malformed(_))));
    assert!(flood.await.unwrap().is_err());
}

#[tokio::test]
async fn one_endless_header_and_too_many_short_ones_are_431() {
    for headers in [format!("X: {}", "x".repeat(2 * MAX_HEAD)), "a: b\r\n".repeat(MAX_HEADERS + 1)] {
        let (client, server) = start();
        let (mut read, mut write) = tokio::io::split(client);
        let request = format!("GET /lobby/a/b HTTP/1.1\r\n{headers}\r\n\r\n");
        let sending = tokio::spawn(async move { write.write_all(request.as_bytes()).await });
        let mut answer = String::new();
        read.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        sending.await.unwrap().unwrap();
        drop(read);
        assert!(matches!(server.await.unwrap(), Err(HandshakeError::Malformed(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_dropped_at_the_deadline() {
    let begun = Instant::now();
    let (_client, server) = start();
    assert!(matches!(server.await.unwrap(), Err(HandshakeError::Timeout)));
    assert!(begun.elapsed() >= LIMIT && begun.elapsed() < LIMIT + Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn a_byte_a_second_is_too_slow() {
    let begun = Instant::now();
    let (mut client, server) = start();
    let drip = tokio::spawn(async move {
        for byte in PROPER.bytes() {
            if client.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    assert!(matches!(server.await.unwrap(), Err(HandshakeError::Timeout)));
    assert!(begun.elapsed() < LIMIT + Duration::from_millis(50));
    drip.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_that_stays_is_left_after_a_second() {
    let begun = Instant::now();
    let (mut client, server) = start();
    client.write_all(b"GET /elsewhere HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(server.await.unwrap(), Err(HandshakeError::Refused(_))));
    assert!(begun.elapsed() <= LINGER_TIME + Duration::from_millis(50));
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn a_client_that_leaves_before_it_asked_is_gone() {
    for beginning in ["", "GET /lobby/a"] {
        let (mut client, server) = start();
        client.write_all(beginning.as_bytes()).await.unwrap();
        drop(client);
        assert!(matches!(server.await.unwrap(), Err(HandshakeError::Gone(_))));
    }
}

#[tokio::test]
async fn what_was_accepted_and_not_upgraded_is_dropped() {
    let guard = std::sync::Arc::new(());
    let (mut client, server) = tokio::io::duplex(4096);
    client.write_all(b"GET /lobby/a/b HTTP/1.1\r\n\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    let held = std::sync::Arc::clone(&guard);
    let served = serve(server, remote(), Instant::now() + LIMIT, move |_| Ok(held), std::future::ready).await;
    assert!(matches!(served, Err(HandshakeError::Refused(_))));
    assert_eq!(std::sync::Arc::strong_count(&guard), 1);
}
