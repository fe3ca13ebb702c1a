//! Commands that ask once and print the answer: tree, rooms, reload, kill.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use roomcast_supervision::ActorPath;
use serde_json::Value;
use tokio::time::sleep;

use super::client::{Client, Trouble};
use super::{Kill, Rooms, Tree, put, style, width};
use crate::view::{self, ActorView, KillView, RoomDetail, RoomView, RoomsView, Style, TreeOptions, clean, count};

/// Between two drawings of the tree.
const REDRAW: Duration = Duration::from_secs(1);
/// To the top left, and clear what is below.
const HOME: &str = "\x1b[H\x1b[J";

pub(super) async fn tree(client: &Client, asked: &Tree) -> Result<(), Trouble> {
    let path = if asked.under.is_empty() { "/tree".to_owned() } else { format!("/tree?under={}", asked.under) };
    loop {
        let style = style();
        let drawn = match client.get_text(&path).await {
            Ok(body) if asked.json => format!("{}\n", body.trim_end()),
            Ok(body) => {
                let actors: Vec<ActorView> = client.parse(&body)?;
                let siblings = if asked.all { usize::MAX } else { TreeOptions::default().siblings };
                view::render(&actors, &TreeOptions { style, width: width(), siblings })
            }
            // The node that is watched may well be down for a moment: that is what one watches for.
            Err(trouble) if asked.watch && !asked.json => format!("{}\n", style.bad(&trouble.to_string())),
            Err(trouble) => return Err(trouble),
        };
        put(&if asked.watch && std::io::stdout().is_terminal() { format!("{HOME}{drawn}") } else { drawn })?;
        if !asked.watch {
            return Ok(());
        }
        sleep(REDRAW).await;
    }
}

pub(super) async fn rooms(client: &Client, asked: &Rooms) -> Result<(), Trouble> {
    let path = match &asked.room {
        Some(room) => format!("/rooms/{}", ActorPath::root("").child(room).as_str()),
        None => format!("/rooms?limit={}", asked.limit),
    };
    let body = client.get_text(&path).await?;
    if asked.json {
        return put(&format!("{}\n", body.trim_end()));
    }
    if asked.room.is_some() {
        let detail: RoomDetail = client.parse(&body)?;
        return put(&room_text(&detail, style()));
    }
    let listed: RoomsView = client.parse(&body)?;
    put(&rooms_text(&listed, style()))
}

/// The rooms as a table.
pub(super) fn rooms_text(listed: &RoomsView, style: Style) -> String {
    if listed.rooms.is_empty() {
        return "no rooms\n".to_owned();
    }
    let header = ["ROOM", "MEMBERS", "QUEUED", "BYTES", "MAILBOX", "GENERATION"];
    let row = |room: &RoomView| {
        let numbers = [room.queued_packets, room.queued_bytes, room.mailbox_depth].map(|number| count(number as f64));
        let [packets, bytes, mailbox] = numbers;
        [clean(&room.room, 48), room.members.to_string(), packets, bytes, mailbox, room.generation.to_string()]
    };
    let mut text = table(header, listed.rooms.iter().map(row), style);
    let more = listed.total.saturating_sub(listed.rooms.len());
    if more > 0 {
        let _ = writeln!(text, "… {more} more; --limit shows more of them");
    }
    text
}

fn room_text(detail: &RoomDetail, style: Style) -> String {
    let header = ["USER", "SESSION", "TRANSPORT", "QUEUED", "BYTES", "DROPS"];
    let rows = detail.sessions.iter().map(|member| {
        [
            clean(&member.user, 48),
            member.session.to_string(),
            member.transport.clone(),
            count(member.queued_packets as f64),
            count(member.queued_bytes as f64),
            count(member.drops as f64),
        ]
    });
    let title =
        format!("{}, {} members, actors at {}\n", clean(&detail.room.room, 128), detail.room.members, detail.room.path);
    title + &table(header, rows, style)
}

/// The first column to the left, the others to the right.
pub(super) fn table<const N: usize>(
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
    style: Style,
) -> String {
    let rows: Vec<_> = rows.collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    });
    let line = |cells: &[String; N]| {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let room = " ".repeat(width.saturating_sub(cell.chars().count()));
            // Writing to a string cannot fail.
            let _ = if column == 0 { write!(line, "{cell}{room}") } else { write!(line, "  {room}{cell}") };
        }
        line.truncate(line.trim_end().len());
        line
    };
    let mut text = style.faint(&line(&header.map(ToOwned::to_owned))) + "\n";
    for row in &rows {
        text.push_str(&line(row));
        text.push('\n');
    }
    text
}

pub(super) async fn reload(client: &Client, json: bool) -> Result<(), Trouble> {
    let answer = client.post("/reload").await?;
    let outcome: Value = client.parse(&answer.body)?;
    let refused = answer.status == 422;
    if !refused && answer.status != 200 {
        client.expect_good(answer)?;
        return Ok(());
    }
    if json {
        put(&format!("{}\n", answer.body.trim_end()))?;
    } else if !refused {
        put(&outcome_text(&outcome))?;
    }
    if refused {
        let errors = outcome["errors"].as_array().cloned().unwrap_or_default();
        let errors: Vec<_> = errors.iter().map(error_text).collect();
        let said = "refused; the settings in force stay";
        return Err(Trouble::Refused(if json { said.to_owned() } else { format!("{}\n{said}", errors.join("\n")) }));
    }
    Ok(())
}

fn outcome_text(outcome: &Value) -> String {
    let verdict = outcome["verdict"].as_str().unwrap_or("applied");
    let mut text = format!("{verdict}: settings number {}\n", outcome["generation"]);
    for change in outcome["changed"].as_array().into_iter().flatten() {
        let value = |side: &Value| if side.is_null() { "unset".to_owned() } else { side.to_string() };
        let waits = if change["live"] == Value::Bool(true) { "" } else { "   waits for a restart" };
        let key = clean(change["key"].as_str().unwrap_or_default(), 100);
        let line = format!("  {key}: {} → {}{waits}", value(&change["old"]), value(&change["new"]));
        let _ = writeln!(text, "{}", clean(&line, 300));
    }
    text
}

fn error_text(error: &Value) -> String {
    let mut text = error["file"].as_str().unwrap_or_default().to_owned();
    if let Some(line) = error["line"].as_u64() {
        let _ = write!(text, ":{line}");
    }
    for part in ["key", "reason"] {
        if let Some(part) = error[part].as_str().filter(|part| !part.is_empty()) {
            let _ = write!(text, ": {part}");
        }
    }
    clean(&text, 500)
}

pub(super) async fn kill(client: &Client, asked: &Kill) -> Result<(), Trouble> {
    let fault = match (asked.panic, asked.stall) {
        (true, _) => "panic".to_owned(),
        (false, Some(time)) => format!("stall&for={}ms", time.as_millis()),
        (false, None) => "kill".to_owned(),
    };
    let answer = client.post(&format!("/actors/{}/kill?fault={fault}", asked.path)).await?;
    let off = answer.status == 403;
    let body = client.expect_good(answer).map_err(|trouble| match trouble {
        Trouble::Refused(message) if off => {
            Trouble::Refused(format!("{message} in its configuration file, then `roomcast reload`"))
        }
        trouble => trouble,
    })?;
    if asked.json {
        return put(&format!("{}\n", body.trim_end()));
    }
    let struck: KillView = client.parse(&body)?;
    let mut text = format!("hit {}\n", struck.hit);
    for path in &struck.paths {
        let _ = writeln!(text, "  {}", clean(path, 200));
    }
    put(&text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn room(name: &str, members: usize) -> RoomView {
        RoomView {
            room: name.into(),
            path: format!("rooms/{name}"),
            members,
            generation: 1,
            mailbox_depth: 0,
            queued_packets: 12_345,
            queued_bytes: 0,
        }
    }

    #[test]
    fn rooms_are_a_table_that_says_what_it_leaves_out() {
        let listed = RoomsView { total: 7, rooms: vec![room("standup", 12), room("a", 3)] };
        let expected = "\
ROOM     MEMBERS  QUEUED  BYTES  MAILBOX  GENERATION
standup       12   12.3k      0        0           1
a              3   12.3k      0        0           1
… 5 more; --limit shows more of them
";
        assert_eq!(rooms_text(&listed, Style::default()), expected);
        assert_eq!(rooms_text(&RoomsView { total: 0, rooms: vec![] }, Style::default()), "no rooms\n");
    }

    #[test]
    fn a_reload_says_what_changed_and_what_waits() {
        let outcome = json!({"verdict": "applied", "generation": 3, "changed": [
            {"key": "limits.max_rooms", "old": 7, "new": 8, "live": true},
            {"key": "node.name", "old": null, "new": "b", "live": false},
        ]});
        let expected = "applied: settings number 3\n  limits.max_rooms: 7 → 8\n  \
            node.name: unset → \"b\"   waits for a restart\n";
        assert_eq!(outcome_text(&outcome), expected);
        let error = json!({"file": "s.toml", "line": 2, "key": "limits.max_romms", "reason": "unknown key"});
        assert_eq!(error_text(&error), "s.toml:2: limits.max_romms: unknown key");
    }
}
