//! `roomcast cluster`: the nodes as one of them sees them, or who is in a room and on which node.

use std::fmt::Write;
use std::time::Duration;

use roomcast_supervision::ActorPath;

use super::client::{Client, Trouble};
use super::print::table;
use super::{Cluster, put, style};
use crate::view::{ClusterRoomView, ClusterView, PeerView, Style, ago, clean, count};

pub(super) async fn show(client: &Client, asked: &Cluster) -> Result<(), Trouble> {
    let path = match &asked.room {
        Some(room) => format!("/cluster?room={}", ActorPath::root("").child(room).as_str()),
        None => "/cluster".to_owned(),
    };
    let body = client.get_text(&path).await?;
    if asked.json {
        return put(&format!("{}\n", body.trim_end()));
    }
    if asked.room.is_some() {
        let view: ClusterRoomView = client.parse(&body)?;
        return put(&room_text(&view, style()));
    }
    let view: ClusterView = client.parse(&body)?;
    put(&cluster_text(&view, style()))
}

fn cluster_text(view: &ClusterView, style: Style) -> String {
    let broker = view.broker.as_deref().map(|broker| format!(" ({})", clean(broker, 80))).unwrap_or_default();
    let bus = if view.bus == "up" { style.good("up") } else { style.bad(&view.bus) };
    let mut text = format!(
        "as {} sees it; the bus is {bus}{broker}; {} nodes, {} rooms, {} members\n",
        clean(&view.seen_by, 64),
        view.nodes.len(),
        count(view.rooms as f64),
        count(view.members as f64),
    );
    if view.bus != "up" {
        text.push_str("what follows is what was known when the bus was up\n");
    } else if !view.settled {
        text.push_str("it has just come and is still hearing who else is there\n");
    }
    text.push('\n');
    let header = ["NODE", "STATE", "HEARD", "REGION", "VERSION", "CONNECTIONS", "ROOMS", "MEMBERS"];
    let row = |node: &PeerView| {
        let heard = if node.own { "asked".to_owned() } else { ago(Duration::from_millis(node.heard_ms)) };
        let behind = if node.complete { "" } else { "*" };
        [
            clean(&node.name, 40),
            node.state.clone(),
            heard,
            clean(&node.region, 20),
            clean(&node.version, 16),
            count(node.connections as f64),
            count(node.rooms as f64),
            format!("{}{behind}", count(node.members as f64)),
        ]
    };
    text.push_str(&table(header, view.nodes.iter().map(row), style));
    if view.nodes.iter().any(|node| !node.complete) {
        text.push_str("* not all of them are known here yet\n");
    }
    for node in &view.nodes {
        if let Some(problem) = &node.problem {
            let line = format!("{}: {}", clean(&node.name, 40), clean(problem, 200));
            let _ = writeln!(text, "\n{}", style.bad(&line));
        }
    }
    text
}

fn room_text(view: &ClusterRoomView, style: Style) -> String {
    let (room, seen_by) = (clean(&view.room, 128), clean(&view.seen_by, 64));
    if view.members.is_empty() {
        return format!("nobody that {seen_by} knows of is in {room}\n");
    }
    let header = ["USER", "SESSION", "NODE", "TRANSPORT", "JOINED"];
    let rows = view.members.iter().map(|member| {
        [
            clean(&member.user, 48),
            member.session.to_string(),
            clean(&member.node, 40),
            member.transport.clone(),
            member.joined.clone(),
        ]
    });
    format!("{room}, {} members, as {seen_by} sees it\n", view.members.len()) + &table(header, rows, style)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, own: bool) -> PeerView {
        PeerView {
            name: name.into(),
            instance: "1f".into(),
            own,
            state: "up".into(),
            problem: None,
            version: "0.1.0".into(),
            region: "eu".into(),
            dialect: "seed".into(),
            heard_ms: 350,
            started: "2026-11-24T10:00:00Z".into(),
            listeners: vec![],
            connections: 1_500,
            rooms: 30,
            members: 1_499,
            known: 1_499,
            complete: own,
        }
    }

    #[test]
    fn the_nodes_are_a_table_that_says_whose_view_it_is() {
        let mut bad = node("b", false);
        bad.problem = Some("another node has this name too".into());
        let mut view = ClusterView {
            seen_by: "a".into(),
            bus: "up".into(),
            broker: None,
            settled: true,
            nodes: vec![node("a", true), bad],
            rooms: 40,
            members: 2_998,
            digest: "00".into(),
        };
        let expected = "\
as a sees it; the bus is up; 2 nodes, 40 rooms, 3.00k members

NODE  STATE  HEARD  REGION  VERSION  CONNECTIONS  ROOMS  MEMBERS
a        up  asked      eu    0.1.0        1.50k     30    1.50k
b        up  350ms      eu    0.1.0        1.50k     30   1.50k*
* not all of them are known here yet

b: another node has this name too
";
        assert_eq!(cluster_text(&view, Style::default()), expected);
        view.bus = "down".into();
        assert!(cluster_text(&view, Style::default()).contains("what follows is what was known"));
    }

    #[test]
    fn a_room_says_who_is_where() {
        let mut view = ClusterRoomView { room: "standup".into(), seen_by: "a".into(), members: vec![] };
        assert_eq!(room_text(&view, Style::default()), "nobody that a knows of is in standup\n");
        view.members.push(crate::view::ClusterMemberView {
            user: "ann".into(),
            session: 7,
            node: "b".into(),
            transport: "websocket".into(),
            joined: "2026-11-24T10:00:00Z".into(),
        });
        let expected = "\
standup, 1 members, as a sees it
USER  SESSION  NODE  TRANSPORT                JOINED
ann         7     b  websocket  2026-11-24T10:00:00Z
";
        assert_eq!(room_text(&view, Style::default()), expected);
    }
}
