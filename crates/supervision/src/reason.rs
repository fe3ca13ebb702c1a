//! Why an actor ended, and why one did not start.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::path::ActorPath;

/// What a worker's start, handler or attached task fails with: any error.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Why an incarnation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitReason {
    /// It was done: [`Flow::Stop`](crate::Flow::Stop), or an attached task that returned `Ok`.
    Normal,
    /// Its supervisor asked it to stop.
    Shutdown,
    /// A supervisor whose significant children ended. As OTP's `shutdown`: not abnormal.
    AutoShutdown,
    /// A supervisor that saw more restarts than its intensity allows. OTP's supervisors exit with `shutdown` here, so
    /// this is not abnormal either: a permanent supervisor is restarted, a transient one is not.
    GaveUp,
    /// It was killed, from outside or because its supervisor died.
    Killed,
    /// It panicked; the text is the panic's message.
    Panicked(Arc<str>),
    /// A handler, an attached task or the start returned an error; the text is its message.
    Failed(Arc<str>),
    /// It declined to start ([`StartError::Ignore`]). Not abnormal, and not a failure.
    Ignored,
}

impl ExitReason {
    /// Whether a transient child that ended so is restarted.
    pub fn is_abnormal(&self) -> bool {
        match self {
            Self::Normal | Self::Shutdown | Self::AutoShutdown | Self::GaveUp | Self::Ignored => false,
            Self::Killed | Self::Panicked(_) | Self::Failed(_) => true,
        }
    }

    /// One word for metrics: `normal`, `shutdown`, `auto_shutdown`, `gave_up`, `killed`, `panicked`, `failed` or
    /// `ignored`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Shutdown => "shutdown",
            Self::AutoShutdown => "auto_shutdown",
            Self::GaveUp => "gave_up",
            Self::Killed => "killed",
            Self::Panicked(_) => "panicked",
            Self::Failed(_) => "failed",
            Self::Ignored => "ignored",
        }
    }
}

impl std::fmt::Display for ExitReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Normal => f.write_str("ended normally"),
            Self::Shutdown => f.write_str("shut down"),
            Self::AutoShutdown => f.write_str("shut down with its significant children"),
            Self::GaveUp => f.write_str("gave up: too many restarts"),
            Self::Killed => f.write_str("killed"),
            Self::Panicked(text) => write!(f, "panicked: {text}"),
            Self::Failed(text) => write!(f, "failed: {text}"),
            Self::Ignored => f.write_str("declined to start"),
        }
    }
}

/// Why a worker, a supervisor or a whole system did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The start's own error.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The worker, or the whole system, has nothing to do here and declines to start (OTP's `ignore`). It is down then, its
    /// siblings go on, and its specification is kept unless it is temporary or dynamic.
    #[error("declined to start")]
    Ignore,
    /// The specification cannot be right, so nothing was started.
    #[error("supervisor `{path}`: {error}")]
    Invalid {
        /// The supervisor whose specification it is.
        path: ActorPath,
        /// What is wrong.
        error: crate::check::SpecError,
    },
    /// A policy cannot be right, so nothing was started.
    #[error(transparent)]
    Policy(#[from] crate::policy::PolicyError),
    /// The root ended before all its children were up; the reason names the child.
    #[error("`{path}` did not start: {reason}")]
    Ended {
        /// The root.
        path: ActorPath,
        /// Why it ended.
        reason: ExitReason,
    },
}

impl StartError {
    /// Any error or text as the reason why a start failed.
    pub fn failed(reason: impl Into<Failure>) -> Self {
        Self::Failed(reason.into())
    }

    /// The worker declines to start: see [`Ignore`](Self::Ignore).
    pub fn ignore() -> Self {
        Self::Ignore
    }
}

impl From<std::io::Error> for StartError {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error)
    }
}

impl From<String> for StartError {
    fn from(reason: String) -> Self {
        Self::failed(reason)
    }
}

impl From<&str> for StartError {
    fn from(reason: &str) -> Self {
        Self::failed(reason)
    }
}

/// What a panic said, as far as it can be told.
pub(crate) fn panic_text(payload: Box<dyn std::any::Any + Send>) -> Arc<str> {
    let text = if let Some(text) = payload.downcast_ref::<&str>() {
        Arc::from(*text)
    } else if let Some(text) = payload.downcast_ref::<String>() {
        Arc::from(text.as_str())
    } else {
        Arc::from("a panic without a text")
    };
    dispose(payload);
    text
}

/// What an error says. Others wrote how it is shown and dropped, which may panic.
pub(crate) fn failure_text(error: Failure) -> String {
    let text = catch_unwind(AssertUnwindSafe(|| error.to_string()));
    dispose(error);
    text.unwrap_or_else(|panic| format!("an error that panics when it is shown: {}", panic_text(panic)))
}

/// Calls `act`, which others wrote; false when it panicked.
pub(crate) fn contain(act: impl FnOnce()) -> bool {
    let outcome = catch_unwind(AssertUnwindSafe(act));
    outcome.map_err(dispose).is_ok()
}

/// Drops what others wrote, which may panic; true when it did not. What such a panic carries is dropped too, and if that
/// panics in turn, what that carries is leaked.
pub(crate) fn dispose<T>(what: T) -> bool {
    let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(what))) else {
        return true;
    };
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
    false
}
