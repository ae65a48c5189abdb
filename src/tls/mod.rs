//! Which certificates and rustls configurations serve which names?
//!
//! ```text
//! ListenerSpec + bindings + certificates -> ServerNames::compile -> find(server name) -> (ServerConfig, policy)
//! UpstreamTlsSpec + certificate          -> client_config
//! ```

mod certificate;
mod client;
mod compile;
mod error;
mod info;
mod renew;
mod server;
mod sni;
mod view;

#[cfg(test)]
pub(crate) mod testing;

pub use client::{check_authorities, client_config};
pub use error::Error;
pub use info::info;
pub use sni::{Found, ServerNames};
pub use view::CertificateView;

/// Wall clock in seconds since the epoch: certificates are the one thing whose time is not monotonic.
fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
