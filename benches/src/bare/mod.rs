//! The least that a broadcaster can do: the yardsticks. No policy, no metrics, no limits, no supervision.
//!
//! They are meant to be as fast as the simplest loop that does the job can be, so nothing here may be made slow.

pub mod certificate;
pub mod frame;
pub mod line;
pub mod quic;
pub mod upgrade;
pub mod websocket;
