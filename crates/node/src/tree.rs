//! The whole tree on one page: who supervises whom, and why so.
//!
//! Started top to bottom, stopped in reverse: listeners go first, so that a stop is a drain.
//!
//! ```text
//! roomcast                         one_for_one
//! ├─ telemetry                     metrics, upkeep
//! ├─ config                        reads supervisor.toml again, puts valid settings in force
//! ├─ bus                           one_for_one
//! │  ├─ link                       watches over the bus client, reports its state
//! │  └─ presence                   tells the other nodes of this one, hears of theirs
//! ├─ flushers                      one_for_one
//! │  └─ {number}                   writes for the connections of one lane; a lane for each core
//! ├─ rooms                         simple_one_for_one
//! │  └─ {room}                     one_for_one: the subtree of one room
//! │     ├─ room                    publishes the fan-out table
//! │     └─ subscription            `room.{id}.*` on the bus
//! ├─ connections                   simple_one_for_one, temporary
//! │  └─ {session}                  one client
//! ├─ admin                         /metrics, health, tree, rooms, events; reload, kill
//! ├─ drain                         sends clients elsewhere, once that is asked for
//! └─ listeners                     one_for_one
//!    ├─ certificates               renews self-signed ones, reads changed files
//!    ├─ websocket
//!    └─ webtransport
//! ```

use std::sync::Arc;

use roomcast_protocol::RoomId;
use roomcast_supervision::{ActorPath, AutoShutdown, ChildSpec, Restart, SupervisorSpec};

use crate::actors::admin::Admin;
use crate::actors::certificates::Certificates;
use crate::actors::config::{Config, Source};
use crate::actors::drain::Drain;
use crate::actors::flusher::Flusher;
use crate::actors::link::Link;
use crate::actors::presence::Presence;
use crate::actors::room::Room;
use crate::actors::subscription::Subscription;
use crate::actors::telemetry::Telemetry;
use crate::actors::websocket_listener::WebSocketListener;
use crate::actors::webtransport_listener::WebTransportListener;
use crate::config::StrategyName;
use crate::store::{RoomCell, Store};

/// The root. One for one: no child of it needs another's state, which is in the store; so a crash stays where it is. Any
/// other strategy would end all connections with a crash of `telemetry`, and so the settings refuse it.
pub(crate) fn root(store: &Arc<Store>, source: &Arc<Source>) -> SupervisorSpec {
    let args = || {
        let store = Arc::clone(store);
        move || Arc::clone(&store)
    };
    let source = Arc::clone(source);
    let config_store = Arc::clone(store);
    let mut children = vec![
        ChildSpec::worker::<Telemetry>("telemetry", args()),
        ChildSpec::worker_in::<Config>("config", &store.config, move || {
            (Arc::clone(&config_store), Arc::clone(&source))
        }),
        ChildSpec::supervisor("bus", {
            let store = args();
            // One for one, and any other strategy is as good: the bus client and its streams are in the store, and what is
            // restarted here only watches them.
            move || {
                let children = vec![
                    ChildSpec::worker::<Link>("link", store.clone()),
                    ChildSpec::worker::<Presence>("presence", store.clone()),
                ];
                with_strategy(&store(), "bus", children)
            }
        }),
        ChildSpec::supervisor("flushers", {
            let store = Arc::clone(store);
            // One for one, and any other strategy is as good: who has something to write is in the store. Before the
            // connections, and so stopped after them.
            move || flushers(&store)
        }),
        ChildSpec::supervisor("rooms", {
            let store = Arc::clone(store);
            // A new incarnation begins with every room of the store: media went on meanwhile, over their tables. Each room
            // for itself: another strategy would restart all rooms with the crash of one, and the settings refuse it.
            move || {
                let adopted = Arc::clone(&store);
                SupervisorSpec::dynamic(move || adopted.room_children(), &store.rooms_supervisor)
            }
        }),
        ChildSpec::supervisor("connections", {
            let store = Arc::clone(store);
            // Nothing to adopt: a connection's socket dies with it, and its client reconnects. Each for itself: another
            // strategy would end them all with the crash of one, and the settings refuse it.
            move || SupervisorSpec::dynamic(Vec::new, &store.connections_supervisor)
        }),
    ];
    if store.sockets.admin.is_some() {
        children.push(ChildSpec::worker::<Admin>("admin", args()));
    }
    children.push(ChildSpec::worker::<Drain>("drain", args()));
    children.push(ChildSpec::supervisor("listeners", {
        let store = Arc::clone(store);
        move || listeners(&store)
    }));
    SupervisorSpec::one_for_one(children)
}

/// A supervisor whose strategy is the settings': one for one where they say nothing. Those who call this can afford any
/// strategy, each for its own reason; for all others the settings refuse it.
fn with_strategy(store: &Store, path: &str, children: Vec<ChildSpec>) -> SupervisorSpec {
    match crate::policy::strategy(&store.settings(), path) {
        StrategyName::OneForOne => SupervisorSpec::one_for_one(children),
        StrategyName::OneForAll => SupervisorSpec::one_for_all(children),
        StrategyName::RestForOne => SupervisorSpec::rest_for_one(children),
    }
}

fn flushers(store: &Arc<Store>) -> SupervisorSpec {
    let children = (0..store.lanes.count()).map(|number| {
        let store = Arc::clone(store);
        ChildSpec::worker::<Flusher>(number.to_string(), move || (Arc::clone(&store), number))
    });
    with_strategy(store, "flushers", children.collect())
}

/// One for one: the listeners share nothing, and their sockets are in the store. For the same reason any other strategy is
/// safe too: a restarted listener goes on accepting from the same socket, and handshakes under way are the store's.
fn listeners(store: &Arc<Store>) -> SupervisorSpec {
    let args = || {
        let store = Arc::clone(store);
        move || Arc::clone(&store)
    };
    let mut children = vec![ChildSpec::worker::<Certificates>("certificates", args())];
    if store.sockets.addresses.websocket.is_some() {
        children.push(ChildSpec::worker::<WebSocketListener>("websocket", args()));
    }
    if store.sockets.webtransport.is_some() {
        children.push(ChildSpec::worker::<WebTransportListener>("webtransport", args()));
    }
    with_strategy(store, "listeners", children)
}

/// A room's name as a segment of its actors' paths.
pub(crate) fn room_segment(room: &RoomId) -> String {
    ActorPath::root("").child(&room.to_string()).as_str().to_owned()
}

/// One room. One for one: the table and the bus stream are in its cell, so neither actor's crash concerns the other. Rest for
/// one is as safe: a subscription that is restarted after its room reads on where it stood. One for all is not, and the
/// settings refuse it: while the bus is away a subscription fails again and again, and no room's actor would be up to take
/// anybody in.
/// The room's actor ends normally when the last member has left, and its subtree with it; so the subtree is transient.
pub(crate) fn room(store: &Arc<Store>, cell: &Arc<RoomCell>) -> ChildSpec {
    let (id, name) = (format!("{}#{}", cell.id(), cell.serial()), cell.id().to_string());
    let path = format!("rooms/{}", room_segment(cell.id()));
    let (store, cell) = (Arc::clone(store), Arc::clone(cell));
    ChildSpec::supervisor(id, move || {
        let room = Arc::clone(&cell);
        let subscription = (Arc::clone(&store), Arc::clone(&cell));
        let children = vec![
            ChildSpec::worker_in::<Room>("room", &cell.actor, move || Arc::clone(&room))
                .restart(Restart::Transient)
                .significant(),
            ChildSpec::worker::<Subscription>("subscription", move || subscription.clone()),
        ];
        with_strategy(&store, &path, children).auto_shutdown(AutoShutdown::Any)
    })
    .named(name)
    .restart(Restart::Transient)
}
