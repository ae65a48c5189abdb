//! How does the process tell what it does: logs, access log, metrics?
