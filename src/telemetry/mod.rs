//! How does the process tell what it does: logs, access log, metrics?

mod access_format;
pub mod access_log;
mod access_record;
pub mod connections;
pub mod families;
pub mod log;
pub mod metrics;
mod process;
mod render;
mod series;

pub use access_format::Format;
pub use access_log::{AccessLog, AccessLogConfig, Output, Record, Writer};
pub use connections::{ConnectionView, Connections, OpenConnection, Spoken};
pub use families::{Family, Kind};
pub use log::{Level, Log, LogError, LogFormat, Seldom};
pub use metrics::{Counter, Gauge, Histogram, Registry, set_worker};
pub use render::CONTENT_TYPE;

#[cfg(test)]
pub(crate) use render::tests::parse as parse_scrape;
