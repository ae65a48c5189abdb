//! May this client address come in?

use super::{Refusal, Verdict};
use crate::model::AccessPolicy;
use http::StatusCode;
use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// Compiled networks: denied ones win, then an empty allow list lets everyone in.
#[derive(Clone, Debug)]
pub struct Access {
    allow: Box<[IpNet]>,
    deny: Box<[IpNet]>,
    denied: Arc<str>,
    not_allowed: Arc<str>,
}

impl Access {
    pub(super) fn compile(spec: &AccessPolicy) -> Self {
        Self {
            allow: spec.allow.as_slice().into(),
            deny: spec.deny.as_slice().into(),
            denied: "the client's address is denied".into(),
            not_allowed: "the client's address is not among those allowed".into(),
        }
    }

    pub(super) fn check(&self, client: IpAddr) -> Result<(), Refusal> {
        match self.wrong(client) {
            None => Ok(()),
            Some(detail) => {
                Err(Refusal { status: StatusCode::FORBIDDEN, reason: "access", detail: Arc::clone(detail) })
            }
        }
    }

    pub(super) fn explain(&self, client: IpAddr) -> Verdict {
        match self.wrong(client) {
            None => Verdict::pass("access", format!("{client} may come in")),
            Some(detail) => Verdict::fail("access", format!("{client}: {detail}")),
        }
    }

    fn wrong(&self, client: IpAddr) -> Option<&Arc<str>> {
        // An IPv4 client of a dual-stack socket shows as ::ffff:a.b.c.d and must not slip past a list of IPv4 networks.
        let client = client.to_canonical();
        if self.deny.iter().any(|net| net.contains(&client)) {
            return Some(&self.denied);
        }
        (!self.allow.is_empty() && !self.allow.iter().any(|net| net.contains(&client))).then_some(&self.not_allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(allow: &[&str], deny: &[&str]) -> Access {
        let nets = |list: &[&str]| list.iter().map(|n| n.parse().unwrap()).collect();
        Access::compile(&AccessPolicy { allow: nets(allow), deny: nets(deny) })
    }

    fn passes(access: &Access, client: &str) -> bool {
        access.check(client.parse().unwrap()).is_ok()
    }

    #[test]
    fn deny_wins_over_allow() {
        let access = access(&["10.0.0.0/8"], &["10.1.0.0/16"]);
        assert!(passes(&access, "10.2.0.1"));
        assert!(!passes(&access, "10.1.0.1"));
        assert!(!passes(&access, "192.0.2.1"));
    }

    #[test]
    fn an_empty_allow_list_lets_everyone_in_who_is_not_denied() {
        let access = access(&[], &["2001:db8::/32"]);
        assert!(passes(&access, "192.0.2.1"));
        assert!(!passes(&access, "2001:db8::1"));
    }

    #[test]
    fn a_mapped_address_counts_as_its_ipv4_address() {
        assert!(!passes(&access(&[], &["192.0.2.0/24"]), "::ffff:192.0.2.9"));
        assert!(passes(&access(&["192.0.2.0/24"], &[]), "::ffff:192.0.2.9"));
    }

    #[test]
    fn a_refusal_is_403() {
        let refusal = access(&["10.0.0.0/8"], &[]).check("192.0.2.1".parse().unwrap()).unwrap_err();
        assert_eq!((refusal.status, refusal.reason), (StatusCode::FORBIDDEN, "access"));
    }
}
