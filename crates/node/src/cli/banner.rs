//! What a person reads first: where clients connect, how to trust the certificate, and what to try.

use std::fmt::Write;
use std::path::Path;

use crate::Node;
use crate::config::{BusKind, without_password};

/// The lines printed on start.
pub(super) fn banner(node: &Node, config_file: Option<&Path>) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_banner(&mut out, node, config_file);
    out
}

fn write_banner(out: &mut String, node: &Node, config_file: Option<&Path>) -> std::fmt::Result {
    let addresses = node.addresses();
    let config = config_file.map_or_else(|| "built-in defaults".to_owned(), |path| path.display().to_string());
    writeln!(out, "roomcast {}  node {}  settings: {config}", env!("CARGO_PKG_VERSION"), node.name())?;
    writeln!(out)?;
    if let Some(address) = addresses.websocket {
        let scheme = if node.websocket_identity().is_some() { "wss" } else { "ws" };
        writeln!(out, "  WebSocket     {scheme}://{address}/lobby/{{user}}/{{room}}")?;
    }
    if let Some(address) = addresses.webtransport {
        writeln!(out, "  WebTransport  https://{address}/lobby/{{user}}/{{room}}")?;
    }
    if let Some(identity) = node.webtransport_identity().or(node.websocket_identity()) {
        let certificate = identity.current();
        writeln!(out, "                certificate SHA-256 {}", certificate.hash_base64())?;
    }
    if let Some(address) = addresses.admin {
        let whom = if address.port() == 9090 { String::new() } else { format!(" --admin {address}") };
        writeln!(
            out,
            "  Admin         http://{address}  ask it: roomcast tree{whom}; or top, events, rooms, cluster, drain, kill"
        )?;
        if let Some(file) = node.token_file() {
            writeln!(out, "                token for changing calls: {}", file.display())?;
        }
    }
    let bus = &node.settings().bus;
    if bus.kind == BusKind::Nats {
        let urls: Vec<String> = bus.nats.urls.iter().map(|url| without_password(url)).collect();
        writeln!(out, "  Bus           NATS at {}; other nodes: roomcast cluster", urls.join(", "))?;
    }
    writeln!(out)?;
    let port = |address: std::net::SocketAddr, usual: u16, scheme: &str| {
        if address.port() == usual { String::new() } else { format!(" --url {scheme}://{address}") }
    };
    if let Some(address) = addresses.websocket.filter(|_| node.websocket_identity().is_none()) {
        let url = port(address, 8080, "ws");
        writeln!(out, "Try it, in two more terminals:")?;
        writeln!(out, "  cargo run --release -p roomcast-client --example receive --{url} --user bob")?;
        writeln!(out, "  cargo run --release -p roomcast-client --example send_clip --{url} --user alice")?;
        writeln!(out)?;
    }
    Ok(())
}
