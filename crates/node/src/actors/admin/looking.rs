//! Answers about what is: figures, readiness, the tree, rooms, settings. Nothing here changes anything.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use roomcast_protocol::RoomId;
use roomcast_supervision::Tree;
use serde::Serialize;
use serde_json::{Value, json};

use super::access::may_look;
use super::{Shared, say};
use crate::store::{RoomCell, Store};
use crate::view::{
    self, ActorView, ClusterRoomView, ClusterView, MemberView, NodeView, RoomDetail, RoomView, RoomsView, TreeOptions,
};

/// Rooms in an answer that asks for no number.
const ROOMS: usize = 100;
/// The most rooms in an answer.
const MAX_ROOMS: usize = 10_000;
/// The most actors in an answer.
const MAX_ACTORS: usize = 100_000;

type Asked = Query<HashMap<String, String>>;

pub(super) async fn metrics(State(shared): State<Shared>) -> Response {
    shared.store.collect();
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, shared.store.metrics.render()).into_response()
}

pub(super) async fn readiness(State(shared): State<Shared>) -> Response {
    let (status, state) = ready(&shared.store);
    (status, Json(json!({ "ready": status == StatusCode::OK, "state": state }))).into_response()
}

fn ready(store: &Store) -> (StatusCode, &'static str) {
    if store.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else if !store.bus_reached() {
        (StatusCode::SERVICE_UNAVAILABLE, "the bus was not reached yet")
    } else if !store.presence.is_settled() {
        (StatusCode::SERVICE_UNAVAILABLE, "hearing who else is there")
    } else if *store.bus.state().borrow() == roomcast_bus::BusState::Up {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::OK, "degraded: the bus is lost")
    }
}

pub(super) async fn node(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    if let Err(refused) = may_look(&shared, &headers) {
        return refused;
    }
    let store = &shared.store;
    let started = store.tree().and_then(|tree| tree.find("")).map(|root| root.since);
    let uptime = started.and_then(|since| SystemTime::now().duration_since(since).ok()).unwrap_or_default();
    Json(NodeView {
        name: store.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state: ready(store).1.to_owned(),
        uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        connections: store.connections(),
        rooms: store.rooms.count(),
        members: store.rooms.members(),
        config_generation: store.config_generation(),
        chaos: store.live().chaos,
    })
    .into_response()
}

/// `GET /tree?format=json|text&under=PATH&limit=N&all=true`
pub(super) async fn tree(State(shared): State<Shared>, Query(asked): Asked, headers: HeaderMap) -> Response {
    if let Err(refused) = may_look(&shared, &headers) {
        return refused;
    }
    let limit = match limit(&asked, MAX_ACTORS, MAX_ACTORS) {
        Ok(limit) => limit,
        Err(message) => return say(StatusCode::BAD_REQUEST, &message),
    };
    let text = match asked.get("format").map_or("json", String::as_str) {
        "json" => false,
        "text" => true,
        _ => return say(StatusCode::BAD_REQUEST, "`format` is json or text"),
    };
    // A big tree is some milliseconds of work, which no packet should wait for.
    let drawn = tokio::task::spawn_blocking(move || {
        let under = asked.get("under").map_or("", String::as_str);
        let actors = actors(&shared.store, under, limit);
        if actors.is_empty() {
            say(StatusCode::NOT_FOUND, &format!("no actor at `{under}`"))
        } else if text {
            view::render(&actors, &TreeOptions::default()).into_response()
        } else {
            Json(actors).into_response()
        }
    });
    drawn.await.unwrap_or_else(|_| say(StatusCode::INTERNAL_SERVER_ERROR, "the tree could not be shown"))
}

fn actors(store: &Store, under: &str, limit: usize) -> Vec<ActorView> {
    let now = SystemTime::now();
    let entries = store.tree().map(Tree::snapshot).unwrap_or_default();
    let below = |path: &str| {
        under.is_empty() || path.strip_prefix(under).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let chosen = entries.iter().filter(|entry| below(entry.path.as_str()));
    chosen.take(limit).map(|entry| ActorView::new(entry, now)).collect()
}

/// `GET /rooms?limit=N`
pub(super) async fn rooms(State(shared): State<Shared>, Query(asked): Asked, headers: HeaderMap) -> Response {
    if let Err(refused) = may_look(&shared, &headers) {
        return refused;
    }
    let limit = match limit(&asked, ROOMS, MAX_ROOMS) {
        Ok(limit) => limit,
        Err(message) => return say(StatusCode::BAD_REQUEST, &message),
    };
    let listed = tokio::task::spawn_blocking(move || {
        let mut cells: Vec<(usize, Arc<RoomCell>)> =
            shared.store.rooms.all().into_iter().map(|cell| (cell.members(), cell)).collect();
        let total = cells.len();
        cells.sort_by(|(a, one), (b, other)| (Reverse(a), one.id()).cmp(&(Reverse(b), other.id())));
        cells.truncate(limit);
        Json(RoomsView { total, rooms: cells.iter().map(|(_, cell)| room_view(cell)).collect() }).into_response()
    });
    listed.await.unwrap_or_else(|_| say(StatusCode::INTERNAL_SERVER_ERROR, "the rooms could not be listed"))
}

/// `GET /rooms/{id}`
pub(super) async fn room(State(shared): State<Shared>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    if let Err(refused) = may_look(&shared, &headers) {
        return refused;
    }
    let Some(cell) = find(&shared.store, &id) else { return say(StatusCode::NOT_FOUND, "no such room on this node") };
    let sessions = cell
        .occupants()
        .iter()
        .map(|egress| {
            let (queued_packets, queued_bytes) = egress.waiting();
            MemberView {
                user: egress.user().to_string(),
                session: egress.session().0,
                transport: egress.transport().label().to_owned(),
                queued_packets,
                queued_bytes,
                drops: egress.drops(),
            }
        })
        .collect();
    Json(RoomDetail { room: room_view(&cell), sessions }).into_response()
}

/// The room of that name on this node.
pub(super) fn find(store: &Store, id: &str) -> Option<Arc<RoomCell>> {
    store.rooms.get(&RoomId::parse(id).ok()?)
}

fn room_view(cell: &RoomCell) -> RoomView {
    let occupants = cell.occupants();
    let waiting = occupants.iter().map(|egress| egress.waiting());
    let (queued_packets, queued_bytes) = waiting
        .fold((0, 0), |(packets, bytes), (more_packets, more_bytes)| (packets + more_packets, bytes + more_bytes));
    RoomView {
        room: cell.id().to_string(),
        path: cell.path(),
        members: occupants.len(),
        generation: cell.generation(),
        mailbox_depth: cell.mailbox_depth(),
        queued_packets,
        queued_bytes,
    }
}

/// `GET /cluster?room=NAME`
pub(super) async fn cluster(State(shared): State<Shared>, Query(asked): Asked, headers: HeaderMap) -> Response {
    if let Err(refused) = may_look(&shared, &headers) {
        return refused;
    }
    let room = match asked.get("room").map(|room| RoomId::parse(room)) {
        None => None,
        Some(Ok(room)) => Some(room),
        Some(Err(error)) => return say(StatusCode::BAD_REQUEST, &format!("`room`: {error}")),
    };
    // A million members are some milliseconds of work, which no packet should wait for.
    let shown = tokio::task::spawn_blocking(move || {
        let store = &shared.store;
        match room {
            Some(room) => Json(ClusterRoomView::new(store, &room)).into_response(),
            None => Json(ClusterView::new(store)).into_response(),
        }
    });
    shown.await.unwrap_or_else(|_| say(StatusCode::INTERNAL_SERVER_ERROR, "the cluster could not be shown"))
}

/// `GET /config`
pub(super) async fn config(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    if let Err(refused) = may_look(&shared, &headers) {
        return refused;
    }
    let store = &shared.store;
    Json(json!({
        "generation": store.config_generation(),
        "settings": discreet(&*store.settings()),
        "waiting": discreet(&*store.config_waiting()),
    }))
    .into_response()
}

/// As JSON, without what is secret in it: the user and password of a URL.
pub(super) fn discreet(value: &impl Serialize) -> Value {
    fn hide(value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some((scheme, rest)) = text.split_once("://")
                    && let Some((_, host)) = rest.rsplit_once('@')
                {
                    *text = format!("{scheme}://…@{host}");
                }
            }
            Value::Array(values) => values.iter_mut().for_each(hide),
            Value::Object(values) => values.values_mut().for_each(hide),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut value = serde_json::to_value(value).unwrap_or_default();
    hide(&mut value);
    value
}

fn limit(asked: &HashMap<String, String>, default: usize, most: usize) -> Result<usize, String> {
    let Some(text) = asked.get("limit") else { return Ok(default) };
    match text.parse() {
        Ok(limit) if (1..=most).contains(&limit) => Ok(limit),
        _ => Err(format!("`limit` is a number from 1 to {most}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        let value = json!({ "urls": ["nats://user:pass@host:4222", "nats://host:4222"], "at": "ann@example", "n": 1 });
        let shown = discreet(&value);
        assert_eq!(shown["urls"], json!(["nats://…@host:4222", "nats://host:4222"]));
        assert_eq!((&shown["at"], &shown["n"]), (&json!("ann@example"), &json!(1)));
    }

    #[test]
    fn limits_are_bounded() {
        let asked = |limit: &str| super::limit(&HashMap::from([("limit".to_owned(), limit.to_owned())]), 5, 100);
        assert_eq!(super::limit(&HashMap::new(), 5, 100), Ok(5));
        assert_eq!((asked("1"), asked("100")), (Ok(1), Ok(100)));
        for wrong in ["0", "101", "-1", "x", ""] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }
}
