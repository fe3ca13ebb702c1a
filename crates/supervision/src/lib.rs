//! OTP supervisors on ractor: the decisions are pure, one module touches ractor.

mod address;
mod event;
mod life;
mod machine;
mod path;
mod policy;
mod reason;
mod runtime;
mod spec;
mod system;
mod tree;
mod window;
mod worker;

pub use address::{Address, ChildCounts, DynamicSlot, SendError, Slot, StartChildError, TerminateChildError};
pub use event::{Event, EventKind, Observer};
pub use path::{ActorPath, PathPattern, PatternError};
pub use policy::{ABANDON_AFTER, Backoff, BackoffError, Policies, Policy, PolicyPatch, PolicySet, QUIET_PERIOD};
pub use reason::{ExitReason, Failure, StartError};
pub use spec::{AutoShutdown, ChildSpec, Kind, Restart, Shutdown, SpecError, Strategy, SupervisorSpec};
pub use system::{System, SystemOptions};
pub use tree::{ActorState, Entry, Fault, InjectError, Tree};
pub use worker::{Context, Flow, Worker};
