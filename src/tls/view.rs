//! Which certificates serve which names right now, for people?

use super::ServerNames;
use super::certificate::Certificate;
use hashbrown::HashMap;
use serde::Serialize;
use std::collections::BTreeSet;
use std::sync::Arc;

/// One certificate of a listener, without anything secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateView {
    /// Its name in the configuration.
    pub name: String,
    /// Where it was said.
    pub origin: String,
    /// Hosts that it serves here, in the configuration's form; `default` where it serves all that nothing else does.
    pub hosts: Vec<String>,
    /// `ECDSA`, `Ed25519` or `RSA`.
    pub kind: &'static str,
    /// Expiry, RFC 3339.
    pub not_after: String,
    /// Expiry in seconds since the epoch.
    pub expires: i64,
    /// Whole days until then; negative: expired.
    pub days_left: i64,
    /// Serial number in hexadecimal.
    pub serial: String,
    /// It serves although the configuration has something newer, which cannot be used.
    pub last_good: bool,
}

impl ServerNames {
    /// All certificates that bindings refer to, by name.
    pub fn describe(&self) -> Vec<CertificateView> {
        self.describe_at(super::now())
    }

    fn describe_at(&self, now: i64) -> Vec<CertificateView> {
        let mut hosts = self.hosts();
        let mut views = Vec::new();
        for served in self.served.iter() {
            views.extend(served.certificates.iter().map(|certificate| CertificateView {
                name: served.name.clone(),
                origin: served.origin.to_string(),
                hosts: hosts.remove(&Arc::as_ptr(certificate)).unwrap_or_default().into_iter().collect(),
                kind: certificate.kind.as_str(),
                not_after: certificate.not_after(),
                expires: certificate.not_after,
                days_left: certificate.days_left(now),
                serial: certificate.serial.clone(),
                last_good: served.kept,
            }));
        }
        views
    }

    /// Hosts by certificate, in one walk over the names.
    fn hosts(&self) -> HashMap<*const Certificate, BTreeSet<String>> {
        let exact = self.exact.iter().map(|bound| (bound.name.to_string(), &bound.entry));
        let wild = self.wildcards.iter().flat_map(|(suffix, below)| {
            below.one.iter().chain(&below.many).map(move |entry| (format!("*.{suffix}"), entry))
        });
        let any = self.any.iter().map(|entry| ("*".to_owned(), entry));
        let default = self.default.iter().map(|entry| ("default".to_owned(), entry));
        let mut hosts: HashMap<_, BTreeSet<String>> = HashMap::new();
        for (host, entry) in exact.chain(wild).chain(any).chain(default) {
            for certificate in &entry.certificates {
                hosts.entry(Arc::as_ptr(certificate)).or_default().insert(host.clone());
            }
        }
        hosts
    }
}
