//! What becomes of the tree's own events: a log line, a figure, a node event. It decides nothing about the tree.

use std::sync::Arc;

use roomcast_supervision::{Event, EventKind, Observer};

use crate::store::{NodeEvent, Store, Text};

/// The observer of this node's tree, and whoever else wants to be told. It does not keep the store.
pub(crate) fn observer(store: &Arc<Store>, also: Option<Observer>) -> Observer {
    let store = Arc::downgrade(store);
    Arc::new(move |event| {
        if let Some(store) = store.upgrade() {
            observe(&store, event);
        }
        if let Some(also) = &also {
            also(event);
        }
    })
}

/// Called in the actors' own tasks: it must be quick.
fn observe(store: &Store, event: &Event) {
    let path = event.path.as_str();
    let supervisor = supervisor_kind(path);
    let tell = |event| store.events.publish(event);
    match &event.kind {
        EventKind::Started { generation, after: Some(after) } => {
            store.metrics.recovery.record(after.as_secs_f64());
            tracing::info!(actor = path, generation, after = ?after, "restarted");
            tell(NodeEvent::Restarted { path: event.path.clone(), generation: *generation, after: *after });
        }
        EventKind::Started { .. } => tracing::debug!(actor = path, "started"),
        EventKind::Exited { reason, .. } if reason.is_abnormal() => {
            store.metrics.crashed(&supervisor, reason.kind());
            tracing::warn!(actor = path, %reason, "crashed");
            tell(NodeEvent::Crashed { path: event.path.clone(), reason: Text::new(reason) });
        }
        EventKind::StartFailed { reason, .. } => {
            store.metrics.crashed(&supervisor, reason.kind());
            tracing::warn!(actor = path, %reason, "did not start");
            tell(NodeEvent::StartFailed { path: event.path.clone(), reason: Text::new(reason) });
        }
        EventKind::RestartScheduled { reason, .. } => store.metrics.restarted(&supervisor, reason.kind()),
        EventKind::Exited { reason, .. } => tracing::debug!(actor = path, %reason, "ended"),
        EventKind::GaveUp => {
            store.metrics.escalated(&escalation_kind(path));
            tracing::error!(supervisor = path, "gave up; its parent decides");
            tell(NodeEvent::GaveUp { path: event.path.clone() });
            store.rooms.supervisor_gave_up(path);
        }
        EventKind::Abandoned => {
            // Its supervisor has logged it.
            tell(NodeEvent::Abandoned { path: event.path.clone() });
        }
        EventKind::Stuck { busy, .. } => {
            store.metrics.stuck.increment(1);
            tracing::error!(actor = path, ?busy, "is stuck: it runs without an await and cannot be killed");
            tell(NodeEvent::Stuck { path: event.path.clone(), busy: *busy });
        }
        EventKind::Unstuck { busy, .. } => {
            tracing::warn!(actor = path, ?busy, "was stuck and goes on");
            tell(NodeEvent::Unstuck { path: event.path.clone(), busy: *busy });
        }
        other => tracing::debug!(actor = path, event = ?other, "supervision"),
    }
}

/// The kind of an actor's supervisor: its path with the names of rooms left out, so that a metrics label stays bounded.
fn supervisor_kind(path: &str) -> String {
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    match parent.split_once('/') {
        Some(("rooms", _)) => "rooms/*".into(),
        _ if parent.is_empty() => "roomcast".into(),
        _ => parent.into(),
    }
}

/// The kind of the supervisor at a path itself.
fn escalation_kind(path: &str) -> String {
    supervisor_kind(&format!("{path}/child"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisors_label_never_names_a_room() {
        for (path, kind) in [
            ("admin", "roomcast"),
            ("rooms", "roomcast"),
            ("bus/link", "bus"),
            ("rooms/standup", "rooms"),
            ("rooms/standup/room", "rooms/*"),
            ("connections/17", "connections"),
            ("listeners/websocket", "listeners"),
        ] {
            assert_eq!(supervisor_kind(path), kind, "{path}");
        }
        for (path, kind) in [("", "roomcast"), ("rooms", "rooms"), ("rooms/standup", "rooms/*"), ("bus", "bus")] {
            assert_eq!(escalation_kind(path), kind, "{path}");
        }
    }
}
