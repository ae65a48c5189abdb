//! How are the endpoints of a cluster held where there are a hundred thousand of them?

use super::cluster::{EndpointSpec, Nearness};
use std::fmt;
use std::net::{SocketAddr, SocketAddrV6};
use std::sync::Arc;

/// Endpoints ordered by address, each address once: of two with one address the first counts. Nearly all take seven bytes, and
/// clones are the same.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EndpointList(Arc<[u8]>);

/// The endpoint has an address of IPv6, which is said whole.
const V6: u8 = 4;
/// Its weight is not 1, and said.
const WEIGHT: u8 = 8;

impl EndpointList {
    /// Each endpoint.
    pub fn iter(&self) -> impl Iterator<Item = EndpointSpec> {
        let mut bytes = &*self.0;
        std::iter::from_fn(move || take_endpoint(&mut bytes))
    }

    /// How many there are, counted.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<EndpointSpec>> for EndpointList {
    fn from(mut endpoints: Vec<EndpointSpec>) -> Self {
        // Nothing to do for nearly all, which come in order.
        endpoints.sort_by_key(|endpoint| endpoint.address);
        endpoints.dedup_by_key(|endpoint| endpoint.address);
        if endpoints.is_empty() {
            return Self::default();
        }
        let mut bytes = Vec::with_capacity(endpoints.len() * 7);
        endpoints.iter().for_each(|endpoint| put_endpoint(endpoint, &mut bytes));
        Self(bytes.into())
    }
}

impl From<&[EndpointSpec]> for EndpointList {
    fn from(endpoints: &[EndpointSpec]) -> Self {
        endpoints.to_vec().into()
    }
}

impl fmt::Debug for EndpointList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn put_endpoint(endpoint: &EndpointSpec, bytes: &mut Vec<u8>) {
    let EndpointSpec { address, weight, near } = endpoint;
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

    proptest! {
        #[test]
        fn endpoints_are_what_was_said_in_order_and_the_first_of_an_address_counts(
            said in prop::collection::vec((any::<SocketAddr>(), prop_oneof![Just(1), any::<u32>()], 0u8..3), 0..20),
            again in 0..20usize,
        ) {
            let one = |(address, weight, near)| EndpointSpec { address, weight, near: Nearness::of(near) };
            let mut said: Vec<_> = said.into_iter().map(one).collect();
            let twice = said.get(again).map(|e| EndpointSpec { weight: e.weight ^ 1, ..e.clone() });
            said.extend(twice);
            let list = EndpointList::from(said.clone());
            said.sort_by_key(|e| e.address);
            said.dedup_by_key(|e| e.address);
            prop_assert_eq!(list.iter().collect::<Vec<_>>(), said.clone());
            prop_assert_eq!((list.len(), list.is_empty()), (said.len(), said.is_empty()));
            let fewer = EndpointList::from(said.get(1..).unwrap_or_default());
            prop_assert!(said.is_empty() || list != fewer);
        }
    }

    #[test]
    fn an_endpoint_of_ipv4_takes_seven_bytes() {
        let endpoint = |port| EndpointSpec::new(([10, 0, 0, 1], port).into(), 1);
        assert_eq!(EndpointList::from(vec![endpoint(1), endpoint(2)]).0.len(), 14);
    }
}
