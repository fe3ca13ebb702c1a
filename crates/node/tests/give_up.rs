//! The root gives up: the program ends in order, and says by its code that it did not end of its own will.
#![allow(clippy::unwrap_used)]

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);
/// `EX_SOFTWARE` of sysexits.h: what a service manager sees.
const GAVE_UP: i32 = 70;

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(SOON, what).await.unwrap()
}

/// The word after `mark` in the banner.
fn after<'a>(banner: &'a str, mark: &str) -> &'a str {
    let (_, rest) = banner.split_once(mark).unwrap_or_else(|| panic!("{mark} is not in {banner}"));
    rest.split_whitespace().next().unwrap()
}

/// A WebSocket client that has its answer.
async fn join(address: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    let request = "GET /lobby/ann/a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon(client.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"));
    client
}

#[tokio::test]
async fn the_root_gives_up_and_the_program_tells_its_clients_and_ends_with_70() {
    for (victim, fault) in [("telemetry", "kill"), ("listeners", "panic")] {
        let settings = [
            "listen.websocket.bind=127.0.0.1:0",
            "listen.webtransport.bind=127.0.0.1:0",
            "listen.admin.bind=127.0.0.1:0",
            "chaos.enabled=true",
            "supervision.\"\".intensity=0",
        ];
        let mut command = Command::new(env!("CARGO_BIN_EXE_roomcast"));
        command.arg("serve").args(settings.iter().flat_map(|setting| ["--set", setting])).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut node = command.spawn().unwrap();
        let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
        let mut banner = String::new();
        while !banner.contains("send_clip") {
            banner.push_str(&soon(lines.next_line()).await.unwrap().unwrap());
            banner.push('\n');
        }
        let websocket = after(&banner, "ws://").split('/').next().unwrap();
        let admin = after(&banner, "Admin         http://").split('/').next().unwrap();
        let token_file = after(&banner, "token for changing calls: ");
        let token = std::fs::read_to_string(token_file).unwrap();
        let mut client = join(websocket).await;

        let mut asking = TcpStream::connect(admin).await.unwrap();
        let request = format!(
            "POST /actors/{victim}/kill?fault={fault} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\
             authorization: Bearer {}\r\n\r\n",
            token.trim()
        );
        asking.write_all(request.as_bytes()).await.unwrap();

        let mut close = [0; 4];
        soon(client.read_exact(&mut close)).await.unwrap();
        assert_eq!((close[0], u16::from_be_bytes([close[2], close[3]])), (0x88, 1001), "{victim}");
        drop(client);
        let status = soon(node.wait()).await.unwrap();
        assert_eq!(status.code(), Some(GAVE_UP), "{victim}");
        let mut log = String::new();
        soon(node.stderr.take().unwrap().read_to_string(&mut log)).await.unwrap();
        assert!(log.contains("the tree gave up"), "{log}");
        assert!(!std::path::Path::new(token_file).exists(), "the token's file is gone with the node");
    }
}
