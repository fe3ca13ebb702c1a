//! `admin`: the operator's HTTP port. Here are its connections, their bounds, and what answers which path.
//!
//! `access` decides who may do what; `looking`, `following` and `changing` answer. The connections are owned here,
//! bounded in number and time, and die with the actor; the socket is the store's, and so are the events.

mod access;
mod changing;
mod following;
mod looking;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use roomcast_supervision::{Context, Failure, Flow, StartError, Worker};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::store::Store;

/// Connections at once; for one more, an idle one is closed.
const MAX_CONNECTIONS: usize = 64;
/// How many of them may follow `/events`, which last; the others are always left for those that do not.
const MAX_FOLLOWERS: usize = 16;
/// The longest that a connection may last which follows nothing.
const MAX_AGE: Duration = Duration::from_secs(60);
/// A follower that takes nothing for this long, heartbeats included, is cut.
const MAX_SILENCE: Duration = Duration::from_secs(60);
/// How long a request's headers may take, the wait for its first byte included.
const HEADERS: Duration = Duration::from_secs(5);
/// How long followers have to take their last events when the node stops.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// One incarnation of the admin server.
pub struct Admin {
    shared: Shared,
}

/// What all requests share.
#[derive(Clone)]
struct Shared {
    store: Arc<Store>,
    /// Places for those who follow `/events`.
    followers: Arc<Semaphore>,
    /// Ends their answers, so that they see an end and not a cut.
    stopping: CancellationToken,
}

impl Worker for Admin {
    type Message = ();
    type Args = Arc<Store>;

    async fn start(store: Arc<Store>, ctx: &Context<Self>) -> Result<Self, StartError> {
        let shared =
            Shared { store, followers: Arc::new(Semaphore::new(MAX_FOLLOWERS)), stopping: CancellationToken::new() };
        ctx.attach("serve", serve(shared.clone()));
        Ok(Self { shared })
    }

    async fn handle(&mut self, (): (), _: &Context<Self>) -> Result<Flow, Failure> {
        Ok(Flow::Continue)
    }

    async fn stop(&mut self) {
        self.shared.stopping.cancel();
        let all = u32::try_from(MAX_FOLLOWERS).unwrap_or(u32::MAX);
        // Each gives its place back when its connection is over.
        let _ = timeout(LAST_WORDS, self.shared.followers.acquire_many(all)).await;
    }
}

/// What is known of one connection besides its requests.
#[derive(Default)]
struct Line {
    following: Mutex<Option<Following>>,
    /// A request is being answered.
    answering: AtomicBool,
}

struct Following {
    _place: OwnedSemaphorePermit,
    /// When the follower last had room for more.
    taken: Instant,
}

impl Line {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Following>> {
        self.following.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on the connection may last.
    fn follow(&self, place: OwnedSemaphorePermit) {
        *self.lock() = Some(Following { _place: place, taken: Instant::now() });
    }

    fn taken(&self) {
        if let Some(following) = self.lock().as_mut() {
            following.taken = Instant::now();
        }
    }

    /// When it must be looked at again; `None`: it has lasted long enough.
    fn next_look(&self, begun: Instant) -> Option<Instant> {
        let until = self.lock().as_ref().map_or(begun + MAX_AGE, |following| following.taken + MAX_SILENCE);
        (until > Instant::now()).then_some(until)
    }
}

/// The connections there are, the oldest first.
#[derive(Default)]
struct Lines(VecDeque<(Arc<Line>, AbortHandle)>);

impl Lines {
    fn push(&mut self, line: Arc<Line>, task: AbortHandle) {
        self.0.retain(|(_, task)| !task.is_finished());
        self.0.push_back((line, task));
    }

    /// Ends the oldest that waits for a request; where all of them are being answered, the oldest of those. Never one that
    /// follows `/events`: there are fewer of these than places. Whoever holds connections open shuts nobody out.
    fn make_room(&mut self) {
        let ends = |idle: bool| {
            move |(line, task): &(Arc<Line>, AbortHandle)| {
                !task.is_finished() && line.lock().is_none() && !(idle && line.answering.load(Ordering::Relaxed))
            }
        };
        let oldest = self.0.iter().position(ends(true)).or_else(|| self.0.iter().position(ends(false)));
        if let Some((_, task)) = oldest.and_then(|place| self.0.remove(place)) {
            task.abort();
        }
    }
}

async fn serve(shared: Shared) -> Result<(), Failure> {
    let service = TowerToHyperService::new(router(shared.clone()));
    let Some(listener) = &shared.store.sockets.admin else { return Ok(()) };
    let mut connections = JoinSet::new();
    let mut lines = Lines::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => {
                    while connections.len() >= MAX_CONNECTIONS {
                        lines.make_room();
                        connections.join_next().await;
                    }
                    let line = Arc::new(Line::default());
                    let task = connections.spawn(converse(socket, service.clone(), Arc::clone(&line)));
                    lines.push(line, task);
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

/// One connection, from accept to close.
async fn converse(socket: TcpStream, service: TowerToHyperService<Router>, line: Arc<Line>) {
    let begun = Instant::now();
    let answering = {
        let line = Arc::clone(&line);
        service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            let line = Arc::clone(&line);
            request.extensions_mut().insert(Arc::clone(&line));
            line.answering.store(true, Ordering::Relaxed);
            let answer = service.call(request);
            async move {
                let answer = answer.await;
                line.answering.store(false, Ordering::Relaxed);
                answer
            }
        })
    };
    let serving = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .serve_connection(TokioIo::new(socket), answering);
    let mut serving = std::pin::pin!(serving);
    while let Some(until) = line.next_look(begun) {
        // What an operator's client does wrong is its own affair.
        if tokio::time::timeout_at(until, &mut serving).await.is_ok() {
            return;
        }
    }
}

/// Every path that is answered, and what for.
const ROUTES: [(&str, &str); 16] = [
    ("GET /", "this list"),
    ("GET /metrics", "every figure, for Prometheus; docs/metrics.md explains them"),
    ("GET /healthz", "the process answers"),
    ("GET /readyz", "whether clients should be sent here"),
    ("GET /node", "name, version, uptime, counts"),
    ("GET /tree", "the actors; ?format=text, ?under=PATH, ?limit=N"),
    ("GET /rooms", "the rooms with most members; ?limit=N"),
    ("GET /rooms/{id}", "who is in a room, and what waits for them"),
    ("GET /cluster", "the nodes that this one sees, and what they carry; ?room=NAME: who is in a room, on which node"),
    ("GET /config", "the settings in force, and what waits for a restart"),
    ("GET /events", "server-sent events; ?type=crashed,restarted,… and Last-Event-ID or ?after=ID"),
    ("POST /reload", "read the configuration again"),
    ("POST /drain", "send clients elsewhere over timers.drain, then stop; ?hurry=true waits for nobody"),
    ("POST /rooms/{id}/end", "close a room's members with 1000"),
    ("POST /actors/{path}/kill", "?fault=kill|panic|stall&for=500ms; PATH may hold *; needs chaos.enabled"),
    ("", "changing calls need the token, as `Authorization: Bearer …`; so does looking inside from another machine"),
];

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(looking::metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(looking::readiness))
        .route("/node", get(looking::node))
        .route("/tree", get(looking::tree))
        .route("/rooms", get(looking::rooms))
        .route("/rooms/{id}", get(looking::room))
        .route("/cluster", get(looking::cluster))
        .route("/config", get(looking::config))
        .route("/events", get(following::events))
        .route("/reload", post(changing::reload))
        .route("/drain", post(changing::drain))
        .route("/rooms/{id}/end", post(changing::end_room))
        .route("/actors/{*path}", post(changing::kill))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .with_state(shared)
}

async fn index(State(shared): State<Shared>) -> String {
    let mut text = format!("roomcast {}  node {}\n\n", env!("CARGO_PKG_VERSION"), shared.store.name);
    for (route, what) in ROUTES {
        let line = if route.is_empty() { format!("\n{what}\n") } else { format!("  {route:<26}{what}\n") };
        text.push_str(&line);
    }
    text
}

async fn unknown() -> Response {
    let routes: Vec<_> = ROUTES.iter().map(|(route, _)| *route).filter(|route| !route.is_empty()).collect();
    let body = json!({ "message": "there is nothing here", "routes": routes });
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let other = if method == Method::POST { "GET" } else { "POST" };
    say(StatusCode::METHOD_NOT_ALLOWED, &format!("{} is no {method}; try {other}", uri.path()))
}

/// An answer that is only a sentence.
fn say(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "message": message }))).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_every_path_and_every_event() {
        let page = include_str!("../../../../../docs/admin.md");
        for (route, _) in ROUTES.iter().filter(|(route, _)| !route.is_empty()) {
            assert!(page.contains(&format!("`{route}`")), "{route}");
        }
        for kind in crate::store::NodeEvent::TYPES {
            assert!(page.contains(&format!("`{kind}`")), "{kind}");
        }
    }

    async fn place() -> OwnedSemaphorePermit {
        Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_lasts_a_minute_unless_it_follows_and_takes_what_it_is_sent() {
        let begun = Instant::now();
        let short = Line::default();
        assert_eq!(short.next_look(begun), Some(begun + MAX_AGE));
        tokio::time::advance(MAX_AGE).await;
        assert_eq!(short.next_look(begun), None);
        let long = Line::default();
        long.follow(place().await);
        for _ in 0..100 {
            tokio::time::advance(MAX_SILENCE / 2).await;
            long.taken();
            assert_eq!(long.next_look(begun), Some(Instant::now() + MAX_SILENCE));
        }
        tokio::time::advance(MAX_SILENCE).await;
        assert_eq!(long.next_look(begun), None, "it takes nothing any more");
    }

    #[tokio::test]
    async fn the_oldest_idle_connection_makes_room_and_a_follower_never() {
        let mut tasks = JoinSet::new();
        let (mut lines, mut handles) = (Lines::default(), Vec::new());
        for (follows, answering) in [(true, false), (false, true), (false, false), (false, false)] {
            let line = Arc::new(Line::default());
            if follows {
                line.follow(place().await);
            }
            line.answering.store(answering, Ordering::Relaxed);
            let task = tasks.spawn(std::future::pending::<()>());
            handles.push(task.clone());
            lines.push(line, task);
        }
        for ended in [2, 3, 1] {
            lines.make_room();
            assert!(tasks.join_next().await.unwrap().unwrap_err().is_cancelled());
            assert!(handles[ended].is_finished(), "{ended}");
        }
        lines.make_room();
        assert!(!handles[0].is_finished(), "a follower stays");
    }
}
