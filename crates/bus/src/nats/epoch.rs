//! One connection's life: subscribing to all that is wanted, carrying both ways, and an end that leaves nothing behind. What lives here:
//! all use of the client library. What does not: what comes before and after a connection (`driver`).
//!
//! The client library reconnects by itself and then sends what it still holds. It must not, so as soon as a connection stands
//! the library's list of brokers is replaced by a place where nothing can be, and its attempts are limited to one; nothing is
//! handed to it before that. When it has lost the connection it fails there at once and ends, and this epoch with it.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerError, ServerInfo, Subscriber};
use futures_util::StreamExt;
use roomcast_protocol::{RoomSubject, Sender};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinError, JoinSet, unconstrained};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Shared;
use super::interest::{Id, Wanted};
use super::options::Address;
use super::outgoing::Outgoing;
use super::reports::Violations;
use super::round_trip;
use super::stalls::{self, Stalls};
use crate::buffer::Buffer;
use crate::{BrokerInfo, Delivery, Letter};

/// Commands that wait in the client library. Small: nothing of it can be dropped.
const CLIENT_CAPACITY: usize = 16;

/// Bytes that the library reads at once. It reads up to 128 times before other tasks have their turn, so this bounds what can wait
/// between it and a task that moves messages on: 4 MiB.
const READ_BUFFER: u16 = 32 * 1024;

/// Messages that may wait there, for each subscription: as many as so many bytes can hold, since the library drops what is
/// more, and tells of that only as long as it has room to.
const SUBSCRIPTION_CAPACITY: usize = 128 * 1024;

/// Events that wait for the driver.
const EVENTS: usize = 64;

/// The longest that the rest is given to go out before an orderly end.
const FLUSH: Duration = Duration::from_secs(1);

/// Where no broker can be: no connection can be made to port 0.
const NOWHERE: &str = "nats://127.0.0.1:0";

/// Why an epoch ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The bus is to close.
    Closed,
    /// The connection is gone.
    Lost,
    /// The broker announced that it stops, and there are others.
    Leaving,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the bus closes",
            Self::Lost => "the connection is gone",
            Self::Leaving => "it announced that it stops",
        })
    }
}

/// A connection that stands and carries nothing yet.
pub(super) struct Connection {
    client: Client,
    /// Ends with the library's own task.
    events: mpsc::Receiver<Event>,
    info: ServerInfo,
    address: Address,
}

impl Connection {
    pub(super) fn info(&self) -> &ServerInfo {
        &self.info
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }
}

/// Connects to one broker.
///
/// # Errors
///
/// Why not, for the operator.
pub(super) async fn connect(shared: &Shared, address: &Address) -> Result<Connection, String> {
    let options = &shared.options;
    let (tell, events) = mpsc::channel(EVENTS);
    let mut connect = ConnectOptions::new()
        .name(&options.name)
        .no_echo()
        .max_reconnects(1)
        .reconnect_delay_callback(|_| Duration::ZERO)
        .ignore_discovered_servers()
        .ping_interval(options.ping)
        .connection_timeout(options.connect_timeout)
        .request_timeout(None)
        .custom_inbox_prefix(round_trip::ANSWERS)
        .client_capacity(CLIENT_CAPACITY)
        .subscription_capacity(SUBSCRIPTION_CAPACITY)
        .read_buffer_capacity(READ_BUFFER)
        .skip_subject_validation(true) // our own types make no others
        .event_callback(move |event| {
            let tell = tell.clone();
            async move {
                // Fails when the epoch is over, and then nobody wants to know.
                let _ = tell.send(event).await;
            }
        });
    if let Some(file) = &options.tls_ca_file {
        connect = connect.add_root_certificates(file.clone()).require_tls(true);
    }
    connect = address.apply(connect);
    connect = shared.credentials_now().apply(connect).map_err(|error| error.to_string())?;
    // Twice: a name may stand for several addresses, of which each has the time by itself.
    let client = match timeout(options.connect_timeout * 2, Box::pin(connect.connect(address.url()))).await {
        Err(_) => return Err("no answer in time".to_owned()),
        Ok(Err(error)) => return Err(explain(&error)),
        Ok(Ok(client)) => client,
    };
    // From here on the library goes nowhere else.
    client.set_server_pool([NOWHERE].as_slice()).await.map_err(|error| error.to_string())?;
    Ok(Connection { info: client.server_info(), client, events, address: address.clone() })
}

/// What an operator can do about it.
fn explain(error: &async_nats::ConnectError) -> String {
    match error.kind() {
        ConnectErrorKind::AuthorizationViolation => {
            "it refuses the credentials (those in bus.nats.urls or of bus.nats.credentials_file)".to_owned()
        }
        ConnectErrorKind::Authentication => "the key in bus.nats.credentials_file cannot sign".to_owned(),
        ConnectErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => {
            let text = error.to_string();
            if text.contains("certificate") { format!("{text} (see bus.nats.tls_ca_file)") } else { text }
        }
    }
}

/// Carries everything until the connection ends. When it returns, nothing of this connection is left.
pub(super) async fn run(shared: &Arc<Shared>, connection: Connection, may_leave: bool) -> Ended {
    let Connection { client, mut events, info, address } = connection;
    let mut epoch = Epoch {
        shared: Arc::clone(shared),
        client,
        tasks: JoinSet::new(),
        heard: HashMap::new(),
        sids: HashMap::new(),
        sid: 0,
    };
    let handed = Arc::new(AtomicU64::new(0));
    let (pumping, pumped) = oneshot::channel();
    let ended = tokio::select! {
        () = shared.told_to_close() => Ended::Closed,
        ready = epoch.subscribe_to_all() => if ready.is_err() {
            Ended::Lost
        } else {
            let (name, version, cluster) = (info.server_name, info.version, info.cluster);
            shared.up(BrokerInfo { name, version, cluster, max_payload: info.max_payload, url: address.url() });
            epoch.tasks.spawn(pump(Arc::clone(shared), epoch.client.clone(), Arc::clone(&handed), pumping));
            epoch.carry(&mut events, may_leave).await
        }
    };
    if !matches!(ended, Ended::Lost) {
        epoch.flush(pumped).await;
    }
    shared.lost();
    epoch.tasks.shutdown().await;
    // What the library took and never got to write.
    let written = epoch.client.statistics().out_messages.load(Ordering::Relaxed);
    let unwritten = handed.load(Ordering::Relaxed).saturating_sub(written);
    shared.outgoing.count(|counts| counts.dropped_down += unwritten);
    ended
}

/// The library's task is gone.
struct Gone;

struct Epoch {
    shared: Arc<Shared>,
    client: Client,
    tasks: JoinSet<()>,
    heard: HashMap<Id, Vec<(u64, AbortHandle)>>,
    /// Whose loss it is when the library drops a message of a subscription.
    sids: HashMap<u64, Wanted>,
    /// The library's number of the last subscription: it counts them from 1.
    sid: u64,
}

impl Epoch {
    async fn subscribe_to_all(&mut self) -> Result<(), Gone> {
        for (id, wanted) in self.shared.interest.all() {
            self.hear(id, wanted).await?;
        }
        self.client.flush().await.map_err(|_| Gone)
    }

    /// The tasks that move messages on take all that is there in one turn, as the library's reader does: with the runtime's usual
    /// bound of 128 they would fall behind it.
    async fn hear(&mut self, id: Id, wanted: Wanted) -> Result<(), Gone> {
        match &wanted {
            Wanted::Room(subject, buffer) => {
                let subscriber = self.subscribe(subject.as_str()).await?;
                let moving = move_packets(Arc::clone(&self.shared), subscriber, Arc::clone(buffer));
                let task = self.tasks.spawn(unconstrained(moving));
                self.sids.insert(self.sid, wanted);
                self.heard.insert(id, vec![(self.sid, task)]);
            }
            Wanted::Inbox(subjects, buffer) => {
                for subject in subjects {
                    let subscriber = self.subscribe(subject.as_str()).await?;
                    let moving = move_letters(subscriber, Arc::clone(buffer));
                    let task = self.tasks.spawn(unconstrained(moving));
                    self.sids.insert(self.sid, wanted.clone());
                    self.heard.entry(id).or_default().push((self.sid, task));
                }
            }
        }
        Ok(())
    }

    async fn subscribe(&mut self, subject: &str) -> Result<Subscriber, Gone> {
        self.sid += 1;
        self.client.subscribe(async_nats::Subject::from(subject)).await.map_err(|_| Gone)
    }

    fn unhear(&mut self, id: Id) {
        for (sid, task) in self.heard.remove(&id).unwrap_or_default() {
            // Its subscriber goes with it, and that unsubscribes.
            task.abort();
            self.sids.remove(&sid);
        }
    }

    /// Follows what is wanted and what the library tells.
    async fn carry(&mut self, events: &mut mpsc::Receiver<Event>, may_leave: bool) -> Ended {
        let shared = Arc::clone(&self.shared);
        let mut violations = Violations::default();
        let mut stalls = Stalls::new(Instant::now());
        let mut ticks = interval(stalls::TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut broken = pin!(round_trip::broken(self.client.clone(), shared.options.ping));
        loop {
            tokio::select! {
                () = shared.told_to_close() => return Ended::Closed,
                () = &mut broken => {
                    tracing::warn!("the broker hears nothing of this node any more");
                    // Its socket is to close at once, as far as the library still listens.
                    let _ = timeout(Duration::from_millis(100), self.client.force_reconnect()).await;
                    return Ended::Lost;
                }
                _ = ticks.tick() => stalls.look(Instant::now()),
                event = events.recv() => match event {
                    None | Some(Event::Disconnected | Event::Closed) => {
                        if let Some(late) = stalls.recent(Instant::now()) {
                            shared.outgoing.count(|counts| counts.slow += 1);
                            tracing::warn!("the bus read nothing for {late:?}: the broker cuts off who is too slow for it");
                        }
                        return Ended::Lost;
                    }
                    Some(Event::LameDuckMode) if may_leave => return Ended::Leaving,
                    Some(event) => self.note(&event, &mut violations),
                },
                () = shared.interest.changed() => {
                    for (id, wanted) in shared.interest.take_changes() {
                        match wanted {
                            None => self.unhear(id),
                            Some(wanted) => if self.hear(id, wanted).await.is_err() {
                                return Ended::Lost;
                            },
                        }
                    }
                }
                Some(ended) = self.tasks.join_next() => hand_on_panic(ended),
                () = shared.sabotaged() => panic!("a test wanted it to"),
            }
        }
    }

    fn note(&self, event: &Event, violations: &mut Violations) {
        let outgoing = &self.shared.outgoing;
        match event {
            Event::SlowConsumer(sid) => {
                if let Some(wanted) = self.sids.get(sid) {
                    wanted.lose(1);
                }
                outgoing.count(|counts| counts.slow += 1);
            }
            Event::ServerError(ServerError::SlowConsumer(_)) => outgoing.count(|counts| counts.slow += 1),
            Event::ServerError(ServerError::Other(text)) => {
                let lower = text.to_lowercase();
                if lower.starts_with("slow consumer") {
                    outgoing.count(|counts| counts.slow += 1);
                } else if lower.starts_with("permissions violation") {
                    outgoing.count(|counts| counts.refused += 1);
                    violations.report(text);
                    return;
                }
                tracing::warn!("the broker says: {text}");
            }
            Event::ServerError(error) => tracing::warn!("the broker says: {error}"),
            Event::LameDuckMode => tracing::warn!("the broker announced that it stops, and no other is known"),
            _ => {}
        }
    }

    /// Sends what waits, as far as the broker takes it in time. What it does not is dropped and counted with the rest.
    async fn flush(&mut self, pumped: oneshot::Receiver<()>) {
        self.shared.outgoing.refuse();
        let rest = async {
            // Told by being dropped.
            let _ = pumped.await;
            self.client.flush().await
        };
        let _ = timeout(FLUSH, rest).await;
    }
}

/// A panic of a task is the driver's own: it ends the epoch and is told to whoever watches.
fn hand_on_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

/// Hands what waits to the library, as fast as it takes it, until nothing more comes.
async fn pump(shared: Arc<Shared>, client: Client, handed: Arc<AtomicU64>, _running: oneshot::Sender<()>) {
    let mut batch = Vec::new();
    while shared.outgoing.next(&mut batch).await {
        if hand_over(&shared.outgoing, &client, &handed, &mut batch).await.is_err() {
            return;
        }
    }
}

/// Hands over a batch. What is left of it, also when this is given up half way, is dropped and counted.
async fn hand_over(
    outgoing: &Outgoing,
    client: &Client,
    handed: &AtomicU64,
    batch: &mut Vec<super::outgoing::Message>,
) -> Result<(), Gone> {
    let mut rest = Rest { outgoing, count: batch.len() as u64 };
    for message in batch.drain(..) {
        if let Some(marker) = message.marker {
            client.flush().await.map_err(|_| Gone)?;
            // Whoever waited may have given up.
            let _ = marker.send(());
            rest.count -= 1;
            continue;
        }
        match client.publish(async_nats::Subject::from(message.subject), message.payload).await {
            Ok(()) => {
                handed.fetch_add(1, Ordering::Relaxed);
            }
            // The queue was open for what this broker takes, but let the library have the last word.
            Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                outgoing.count(|counts| counts.dropped_full += 1);
            }
            Err(_) => return Err(Gone),
        }
        rest.count -= 1;
    }
    Ok(())
}

struct Rest<'a> {
    outgoing: &'a Outgoing,
    count: u64,
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        if self.count > 0 {
            self.outgoing.count(|counts| counts.dropped_down += self.count);
        }
    }
}

async fn move_packets(shared: Arc<Shared>, mut subscriber: Subscriber, buffer: Arc<Buffer<Delivery>>) {
    while let Some(message) = subscriber.next().await {
        let sender = match RoomSubject::parse(&message.subject).map(|subject| subject.sender()) {
            // On this connection the broker does not echo; the end of an earlier one may still be on its way.
            Ok(Sender::Session(session)) if (shared.options.own)(session) => continue,
            Ok(Sender::Session(session)) => Some(session),
            Ok(Sender::System | Sender::Foreign(_)) | Err(_) => None,
        };
        buffer.push_slice(Delivery { sender, payload: message.payload });
    }
}

async fn move_letters(mut subscriber: Subscriber, buffer: Arc<Buffer<Letter>>) {
    while let Some(message) = subscriber.next().await {
        buffer.push_slice(Letter { subject: message.subject.to_string(), payload: message.payload });
    }
}
