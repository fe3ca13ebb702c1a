//! `bus/presence`: tells the other nodes of this one and its members, hears of theirs, and puts what came of it where it is
//! read: the store, the figures, the events, the log. What is told and what is believed is decided in `relay::cluster`.
//!
//! The view and the stream belong to the store: a new incarnation goes on where the last one stood.

use std::sync::Arc;

use roomcast_bus::BusState;
use roomcast_protocol::Subject;
use roomcast_relay::DropReason;
use roomcast_relay::cluster::ClusterEvent;
use roomcast_supervision::{Context, Failure, Flow, StartError, Worker};
use tokio::time::{Instant, sleep_until};

use crate::store::{self, NodeEvent, Store, Text};

/// One incarnation of presence.
pub struct Presence {
    store: Arc<Store>,
}

impl Worker for Presence {
    type Message = ();
    type Args = Arc<Store>;

    async fn start(store: Arc<Store>, ctx: &Context<Self>) -> Result<Self, StartError> {
        ctx.attach("converse", converse(Arc::clone(&store)));
        Ok(Self { store })
    }

    async fn handle(&mut self, (): (), _: &Context<Self>) -> Result<Flow, Failure> {
        Ok(Flow::Continue)
    }

    /// When the node stops, its members are gone by now; the rest of its end may take longer than the others would wait for it.
    /// Where there are members this is no such end: the supervisor restarts its children while the node drains.
    async fn stop(&mut self) {
        if self.store.is_draining() && self.store.rooms.members() == 0 {
            self.store.presence.leave(&self.store);
        }
    }
}

async fn converse(store: Arc<Store>) -> Result<(), Failure> {
    let inbox = Arc::clone(&store.presence.inbox);
    let mut inbox = inbox.lock().await;
    if inbox.is_none() {
        let subjects = Subject::cluster(&store.name);
        *inbox = Some(store.bus.receive(subjects).await?);
    }
    let Some(inbox) = inbox.as_mut() else { return Ok(()) };
    // What the view believes of the bus may be old: the actor was away for a moment.
    let mut state = store.bus.state();
    let mut draining = store.is_draining();
    loop {
        let bus = *state.borrow_and_update();
        let next = turn(&store, bus);
        tokio::select! {
            letter = inbox.next() => match letter {
                Some(letter) => {
                    // What was lost is noticed by its author's next heartbeat.
                    store.metrics.dropped(DropReason::BusLost, inbox.take_lost());
                    let mut inner = store.presence.lock();
                    inner.cluster.receive(store.clock.now(), &letter.subject, &letter.payload);
                }
                // The bus closed for good: the node is stopping.
                None => return std::future::pending().await,
            },
            // An error means that it is closed for good; the inbox ends too then.
            Ok(()) = state.changed() => {}
            () = store.presence.due.notified() => {}
            () = store.drain.begun(), if !draining => draining = true,
            () = sleep_until(next) => {}
        }
    }
}

/// Says what is due, acts on what was heard, and says when to look again.
fn turn(store: &Store, bus: BusState) -> Instant {
    let times = store.live().presence;
    let status = store::Presence::status(store);
    let now = store.clock.now();
    let mut out = Vec::new();
    let (next, events, divided, settled) = {
        let mut inner = store.presence.lock();
        let was = std::mem::replace(&mut inner.bus, bus);
        match (was == BusState::Up, bus == BusState::Up) {
            (false, true) => inner.cluster.bus_is_up(now),
            (true, false) => inner.cluster.bus_is_down(now),
            _ => {}
        }
        let next = inner.cluster.tick(now, &times, &status, &mut out);
        let settles = inner.cluster.settles_at().filter(|settles| *settles > now);
        let next = settles.map_or(next, |settles| next.min(settles));
        (next, inner.cluster.take_events(), inner.cluster.is_divided(), inner.cluster.settled(now))
    };
    for send in out {
        // What is lost here is asked for by whoever misses it.
        let _ = store.bus.send(&send.subject, send.payload);
    }
    store.presence.set_divided(divided);
    if settled {
        store.presence.set_settled();
    }
    for event in events {
        tell(store, event);
    }
    Instant::now() + next.since(now)
}

/// Makes an event known: what somebody must do something about, loudly.
fn tell(store: &Store, event: ClusterEvent) {
    let event = match event {
        ClusterEvent::Seen { name, region } => {
            tracing::info!(node = name, region, "a node is there");
            NodeEvent::NodeSeen { node: Text::new(name) }
        }
        ClusterEvent::Left { name } => {
            tracing::info!(node = name, "a node has left");
            NodeEvent::NodeLeft { node: Text::new(name) }
        }
        ClusterEvent::Lost { name, members } => {
            store.metrics.nodes_lost.increment(1);
            tracing::warn!(node = name, members, "a node is lost: it has said nothing for too long");
            NodeEvent::NodeLost { node: Text::new(name), members }
        }
        ClusterEvent::Draining { name } => {
            tracing::info!(node = name, "a node is draining");
            NodeEvent::NodeDraining { node: Text::new(name) }
        }
        ClusterEvent::NameTaken { name, own } => {
            let whose = if own { "this node's name is another's too" } else { "two nodes have one name" };
            tracing::error!(node = name, "{whose}; give each its own: node.name");
            NodeEvent::NameTaken { node: Text::new(name), own }
        }
        ClusterEvent::OtherDialect { name } => {
            tracing::error!(
                node = name,
                "a node speaks the other dialect: its packets are not passed on, nor ours there; set node.dialect alike, or \
                 give each dialect a broker of its own"
            );
            NodeEvent::OtherDialect { node: Text::new(name) }
        }
    };
    store.events.publish(event);
}
