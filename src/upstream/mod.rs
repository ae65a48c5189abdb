//! Which endpoints does a cluster have, who is picked, and how is it reached?
//!
//! A [`Cluster`] is shared by all workers and made of atomics; connections ([`Pool`], [`Shared`]) belong to one worker each.

pub mod balance;
pub mod budget;
mod check;
pub mod cluster;
pub mod connect;
pub mod endpoint;
mod hash;
pub mod health;
pub(crate) mod io;
pub mod limits;
mod meters;
mod outlier;
pub mod pool;
mod proxy_header;
mod random;
pub mod shared;
pub mod stream;
#[cfg(test)]
mod testing;
pub mod view;

pub use balance::Members;
pub use budget::RetryBudget;
pub use cluster::{Cluster, PickError};
pub use connect::{ConnectError, connect};
pub use endpoint::{Endpoint, EndpointId, Outcome};
pub use limits::{AdmitError, Permit};
pub use pool::Pool;
pub use shared::{Keep, Lease, OpeningFailed, Shared};
pub use stream::UpstreamStream;
pub use view::{ClusterView, EndpointView};
