//! Calls that change something: reload, drain, end a room, faults on purpose. All need the token; nothing is decided here.

use std::collections::HashMap;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use roomcast_supervision::{Fault, InjectError, PathPattern, Tree};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

use super::access::may_change;
use super::looking::{discreet, find};
use super::{Shared, say};
use crate::actors::config::Message as ConfigMessage;
use crate::config::Verdict;
use crate::view::{DrainView, EndView, KillView};

/// The longest stall that may be asked for.
const MAX_STALL: Duration = Duration::from_secs(60);
/// The most paths that an answer lists.
const MAX_PATHS: usize = 100;
/// How long a reload is waited for, over restarts of the configuration actor.
const RELOAD: Duration = Duration::from_secs(5);
/// Where this actor itself is in the tree.
const OWN_PATH: &str = "admin";
/// How long the answer has before this actor itself is hit.
const OWN_TURN: Duration = Duration::from_millis(50);
/// Between two attempts to reach it.
const RETRY: Duration = Duration::from_millis(20);

/// `POST /reload`: 200 when it is in force, 422 with every error when it was refused.
pub(super) async fn reload(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    if let Err(refused) = may_change(&shared, &headers) {
        return refused;
    }
    let deadline = Instant::now() + RELOAD;
    while Instant::now() < deadline {
        let (asker, answer) = oneshot::channel();
        // No answer comes where the actor crashed meanwhile; reading once more does no harm.
        if shared.store.config.send(ConfigMessage::Reload(Some(asker))).is_ok()
            && let Ok(Ok(outcome)) = timeout_at(deadline, answer).await
        {
            let refused = outcome.verdict == Verdict::Refused;
            let status = if refused { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
            return (status, Json(discreet(&outcome))).into_response();
        }
        sleep(RETRY).await;
    }
    say(StatusCode::SERVICE_UNAVAILABLE, "the configuration actor does not answer; look at it with `roomcast tree`")
}

/// `POST /drain?hurry=true`: begins, once; asked again it says how far it is. A hurry ends it.
pub(super) async fn drain(
    State(shared): State<Shared>,
    Query(asked): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = may_change(&shared, &headers) {
        return refused;
    }
    let hurry = match asked.get("hurry").map(String::as_str) {
        None | Some("false") => false,
        Some("true" | "") => true,
        Some(_) => return say(StatusCode::BAD_REQUEST, "`hurry` is true or false"),
    };
    let store = &shared.store;
    let (connections, window) = (store.connections(), store.live().timers.drain);
    if !store.is_draining() {
        tracing::info!(connections, ?window, "the operator drains this node");
    }
    store.begin_draining();
    if hurry {
        // Who asked is answered before the node is gone.
        let store = std::sync::Arc::clone(store);
        shared.store.tasks.spawn(async move {
            sleep(OWN_TURN).await;
            store.drain.hurry();
        });
    }
    let since = store.drain.since().map(|since| store.clock.now().since(since)).unwrap_or_default();
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let view = DrainView { connections, window_ms: milliseconds(window), since_ms: milliseconds(since), hurry };
    Json(view).into_response()
}

/// `POST /rooms/{id}/end`
pub(super) async fn end_room(State(shared): State<Shared>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    if let Err(refused) = may_change(&shared, &headers) {
        return refused;
    }
    let Some(cell) = find(&shared.store, &id) else { return say(StatusCode::NOT_FOUND, "no such room on this node") };
    let closed = cell.end();
    tracing::info!(room = %cell.id(), closed, "the operator ended a room");
    Json(EndView { closed }).into_response()
}

/// `POST /actors/{path}/kill?fault=kill|panic|stall&for=500ms`
pub(super) async fn kill(
    State(shared): State<Shared>,
    uri: Uri,
    Query(asked): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = may_change(&shared, &headers) {
        return refused;
    }
    if !shared.store.live().chaos {
        return say(StatusCode::FORBIDDEN, "faults are off; set chaos.enabled = true");
    }
    // As written: a path's `%20` belongs to its name, and so does its `%2A`, which is no pattern: who means one actor must
    // never hit all of them.
    let Some(target) = uri.path().strip_prefix("/actors/").and_then(|rest| rest.strip_suffix("/kill")) else {
        return say(StatusCode::NOT_FOUND, "write /actors/{path}/kill");
    };
    let target = target.to_owned();
    let fault = match fault(&asked) {
        Ok(fault) => fault,
        Err(message) => return say(StatusCode::BAD_REQUEST, message),
    };
    let Some(tree) = shared.store.tree().cloned() else {
        return say(StatusCode::SERVICE_UNAVAILABLE, "the tree is not up yet");
    };
    let tasks = shared.store.tasks.clone();
    let struck = tokio::task::spawn_blocking(move || {
        let paths = running(&tree, &target);
        if paths.iter().any(|path| path == OWN_PATH) {
            // Whoever asked to have this very actor hit is answered first.
            let (hit, later) = (paths.len(), target.clone());
            tasks.spawn(async move {
                sleep(OWN_TURN).await;
                drop(tree.inject(&later, fault));
            });
            return Ok((target, hit, paths));
        }
        tree.inject(&target, fault).map(|hit| (target, hit, paths))
    });
    match struck.await {
        Ok(Ok((target, hit, paths))) => {
            tracing::warn!(target, ?fault, hit, "the operator injected a fault");
            Json(KillView { hit, paths }).into_response()
        }
        Ok(Err(error @ InjectError::NotFound(_))) => say(StatusCode::NOT_FOUND, &error.to_string()),
        Ok(Err(error)) => say(StatusCode::BAD_REQUEST, &error.to_string()),
        Err(_) => say(StatusCode::INTERNAL_SERVER_ERROR, "the fault could not be injected"),
    }
}

fn fault(asked: &HashMap<String, String>) -> Result<Fault, &'static str> {
    match asked.get("fault").map_or("kill", String::as_str) {
        "kill" => Ok(Fault::Kill),
        "panic" => Ok(Fault::Panic),
        "stall" => {
            let text = asked.get("for").map_or("1s", String::as_str);
            match humantime_serde::re::humantime::parse_duration(text) {
                Ok(time) if time <= MAX_STALL => Ok(Fault::Stall(time)),
                _ => Err("`for` is a time of at most 60s, like 500ms"),
            }
        }
        _ => Err("`fault` is kill, panic or stall"),
    }
}

/// Who is about to be hit.
fn running(tree: &Tree, target: &str) -> Vec<String> {
    let Ok(pattern) = PathPattern::parse(target) else { return Vec::new() };
    let entries = tree.snapshot().into_iter().filter(|entry| pattern.matches(&entry.path));
    let running = entries.filter(|entry| matches!(entry.state.as_str(), "running" | "starting"));
    running.take(MAX_PATHS).map(|entry| entry.path.as_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_strictly() {
        let asked = |pairs: &[(&str, &str)]| {
            fault(&pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        assert_eq!(asked(&[]), Ok(Fault::Kill));
        assert_eq!(asked(&[("fault", "panic")]), Ok(Fault::Panic));
        assert_eq!(asked(&[("fault", "stall")]), Ok(Fault::Stall(Duration::from_secs(1))));
        assert_eq!(asked(&[("fault", "stall"), ("for", "60s")]), Ok(Fault::Stall(MAX_STALL)));
        for wrong in
            [[("fault", "stall"), ("for", "61s")], [("fault", "stall"), ("for", "x")], [("fault", "hug"), ("for", "")]]
        {
            assert!(asked(&wrong).is_err(), "{wrong:?}");
        }
    }
}
