//! OTP supervisors on ractor: the decisions are pure, one module touches ractor.
//!
//! A [`System`] is a tree of supervisors and [`Worker`]s, started left to right from specifications that are data
//! ([`SupervisorSpec`], [`ChildSpec`]) and stopped in reverse, one at a time. All specifications are checked, at every depth,
//! before anything starts. A worker that ends is restarted as its [`Restart`] and its supervisor's [`Strategy`] say; more
//! restarts than the [`Policy`] allows make the supervisor stop its children and end, and its own supervisor decides.
//! Policies are kept by path and can be replaced while the tree runs ([`Policies`]). Children are started, terminated,
//! restarted, deleted and shown through a [`SupervisorSlot`], with OTP's refusals, and one may decline to start
//! ([`StartError::Ignore`]).
//!
//! What an Erlang programmer would not expect:
//!
//! - Restarts of the same child wait with [`Backoff`]; the first in a row is immediate, and a child that was up for
//!   [`QUIET_PERIOD`] starts a new row.
//! - A supervisor never blocks in a start or a stop, so a shutdown always gets through. A worker's start has a bound
//!   ([`Policy::start`]).
//! - Incarnations do not overlap: an end is reported when the worker, its attached tasks and everything below a
//!   supervisor are gone. Only what never awaits, and so cannot be killed, is given up on after [`ABANDON_AFTER`]; it is
//!   reported after [`STUCK_AFTER`].
//! - What makes the specification of a supervisor below others is called before their children start
//!   ([`ChildSpec::supervisor`]).
//! - Children that come and go ([`SupervisorSpec::dynamic`]) have ids, need not be alike, and are adopted again from a store
//!   when their supervisor is restarted.
//! - A child that is terminated while its group is on its way up does not come back with it, and its siblings do.
//! - There are no links and no global names. A worker is reached by an [`Address`] (one incarnation) or a [`Slot`] (whoever
//!   is there now), and tasks belong to it by [`Context::attach`].
//!
//! ```
//! use std::sync::Arc;
//! use roomcast_supervision::*;
//! use tokio::sync::oneshot;
//!
//! /// Adds up; a crash loses the sum.
//! struct Adder {
//!     sum: u64,
//! }
//!
//! enum Ask {
//!     Add(u64),
//!     Sum(oneshot::Sender<u64>),
//!     Divide(u64),
//! }
//!
//! impl Worker for Adder {
//!     type Message = Ask;
//!     type Args = u64; // what the sum starts from
//!
//!     async fn start(sum: u64, _: &Context<Self>) -> Result<Self, StartError> {
//!         Ok(Self { sum })
//!     }
//!
//!     async fn handle(&mut self, ask: Ask, _: &Context<Self>) -> Result<Flow, Failure> {
//!         match ask {
//!             Ask::Add(more) => self.sum += more,
//!             Ask::Sum(reply) => drop(reply.send(self.sum)), // who asked may have gone
//!             Ask::Divide(by) => self.sum = self.sum.checked_div(by).ok_or("division by zero")?,
//!         }
//!         Ok(Flow::Continue)
//!     }
//! }
//!
//! async fn sum(adder: &Slot<Ask>) -> Option<u64> {
//!     let (reply, answer) = oneshot::channel();
//!     adder.send(Ask::Sum(reply)).ok()?;
//!     answer.await.ok()
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Slots and stores are made outside the tree: they outlive what may crash.
//! let adder = Slot::new();
//! let sessions = SupervisorSlot::new();
//!
//! let tree = SupervisorSpec::one_for_one(vec![
//!     ChildSpec::worker_in::<Adder>("adder", &adder, || 100),
//!     ChildSpec::supervisor("sessions", {
//!         let sessions = sessions.clone();
//!         move || SupervisorSpec::dynamic(Vec::new, &sessions) // nothing to adopt after a crash
//!     }),
//! ]);
//!
//! let (started, mut restarts) = tokio::sync::mpsc::unbounded_channel();
//! let system = System::start(tree, SystemOptions {
//!     label: "example".to_owned(),
//!     policies: Arc::new(Policies::new(PolicySet::default().with(
//!         PathPattern::parse("sessions")?,
//!         PolicyPatch { intensity: Some(1000), ..PolicyPatch::default() }, // many children crash more often
//!     ))),
//!     observer: Some(Arc::new(move |event: &Event| {
//!         if let EventKind::Started { generation: 2.., .. } = event.kind {
//!             let _ = started.send(event.path.to_string()); // nobody listens any more: fine
//!         }
//!     })),
//! })
//! .await?;
//!
//! adder.send(Ask::Add(5))?;
//! assert_eq!(sum(&adder).await, Some(105));
//!
//! adder.send(Ask::Divide(0))?; // a crash
//! assert_eq!(restarts.recv().await.as_deref(), Some("adder"));
//! assert_eq!(sum(&adder).await, Some(100));
//! let entry = system.tree().find("adder").ok_or("it is there")?;
//! assert_eq!((entry.generation, entry.restarts), (2, 1));
//!
//! sessions.start_child(ChildSpec::once::<Adder>("17", 0)).await?;
//! assert_eq!(sessions.count_children().active, 1);
//!
//! assert_eq!(system.stop().await, ExitReason::Shutdown);
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod admin;
mod check;
mod event;
mod life;
mod machine;
mod node;
mod path;
mod policy;
mod reason;
mod runtime;
mod spec;
mod system;
mod task;
mod tree;
mod watchdog;
mod window;
mod worker;

pub use address::{Address, SendError, Slot};
pub use admin::{
    ChildCounts, DeleteChildError, RestartChildError, Start, StartChildError, SupervisorSlot, TerminateChildError,
};
pub use check::SpecError;
pub use event::{Event, EventKind, Observer};
pub use path::{ActorPath, PathPattern, PatternError};
pub use policy::{
    ABANDON_AFTER, Backoff, BackoffError, Policies, Policy, PolicyError, PolicyPatch, PolicySet, QUIET_PERIOD,
};
pub use reason::{ExitReason, Failure, StartError};
pub use spec::{AutoShutdown, ChildSpec, Kind, Restart, Shutdown, Strategy, SupervisorSpec};
pub use system::{System, SystemOptions};
pub use task::TaskContext;
pub use tree::{ActorState, Entry, Fault, InjectError, Tree};
pub use watchdog::STUCK_AFTER;
pub use worker::{Context, Flow, Worker};
