//! Clusters as they are run: nodes and brokers as processes, a network that can be cut between them, a crowd of real clients
//! who talk over all nodes, and faults.
//!
//! What lives here: the stage and what is done on it. What does not: which fault is expected to cost what (`table`), when it is
//! run (`tests/cluster`, `scripts/faults`), and the broker's own fixture (`roomcast_bus::testing`).

pub mod figures;
pub mod load;
pub mod process;
pub mod proxy;
pub mod record;
pub mod run;
pub mod stage;
pub mod table;
pub mod view;

pub use process::NodeProcess;
pub use proxy::{Direction, Flow, Proxy};
