//! `GET /events`: what happens, as server-sent events, for as long as somebody follows.
//!
//! The ring of the last events is in the store, so a follower that was cut off, even by a crash of this actor, resumes
//! with `Last-Event-ID` and misses nothing that the ring still has. Of what it has not any more, it is told how much.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::access::may_look;
use super::{Line, Shared, say};
use crate::store::{EventId, Next, NodeEvent, Store, Subscriber};

/// Something is sent at least this often, so that both sides notice when the other is gone.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// What a browser waits before it comes back, in milliseconds.
const RETRY: u64 = 1000;

/// `GET /events?type=crashed,restarted&after=ID`
pub(super) async fn events(
    State(shared): State<Shared>,
    Extension(line): Extension<Arc<Line>>,
    Query(asked): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if let Err(refused) = may_look(&shared, &headers) {
        return refused;
    }
    let types = match asked.get("type").map(|types| parse_types(types)).transpose() {
        Ok(types) => types,
        Err(message) => return say(StatusCode::BAD_REQUEST, &message),
    };
    let seen = headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default());
    let subscriber = match seen.or(asked.get("after").map(String::as_str)) {
        None | Some("") => shared.store.events.subscribe(),
        Some(id) => match id.parse::<EventId>() {
            Ok(id) => shared.store.events.subscribe_after(id),
            Err(error) => return say(StatusCode::BAD_REQUEST, &error.to_string()),
        },
    };
    let Ok(place) = Arc::clone(&shared.followers).try_acquire_owned() else {
        let body = say(StatusCode::SERVICE_UNAVAILABLE, "as many as may follow do so already; try again later");
        return ([(header::RETRY_AFTER, "5")], body).into_response();
    };
    line.follow(place);
    let feed = Feed {
        subscriber,
        types,
        store: Arc::clone(&shared.store),
        stopping: shared.stopping.clone(),
        heartbeat: Instant::now(),
        greeted: false,
    };
    let body = Body::from_stream(futures_util::stream::unfold((feed, line), async |(mut feed, line)| {
        // Asked only when there is room for more: a follower that takes nothing is not asked for.
        line.taken();
        let chunk = feed.next().await?;
        Some((Ok::<Bytes, Infallible>(chunk.into()), (feed, line)))
    }));
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // So that its place is free when it ends.
        (header::CONNECTION, "close"),
    ];
    (headers, body).into_response()
}

fn parse_types(text: &str) -> Result<HashSet<&'static str>, String> {
    text.split(',')
        .map(|wanted| {
            let known = NodeEvent::TYPES.into_iter().find(|known| *known == wanted);
            known.ok_or_else(|| format!("`type` is some of {}", NodeEvent::TYPES.join(",")))
        })
        .collect()
}

/// One follower's view of the events.
struct Feed {
    subscriber: Subscriber,
    /// What it asked for; `None`: all.
    types: Option<HashSet<&'static str>>,
    store: Arc<Store>,
    stopping: CancellationToken,
    /// When something must be sent.
    heartbeat: Instant,
    greeted: bool,
}

impl Feed {
    /// What is sent next; `None`: the node stops.
    async fn next(&mut self) -> Option<String> {
        let chunk = loop {
            if !self.greeted {
                self.greeted = true;
                // With an id, so that who is cut off before the first event resumes here too.
                break format!("retry: {RETRY}\nid: {}\n: {}\n\n", self.subscriber.position(), self.store.name);
            }
            let stopping = self.stopping.clone();
            let next = tokio::select! {
                biased;
                () = sleep_until(self.heartbeat) => None,
                next = self.subscriber.next() => Some(next),
                () = stopping.cancelled() => return None,
            };
            let chunk = match next {
                None => format!("id: {}\n: heartbeat\n\n", self.subscriber.position()),
                Some(next) => self.write(&next),
            };
            if !chunk.is_empty() {
                break chunk;
            }
        };
        self.heartbeat = Instant::now() + HEARTBEAT;
        Some(chunk)
    }

    fn write(&self, next: &Next) -> String {
        let mut out = String::new();
        match next {
            Next::Missed(count) => {
                self.store.metrics.events_missed.increment(count.unwrap_or(0));
                let _ = write!(out, "data: {}\n\n", json!({ "type": "missed", "events": count }));
            }
            Next::Events(events) => {
                let wanted = |kind| self.types.as_ref().is_none_or(|types| types.contains(kind));
                for recorded in events.iter().filter(|recorded| wanted(recorded.event.kind())) {
                    let Ok(data) = serde_json::to_string(&**recorded) else { continue };
                    // JSON has no line breaks, and writing to a string cannot fail.
                    let _ = write!(out, "id: {}\ndata: {data}\n\n", self.subscriber.id(recorded));
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;

    use super::*;
    use crate::config::Settings;
    use crate::store::{EVENTS_KEPT, Sockets, StoreParts};

    fn store() -> Arc<Store> {
        let bus = Arc::new(roomcast_bus::local::Hub::new().join());
        let settings = Settings::default();
        Store::new(StoreParts {
            name: "n".into(),
            settings,
            sessions: Arc::default(),
            bus,
            settled: true,
            sockets: Sockets::default(),
            token: None,
        })
        .unwrap()
    }

    fn feed(store: &Arc<Store>, types: Option<&str>) -> Feed {
        Feed {
            subscriber: store.events.subscribe(),
            types: types.map(|types| parse_types(types).unwrap()),
            store: Arc::clone(store),
            stopping: CancellationToken::new(),
            heartbeat: Instant::now() + HEARTBEAT,
            greeted: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_is_greeted_then_told_and_hears_a_heartbeat_when_nothing_happens() {
        let store = store();
        let mut feed = feed(&store, None);
        let greeting = feed.next().await.unwrap();
        assert!(greeting.starts_with("retry: 1000\nid: ") && greeting.ends_with("-0\n: n\n\n"), "{greeting}");
        store.events.publish(NodeEvent::Draining);
        let event = feed.next().await.unwrap();
        assert!(
            event.contains("-1\ndata: {\"sequence\":1,") && event.ends_with("\"type\":\"draining\"}\n\n"),
            "{event}"
        );
        for _ in 0..3 {
            let before = Instant::now();
            assert!(feed.next().await.unwrap().ends_with("-1\n: heartbeat\n\n"));
            assert_eq!(before.elapsed().as_secs(), HEARTBEAT.as_secs());
        }
        feed.stopping.cancel();
        assert_eq!(feed.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_filter_lets_through_what_was_asked_for_and_heartbeats_come_all_the_same() {
        let store = store();
        let mut feed = feed(&store, Some("draining,gave_up"));
        feed.next().await;
        let path = roomcast_supervision::ActorPath::root("").child("x");
        store.events.publish(NodeEvent::Abandoned { path: path.clone() });
        store.events.publish(NodeEvent::GaveUp { path });
        let event = feed.next().await.unwrap();
        assert!(event.contains("gave_up") && !event.contains("abandoned"), "{event}");
        store.events.publish(NodeEvent::Abandoned { path: roomcast_supervision::ActorPath::root("") });
        assert!(feed.next().await.unwrap().ends_with("-3\n: heartbeat\n\n"), "it stands after what it did not want");
        assert!(parse_types("draining,hug").unwrap_err().contains("gave_up"));
        assert!(parse_types("").is_err());
    }

    #[tokio::test]
    async fn a_follower_that_is_too_slow_is_told_how_many_it_missed_and_they_are_counted() {
        let store = store();
        let mut feed = feed(&store, Some("join"));
        feed.next().await;
        for _ in 0..EVENTS_KEPT + 7 {
            store.events.publish(NodeEvent::Draining);
        }
        let told = feed.next().await.unwrap();
        assert_eq!(told, "data: {\"events\":7,\"type\":\"missed\"}\n\n");
        assert!(feed.next().now_or_never().is_none(), "the rest was not asked for");
        assert!(store.metrics.render().contains("roomcast_events_missed_total 7"));
    }

    #[tokio::test]
    async fn what_happened_before_the_stop_is_told_before_the_end() {
        let store = store();
        let mut feed = feed(&store, None);
        feed.next().await;
        store.events.publish(NodeEvent::Draining);
        feed.stopping.cancel();
        assert!(feed.next().await.unwrap().contains("draining"));
        assert_eq!(feed.next().await, None);
    }
}
