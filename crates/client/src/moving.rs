//! A stay in the room, from joined to out of it: one connection after the other without a gap where a draining node asks
//! to leave. Make before break.
//!
//! What lives here: the thin part, in order of time. What does not: where to go and when (`reconnect`), what is matched
//! (`handover`), and the connections themselves (`connection`).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use url::Url;

use crate::client::{State, Task};
use crate::connection::{End, Settings, now};
use crate::dial::{self, Line, Transport};
use crate::gate::{Gate, Mode};
use crate::reconnect::{Ended, Reconnect};
use crate::shared::count;

/// How long the new connection is held beside the old one before that is given up: a node that turns a client away does it
/// at once, and the new node must hear the room from the others, which one that has just started does only after half a second.
const OVERLAP: Duration = Duration::from_millis(600);
/// How long the old connection may take to end once it was told that it is done with.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A connection that runs when it is polled.
struct Running<'a> {
    run: Pin<Box<dyn Future<Output = End> + Send + 'a>>,
    gate: Arc<Gate>,
    endpoint: usize,
    transport: Transport,
    since: Instant,
}

impl Task {
    /// Runs a connection, and those that take over from it, until the client is out of the room. Also says how long the
    /// last one was up.
    pub(crate) async fn stay(&self, line: Line, endpoint: usize, reconnect: &mut Reconnect) -> (End, Duration) {
        let number = count(&self.shared.counters.connections, 1);
        let mut current = self.begin(line, endpoint, Gate::open(number));
        self.shared.connected();
        self.tell_connected(&current);
        let end = loop {
            let next = tokio::select! {
                end = &mut current.run => break end,
                next = self.join_elsewhere(&current.gate, reconnect) => next,
            };
            match self.hand_over(current, next, reconnect).await {
                Ok(running) => current = running,
                Err((end, since)) => {
                    self.shared.disconnected();
                    return (end, since.elapsed());
                }
            }
        };
        self.shared.disconnected();
        (end, current.since.elapsed())
    }

    fn begin(&self, line: Line, endpoint: usize, gate: Gate) -> Running<'_> {
        let gate = Arc::new(gate);
        let transport = line.transport();
        let settings = Settings { keep_alive: self.options.keep_alive, flush: self.options.flush_timeout };
        let run = {
            let gate = Arc::clone(&gate);
            Box::pin(async move { line.run(&gate, &self.shared, &self.inbox, settings).await })
        };
        Running { run, gate, endpoint, transport, since: Instant::now() }
    }

    fn tell_connected(&self, running: &Running<'_>) {
        let endpoint: Url = self.options.endpoints[running.endpoint].clone();
        let (transport, number) = (running.transport, running.gate.number);
        self.tell(State::Connected { endpoint, transport, since: running.since.into_std(), number });
    }

    /// Waits until the node asks to leave, then tries until another one lets the client in. Gives up nothing: the old
    /// connection goes on, and its end ends the waiting.
    async fn join_elsewhere(&self, old: &Gate, reconnect: &mut Reconnect) -> Running<'_> {
        old.leave.cancelled().await;
        tracing::debug!("the node is draining");
        old.keep(now());
        reconnect.asked_to_leave(now());
        loop {
            let (after, endpoint) = reconnect.next_move(now());
            sleep(after).await;
            match dial::dial(&self.urls[endpoint], &self.options).await {
                Ok(line) => {
                    let number = count(&self.shared.counters.connections, 1);
                    return self.begin(line, endpoint, Gate::closed(number, self.options.receive_queue));
                }
                Err(ended) => {
                    tracing::debug!(%ended, "cannot join another node yet");
                    reconnect.move_failed(endpoint, now());
                }
            }
        }
    }

    /// Goes from the old connection to the new one. Gives back the one to go on with: the old one, where the new one failed
    /// in time. An error is the end of the stay, and when the connection began that ended last.
    async fn hand_over<'a>(
        &'a self,
        mut old: Running<'a>,
        mut new: Running<'a>,
        reconnect: &mut Reconnect,
    ) -> Result<Running<'a>, (End, Instant)> {
        let mut old_end = tokio::select! {
            end = &mut old.run => Some(end),
            end = &mut new.run => {
                tracing::debug!(?end, "the other node did not keep the client");
                reconnect.move_failed(new.endpoint, now());
                return Ok(old);
            }
            () = sleep(OVERLAP) => None,
        };
        let mut new_end = None;
        if old_end.is_none() {
            old.gate.set_mode(Mode::Finish);
            let mut patience = std::pin::pin!(self.last_words());
            loop {
                tokio::select! {
                    end = &mut old.run => {
                        // Any close in order is the answer to being done; nothing else is to be followed.
                        old_end = Some(if end == End::Local { end } else { End::Remote(Ended::Closed(None)) });
                        break;
                    }
                    end = &mut new.run, if new_end.is_none() => new_end = Some(end),
                    () = &mut patience => break,
                }
            }
        }
        match old_end {
            Some(End::Local) => {
                new.gate.set_mode(Mode::Abandon);
                if new_end.is_none() {
                    new.run.await;
                }
                return Err((End::Local, old.since));
            }
            Some(End::Remote(ended)) if Reconnect::is_final(&ended) => {
                // The call is over, and not only here.
                new.gate.set_mode(Mode::Abandon);
                new.run.await;
                return Err((End::Remote(ended), old.since));
            }
            Some(End::Remote(_)) => {}
            None => {
                // It did not end in time. It is closed beside the new one.
                old.gate.set_mode(Mode::Abandon);
                let (mut closing, mut running) = (old.run, new.run);
                new.run = Box::pin(async move {
                    tokio::select! {
                        end = &mut running => {
                            if end == End::Local {
                                closing.await; // about a second at most
                            }
                            end
                        }
                        _ = &mut closing => running.await,
                    }
                });
            }
        }
        count(&self.shared.counters.handovers, 1);
        reconnect.moved(new.endpoint, old.since.elapsed());
        new.gate.succeed(&old.gate, &self.shared, now());
        new.gate.set_mode(Mode::Send);
        self.tell_connected(&new);
        {
            let mut hand_on = std::pin::pin!(new.gate.hand_on(&self.shared, &self.inbox, now));
            loop {
                tokio::select! {
                    () = &mut hand_on => break,
                    end = &mut new.run, if new_end.is_none() => new_end = Some(end),
                    // Nobody takes what is left.
                    () = self.shared.closing.cancelled(), if new_end.is_some() => break,
                }
            }
        }
        match new_end {
            None => Ok(new),
            Some(end) => Err((end, new.since)),
        }
    }

    /// As long as the old connection may take to end; a local close leaves it half of its time.
    async fn last_words(&self) {
        let hurry = async {
            self.shared.closing.cancelled().await;
            sleep(self.options.flush_timeout / 2).await;
        };
        tokio::select! {
            () = sleep(LAST_WORDS) => {}
            () = hurry => {}
        }
    }
}
