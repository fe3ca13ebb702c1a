//! The bus on NATS. What lives here: the handle that a node holds, and what it shares with the task that carries it. What does not:
//! connections (`driver`, `epoch`), the outgoing queue, the list of what is heard.
//!
//! Each connection is an epoch of its own, which begins with nothing and ends with everything that it carried: the client
//! library must never reconnect by itself, since it would send what it still holds, long after it was of use. Rooms and inboxes
//! outlive epochs: their buffers are here, and each new connection subscribes to them again.

mod driver;
mod epoch;
mod interest;
mod options;
mod outgoing;
mod reports;
mod round_trip;
mod stalls;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use roomcast_protocol::{Packet, RoomId, Subject};
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use self::interest::{Id, Interest};
use self::options::{Address, Credentials};
use self::outgoing::{Message, Outgoing};
use crate::buffer::Buffer;
use crate::{
    BoxFuture, BrokerInfo, Bus, BusCounts, BusState, Delivery, Inbox, Letter, Published, SubscribeError, Subscription,
    refused_subject,
};

pub use options::{Backoff, IsOwn, NatsError, NatsOptions};

/// The longest that [`Bus::close`] waits until the broker has what was published before.
const CLOSING: Duration = Duration::from_secs(2);

/// One node's access to the brokers. Dropping it is closing it, without waiting for what was published before.
#[derive(Debug)]
pub struct NatsBus(Arc<Shared>);

/// What the handle, its subscriptions and its task share.
struct Shared {
    options: NatsOptions,
    addresses: Vec<Address>,
    /// The last that could be used.
    credentials: Mutex<Credentials>,
    outgoing: Outgoing,
    interest: Interest,
    state: watch::Sender<BusState>,
    broker: Mutex<Option<BrokerInfo>>,
    /// Told once, when the bus is to end.
    closing: watch::Sender<bool>,
    driver: Mutex<Option<Driver>>,
    #[cfg(any(test, feature = "testing"))]
    sabotage: tokio::sync::Notify,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The task that carries the bus.
struct Driver {
    task: AbortHandle,
    /// Why it died, once it has.
    died: watch::Receiver<Option<String>>,
}

impl NatsBus {
    /// Starts to reach the brokers and returns at once: no broker needs to be there. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// As [`NatsOptions::check`]: only what can never work.
    pub fn start(options: NatsOptions) -> Result<Arc<Self>, NatsError> {
        options.check()?;
        let (addresses, credentials) = (options.addresses()?, options.credentials()?);
        let shared = Shared {
            addresses,
            credentials: Mutex::new(credentials),
            outgoing: Outgoing::new(options.outgoing),
            interest: Interest::default(),
            state: watch::Sender::new(BusState::Connecting),
            broker: Mutex::new(None),
            closing: watch::Sender::new(false),
            driver: Mutex::new(None),
            #[cfg(any(test, feature = "testing"))]
            sabotage: tokio::sync::Notify::new(),
            options,
        };
        let bus = Arc::new(Self(Arc::new(shared)));
        bus.0.ensure_driver();
        Ok(bus)
    }

    /// Makes the task that carries the bus panic, once a connection is up: for tests of what heals it.
    #[cfg(any(test, feature = "testing"))]
    pub fn break_driver(&self) {
        self.0.sabotage.notify_one();
    }
}

impl Bus for NatsBus {
    /// Costs an allocation, a lock and a place in the node's outgoing queue. [`Published::Full`] is also what becomes of a packet
    /// that is larger than the broker takes.
    fn publish(&self, room: &RoomId, packet: &Packet) -> Published {
        self.0.outgoing.push(packet.payload().len(), || {
            Message::packet(Subject::session(room, packet.tag().sender).into_string(), packet)
        })
    }

    fn subscribe<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<Box<dyn Subscription>, SubscribeError>> {
        Box::pin(async move {
            let (id, buffer) = self.0.interest.add_room(room, self.0.options.incoming)?;
            let heard = Heard { shared: Arc::clone(&self.0), id, room: Some(room.clone()), buffer };
            Ok(Box::new(heard) as Box<dyn Subscription>)
        })
    }

    fn send(&self, subject: &Subject, payload: Bytes) -> Published {
        self.0.outgoing.push(payload.len(), || Message::control(subject.as_str().to_owned(), payload))
    }

    fn receive(&self, subjects: Vec<Subject>) -> BoxFuture<'_, Result<Box<dyn Inbox>, SubscribeError>> {
        Box::pin(async move {
            if let Some(refused) = refused_subject(&subjects) {
                return Err(refused);
            }
            let (id, buffer) = self.0.interest.add_inbox(subjects, self.0.options.incoming)?;
            let heard = Heard { shared: Arc::clone(&self.0), id, room: None, buffer };
            Ok(Box::new(heard) as Box<dyn Inbox>)
        })
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let (marker, passed) = oneshot::channel();
            if self.0.outgoing.push(0, || Message::marker(marker)) == Published::Sent {
                // Told by being dropped too: then what was before it is gone as well.
                let _ = passed.await;
            }
        })
    }

    fn state(&self) -> watch::Receiver<BusState> {
        self.0.state.subscribe()
    }

    fn take_counts(&self) -> BusCounts {
        self.0.outgoing.take_counts()
    }

    fn broker(&self) -> Option<BrokerInfo> {
        self.0.broker().clone()
    }

    fn watch_over(&self) -> BoxFuture<'_, String> {
        Box::pin(async move {
            if !*self.0.closing.borrow() {
                let mut died = self.0.ensure_driver();
                let why = match died.wait_for(Option::is_some).await {
                    Ok(why) => why.clone().unwrap_or_default(),
                    Err(_) => "its task was dropped".to_owned(),
                };
                if !*self.0.closing.borrow() {
                    return why;
                }
            }
            std::future::pending().await
        })
    }

    /// Before it leaves, the broker gets what was published before, if it takes that within two seconds.
    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.0.outgoing.refuse();
            self.0.closing.send_replace(true);
            let driver = self.0.driver().as_ref().map(|driver| (driver.task.clone(), driver.died.clone()));
            if let Some((task, mut died)) = driver
                && timeout(CLOSING, died.wait_for(Option::is_some)).await.is_err()
            {
                task.abort();
            }
            self.0.end();
        })
    }
}

impl Drop for NatsBus {
    fn drop(&mut self) {
        self.0.closing.send_replace(true);
        self.0.end();
    }
}

impl Shared {
    // No code that holds one of these locks can panic half way through a change, so a poisoned one is as good as new.

    fn driver(&self) -> MutexGuard<'_, Option<Driver>> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn broker(&self) -> MutexGuard<'_, Option<BrokerInfo>> {
        self.broker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The credentials as their file has them now, or the last that could be used.
    fn credentials_now(&self) -> Credentials {
        let mut last = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        match self.options.credentials() {
            Ok(credentials) if credentials.apply(async_nats::ConnectOptions::new()).is_ok() => *last = credentials,
            Ok(_) => tracing::warn!("the credentials file is no longer one; going on with what it held before"),
            Err(error) => tracing::warn!("{error}; going on with what it held before"),
        }
        last.clone()
    }

    /// Starts the task where it is not running, and returns where its death will be told.
    fn ensure_driver(self: &Arc<Self>) -> watch::Receiver<Option<String>> {
        let mut driver = self.driver();
        if let Some(Driver { task, died }) = &*driver
            && !task.is_finished()
            && died.borrow().is_none()
        {
            return died.clone();
        }
        let (tell, died) = watch::channel(None);
        let shared = Arc::clone(self);
        let task = tokio::spawn(async move {
            let outcome = AssertUnwindSafe(driver::drive(&shared)).catch_unwind().await;
            shared.lost();
            let why = match outcome {
                Ok(()) => "the bus is closed".to_owned(),
                Err(panic) => message_of(&*panic),
            };
            tell.send_replace(Some(why));
        });
        *driver = Some(Driver { task: task.abort_handle(), died: died.clone() });
        died
    }

    /// A connection carries everything from now on.
    fn up(&self, broker: BrokerInfo) {
        let max_payload = broker.max_payload;
        *self.broker() = Some(broker);
        self.outgoing.count(|counts| counts.connections += 1);
        if !*self.closing.borrow() {
            self.outgoing.open(max_payload);
            self.change_state(BusState::Up);
        }
    }

    /// No connection carries anything; what waited for one is dropped.
    fn lost(&self) {
        self.outgoing.shut();
        self.state.send_if_modified(|state| {
            let was_up = *state == BusState::Up;
            if was_up {
                *state = BusState::Down;
            }
            was_up
        });
    }

    fn end(&self) {
        self.outgoing.shut();
        self.interest.close();
        self.change_state(BusState::Closed);
    }

    /// A closed bus stays so.
    fn change_state(&self, new: BusState) {
        self.state.send_if_modified(|state| {
            let changes = *state != new && *state != BusState::Closed;
            if changes {
                *state = new;
            }
            changes
        });
    }

    /// Returns once the bus is to end.
    async fn told_to_close(&self) {
        // The sender is here, so it cannot be gone.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Returns when a test wants the task to fail.
    async fn sabotaged(&self) {
        #[cfg(any(test, feature = "testing"))]
        self.sabotage.notified().await;
        #[cfg(not(any(test, feature = "testing")))]
        std::future::pending::<()>().await;
    }
}

/// What a panic said.
fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("it panicked: {}", said.as_deref().unwrap_or("without a message"))
}

/// One subscription or inbox, which outlives connections.
struct Heard<T> {
    shared: Arc<Shared>,
    id: Id,
    /// For a subscription.
    room: Option<RoomId>,
    buffer: Arc<Buffer<T>>,
}

impl Subscription for Heard<Delivery> {
    /// After the bus has closed, what was buffered still comes, then `None`.
    fn next(&mut self) -> BoxFuture<'_, Option<Delivery>> {
        Box::pin(self.buffer.pop())
    }

    fn take_lost(&mut self) -> u64 {
        self.buffer.take_lost()
    }
}

impl Inbox for Heard<Letter> {
    /// After the bus has closed, what was buffered still comes, then `None`.
    fn next(&mut self) -> BoxFuture<'_, Option<Letter>> {
        Box::pin(self.buffer.pop())
    }

    fn take_lost(&mut self) -> u64 {
        self.buffer.take_lost()
    }
}

impl<T> Drop for Heard<T> {
    fn drop(&mut self) {
        self.shared.interest.remove(self.id, self.room.as_ref().map(RoomId::key));
    }
}
