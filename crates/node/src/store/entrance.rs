//! The way in, the same on both transports: from what a client asked for to a seat in a room, or to the answer it gets
//! instead. A client that has its answer 101 or 200 is in the room's table: whatever is sent from then on reaches it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use roomcast_protocol::lobby::{Lobby, LobbyError};
use roomcast_protocol::{CloseCode, RoomId, UserId};
use roomcast_relay::{Load, Refused, admit, client_ip};
use roomcast_transport::{Refusal, RequestHead};

use super::{Egress, JoinError, Lane, Rooms, Seat, Store};
use crate::metrics::Transport;

/// A connection's place in the node's counts; dropping it gives the place back.
pub struct Permit {
    store: Arc<Store>,
    transport: Transport,
    address: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.store.connections.fetch_sub(1, Ordering::Relaxed);
        self.transport.count(&self.store.metrics, -1.0);
        self.store.per_address().leave(self.address);
    }
}

/// A client whose request is well-formed.
pub struct Candidate {
    user: UserId,
    room: RoomId,
    address: IpAddr,
    transport: Transport,
    /// Whether it understands notices.
    notices: bool,
}

/// What a candidate gets.
pub enum Welcome {
    /// A seat.
    Seated(Box<Seated>),
    /// The connection, and right away this close code: a browser can read it, unlike an HTTP status.
    Turned(CloseCode, &'static str),
}

/// All that belongs to one client's membership.
pub struct Seated {
    /// Who it is.
    pub user: UserId,
    /// Its place in the room.
    pub seat: Seat,
    /// Its place in the node's counts.
    pub permit: Permit,
    /// Where packets for it wait.
    pub egress: Arc<Egress>,
}

impl Store {
    /// Checks what a client asks for. Pure but for the log line.
    ///
    /// # Errors
    /// The HTTP answer to a request that can never be accepted.
    pub(crate) fn examine(&self, transport: Transport, head: RequestHead<'_>) -> Result<Candidate, Refusal> {
        let live = self.live();
        let refuse = |status: u16, message: String| {
            self.metrics.refused(transport, answer_label(status));
            tracing::info!(remote = %head.remote, transport = transport.label(), status, %message, "refused");
            Refusal { status, message }
        };
        let allowed = |origin: &str| live.origins.is_empty() || live.origins.iter().any(|allowed| allowed == origin);
        if head.origin.is_some_and(|origin| !allowed(origin)) {
            return Err(refuse(403, "this origin may not connect".into()));
        }
        let Lobby { user, room } = Lobby::parse(head.target).map_err(|error: LobbyError| {
            let status = error.status();
            refuse(status, error.to_string())
        })?;
        let address = client_ip(head.remote.ip(), head.forwarded_for, &live.trusted_proxies);
        Ok(Candidate { user, room, address, transport, notices: head.notices })
    }

    /// Finds a seat for a candidate, whose connection lives on this lane.
    pub(crate) async fn seat(self: &Arc<Self>, candidate: Candidate, lane: &Arc<Lane>) -> Welcome {
        let Candidate { user, room, address, transport, notices } = candidate;
        if self.is_draining() {
            return Welcome::Turned(CloseCode::Draining, "this node is draining; reconnect to another");
        }
        let permit = match self.permit(transport, address) {
            Ok(permit) => permit,
            Err(refused) => return turned(&room, refused),
        };
        let egress = Egress::new(self.new_session(), user.clone(), transport, lane, notices, self);
        let within = self.live().timers.handshake;
        match Rooms::join(self, &room, &egress, within).await {
            Ok(seat) => Welcome::Seated(Box::new(Seated { user, seat, permit, egress })),
            Err(JoinError::Refused(refused)) => turned(&room, refused),
            Err(JoinError::TimedOut) => {
                tracing::warn!(%room, "the room did not take a member in in time");
                Welcome::Turned(CloseCode::TryAgainLater, "the room did not answer in time; try again later")
            }
        }
    }

    /// Client addresses with a connection.
    #[must_use]
    pub fn client_addresses(&self) -> usize {
        self.per_address().addresses()
    }

    fn permit(self: &Arc<Self>, transport: Transport, address: IpAddr) -> Result<Permit, Refused> {
        let live = self.live();
        // The addresses' lock is held throughout, so that two at the same time cannot pass a limit together.
        let mut per_address = self.per_address();
        // The room's own limits are checked where it is entered, and exactly.
        let load = Load {
            connections: self.connections(),
            connections_of_ip: per_address.count(address),
            rooms: 0,
            room_members: Some(0),
        };
        admit(&live.admission, &load)?;
        per_address.enter(address, live.admission.max_connections_per_ip)?;
        self.connections.fetch_add(1, Ordering::Relaxed);
        transport.count(&self.metrics, 1.0);
        Ok(Permit { store: Arc::clone(self), transport, address })
    }

    fn per_address(&self) -> std::sync::MutexGuard<'_, roomcast_relay::PerAddress> {
        self.per_address.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn turned(room: &RoomId, refused: Refused) -> Welcome {
    tracing::warn!(%room, %refused, "turned away");
    Welcome::Turned(refused.close_code(), refused.label())
}

fn answer_label(status: u16) -> &'static str {
    match status {
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        405 => "405",
        _ => "other",
    }
}
