//! How does the process hear signals, become ready, drain and end?

pub mod drain;
pub mod readiness;
pub mod signal;
pub mod tasks;

pub use drain::{DoorGuard, Drain, DrainGuard, Draining};
pub use readiness::{Readiness, ReadinessGuard};
pub use signal::{Signal, Signals};
pub use tasks::{Ended, Ending, Task, Tasks, apart};
