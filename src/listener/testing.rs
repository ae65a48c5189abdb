//! What do tests of listeners start from?

use super::Listening;
use crate::telemetry::Registry;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A listener that is bound nowhere.
pub(super) fn listening(name: &str) -> Arc<Listening> {
    Listening::new(name, (Ipv4Addr::LOCALHOST, 0).into(), &Registry::new(1, 1000))
}
