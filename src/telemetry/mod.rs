//! How does the process tell what it does: logs, access log, metrics?

pub mod families;
pub mod metrics;
mod process;
mod render;
mod series;

pub use families::{Family, Kind};
pub use metrics::{Counter, Gauge, Histogram, Registry, set_worker};
pub use render::CONTENT_TYPE;
