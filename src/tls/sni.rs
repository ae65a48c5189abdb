//! Which configuration serves a server name?

use super::compile::Served;
use super::server::Policy;
use crate::model::{CertificateSpec, HostPattern, Keyed, ListenerSpec, Problem, Sorted, TlsBinding, WildcardDepth};
use crate::tls::certificate::{Certificate, host_of};
use hashbrown::HashMap;
use rustls::ServerConfig;
use rustls::server::ProducesTickets;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

/// The server names of one TLS listener, compiled: exact names before the longest wildcard, then `*`, then the default
/// certificate. Immutable; a change makes another one that takes over what did not change.
#[derive(Clone, Debug, Default)]
pub struct ServerNames {
    pub(super) exact: Sorted<Bound>,
    pub(super) wildcards: Arc<HashMap<Box<str>, Wildcard>>,
    /// `*` of a binding: every name, and no name.
    pub(super) any: Option<Arc<Entry>>,
    /// The listener's default certificate.
    pub(super) default: Option<Arc<Entry>>,
    /// Each policy once.
    pub(super) entries: Sorted<Arc<Entry>>,
    /// Certificates by name, as far as bindings refer to them.
    pub(super) served: Sorted<Arc<Served>>,
    /// The day (since the epoch) of which warnings of expiry speak.
    pub(super) day: i64,
    /// More than a renewed certificate may make another thing of it: one is not valid yet, or a last good policy serves.
    pub(super) unsettled: bool,
}

/// A name and what serves it.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) name: Arc<str>,
    pub(super) entry: Arc<Entry>,
}

impl Keyed for Bound {
    type Key = str;

    fn key(&self) -> &str {
        &self.name
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.name, &other.name) && Arc::ptr_eq(&self.entry, &other.entry)
    }
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
    /// `None`: its names answer with an alert, and fall to no wildcard.
    pub(super) found: Option<Found>,
    pub(super) policy: Policy,
    pub(super) certificates: Vec<Arc<Certificate>>,
    pub(super) ticketer: Option<Arc<dyn ProducesTickets>>,
}

impl Keyed for Arc<Entry> {
    type Key = Policy;

    fn key(&self) -> &Policy {
        &self.policy
    }

    fn is(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other)
    }
}

/// What serves the names below one suffix.
#[derive(Clone, Debug, Default)]
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
    /// - a client CA that is unusable leaves the last good policy of its names if that was no laxer, otherwise an alert, whatever
    ///   wildcard or default certificate there is;
    /// - bindings for the same host add their certificates (one of each kind of key), if they are of files or of one object;
    ///   otherwise the oldest one decides. If they disagree about client certificates, the oldest one that says anything decides;
    /// - a host with client certificates of its own and no certificate to serve answers with an alert, whatever wildcard there is.
    pub fn compile<'a>(
        listener: &ListenerSpec,
        bindings: &[TlsBinding],
        certificates: impl IntoIterator<Item = &'a CertificateSpec>,
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
        entry.or(self.any.as_ref()).or(self.default.as_ref()).and_then(|entry| entry.found.as_ref())
    }

    /// What serves a client that connected to `local` and asked for no name, as all that know an address alone do: the name that
    /// this address is, where a certificate has it, otherwise as [`Self::find`].
    pub fn find_nameless(&self, local: IpAddr) -> Option<&Found> {
        self.find(Some(&host_of(local)))
    }

    /// What a pattern of the configuration stands for, not what a client would get.
    pub(super) fn of(&self, host: &HostPattern) -> Option<&Arc<Entry>> {
        match host {
            HostPattern::Any => self.any.as_ref(),
            HostPattern::Exact(name) => self.exact(name),
            HostPattern::Wildcard(suffix, depth) => self.wildcards.get(suffix).and_then(|below| match depth {
                WildcardDepth::One => below.one.as_ref(),
                WildcardDepth::Many => below.many.as_ref(),
            }),
        }
    }

    pub(super) fn exact(&self, name: &str) -> Option<&Arc<Entry>> {
        self.exact.get(name).map(|bound| &bound.entry)
    }

    fn named(&self, name: &str) -> Option<&Arc<Entry>> {
        if let Some(entry) = self.exact(name) {
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, binding, certificate, listener_with};
    use super::*;

    /// The certificate that serves a name, by its name in the configuration.
    fn serving<'a>(names: &'a ServerNames, name: Option<&str>) -> Option<&'a str> {
        let policy = names.find(name)?.policy;
        names.entries.keys().find(|key| key.id() == policy).map(|key| key.certificates[0].as_str())
    }

    fn compile(default: Option<&str>, bindings: &[(&str, &str)]) -> ServerNames {
        let authority = Authority::new();
        let listener = listener_with(|tls| tls.default_certificate = default.map(str::to_owned));
        let all = bindings.iter().map(|(_, name)| *name).chain(default);
        let certificates: Vec<_> = all.map(|name| certificate(name, [authority.issue(&["a.test"])])).collect();
        let bindings: Vec<_> = bindings.iter().map(|(host, name)| binding(&[host], name)).collect();
        ServerNames::compile(&listener, &bindings, &certificates, None).0
    }

    #[test]
    fn the_exact_name_goes_before_the_longest_wildcard_before_any_name() {
        let names =
            compile(Some("default"), &[("a.b.test", "exact"), ("*.b.test", "long"), ("*.test", "short"), ("*", "any")]);
        for (name, certificate) in [
            ("a.b.test", "exact"),
            ("A.B.Test", "exact"),
            ("a.b.test.", "exact"),
            ("x.b.test", "long"),
            ("x.y.b.test", "long"),
            ("b.test", "short"),
            ("x.c.test", "short"),
            ("test", "any"),
            ("other.example", "any"),
        ] {
            assert_eq!(serving(&names, Some(name)), Some(certificate), "{name}");
        }
        assert_eq!(serving(&names, None), Some("any"));
    }

    #[test]
    fn the_default_certificate_serves_what_nothing_else_does() {
        let names = compile(Some("default"), &[("a.test", "exact")]);
        assert_eq!(serving(&names, Some("b.test")), Some("default"));
        assert_eq!(serving(&names, None), Some("default"));
        assert_eq!(serving(&names, Some("a.test")), Some("exact"));
    }

    #[test]
    fn a_name_that_nothing_serves_is_not_found() {
        let names = compile(None, &[("a.test", "exact"), ("*.b.test", "wild")]);
        for name in [Some("b.test"), Some("x.a.test"), Some("test"), Some(""), Some("."), Some("127.0.0.1"), None] {
            assert_eq!(serving(&names, name), None, "{name:?}");
        }
    }

    #[test]
    fn a_wildcard_for_one_label_leaves_deeper_names_to_others() {
        let mut one = binding(&["*.b.test"], "one");
        one.hosts = vec![HostPattern::parse("*.b.test", WildcardDepth::One).unwrap()];
        let authority = Authority::new();
        let certificates = ["one", "many"].map(|name| certificate(name, [authority.issue(&["*.b.test"])]));
        let bindings = [binding(&["*.b.test"], "many"), one.clone()];
        let (names, _) = ServerNames::compile(&listener_with(|_| {}), &bindings, &certificates, None);
        assert_eq!(serving(&names, Some("x.b.test")), Some("one"));
        assert_eq!(serving(&names, Some("y.x.b.test")), Some("many"));
        let (names, _) = ServerNames::compile(&listener_with(|_| {}), &[one], &certificates, None);
        assert_eq!(serving(&names, Some("y.x.b.test")), None);
    }

    #[test]
    fn a_client_without_name_gets_what_has_the_address_it_connected_to() {
        let authority = Authority::new();
        let certificates = [certificate("local", [authority.issue(&["127.0.0.1", "::1"])])];
        let (names, _) = ServerNames::compile(&listener_with(|_| {}), &[binding(&[], "local")], &certificates, None);
        assert!(names.find_nameless([127, 0, 0, 1].into()).is_some());
        assert!(names.find_nameless("::1".parse().unwrap()).is_some());
        assert!(names.find_nameless([127, 0, 0, 2].into()).is_none());
    }
}
