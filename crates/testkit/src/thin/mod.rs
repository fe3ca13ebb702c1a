//! A receiver on a thin link: a network namespace behind a shaped pair of interfaces, or where that is not permitted a proxy, the
//! packets that are sent to it, and what it had of them.
//!
//! What does not live here: what is promised of it.

mod had;
mod network;
mod packet;
mod proxy;

pub use had::{Had, Heard};
pub use network::{Congestion, Namespace};
pub use packet::{Kind, Lettering, Picture, make, now_micros, read};
pub use proxy::Narrow;
