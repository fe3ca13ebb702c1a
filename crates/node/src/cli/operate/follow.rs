//! `roomcast events`: follows what happens on a node, over cuts of the connection.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::client::{Client, Trouble};
use super::{Events, put, style};
use crate::view::{Style, clean};

/// A node that is silent for this long, heartbeats included, is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// How long a node that was cut off may take to answer again.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(200);
/// The longest line that is believed to be an event.
const MAX_LINE: usize = 1024 * 1024;

pub(super) async fn events(client: &Client, asked: &Events) -> Result<(), Trouble> {
    let mut feed = Feed::open(client, &asked.types, asked.after.clone()).await?;
    let style = style();
    let mut left = asked.number.unwrap_or(u64::MAX);
    while left > 0 {
        let data = feed.next().await?;
        put(&if asked.json { format!("{data}\n") } else { line(&data, style) })?;
        left -= 1;
    }
    Ok(())
}

/// A node's events, one by one, over cuts of the connection.
pub(super) struct Feed<'a> {
    client: &'a Client,
    path: String,
    body: Incoming,
    parser: Parser,
}

impl<'a> Feed<'a> {
    /// Begins to follow.
    pub(super) async fn open(client: &'a Client, types: &[String], after: Option<String>) -> Result<Self, Trouble> {
        let path = if types.is_empty() { "/events".to_owned() } else { format!("/events?type={}", types.join(",")) };
        let body = client.follow(&path, after.as_deref()).await?.into_body();
        Ok(Self { client, path, body, parser: Parser { last_id: after, ..Parser::default() } })
    }

    /// The next event, as JSON. Cancelling it loses nothing.
    pub(super) async fn next(&mut self) -> Result<String, Trouble> {
        loop {
            if let Some(data) = self.parser.next() {
                return Ok(data);
            }
            match timeout(SILENCE, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.parser.feed(bytes);
                    }
                }
                // Cut off or ended: by a crash of the one actor that serves this, or because the node stops.
                Ok(Some(Err(_)) | None) | Err(_) => self.reopen().await?,
            }
        }
    }

    async fn reopen(&mut self) -> Result<(), Trouble> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.client.follow(&self.path, self.parser.last_id.as_deref()).await {
                Ok(response) => {
                    self.body = response.into_body();
                    self.parser.line.clear();
                    return Ok(());
                }
                Err(Trouble::Silent { .. }) if Instant::now() < deadline => sleep(RETRY).await,
                Err(trouble) => return Err(trouble),
            }
        }
    }
}

/// Takes server-sent events apart.
#[derive(Default)]
struct Parser {
    line: Vec<u8>,
    ready: std::collections::VecDeque<String>,
    data: Option<String>,
    last_id: Option<String>,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if byte != b'\n' {
                if self.line.len() < MAX_LINE {
                    self.line.push(byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&self.line).into_owned();
            self.line.clear();
            if line.is_empty() {
                self.ready.extend(self.data.take());
            } else if let Some(data) = line.strip_prefix("data: ") {
                self.data = Some(data.to_owned());
            } else if let Some(id) = line.strip_prefix("id: ") {
                self.last_id = Some(id.to_owned());
            }
        }
    }

    fn next(&mut self) -> Option<String> {
        self.ready.pop_front()
    }
}

/// One event on one line.
pub(super) fn line(data: &str, style: Style) -> String {
    let event: Value = serde_json::from_str(data).unwrap_or_default();
    let text = |key: &str| clean(event[key].as_str().unwrap_or_default(), 200);
    let kind = text("type");
    let list = |key: &str| {
        let items = event[key].as_array().into_iter().flatten().filter_map(Value::as_str);
        items.collect::<Vec<_>>().join(", ")
    };
    let path = match text("path") {
        path if path.is_empty() => "roomcast".to_owned(),
        path => path,
    };
    let what = match kind.as_str() {
        "crashed" | "start_failed" => format!("{path}: {}", text("reason")),
        "restarted" => format!("{path} after {} ms, generation {}", event["after_ms"], event["generation"]),
        "gave_up" | "abandoned" => path,
        "stuck" => format!("{path} has been busy for {} ms without a pause", event["busy_ms"]),
        "unstuck" => format!("{path} goes on after {} ms", event["busy_ms"]),
        "join" | "leave" => {
            format!("{} in {} ({}, session {})", text("user"), text("room"), text("transport"), event["session"])
        }
        "room_begun" => text("room"),
        "room_ended" => format!("{}: {}", text("room"), text("why")),
        "reload" => {
            let mut what = format!("{}, settings number {}", text("outcome"), event["generation"]);
            for (key, word) in [("changed", "changed"), ("waiting", "waiting for a restart"), ("errors", "errors")] {
                let items = list(key);
                if !items.is_empty() {
                    what = format!("{what}; {word}: {}", clean(&items, 300));
                }
            }
            what
        }
        "draining" => "the node is on its way out".to_owned(),
        "missed" if event["events"].is_null() => "the node has begun anew; what was before is not known".to_owned(),
        "missed" => format!("{} events came too fast", event["events"]),
        _ => clean(data, 300),
    };
    let at = event["at"].as_str().and_then(|at| at.split_once('T')).map_or("", |(_, time)| time.trim_end_matches('Z'));
    let name = format!("{kind:<12}");
    let name = match kind.as_str() {
        "crashed" | "start_failed" | "gave_up" | "abandoned" | "stuck" | "missed" => style.bad(&name),
        "restarted" | "unstuck" => style.good(&name),
        "reload" | "draining" => style.doubtful(&name),
        _ => name,
    };
    format!("{}  {name}  {what}\n", style.faint(&format!("{:<12}", clean(at, 12))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_apart_wherever_the_bytes_are_cut() {
        let stream = b"retry: 1000\nid: a-1\n: n\n\nid: a-2\ndata: {\"x\":1}\n\nid: a-2\n: heartbeat\n\nid: a-3\ndata: two\n\nda";
        for cut in 0..stream.len() {
            let mut parser = Parser::default();
            parser.feed(&stream[..cut]);
            parser.feed(&stream[cut..]);
            assert_eq!(parser.next().as_deref(), Some("{\"x\":1}"), "{cut}");
            assert_eq!(parser.next().as_deref(), Some("two"), "{cut}");
            assert_eq!((parser.next(), parser.last_id.as_deref()), (None, Some("a-3")), "{cut}");
        }
    }

    #[test]
    fn every_type_has_a_line_of_its_own() {
        let style = Style::default();
        for (data, expected) in [
            (
                r#"{"at":"2026-01-01T10:00:00.123Z","type":"restarted","path":"bus/link","generation":2,"after_ms":0.7}"#,
                "10:00:00.123  restarted     bus/link after 0.7 ms, generation 2\n",
            ),
            (
                r#"{"at":"2026-01-01T10:00:00.123Z","type":"crashed","path":"x","reason":"panicked: a\nb"}"#,
                "10:00:00.123  crashed       x: panicked: a b\n",
            ),
            (
                r#"{"at":"2026-01-01T10:00:00.123Z","type":"join","room":"a","user":"ann","session":7,"transport":"websocket"}"#,
                "10:00:00.123  join          ann in a (websocket, session 7)\n",
            ),
            (
                r#"{"at":"2026-01-01T10:00:00.123Z","type":"reload","outcome":"applied","generation":2,"changed":["limits.max_rooms"],"waiting":[],"errors":[]}"#,
                "10:00:00.123  reload        applied, settings number 2; changed: limits.max_rooms\n",
            ),
            (r#"{"type":"missed","events":7}"#, "              missed        7 events came too fast\n"),
        ] {
            assert_eq!(line(data, style), expected);
        }
        assert_ne!(line(r#"{"type":"crashed"}"#, Style { colour: true }), line(r#"{"type":"crashed"}"#, style));
    }
}
