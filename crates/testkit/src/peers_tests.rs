//! The peers against servers that refuse, keep silent or are not there. With a node they talk in `tests/`.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await.unwrap());
    }
}

async fn refuse_one(listener: TcpListener) {
    let (mut stream, _) = listener.accept().await.unwrap();
    read_request(&mut stream).await;
    stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
}

#[test]
fn every_line_of_the_scripts_is_understood() {
    let parse = |line| serde_json::from_str::<PeerEvent>(line).unwrap();
    let (websocket, webtransport) = (Via::WebSocket, Via::WebTransport);
    assert_eq!(parse(r#"{"event":"open","via":"websocket"}"#), PeerEvent::Open { via: websocket });
    assert_eq!(
        parse(r#"{"event":"refused","via":"websocket","status":403}"#),
        PeerEvent::Refused { via: websocket, status: 403 }
    );
    assert_eq!(
        parse(r#"{"event":"packet","via":"webtransport","hex":"0802ff","datagram":true}"#),
        PeerEvent::Packet { via: webtransport, bytes: vec![8, 2, 255], datagram: true }
    );
    assert_eq!(
        parse(r#"{"event":"closed","via":"webtransport","code":null,"reason":"gone"}"#),
        PeerEvent::Closed { via: webtransport, code: None, reason: "gone".into() }
    );
    assert!(
        serde_json::from_str::<PeerEvent>(r#"{"event":"packet","via":"websocket","hex":"0","datagram":false}"#)
            .is_err()
    );
}

#[test]
fn a_missing_tool_names_the_setup_script() {
    let error = tool("/nonexistent/python".into()).unwrap_err();
    assert_eq!(error.to_string(), "/nonexistent/python is missing: run scripts/setup");
    assert_eq!(find_in(OsStr::new("/nonexistent:/proc"), "python3"), None);
}

#[tokio::test]
async fn python_tells_a_refusal() {
    let (listener, address) = listener().await;
    let mut peer = Peer::python(&format!("ws://{address}/lobby/ana/standup"), None).unwrap();
    let refusing = tokio::spawn(refuse_one(listener));
    let event = peer.wait_event(DEADLINE).await.unwrap();
    assert_eq!(event, PeerEvent::Refused { via: Via::WebSocket, status: 403 });
    assert_eq!(peer.finish().await.unwrap(), []);
    refusing.await.unwrap();
}

#[tokio::test]
async fn a_peer_that_cannot_connect_says_why() {
    let (listener, address) = listener().await;
    drop(listener);
    let mut peer = Peer::python(&format!("ws://{address}/"), None).unwrap();
    let error = peer.wait_open(Via::WebSocket, DEADLINE).await.unwrap_err().to_string();
    assert!(error.contains("ConnectionRefusedError") && error.contains("open connection"), "{error}");
}

#[tokio::test]
async fn waiting_ends_at_its_deadline_and_dropping_kills() {
    let (listener, address) = listener().await;
    let mut peer = Peer::python(&format!("ws://{address}/"), None).unwrap();
    let (mut stream, _) = tokio::time::timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
    read_request(&mut stream).await;
    let error = peer.wait_open(Via::WebSocket, Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.to_string(), "Python websockets: no open connection within 50ms");
    drop(peer);
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the peer lives on");
}

#[tokio::test]
async fn a_browser_tells_a_refusal_as_a_close() {
    let (listener, address) = listener().await;
    let url = format!("ws://{address}/lobby/ana/standup");
    let mut peer = Peer::browser(BrowserTargets { websocket: Some(&url), webtransport: None }).unwrap();
    let refusing = tokio::spawn(refuse_one(listener));
    assert_eq!(peer.wait_closed(Via::WebSocket, DEADLINE).await.unwrap(), Some(1006));
    assert_eq!(peer.finish().await.unwrap(), []);
    refusing.await.unwrap();
}
