//! Load on a running router, and what came of it: the inside of `roomcast bench`.
//!
//! What lives here: members that join, send at a steady pace and count what they get, as cheaply as can be; the report. What
//! does not: the router, and how it is started. It knows routers by their URLs only, so it measures anything that speaks
//! the seed dialect.
//!
//! [`Arguments`] are what the command line says, [`Plan`] what that means, [`run`] makes the load, [`Report`] is what came of it,
//! and [`command`] does all of it for a person at a terminal.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arguments;
mod command;
mod counts;
mod frames;
mod histogram;
mod join;
mod ledger;
mod member;
mod pace;
mod packet;
mod plan;
mod plot;
mod process;
mod report;
mod run;
mod thread;
mod websocket;
mod webtransport;

pub use arguments::{Arguments, Mix, Senders};
pub use command::command;
pub use histogram::Histogram;
pub use plan::{Plan, PlanError, Target, Transport};
pub use plot::{Graphs, Sample};
pub use process::{TooFewFiles, UsageError};
pub use report::{Delays, Generator, Joins, Report, Routers};
pub use run::{Phase, Progress, RunError, run};
