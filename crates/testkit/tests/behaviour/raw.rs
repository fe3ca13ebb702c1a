//! A WebSocket client made by hand, for tests that misbehave where a library would refuse to.

use roomcast_testkit::{NodeBox, SOON};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Opens a TCP connection to the WebSocket listener.
pub(crate) async fn connect(node: &NodeBox) -> TcpStream {
    TcpStream::connect(node.node().addresses().websocket.unwrap()).await.unwrap()
}

/// A proper upgrade request.
pub(crate) fn request(target: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Joins by hand; what the socket gives from here on are frames.
pub(crate) async fn upgrade(node: &NodeBox, user: &str, room: &str) -> TcpStream {
    let mut socket = connect(node).await;
    socket.write_all(request(&format!("/lobby/{user}/{room}")).as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(SOON, socket.read_u8()).await.unwrap().unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    socket
}

/// One frame, masked with a key of zeros so that the payload stays readable.
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Reads frames until the close frame, and gives its code; `None` when the connection ends without one.
pub(crate) async fn close_code(socket: &mut (impl AsyncRead + Unpin)) -> Option<u16> {
    let reading = async {
        loop {
            let first = socket.read_u8().await.ok()?;
            let length = match socket.read_u8().await.ok()? {
                126 => usize::from(socket.read_u16().await.ok()?),
                127 => socket.read_u64().await.ok()? as usize,
                length => usize::from(length),
            };
            let mut payload = vec![0; length];
            socket.read_exact(&mut payload).await.ok()?;
            if first == 0x88 {
                return Some(u16::from_be_bytes([*payload.first()?, *payload.get(1)?]));
            }
        }
    };
    timeout(SOON, reading).await.expect("the node closes soon")
}

/// Reads the status of an HTTP answer; `None` when the connection ends without one.
pub(crate) async fn status(socket: &mut TcpStream) -> Option<u16> {
    let mut answer = Vec::new();
    // An error after the answer (a reset) leaves what was read.
    let _ = timeout(SOON, socket.read_to_end(&mut answer)).await.expect("the node answers and closes soon");
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}
