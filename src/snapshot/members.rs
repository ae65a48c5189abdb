//! Who belongs to the clusters whose endpoints come by the fast road?
//!
//! What was said last about a cluster is kept, so that one that appears later, or is made anew by a compile, has its members
//! before it serves.

use crate::model::{EndpointSpec, Nearness};
use crate::source::Memberships;
use crate::source::memberships::Change;
use std::collections::{BTreeMap, HashMap};
use std::future::pending;
use std::net::{SocketAddr, SocketAddrV6};
use std::sync::Arc;

/// The endpoints of clusters by name, as their source said last.
#[derive(Default)]
pub(super) struct Members {
    source: Option<Memberships>,
    last: HashMap<Arc<str>, Kept>,
}

/// Endpoints as they are kept: nearly all take seven bytes.
#[derive(Debug, PartialEq)]
struct Kept(Box<[u8]>);

/// The endpoint has an address of IPv6, which is said whole.
const V6: u8 = 4;
/// Its weight is not 1, and said.
const WEIGHT: u8 = 8;

impl Members {
    /// Those that are said here.
    pub(super) fn of(source: Memberships) -> Self {
        Self { source: Some(source), last: HashMap::new() }
    }

    /// What is new since the last call; what was only said once more is not.
    pub(super) fn take(&mut self) -> BTreeMap<Arc<str>, Change> {
        let mut said = self.source.as_ref().map(Memberships::take).unwrap_or_default();
        said.retain(|name, endpoints| match endpoints {
            Some(endpoints) => {
                let kept = Kept::of(endpoints);
                let new = self.last.get(name) != Some(&kept);
                if new {
                    self.last.insert(Arc::clone(name), kept);
                }
                new
            }
            None => self.last.remove(name).is_some(),
        });
        said
    }

    /// Whether its source speaks for a cluster; where it does not, the model does.
    pub(super) fn have(&self, cluster: &str) -> bool {
        self.last.contains_key(cluster)
    }

    /// What was said last about a cluster.
    pub(super) fn get(&self, cluster: &str) -> Option<Vec<EndpointSpec>> {
        self.last.get(cluster).map(Kept::endpoints)
    }

    /// Waits until something was said.
    pub(super) async fn changed(&self) {
        match &self.source {
            Some(source) => source.changed().await,
            None => pending().await,
        }
    }
}

impl Kept {
    fn of(endpoints: &[EndpointSpec]) -> Self {
        let mut bytes = Vec::with_capacity(endpoints.len() * 7);
        for EndpointSpec { address, weight, near } in endpoints {
            let flag = |set: bool, flag: u8| if set { flag } else { 0 };
            bytes.push(*near as u8 | flag(address.is_ipv6(), V6) | flag(*weight != 1, WEIGHT));
            bytes.extend(address.port().to_le_bytes());
            match address {
                SocketAddr::V4(v4) => bytes.extend(v4.ip().octets()),
                SocketAddr::V6(v6) => {
                    bytes.extend(v6.ip().octets());
                    bytes.extend(v6.flowinfo().to_le_bytes());
                    bytes.extend(v6.scope_id().to_le_bytes());
                }
            }
            if *weight != 1 {
                bytes.extend(weight.to_le_bytes());
            }
        }
        Self(bytes.into())
    }

    fn endpoints(&self) -> Vec<EndpointSpec> {
        let mut bytes = &*self.0;
        std::iter::from_fn(|| take_endpoint(&mut bytes)).collect()
    }
}

fn take_endpoint(bytes: &mut &[u8]) -> Option<EndpointSpec> {
    let [flags] = take(bytes)?;
    let port = u16::from_le_bytes(take(bytes)?);
    let address = if flags & V6 == 0 {
        SocketAddr::from((take::<4>(bytes)?, port))
    } else {
        let ip = take::<16>(bytes)?.into();
        let (flow, scope) = (u32::from_le_bytes(take(bytes)?), u32::from_le_bytes(take(bytes)?));
        SocketAddrV6::new(ip, port, flow, scope).into()
    };
    let weight = if flags & WEIGHT == 0 { 1 } else { u32::from_le_bytes(take(bytes)?) };
    Some(EndpointSpec { near: Nearness::of(flags & 3), ..EndpointSpec::new(address, weight) })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn endpoint(port: u16) -> EndpointSpec {
        EndpointSpec::new(([10, 0, 0, 1], port).into(), 1)
    }

    #[test]
    fn what_is_said_again_is_no_change() {
        let source = Memberships::default();
        let mut members = Members::of(source.clone());
        source.set("shop/web", vec![endpoint(1)]);
        assert_eq!(members.take().len(), 1);
        source.set("shop/web", vec![endpoint(1)]);
        source.remove("shop/api");
        assert!(members.take().is_empty());
        source.remove("shop/web");
        assert_eq!(members.take()["shop/web"], None);
    }

    proptest! {
        #[test]
        fn endpoints_are_what_was_said_however_they_are_kept(
            said in prop::collection::vec((any::<SocketAddr>(), prop_oneof![Just(1), any::<u32>()], 0u8..3), 0..20),
        ) {
            let one = |(address, weight, near)| EndpointSpec { address, weight, near: Nearness::of(near) };
            let said: Vec<_> = said.into_iter().map(one).collect();
            let kept = Kept::of(&said);
            prop_assert_eq!(&kept.endpoints(), &said);
            let again = Kept::of(said.get(1..).unwrap_or_default());
            prop_assert!(said.is_empty() || kept != again);
        }
    }

    #[test]
    fn an_endpoint_of_ipv4_is_kept_in_seven_bytes() {
        assert_eq!(Kept::of(&[endpoint(1), endpoint(2)]).0.len(), 14);
    }
}
