//! Asking a boxed node's admin port with any headers, and following its events, with nothing but a socket.

use roomcast_testkit::{NodeBox, SOON};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Asks with these headers, each ending in CRLF. Gives the status, the head and the body.
pub(crate) async fn ask(node: &NodeBox, method: &str, path: &str, headers: &str) -> (u16, String, String) {
    let port = node.node().addresses().admin.unwrap().port();
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: 0\r\n{headers}\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(SOON, socket.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_owned(), body.to_owned())
}

/// The header with the node's token.
pub(crate) fn bearer(node: &NodeBox) -> String {
    let token = std::fs::read_to_string(node.node().token_file().unwrap()).unwrap();
    format!("authorization: Bearer {}\r\n", token.trim())
}

/// One who follows a node's events.
pub(crate) struct Follower {
    lines: BufReader<TcpStream>,
    pub(crate) head: String,
    /// The id of what was heard last.
    pub(crate) last_id: String,
}

impl Follower {
    pub(crate) async fn begin(node: &NodeBox, query: &str) -> Self {
        Self::begin_with(node, query, "host: localhost\r\n").await
    }

    /// Goes on after an event.
    pub(crate) async fn resume(node: &NodeBox, id: &str) -> Self {
        Self::begin_with(node, "", &format!("host: localhost\r\nlast-event-id: {id}\r\n")).await
    }

    async fn begin_with(node: &NodeBox, query: &str, headers: &str) -> Self {
        let mut socket = TcpStream::connect(node.node().addresses().admin.unwrap()).await.unwrap();
        socket.write_all(format!("GET /events{query} HTTP/1.1\r\n{headers}\r\n").as_bytes()).await.unwrap();
        let mut this = Self { lines: BufReader::new(socket), head: String::new(), last_id: String::new() };
        loop {
            let line = this.line().await.expect("a follower gets an answer");
            if line.is_empty() {
                break;
            }
            this.head.push_str(&line);
            this.head.push('\n');
        }
        if this.head.starts_with("HTTP/1.1 200") {
            while !this.line().await.expect("a follower is greeted").starts_with(": ") {}
        }
        this
    }

    /// The next line; `None` when the connection has ended.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(SOON, self.lines.read_line(&mut line)).await.expect("a line comes soon");
        if !matches!(read, Ok(1..)) {
            return None;
        }
        let line = line.trim_end().to_owned();
        if let Some(id) = line.strip_prefix("id: ") {
            id.clone_into(&mut self.last_id);
        }
        Some(line)
    }

    /// The next event; `None` when the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(data) = self.line().await?.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
        }
    }

    /// The next event of this type.
    pub(crate) async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("cut off before {kind}"));
            if event["type"] == kind {
                return event;
            }
        }
    }

    /// Reads to the end; says whether the answer ended as HTTP's chunks end, and was not cut.
    pub(crate) async fn ends_in_order(&mut self) -> bool {
        let mut last = String::new();
        while let Some(line) = self.line().await {
            if !line.is_empty() {
                last = line;
            }
        }
        last == "0"
    }
}
