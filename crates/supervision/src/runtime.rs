//! The one place that makes actors of ractor's: `worker` and `supervisor` make actors of the two kinds of children;
//! `requests` is how a supervisor answers who asks it.
//!
//! ractor gives mailboxes, stop and kill signals, and links, by which a dying supervisor kills its children at every
//! depth. Its supervision events are not used: they come before the dead actor's state is dropped, and not at all when a
//! start fails. [`Life`](crate::life::Life) reports ends instead. Actors are unnamed, since ractor's names are process-wide.

mod requests;
mod supervisor;
mod worker;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use ractor::ActorCell;

use crate::address::Control;
use crate::check::Fault;
use crate::life::Life;
use crate::path::ActorPath;

pub(crate) use supervisor::{SupervisorStarter, start_root};
pub(crate) use worker::WorkerStarter;

/// Spawns incarnations of one child.
pub(crate) trait Starter: Send + Sync {
    /// Checks what can be checked before the next incarnation, which will be at `path`, is spawned.
    fn prepare(&self, _path: &ActorPath) -> Result<(), Fault> {
        Ok(())
    }

    /// Spawns an actor that lives `life`, linked to its supervisor if it has one. It returns at once: whether the actor
    /// comes up is told by its life. `None` when it could not be spawned, which its life tells, too.
    fn spawn(&self, life: Arc<Life>, supervisor: Option<ActorCell>) -> Spawning;
}

pub(crate) type Spawning = Pin<Box<dyn Future<Output = Option<Arc<dyn Control>>> + Send>>;

async fn spawn<A: ractor::Actor>(
    actor: A,
    args: A::Arguments,
    supervisor: Option<ActorCell>,
) -> Option<ractor::ActorRef<A::Msg>> {
    let spawned = match supervisor {
        Some(supervisor) => ractor::Actor::spawn_linked(None, actor, args, supervisor).await,
        None => ractor::Actor::spawn(None, actor, args).await,
    };
    match spawned {
        Ok((actor, _)) => Some(actor),
        Err(error) => {
            tracing::debug!("spawning an actor: {error}");
            None
        }
    }
}
