//! One tree as a whole: started, watched, stopped. Several in one process share nothing.

use std::fmt;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::address::Control;
use crate::check;
use crate::event::Observer;
use crate::life::{Life, Shared, Superior};
use crate::machine::{Key, Run};
use crate::node::Node;
use crate::path::ActorPath;
use crate::policy::{ABANDON_AFTER, Policies};
use crate::reason::{ExitReason, StartError};
use crate::runtime::start_root;
use crate::spec::SupervisorSpec;
use crate::tree::Tree;

/// What a system is started with.
#[derive(Clone)]
pub struct SystemOptions {
    /// What the root is called where its path, which is empty, is shown.
    pub label: String,
    /// The restart policies of all supervisors.
    pub policies: Arc<Policies>,
    /// Who is told what happens.
    pub observer: Option<Observer>,
}

impl Default for SystemOptions {
    /// Default policies, no observer, the label `root`.
    fn default() -> Self {
        Self { label: "root".to_owned(), policies: Arc::default(), observer: None }
    }
}

impl fmt::Debug for SystemOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemOptions").field("label", &self.label).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
enum Status {
    Starting,
    Running,
    Ended(ExitReason),
}

/// Stands where the root's supervisor would.
struct Crown(watch::Sender<Status>);

impl Superior for Crown {
    fn started(&self, _: Key, _: Run) {
        self.0.send_replace(Status::Running);
    }

    fn leaving(&self, _: Key, _: Run) {}

    /// Nobody is above who would go on without what does not end, so that is done here.
    fn fallen(&self, _: Key, _: Run, reason: ExitReason) {
        let Ok(runtime) = Handle::try_current() else {
            return; // the runtime is on its way down, and everything with it
        };
        let crown = Self(self.0.clone());
        runtime.spawn(async move {
            let mut status = crown.0.subscribe();
            let ended = status.wait_for(|status| matches!(status, Status::Ended(_)));
            if tokio::time::timeout(ABANDON_AFTER, ended).await.is_err() {
                tracing::error!("the tree has ended but for what never awaits");
                crown.end(reason);
            }
        });
    }

    fn gone(&self, _: Key, _: Run, reason: ExitReason) {
        self.end(reason);
    }
}

impl Crown {
    fn end(&self, reason: ExitReason) {
        self.0.send_if_modified(|status| {
            let first = !matches!(status, Status::Ended(_));
            if first {
                *status = Status::Ended(reason);
            }
            first
        });
    }
}

/// A running tree. Dropping it kills the tree; [`stop`](Self::stop) ends it in order.
pub struct System {
    control: Arc<dyn Control>,
    status: watch::Receiver<Status>,
    tree: Tree,
}

impl System {
    /// Starts a tree and waits until all of it is up. The specifications of all fixed supervisors are made and checked
    /// first. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When a specification is wrong, at whatever depth, or a policy is: nothing has been started then. When something does
    /// not start: what was started has been stopped, in reverse.
    pub async fn start(spec: SupervisorSpec, options: SystemOptions) -> Result<Self, StartError> {
        let path = ActorPath::root(&options.label);
        if let Err(check::Fault { path, error }) = spec.check_all(&path) {
            return Err(StartError::Invalid { path, error });
        }
        options.policies.current().check()?;
        let node = Node::root(path.clone());
        let (sender, status) = watch::channel(Status::Starting);
        let shared = Shared::new(options.policies, options.observer, &node);
        let life = Life::begin((0, 1), Arc::clone(&node), None, shared, Arc::new(Crown(sender)), None);
        let Some(control) = start_root(spec, life).await else {
            return Err(StartError::failed("the root could not be spawned"));
        };
        // From here on, dropping this future kills what has been started.
        let mut system = Self { control, status, tree: Tree { root: node } };
        let begun = system.status.wait_for(|status| !matches!(status, Status::Starting)).await;
        match begun.map(|status| status.clone()) {
            Ok(Status::Ended(reason)) => Err(StartError::Ended { path, reason }),
            Ok(_) => Ok(system),
            Err(_) => Err(StartError::failed("the root vanished")),
        }
    }

    /// The tree, as seen from outside.
    pub fn tree(&self) -> Tree {
        self.tree.clone()
    }

    /// Stops the tree in reverse start order, each child waited for and killed if it takes too long, and waits until all
    /// is gone. What never awaits cannot be killed: it is left behind after [`ABANDON_AFTER`]. May be called again, or
    /// while the tree is ending of itself.
    pub async fn stop(&self) -> ExitReason {
        self.control.stop();
        self.wait().await
    }

    /// Asks the tree to stop, as [`stop`](Self::stop), without waiting.
    pub fn request_stop(&self) {
        self.control.stop();
    }

    /// Waits until the tree has ended and says why: [`ExitReason::Shutdown`] when it was stopped,
    /// [`ExitReason::GaveUp`] when the root gave up.
    pub async fn wait(&self) -> ExitReason {
        let mut status = self.status.clone();
        let ended = status.wait_for(|status| matches!(status, Status::Ended(_))).await;
        match ended.as_deref() {
            Ok(Status::Ended(reason)) => reason.clone(),
            _ => ExitReason::Killed,
        }
    }
}

impl Drop for System {
    fn drop(&mut self) {
        self.control.kill();
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System").field("status", &*self.status.borrow()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ended(status: &mut watch::Receiver<Status>) -> ExitReason {
        let ended = status.wait_for(|status| matches!(status, Status::Ended(_)));
        match &*tokio::time::timeout(4 * ABANDON_AFTER, ended).await.expect("it has not ended").unwrap() {
            Status::Ended(reason) => reason.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_root_that_has_fallen_has_ended_though_something_below_never_does() {
        let (sender, mut status) = watch::channel(Status::Running);
        let crown = Crown(sender);
        let fallen = tokio::time::Instant::now();
        crown.fallen(0, 1, ExitReason::GaveUp);
        assert_eq!(ended(&mut status).await, ExitReason::GaveUp);
        assert_eq!(fallen.elapsed().as_secs(), ABANDON_AFTER.as_secs());
        crown.gone(0, 1, ExitReason::Killed);
        assert_eq!(ended(&mut status).await, ExitReason::GaveUp, "it has ended once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_root_that_is_gone_soon_after_its_fall_is_not_waited_for() {
        let (sender, mut status) = watch::channel(Status::Running);
        let crown = Crown(sender);
        let fallen = tokio::time::Instant::now();
        crown.fallen(0, 1, ExitReason::Shutdown);
        crown.gone(0, 1, ExitReason::Shutdown);
        assert_eq!(ended(&mut status).await, ExitReason::Shutdown);
        assert!(fallen.elapsed() < ABANDON_AFTER);
    }
}
