//! A worker as a ractor actor: its mailbox, its start, its messages and its end.

use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use futures_util::FutureExt;
use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, ActorStatus, MessagingErr, SupervisionEvent};

use super::{Spawning, Starter};
use crate::address::{Address, Control, Mailbox, Slot};
use crate::life::Life;
use crate::reason::{ExitReason, Failure, StartError, failure_text, panic_text};
use crate::tree::Fault;
use crate::watchdog::{Polling, watched};
use crate::worker::{Context, Flow, Worker};

/// Makes the arguments of an incarnation; `None` when they are used up.
type MakeArgs<W> = Box<dyn Fn() -> Option<<W as Worker>::Args> + Send + Sync>;

struct Plan<W: Worker> {
    args: MakeArgs<W>,
    slot: Option<Slot<W::Message>>,
}

/// Starts incarnations of a worker.
pub(crate) struct WorkerStarter<W: Worker> {
    plan: Arc<Plan<W>>,
}

impl<W: Worker> WorkerStarter<W> {
    pub(crate) fn new(args: MakeArgs<W>, slot: Option<Slot<W::Message>>) -> Self {
        Self { plan: Arc::new(Plan { args, slot }) }
    }
}

impl<W: Worker> Starter for WorkerStarter<W> {
    fn spawn(&self, life: Arc<Life>, supervisor: Option<ActorCell>) -> Spawning {
        let plan = Arc::clone(&self.plan);
        Box::pin(async move {
            let control = Arc::new(OnceLock::new());
            let args = Seat { life, plan, control: Arc::clone(&control) };
            super::spawn(WorkerActor::<W>(PhantomData), args, supervisor).await?;
            control.get().cloned()
        })
    }
}

enum Envelope<M> {
    User(M),
    Fault(Fault),
}

struct WorkerMailbox<M> {
    actor: ActorRef<Envelope<M>>,
    depth: AtomicUsize,
}

impl<M: Send + 'static> Control for WorkerMailbox<M> {
    fn stop(&self) {
        self.actor.stop(None);
    }

    fn kill(&self) {
        self.actor.kill();
    }

    fn inject(&self, fault: Fault) {
        match fault {
            Fault::Kill => self.actor.kill(),
            // A dead actor needs no fault.
            fault => drop(self.actor.send_message(Envelope::Fault(fault))),
        }
    }

    fn depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed)
    }

    fn is_alive(&self) -> bool {
        self.actor.get_status() <= ActorStatus::Running
    }
}

impl<M: Send + 'static> Mailbox<M> for WorkerMailbox<M> {
    fn taken(&self) {
        self.depth.fetch_sub(1, Ordering::Relaxed);
    }

    fn put(&self, message: M) -> Result<(), M> {
        // Counted before it is put in, so that the actor never takes what is not counted yet.
        self.depth.fetch_add(1, Ordering::Relaxed);
        self.actor.send_message(Envelope::User(message)).map_err(|error| {
            self.depth.fetch_sub(1, Ordering::Relaxed);
            match error {
                MessagingErr::SendErr(Envelope::User(message)) => message,
                _ => unreachable!("a typed reference hands back the message that it was given"),
            }
        })
    }
}

struct WorkerActor<W>(PhantomData<fn() -> W>);

/// What an incarnation is spawned with.
struct Seat<W: Worker> {
    life: Arc<Life>,
    plan: Arc<Plan<W>>,
    control: Arc<OnceLock<Arc<dyn Control>>>,
}

struct WorkerState<W: Worker> {
    /// `None` before its start has returned and after its end.
    worker: Option<W>,
    plan: Arc<Plan<W>>,
    ctx: Context<W>,
}

impl<W: Worker> WorkerState<W> {
    fn withdraw(&self) {
        if let Some(slot) = &self.plan.slot {
            slot.clear(&self.ctx.address());
        }
    }
}

/// Records a panic or an error of `future`, which makes the actor end.
async fn guard<W: Worker, T>(
    future: impl Future<Output = Result<T, Failure>> + Send,
    ctx: &Context<W>,
) -> Result<T, ActorProcessingErr> {
    let reason = match watched(ctx.serial(), AssertUnwindSafe(future).catch_unwind()).await {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => ExitReason::Failed(failure_text(error).into()),
        Err(panic) => ExitReason::Panicked(panic_text(panic)),
    };
    let text = reason.to_string();
    ctx.record(reason);
    Err(text.into())
}

impl<W: Worker> Drop for WorkerState<W> {
    fn drop(&mut self) {
        self.withdraw();
        if let Some(life) = self.ctx.life() {
            life.ends(); // if nothing was recorded: a kill
        }
        self.ctx.abort_tasks();
        let worker = self.worker.take();
        let polling = Polling::begin(self.ctx.serial());
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(worker))) {
            self.ctx.record(ExitReason::Panicked(panic_text(panic)));
        }
        drop(polling);
        self.ctx.release();
    }
}

impl<W: Worker> Actor for WorkerActor<W> {
    type Msg = Envelope<W::Message>;
    type State = Option<WorkerState<W>>;
    type Arguments = Seat<W>;

    /// Only takes the seat, so that spawning never waits; the start itself is in `post_start`, where the actor is
    /// linked already and a kill reaches it.
    async fn pre_start(&self, myself: ActorRef<Self::Msg>, seat: Seat<W>) -> Result<Self::State, ActorProcessingErr> {
        let mailbox = Arc::new(WorkerMailbox { actor: myself, depth: AtomicUsize::new(0) });
        let control: Arc<dyn Control> = mailbox.clone();
        seat.life.node.reachable(seat.life.generation, Arc::clone(&control));
        let _ = seat.control.set(Arc::clone(&control));
        let address = Address { mailbox };
        Ok(Some(WorkerState { worker: None, plan: seat.plan, ctx: Context::new(address, control, seat.life) }))
    }

    async fn post_start(&self, _: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        let Some(state) = state else { return Ok(()) };
        let (plan, ctx) = (&state.plan, &state.ctx);
        let start = async {
            let args = (plan.args)().ok_or("its arguments were for one incarnation only")?;
            match W::start(args, ctx).await {
                Err(StartError::Ignore) => Ok(None),
                started => started.map(Some).map_err(Into::into),
            }
        };
        let Some(worker) = guard(start, ctx).await? else {
            ctx.record(ExitReason::Ignored);
            return Err("declined to start".into());
        };
        state.worker = Some(worker);
        if let Some(life) = ctx.life() {
            if let Some(slot) = &plan.slot {
                drop(life.publish(|| slot.publish(ctx.address())));
            }
            life.up();
        }
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Self::Msg>,
        message: Self::Msg,
        state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        let Some(WorkerState { worker: Some(worker), ctx, .. }) = state else {
            return Ok(());
        };
        let flow = match message {
            Envelope::User(message) => {
                ctx.taken();
                guard(worker.handle(message, ctx), ctx).await?
            }
            Envelope::Fault(fault) => {
                let act = async {
                    match fault {
                        Fault::Stall(time) => tokio::time::sleep(time).await,
                        Fault::Panic | Fault::Kill => panic!("injected"),
                    }
                    Ok(Flow::Continue)
                };
                guard(act, ctx).await?
            }
        };
        if flow == Flow::Stop {
            if let Some(life) = ctx.life() {
                life.leave();
            }
            myself.stop(None);
        }
        Ok(())
    }

    async fn post_stop(&self, _: ActorRef<Self::Msg>, state: &mut Self::State) -> Result<(), ActorProcessingErr> {
        let Some(mut state) = state.take() else { return Ok(()) };
        state.withdraw();
        let bound = state.ctx.life().and_then(|life| life.stop_bound());
        let WorkerState { worker: Some(worker), ctx, .. } = &mut state else {
            return Ok(());
        };
        let stop = async {
            match bound {
                Some(bound) => tokio::time::timeout(bound, worker.stop())
                    .await
                    .map_err(|_| format!("did not stop within {bound:?}").into()),
                None => {
                    worker.stop().await;
                    Ok(())
                }
            }
        };
        guard(stop, ctx).await?;
        // Not before: a kill during the stop is a kill.
        if let Some(life) = ctx.life() {
            life.stopped();
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<Self::Msg>,
        _: SupervisionEvent,
        _: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}
