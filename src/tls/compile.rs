//! How do bindings and certificates become server names, and what of the previous ones serves on?

use super::Error;
use super::certificate::Certificate;
use super::server::{self, Policy};
use super::sni::{Entry, Found, ServerNames};
use crate::model::{
    CertificateSpec, ClientAuthSpec, HostPattern, ListenerProtocol, ListenerSpec, Origin, Problem, TlsBinding, TlsSpec,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Certificates that expire in so many days are worth a warning.
const SOON: i64 = 14;

/// The certificates that a name of the configuration stands for right now.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) origin: Origin,
    /// One of each kind of key, in the order of the configuration.
    pub(super) certificates: Vec<Arc<Certificate>>,
    /// Some of them are what served before, because what is configured now cannot be used.
    pub(super) kept: bool,
}

/// See [`ServerNames::compile`]; `now` in seconds since the epoch.
pub(super) fn compile(
    listener: &ListenerSpec,
    bindings: &[TlsBinding],
    certificates: &[CertificateSpec],
    previous: Option<&ServerNames>,
    now: i64,
) -> (ServerNames, Vec<Problem>) {
    let ListenerProtocol::Https(tls) = &listener.protocol else {
        return (ServerNames::default(), Vec::new());
    };
    let mut compiler = Compiler {
        tls,
        certificates: certificates.iter().map(|spec| (spec.name.as_str(), spec)).collect(),
        previous,
        now,
        provider: Arc::new(aws_lc_rs::default_provider()),
        names: ServerNames::default(),
        problems: Vec::new(),
    };
    compiler.bindings(listener, bindings);
    compiler.default_certificate(listener);
    compiler.problems.sort();
    compiler.problems.dedup();
    (compiler.names, compiler.problems)
}

struct Compiler<'a> {
    tls: &'a TlsSpec,
    certificates: BTreeMap<&'a str, &'a CertificateSpec>,
    previous: Option<&'a ServerNames>,
    now: i64,
    provider: Arc<CryptoProvider>,
    names: ServerNames,
    problems: Vec<Problem>,
}

/// What all bindings of one host say together.
struct Wish<'a> {
    origin: &'a Origin,
    certificates: Vec<String>,
    client_auth: Option<&'a ClientAuthSpec>,
}

impl<'a> Compiler<'a> {
    fn bindings(&mut self, listener: &ListenerSpec, bindings: &'a [TlsBinding]) {
        let here = |binding: &&TlsBinding| binding.listeners.is_empty() || binding.listeners.contains(&listener.name);
        let mut bindings: Vec<_> = bindings.iter().filter(here).collect();
        bindings.sort_by_key(|binding| (binding.origin.created, &binding.origin));
        let mut wishes = BTreeMap::new();
        for binding in bindings {
            self.wish(binding, &mut wishes);
        }
        for (host, wish) in wishes {
            let client_auth = wish.client_auth.or(self.tls.client_auth.as_ref()).cloned();
            let entry = self.entry(wish.certificates, client_auth, wish.origin, Some(&host));
            if let Some(entry) = entry {
                self.uncovered(&host, &entry, wish.origin);
                self.names.bind(&host, entry);
            }
        }
    }

    fn wish(&mut self, binding: &'a TlsBinding, wishes: &mut BTreeMap<HostPattern, Wish<'a>>) {
        for name in &binding.certificates {
            let served = self.served(name, &binding.origin);
            let own = || served.iter().flat_map(|served| &served.certificates).flat_map(|c| c.names.clone()).collect();
            let hosts: Vec<HostPattern> = if binding.hosts.is_empty() { own() } else { binding.hosts.clone() };
            for host in hosts {
                let wish = wishes.entry(host.clone()).or_insert_with(|| Wish {
                    origin: &binding.origin,
                    certificates: Vec::new(),
                    client_auth: None,
                });
                if !wish.certificates.contains(name) {
                    wish.certificates.push(name.clone());
                }
                match (wish.client_auth, &binding.client_auth) {
                    (None, theirs) => wish.client_auth = theirs.as_ref(),
                    (Some(first), Some(other)) if first != other => self.problems.push(Problem::error(
                        binding.origin.clone(),
                        format!("client certificates of {host} are already decided at {}", wish.origin),
                        "say the same in both places, or in one alone",
                    )),
                    _ => {}
                }
            }
        }
    }

    fn default_certificate(&mut self, listener: &ListenerSpec) {
        let Some(name) = &self.tls.default_certificate else {
            return;
        };
        if self.served(name, &listener.origin).is_some() {
            self.names.default = self.entry(vec![name.clone()], self.tls.client_auth.clone(), &listener.origin, None);
        }
    }

    /// The usable certificates behind a name, read at most once; `asked` is who refers to it.
    fn served(&mut self, name: &str, asked: &Origin) -> Option<Served> {
        if let Some(served) = self.names.served.get(name) {
            return Some(served.clone());
        }
        let Some(spec) = self.certificates.get(name).copied() else {
            let near = self
                .certificates
                .keys()
                .max_by(|a, b| strsim::jaro_winkler(a, name).total_cmp(&strsim::jaro_winkler(b, name)));
            let near = near.filter(|near| strsim::jaro_winkler(near, name) > 0.8);
            let hint = near.map_or(String::new(), |near| format!("did you mean {near:?}?"));
            self.problems.push(Problem::error(asked.clone(), format!("there is no certificate {name:?}"), hint));
            return None;
        };
        let served = self.load(spec);
        self.names.served.insert(name.to_owned(), served.clone());
        Some(served)
    }

    fn load(&mut self, spec: &CertificateSpec) -> Served {
        let before = self.previous.and_then(|previous| previous.served.get(&spec.name));
        let before: &[Arc<Certificate>] = before.map_or(&[], |served| &served.certificates);
        let mut served = Served { origin: spec.origin.clone(), certificates: Vec::new(), kept: false };
        let mut errors = Vec::new();
        for pair in &spec.pairs {
            let same = before.iter().find(|certificate| certificate.is_of(pair)).cloned();
            let read = || Certificate::parse(&pair.0, &pair.1, &self.provider).map(Arc::new);
            let certificate = same.map_or_else(read, Ok);
            match certificate.and_then(|certificate| certificate.usable_at(self.now).map(|()| certificate)) {
                Ok(certificate) => self.take(spec, certificate, &mut served),
                Err(error) => errors.push(error),
            }
        }
        if spec.pairs.is_empty() {
            errors.push(Error::NoCertificate);
        }
        if !errors.is_empty() {
            let missing = |old: &&Arc<Certificate>| served.certificates.iter().all(|new| new.kind != old.kind);
            let last_good: Vec<_> = before.iter().filter(missing).cloned().collect();
            served.kept = !last_good.is_empty();
            served.certificates.extend(last_good);
        }
        self.unusable(spec, &errors, &served);
        served
    }

    fn take(&mut self, spec: &CertificateSpec, certificate: Arc<Certificate>, served: &mut Served) {
        let (name, days) = (&spec.name, certificate.days_left(self.now));
        if served.certificates.iter().any(|other| other.kind == certificate.kind) {
            let what = format!("certificate {name:?} has two {} keys; the first serves", certificate.kind.as_str());
            self.problems.push(Problem::warning(spec.origin.clone(), what, "one of each kind is enough"));
            return;
        }
        if days < SOON {
            let what = format!("certificate {name:?} expires in {days} days, on {}", certificate.not_after());
            self.problems.push(Problem::warning(spec.origin.clone(), what, "renew it"));
        }
        if certificate.names.is_empty() {
            let what = format!("certificate {name:?} names no host");
            self.problems.push(Problem::warning(spec.origin.clone(), what, "request it with a subjectAltName"));
        }
        served.certificates.push(certificate);
    }

    fn unusable(&mut self, spec: &CertificateSpec, errors: &[Error], served: &Served) {
        for error in errors {
            let then = match (served.kept, served.certificates.is_empty()) {
                (true, _) => "until then the last good one serves",
                (false, false) => "until then the other one serves",
                (false, true) => "until then its names get a TLS alert",
            };
            let hint = if error.hint().is_empty() { then.to_owned() } else { format!("{}; {then}", error.hint()) };
            let what = format!("certificate {:?} cannot be used: {}", spec.name, error.full());
            self.problems.push(Problem::error(spec.origin.clone(), what, hint));
        }
    }

    /// The entry of a policy: this round's, or the previous one's if it would be the same, or a new one.
    fn entry(
        &mut self,
        names: Vec<String>,
        client_auth: Option<ClientAuthSpec>,
        origin: &Origin,
        host: Option<&HostPattern>,
    ) -> Option<Arc<Entry>> {
        let (min_version, http2) = (self.tls.min_version, self.tls.http2);
        let policy = Policy { certificates: names, client_auth, min_version, http2 };
        if let Some(entry) = self.names.entries.get(&policy) {
            return Some(entry.clone());
        }
        let certificates = self.one_of_each_kind(&policy.certificates);
        if certificates.is_empty() {
            return None;
        }
        let before = self.previous.and_then(|previous| previous.entries.get(&policy));
        let same = |entry: &&Arc<Entry>| {
            entry.certificates.len() == certificates.len()
                && entry.certificates.iter().zip(&certificates).all(|(old, new)| Arc::ptr_eq(old, new))
        };
        let entry = match before.filter(same) {
            Some(entry) => Ok(entry.clone()),
            None => build(&policy, certificates, before, &self.provider).map(Arc::new),
        };
        match entry {
            Ok(entry) => {
                self.names.entries.insert(policy, entry.clone());
                Some(entry)
            }
            Err(error) => self.last_good(&policy, &error, origin, host),
        }
    }

    fn one_of_each_kind(&self, names: &[String]) -> Vec<Arc<Certificate>> {
        let mut chosen: Vec<Arc<Certificate>> = Vec::new();
        for certificate in names.iter().filter_map(|name| self.names.served.get(name)).flat_map(|s| &s.certificates) {
            if chosen.iter().all(|other| other.kind != certificate.kind) {
                chosen.push(certificate.clone());
            }
        }
        chosen
    }

    /// A policy that cannot be built fails closed: what served its names before serves on only if it was no laxer.
    fn last_good(
        &mut self,
        policy: &Policy,
        error: &Error,
        origin: &Origin,
        host: Option<&HostPattern>,
    ) -> Option<Arc<Entry>> {
        let before = self.previous.and_then(|previous| match host {
            Some(host) => previous.of(host),
            None => previous.default.as_ref(),
        });
        let required = |auth: &Option<ClientAuthSpec>| auth.as_ref().map(|auth| auth.required);
        let before = before.filter(|entry| required(&entry.policy.client_auth) >= required(&policy.client_auth));
        let then = if before.is_some() { "until then the last good one decides" } else { "until then a TLS alert" };
        let hint = if error.hint().is_empty() { then.to_owned() } else { format!("{}; {then}", error.hint()) };
        let host = host.map_or("the default certificate".to_owned(), ToString::to_string);
        let what = format!("client certificates of {host} cannot be verified: {}", error.full());
        self.problems.push(Problem::error(origin.clone(), what, hint));
        before.cloned()
    }

    fn uncovered(&mut self, host: &HostPattern, entry: &Entry, origin: &Origin) {
        if entry.certificates.iter().any(|certificate| certificate.covers(host)) {
            return;
        }
        let names = entry.policy.certificates.join(", ");
        let what = format!("certificate {names} does not cover {host}: clients will refuse it");
        self.problems.push(Problem::warning(origin.clone(), what, "request it for this name too"));
    }
}

fn build(
    policy: &Policy,
    certificates: Vec<Arc<Certificate>>,
    before: Option<&Arc<Entry>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Entry, Error> {
    let ticketer = match before {
        Some(entry) => entry.ticketer.clone(),
        None => server::ticketer(policy)?,
    };
    let config = server::config(policy, &certificates, ticketer.clone(), provider)?;
    let found = Found { config: Arc::new(config), policy: policy.id() };
    Ok(Entry { found, policy: policy.clone(), certificates, ticketer })
}
