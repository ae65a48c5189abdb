//! Which configuration serves a server name?

use super::compile::Served;
use super::server::Policy;
use crate::model::{CertificateSpec, HostPattern, ListenerSpec, Problem, TlsBinding, WildcardDepth};
use crate::tls::certificate::Certificate;
use hashbrown::HashMap;
use rustls::ServerConfig;
use rustls::server::ProducesTickets;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The server names of one TLS listener, compiled: exact names before the longest wildcard, then `*`, then the default
/// certificate. Immutable; a change makes another one that takes over what did not change.
#[derive(Debug, Default)]
pub struct ServerNames {
    pub(super) exact: HashMap<Box<str>, Arc<Entry>>,
    pub(super) wildcards: HashMap<Box<str>, Wildcard>,
    /// `*` of a binding: every name, and no name.
    pub(super) any: Option<Arc<Entry>>,
    /// The listener's default certificate.
    pub(super) default: Option<Arc<Entry>>,
    /// Each policy once.
    pub(super) entries: HashMap<Policy, Arc<Entry>>,
    /// Certificates by name, as far as bindings refer to them.
    pub(super) served: BTreeMap<String, Served>,
}

/// What serves a name.
#[derive(Clone, Debug)]
pub struct Found {
    /// Goes on with the handshake.
    pub config: Arc<ServerConfig>,
    /// Identity of certificates, client authentication and versions: a request for a host with another one is misdirected (421).
    /// It survives the renewal of a certificate.
    pub policy: u64,
}

/// One TLS policy, with everything that later versions of it may take over.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) found: Found,
    pub(super) policy: Policy,
    pub(super) certificates: Vec<Arc<Certificate>>,
    pub(super) ticketer: Arc<dyn ProducesTickets>,
}

/// What serves the names below one suffix.
#[derive(Debug, Default)]
pub(super) struct Wildcard {
    /// For one label, preferred where both would do.
    pub(super) one: Option<Arc<Entry>>,
    /// For any number of labels.
    pub(super) many: Option<Arc<Entry>>,
}

impl ServerNames {
    /// Compiles what `listener` serves. Nothing here fails: what cannot be used is a [`Problem`], and whatever of `previous` is
    /// still the same or is better than nothing serves on:
    /// - a certificate that is unreadable, does not fit its key, is expired or not yet valid leaves its last good version;
    /// - one that is gone from `certificates` is withdrawn, and its names answer with an alert;
    /// - a client CA that is unusable leaves the last good policy of its names if that was no laxer, otherwise an alert;
    /// - bindings for the same host add their certificates (one of each kind of key); if they disagree about client
    ///   certificates, the oldest one that says anything decides.
    pub fn compile(
        listener: &ListenerSpec,
        bindings: &[TlsBinding],
        certificates: &[CertificateSpec],
        previous: Option<&Self>,
    ) -> (Self, Vec<Problem>) {
        super::compile::compile(listener, bindings, certificates, previous, super::now())
    }

    /// What serves a client that asks for `name` (upper case and all), or for none; `None`: it gets the alert unrecognized_name.
    pub fn find(&self, name: Option<&str>) -> Option<&Found> {
        let entry = match name {
            None => None,
            Some(name) => self.named(&lower_case(name)),
        };
        entry.or(self.any.as_ref()).or(self.default.as_ref()).map(|entry| &entry.found)
    }

    /// What a pattern of the configuration stands for, not what a client would get.
    pub(super) fn of(&self, host: &HostPattern) -> Option<&Arc<Entry>> {
        match host {
            HostPattern::Any => self.any.as_ref(),
            HostPattern::Exact(name) => self.exact.get(name),
            HostPattern::Wildcard(suffix, depth) => self.wildcards.get(suffix).and_then(|below| match depth {
                WildcardDepth::One => below.one.as_ref(),
                WildcardDepth::Many => below.many.as_ref(),
            }),
        }
    }

    /// Lets `entry` serve `host`.
    pub(super) fn bind(&mut self, host: &HostPattern, entry: Arc<Entry>) {
        match host {
            HostPattern::Any => self.any = Some(entry),
            HostPattern::Exact(name) => drop(self.exact.insert(name.clone(), entry)),
            HostPattern::Wildcard(suffix, depth) => {
                let below = self.wildcards.entry(suffix.clone()).or_default();
                match depth {
                    WildcardDepth::One => below.one = Some(entry),
                    WildcardDepth::Many => below.many = Some(entry),
                }
            }
        }
    }

    fn named(&self, name: &str) -> Option<&Arc<Entry>> {
        if let Some(entry) = self.exact.get(name) {
            return Some(entry);
        }
        let (_, mut suffix) = name.split_once('.')?;
        if let Some(below) = self.wildcards.get(suffix)
            && let Some(entry) = below.one.as_ref().or(below.many.as_ref())
        {
            return Some(entry);
        }
        while let Some((_, shorter)) = suffix.split_once('.') {
            suffix = shorter;
            if let Some(entry) = self.wildcards.get(suffix).and_then(|below| below.many.as_ref()) {
                return Some(entry);
            }
        }
        None
    }
}

fn lower_case(name: &str) -> Cow<'_, str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    Cow::Borrowed(name)
}
