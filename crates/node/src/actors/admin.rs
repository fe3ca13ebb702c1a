//! `admin`: the operator's HTTP port. Reading is open to whoever reaches the port; changing needs the token.
//!
//! Its connections are owned here, bounded in number and time, and die with the actor; the socket is the store's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use roomcast_supervision::{Context, Failure, Fault, Flow, InjectError, StartError, Tree, Worker};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::store::Store;

/// Connections at once.
const MAX_CONNECTIONS: usize = 64;
/// The longest that one connection may last.
const MAX_AGE: Duration = Duration::from_secs(60);
/// How long a request's headers may take.
const HEADERS: Duration = Duration::from_secs(5);
/// The longest stall that may be asked for.
const MAX_STALL: Duration = Duration::from_secs(60);

/// One incarnation of the admin server.
pub struct Admin;

impl Worker for Admin {
    type Message = ();
    type Args = Arc<Store>;

    async fn start(store: Arc<Store>, ctx: &Context<Self>) -> Result<Self, StartError> {
        ctx.attach("serve", serve(store));
        Ok(Self)
    }

    async fn handle(&mut self, (): (), _: &Context<Self>) -> Result<Flow, Failure> {
        Ok(Flow::Continue)
    }
}

async fn serve(store: Arc<Store>) -> Result<(), Failure> {
    let service = TowerToHyperService::new(router(Arc::clone(&store)));
    let Some(listener) = &store.sockets.admin else { return Ok(()) };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((socket, _)) => {
                    let service = service.clone();
                    connections.spawn(async move {
                        let serving = hyper::server::conn::http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(HEADERS)
                            .serve_connection(TokioIo::new(socket), service);
                        // What an operator's client does wrong is its own affair.
                        drop(timeout(MAX_AGE, serving).await);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting an admin connection failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

fn router(store: Arc<Store>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .route("/tree", get(show_tree))
        .route("/actors/{*path}", post(kill))
        .with_state(store)
}

async fn metrics(State(store): State<Arc<Store>>) -> Response {
    store.collect();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], store.metrics.render()).into_response()
}

async fn readiness(State(store): State<Arc<Store>>) -> Response {
    let (status, state) = if store.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else if !store.bus_reached() {
        (StatusCode::SERVICE_UNAVAILABLE, "the bus was not reached yet")
    } else if *store.bus.state().borrow() == roomcast_bus::BusState::Up {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::OK, "degraded: the bus is lost")
    };
    (status, Json(json!({ "ready": status == StatusCode::OK, "state": state }))).into_response()
}

async fn show_tree(State(store): State<Arc<Store>>) -> Response {
    let actors: Vec<_> = store
        .tree()
        .map(Tree::snapshot)
        .unwrap_or_default()
        .iter()
        .map(|entry| {
            json!({
                "path": entry.path.as_str(),
                "kind": entry.kind.as_str(),
                "state": entry.state.as_str(),
                "restarts": entry.restarts,
                "mailbox_depth": entry.depth,
                "since": humantime_serde::re::humantime::format_rfc3339_millis(entry.since).to_string(),
                "generation": entry.generation,
                "last_reason": entry.last_reason.as_ref().map(ToString::to_string),
            })
        })
        .collect();
    Json(actors).into_response()
}

/// `POST /actors/{path}/kill?fault=kill|panic|stall&for=500ms`
async fn kill(
    State(store): State<Arc<Store>>,
    Path(path): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let answer = |status: StatusCode, message: &str| (status, Json(json!({ "message": message }))).into_response();
    if !authorized(&store, &headers) {
        return answer(StatusCode::UNAUTHORIZED, "send the admin token as `Authorization: Bearer …`");
    }
    if !store.live().chaos {
        return answer(StatusCode::FORBIDDEN, "faults are off; set chaos.enabled = true");
    }
    let Some(target) = path.strip_suffix("/kill") else {
        return answer(StatusCode::NOT_FOUND, "write /actors/{path}/kill");
    };
    let fault = match query.get("fault").map_or("kill", String::as_str) {
        "kill" => Fault::Kill,
        "panic" => Fault::Panic,
        "stall" => {
            let text = query.get("for").map_or("1s", String::as_str);
            match humantime_serde::re::humantime::parse_duration(text) {
                Ok(time) if time <= MAX_STALL => Fault::Stall(time),
                _ => return answer(StatusCode::BAD_REQUEST, "`for` is a time of at most 60s, like 500ms"),
            }
        }
        _ => return answer(StatusCode::BAD_REQUEST, "`fault` is kill, panic or stall"),
    };
    let Some(tree) = store.tree() else { return answer(StatusCode::SERVICE_UNAVAILABLE, "the tree is not up yet") };
    match tree.inject(target, fault) {
        Ok(hit) => Json(json!({ "hit": hit })).into_response(),
        Err(error @ InjectError::NotFound(_)) => answer(StatusCode::NOT_FOUND, &error.to_string()),
        Err(error) => answer(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn authorized(store: &Store, headers: &HeaderMap) -> bool {
    let Some((token, _)) = &store.token else { return false };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    // Compared without stopping at the first difference, so that the time taken tells nothing.
    given.len() == token.len() && given.bytes().zip(token.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}
