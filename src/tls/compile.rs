//! How do bindings and certificates become server names, and what of the previous ones serves on?

use super::Error;
use super::certificate::Certificate;
use super::server::{self, Policy};
use super::sni::{Bound, Entry, Found, ServerNames};
use crate::model::{
    CertificateSpec, ClientAuthSpec, HostPattern, Keyed, ListenerProtocol, ListenerSpec, Origin, Problem, TlsBinding,
    TlsSpec, WildcardDepth,
};
use hashbrown::HashMap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Certificates that expire in so many days are worth a warning.
pub(super) const SOON: i64 = 14;
/// Seconds.
pub(super) const DAY: i64 = 24 * 60 * 60;

/// The certificates that a name of the configuration stands for right now.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) name: String,
    pub(super) origin: Origin,
    /// One of each kind of key, in the order of the configuration.
    pub(super) certificates: Vec<Arc<Certificate>>,
    /// Some of them are what served before, because what is configured now cannot be used.
    pub(super) kept: bool,
    /// There is something to say about it.
    pub(super) flawed: bool,
}

impl Keyed for Arc<Served> {
    type Key = str;

    fn key(&self) -> &str {
        &self.name
    }

    fn is(&self, other: &Self) -> bool {
        Self::ptr_eq(self, other)
    }
}

/// See [`ServerNames::compile`]; `now` in seconds since the epoch.
pub(super) fn compile<'a>(
    listener: &ListenerSpec,
    bindings: &[TlsBinding],
    certificates: impl IntoIterator<Item = &'a CertificateSpec>,
    previous: Option<&ServerNames>,
    now: i64,
) -> (ServerNames, Vec<Problem>) {
    let ListenerProtocol::Https(tls) = &listener.protocol else {
        return (ServerNames::default(), Vec::new());
    };
    let mut compiler = Compiler {
        tls,
        certificates: certificates.into_iter().map(|spec| (spec.name.as_str(), spec)).collect(),
        previous,
        now,
        provider: Arc::new(aws_lc_rs::default_provider()),
        names: ServerNames { day: now.div_euclid(DAY), ..ServerNames::default() },
        exact: Vec::new(),
        served: BTreeMap::new(),
        entries: HashMap::new(),
        problems: Vec::new(),
    };
    compiler.bindings(listener, bindings);
    compiler.default_certificate(listener);
    compiler.problems.sort();
    compiler.problems.dedup();
    let Compiler { mut names, exact, served, entries, problems, .. } = compiler;
    names.exact = exact.into();
    names.served = served.into_values().collect();
    names.entries = entries.into_values().collect();
    (names, problems)
}

struct Compiler<'a> {
    tls: &'a TlsSpec,
    certificates: BTreeMap<&'a str, &'a CertificateSpec>,
    previous: Option<&'a ServerNames>,
    now: i64,
    provider: Arc<CryptoProvider>,
    names: ServerNames,
    exact: Vec<Bound>,
    served: BTreeMap<String, Arc<Served>>,
    entries: HashMap<Policy, Arc<Entry>>,
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
        let here = |binding: &&TlsBinding| {
            binding.listeners.is_empty() || binding.listeners.iter().any(|name| listener.is_called(name))
        };
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
                self.bind(&host, entry);
            }
        }
    }

    /// Lets `entry` serve `host`, which comes once.
    fn bind(&mut self, host: &HostPattern, entry: Arc<Entry>) {
        match host {
            HostPattern::Any => self.names.any = Some(entry),
            HostPattern::Exact(name) => self.exact.push(Bound { name: (&**name).into(), entry }),
            HostPattern::Wildcard(suffix, depth) => {
                let below = Arc::make_mut(&mut self.names.wildcards).entry(suffix.clone()).or_default();
                match depth {
                    WildcardDepth::One => below.one = Some(entry),
                    WildcardDepth::Many => below.many = Some(entry),
                }
            }
        }
    }

    fn wish(&mut self, binding: &'a TlsBinding, wishes: &mut BTreeMap<HostPattern, Wish<'a>>) {
        let new =
            || Wish { origin: &binding.origin, certificates: Vec::new(), client_auth: binding.client_auth.as_ref() };
        if binding.certificates.is_empty() {
            // Its certificates are not there yet; that it asks for those of clients counts all the same.
            for host in &binding.hosts {
                wishes.entry(host.clone()).or_insert_with(new);
            }
        }
        for name in &binding.certificates {
            let served = self.served(name, &binding.origin);
            let own = || served.iter().flat_map(|served| &served.certificates).flat_map(|c| c.names.clone()).collect();
            let hosts: Vec<HostPattern> = if binding.hosts.is_empty() { own() } else { binding.hosts.clone() };
            for host in hosts {
                let wish = wishes.entry(host.clone()).or_insert_with(new);
                match wish.certificates.contains(name) {
                    true => {}
                    false if joins(wish.origin, &binding.origin) => wish.certificates.push(name.clone()),
                    false => self.problems.push(Problem::error(
                        binding.origin.clone(),
                        format!("which certificates serve {host} is decided already, at {}", wish.origin),
                        "the oldest object decides, so that none takes a host over with a key of another kind",
                    )),
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
    fn served(&mut self, name: &str, asked: &Origin) -> Option<Arc<Served>> {
        if let Some(served) = self.served.get(name) {
            return Some(Arc::clone(served));
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
        let said = self.problems.len();
        let mut served = self.load(spec);
        served.flawed = self.problems.len() > said;
        let served = Arc::new(served);
        self.served.insert(name.to_owned(), Arc::clone(&served));
        Some(served)
    }

    fn load(&mut self, spec: &CertificateSpec) -> Served {
        let before = self.previous.and_then(|previous| previous.served.get(&*spec.name));
        let before: &[Arc<Certificate>] = before.map_or(&[], |served| &served.certificates);
        let (name, origin) = (spec.name.clone(), spec.origin.clone());
        let mut served = Served { name, origin, certificates: Vec::new(), kept: false, flawed: false };
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
        self.names.unsettled |= errors.iter().any(|error| matches!(error, Error::NotYetValid { .. }));
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
        if let Some(entry) = self.entries.get(&policy) {
            return Some(entry.clone());
        }
        let certificates = one_of_each_kind(&policy.certificates, |name| self.served.get(name));
        // A host with client certificates of its own must not fall to a wildcard that asks for none: it answers an alert.
        let guarded = host.is_some() && policy.client_auth.is_some() && policy.client_auth != self.tls.client_auth;
        if certificates.is_empty() && !guarded {
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
                self.entries.insert(policy, entry.clone());
                Some(entry)
            }
            Err(error) => Some(self.last_good(&policy, &error, origin, host)),
        }
    }

    /// A policy that cannot be built fails closed: what served its names before serves on only if it was no laxer.
    fn last_good(&mut self, policy: &Policy, error: &Error, origin: &Origin, host: Option<&HostPattern>) -> Arc<Entry> {
        let before = self.previous.and_then(|previous| match host {
            Some(host) => previous.of(host),
            None => previous.default.as_ref(),
        });
        let required = |auth: &Option<ClientAuthSpec>| auth.as_ref().map(|auth| auth.required);
        let no_laxer = |auth: &Option<ClientAuthSpec>| required(auth) >= required(&policy.client_auth);
        let before = before.filter(|entry| entry.found.is_some() && no_laxer(&entry.policy.client_auth));
        let then = if before.is_some() { "until then the last good one decides" } else { "until then a TLS alert" };
        let hint = if error.hint().is_empty() { then.to_owned() } else { format!("{}; {then}", error.hint()) };
        let host = host.map_or("the default certificate".to_owned(), ToString::to_string);
        let what = format!("client certificates of {host} cannot be verified: {}", error.full());
        self.problems.push(Problem::error(origin.clone(), what, hint));
        self.names.unsettled = true;
        before.cloned().unwrap_or_else(|| closed(policy).into())
    }

    fn uncovered(&mut self, host: &HostPattern, entry: &Entry, origin: &Origin) {
        if entry.certificates.is_empty() || entry.certificates.iter().any(|certificate| certificate.covers(host)) {
            return;
        }
        let names = entry.policy.certificates.join(", ");
        let what = format!("certificate {names} does not cover {host}: clients will refuse it");
        self.problems.push(Problem::warning(origin.clone(), what, "request it for this name too"));
    }
}

/// Whether a binding may add certificates to those of an older one for the same host: ECDSA beside RSA is said in one place, or
/// in files. Objects of the cluster have owners that need not trust each other.
fn joins(older: &Origin, other: &Origin) -> bool {
    older.place == other.place || (older.created == 0 && other.created == 0)
}

/// What answers with an alert. Without it the names would fall to a wildcard or the default certificate, which lets everyone in.
fn closed(policy: &Policy) -> Entry {
    Entry { found: None, policy: policy.clone(), certificates: Vec::new(), ticketer: None }
}

/// The certificates that serve for these names together.
pub(super) fn one_of_each_kind<'s>(
    names: &[String],
    served: impl Fn(&str) -> Option<&'s Arc<Served>>,
) -> Vec<Arc<Certificate>> {
    let mut chosen: Vec<Arc<Certificate>> = Vec::new();
    for certificate in names.iter().filter_map(|name| served(name)).flat_map(|served| &served.certificates) {
        if chosen.iter().all(|other| other.kind != certificate.kind) {
            chosen.push(certificate.clone());
        }
    }
    chosen
}

pub(super) fn build(
    policy: &Policy,
    certificates: Vec<Arc<Certificate>>,
    before: Option<&Arc<Entry>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Entry, Error> {
    let ticketer = match before.and_then(|entry| entry.ticketer.clone()) {
        Some(ticketer) => ticketer,
        None => server::ticketer(policy)?,
    };
    let config = server::config(policy, &certificates, ticketer.clone(), provider)?;
    let found = Some(Found { config: Arc::new(config), policy: policy.id() });
    Ok(Entry { found, policy: policy.clone(), certificates, ticketer: Some(ticketer) })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, Kind, binding, certificate, listener, listener_with, pem};
    use super::*;
    use crate::model::{Authorities, Pem, Severity};
    use crate::tls::now;

    /// Compiles at another time than now.
    fn at(now: i64, specs: &[CertificateSpec], previous: Option<&ServerNames>) -> (ServerNames, Vec<Problem>) {
        compile(&listener(), &[binding(&["a.test"], "a")], specs, previous, now)
    }

    fn compiled(specs: &[CertificateSpec], previous: Option<&ServerNames>) -> (ServerNames, Vec<Problem>) {
        at(now(), specs, previous)
    }

    fn chain_of(names: &ServerNames) -> Option<Arc<Certificate>> {
        names.find(Some("a.test"))?;
        names.exact("a.test").map(|entry| entry.certificates[0].clone())
    }

    #[test]
    fn a_younger_object_adds_no_certificate_to_a_host_of_another() {
        let authority = Authority::new();
        let pair = |kind| authority.issue_for(kind, &["a.test"], 2020, 2080);
        let specs = [certificate("old", [pair(Kind::Rsa)]), certificate("young", [pair(Kind::Ecdsa)])];
        let of = |place: &str, created, name| {
            let origin = Origin { created, ..Origin::of(place) };
            TlsBinding { origin, ..binding(&["a.test"], name) }
        };
        let compiled = |a: TlsBinding, b: TlsBinding| {
            let (names, problems) = compile(&listener(), &[a, b], &specs, None, now());
            (names.exact("a.test").unwrap().policy.certificates.clone(), problems)
        };
        let (served, problems) = compiled(of("Ingress/b/y", 9, "young"), of("Ingress/a/x", 5, "old"));
        assert_eq!((served, problems.len()), (vec!["old".to_owned()], 1), "{problems:?}");
        assert_eq!(&*problems[0].origin.place, "Ingress/b/y");
        let (served, problems) = compiled(of("Ingress/b/y", 9, "young"), of("file", 0, "old"));
        assert_eq!((served, problems.len()), (vec!["old".to_owned()], 1), "a file is older than every object");
        let (served, problems) = compiled(of("Ingress/a/x", 9, "young"), of("Ingress/a/x", 9, "old"));
        assert_eq!((served.len(), problems.len()), (2, 0), "{problems:?}");
    }

    #[test]
    fn a_host_with_client_certificates_and_no_own_never_falls_to_a_wildcard_without() {
        let authority = Authority::new();
        let auth = ClientAuthSpec { ca: authority.pem.clone().into(), required: true };
        let guarded = TlsBinding { certificates: vec![], client_auth: Some(auth), ..binding(&["a.test"], "gone") };
        let specs = [certificate("all", [authority.issue(&["*.test"])])];
        let bindings = [guarded, binding(&["*.test"], "all")];
        let (names, _) = compile(&listener(), &bindings, &specs, None, now());
        let found = |name| names.find(Some(name)).map(|found| found.policy);
        assert!(found("a.test") != found("b.test") && found("a.test").is_some());
        assert!(names.exact("a.test").unwrap().certificates.is_empty(), "the handshake ends with an alert");
    }

    #[test]
    fn an_unusable_certificate_leaves_the_last_good_one_serving() {
        let authority = Authority::new();
        let good = authority.issue(&["a.test"]);
        let (before, problems) = compiled(&[certificate("a", [good.clone()])], None);
        assert_eq!(problems, []);
        let wrong_key = (authority.issue(&["a.test"]).0, good.1.clone());
        let expired = authority.issue_for(Kind::Ecdsa, &["a.test"], 2001, 2002);
        let later = authority.issue_for(Kind::Ecdsa, &["a.test"], 2080, 2081);
        for (pairs, says) in [
            (vec![wrong_key], "does not fit"),
            (vec![expired], "expired on 2002-01-01"),
            (vec![later], "not valid before 2080-01-01"),
            (vec![(Pem::default(), Pem::default())], "no certificate in the chain"),
            (vec![], "no certificate in the chain"),
        ] {
            let (after, problems) = compiled(&[certificate("a", pairs)], Some(&before));
            assert!(chain_of(&after).unwrap().is_of(&good), "{says}");
            assert_eq!((problems.len(), problems[0].severity), (1, Severity::Error));
            assert!(problems[0].what.contains(says), "{}", problems[0]);
            assert!(problems[0].hint.ends_with("until then the last good one serves"), "{}", problems[0]);
            assert!(after.describe().iter().all(|view| view.last_good));
            let (still, _) = compiled(&[certificate("a", [])], Some(&after));
            assert!(chain_of(&still).is_some(), "the last good one is kept for as long as it takes");
        }
    }

    #[test]
    fn without_a_last_good_one_an_unusable_certificate_serves_nothing() {
        let expired = Authority::new().issue_for(Kind::Ecdsa, &["a.test"], 2001, 2002);
        let (names, problems) = compiled(&[certificate("a", [expired])], None);
        assert!(names.find(Some("a.test")).is_none());
        assert!(problems[0].hint.contains("TLS alert"), "{}", problems[0]);
    }

    #[test]
    fn a_certificate_that_expires_while_it_serves_serves_on_and_says_so() {
        let specs = [certificate("a", [Authority::new().issue_for(Kind::Ecdsa, &["a.test"], 2020, 2021)])];
        let in_2020 = 1_590_000_000;
        let (before, problems) = at(in_2020, &specs, None);
        assert_eq!(problems, []);
        let (after, problems) = compiled(&specs, Some(&before));
        assert!(chain_of(&after).is_some());
        assert!(problems[0].what.contains("expired on 2021-01-01"), "{}", problems[0]);
    }

    #[test]
    fn a_certificate_that_is_gone_is_withdrawn() {
        let (before, _) = compiled(&[certificate("a", [Authority::new().issue(&["a.test"])])], None);
        let (after, problems) = compiled(&[], Some(&before));
        assert!(after.find(Some("a.test")).is_none());
        assert!(problems[0].what.contains("there is no certificate \"a\""), "{}", problems[0]);
    }

    #[test]
    fn a_misspelt_certificate_is_met_with_the_name_that_was_meant() {
        let specs = [certificate("desk-cert", [Authority::new().issue(&["a.test"])])];
        let (_, problems) = compile(&listener(), &[binding(&["a.test"], "desk-crt")], &specs, None, now());
        assert_eq!(problems[0].hint, "did you mean \"desk-cert\"?");
    }

    #[test]
    fn what_did_not_change_is_taken_over_as_it_is() {
        let specs = [certificate("a", [Authority::new().issue(&["a.test"])])];
        let (before, _) = compiled(&specs, None);
        let (after, _) = compiled(&specs, Some(&before));
        let config = |names: &ServerNames| names.find(Some("a.test")).unwrap().config.clone();
        assert!(Arc::ptr_eq(&config(&before), &config(&after)));
    }

    #[test]
    fn a_renewal_is_another_configuration_of_the_same_policy() {
        let authority = Authority::new();
        let (before, _) = compiled(&[certificate("a", [authority.issue(&["a.test"])])], None);
        let (after, _) = compiled(&[certificate("a", [authority.issue(&["a.test"])])], Some(&before));
        let found = |names: &ServerNames| names.find(Some("a.test")).unwrap().clone();
        assert!(!Arc::ptr_eq(&found(&before).config, &found(&after).config));
        assert_eq!(found(&before).policy, found(&after).policy);
    }

    #[test]
    fn names_share_a_policy_only_if_certificate_and_client_authentication_are_the_same() {
        let authority = Authority::new();
        let specs = ["a", "b"].map(|name| certificate(name, [authority.issue(&["*.test"])]));
        let mut strict = binding(&["strict.test"], "a");
        strict.client_auth = Some(ClientAuthSpec { ca: authority.pem.clone().into(), required: true });
        let bindings = [binding(&["one.test", "two.test"], "a"), binding(&["other.test"], "b"), strict];
        let (names, problems) = compile(&listener(), &bindings, &specs, None, now());
        assert_eq!(problems, []);
        let policy = |name| names.find(Some(name)).unwrap().policy;
        assert_eq!(policy("one.test"), policy("two.test"));
        assert_ne!(policy("one.test"), policy("other.test"));
        assert_ne!(policy("one.test"), policy("strict.test"));
    }

    #[test]
    fn a_client_ca_that_is_unusable_fails_closed() {
        let authority = Authority::new();
        let specs = [certificate("a", [authority.issue(&["a.test"])])];
        let bound = |ca: Option<Pem>| {
            let client_auth = ca.map(|ca| ClientAuthSpec { ca: ca.into(), required: true });
            [TlsBinding { client_auth, ..binding(&["a.test"], "a") }]
        };
        let junk = bound(Some(pem("no authority")));
        let (open, _) = compile(&listener(), &bound(None), &specs, None, now());
        let (names, problems) = compile(&listener(), &junk, &specs, Some(&open), now());
        assert!(names.find(Some("a.test")).is_none(), "what served without client certificates is laxer");
        assert!(problems[0].what.contains("no authority in the CA bundle"), "{}", problems[0]);
        let (strict, _) = compile(&listener(), &bound(Some(authority.pem.clone())), &specs, None, now());
        let (names, problems) = compile(&listener(), &junk, &specs, Some(&strict), now());
        assert!(
            names.find(Some("a.test")).is_some_and(|found| found.policy == strict.find(Some("a.test")).unwrap().policy)
        );
        assert!(problems[0].hint.ends_with("the last good one decides"), "{}", problems[0]);
    }

    #[test]
    fn a_host_whose_client_ca_is_not_known_answers_with_an_alert_and_keeps_a_stricter_policy() {
        let authority = Authority::new();
        let specs = [certificate("a", [authority.issue(&["a.test"])])];
        let bound = |ca| {
            let client_auth = Some(ClientAuthSpec { ca, required: true });
            [TlsBinding { client_auth, ..binding(&["a.test"], "a") }]
        };
        let unknown = bound(Authorities::Named("authorities".into()));
        let (names, problems) = compile(&listener(), &unknown, &specs, None, now());
        assert!(names.find(Some("a.test")).is_none());
        assert!(problems[0].what.contains("Secret \"authorities\" are not known"), "{}", problems[0]);
        let (strict, _) = compile(&listener(), &bound(authority.pem.clone().into()), &specs, None, now());
        let (names, _) = compile(&listener(), &unknown, &specs, Some(&strict), now());
        let policy = |names: &ServerNames| names.find(Some("a.test")).map(|found| found.policy);
        assert!(policy(&names).is_some() && policy(&names) == policy(&strict));
    }

    #[test]
    fn a_host_whose_client_ca_is_unusable_falls_to_nothing_that_asks_for_none() {
        let authority = Authority::new();
        let specs = [certificate("a", [authority.issue(&["a.test", "*.test"])])];
        let open = listener_with(|tls| tls.default_certificate = Some("a".to_owned()));
        for other in ["*.test", "*", "b.test"] {
            let client_auth = |ca| Some(ClientAuthSpec { ca: pem(ca).into(), required: true });
            let guarded = TlsBinding { client_auth: client_auth("no authority"), ..binding(&["a.test"], "a") };
            let bindings = [guarded, binding(&[other], "a")];
            let (names, problems) = compile(&open, &bindings, &specs, None, now());
            assert!(names.find(Some("a.test")).is_none() && names.find(Some("b.test")).is_some(), "{other}");
            let (again, same) = compile(&open, &bindings, &specs, Some(&names), now());
            assert!(
                again.find(Some("a.test")).is_none() && same == problems,
                "an alert is no last good policy: {same:?}"
            );
        }
    }

    #[test]
    fn bindings_of_one_host_add_up_and_the_oldest_that_says_so_decides_about_clients() {
        let authority = Authority::new();
        let specs = [
            certificate("ecdsa", [authority.issue(&["a.test"])]),
            certificate("rsa", [authority.issue_for(Kind::Rsa, &["a.test"], 2020, 2090)]),
        ];
        let auth = |required| Some(ClientAuthSpec { ca: authority.pem.clone().into(), required });
        let silent = TlsBinding { origin: Origin::of("1"), ..binding(&["a.test"], "ecdsa") };
        let first = TlsBinding { origin: Origin::of("2"), client_auth: auth(true), ..binding(&["a.test"], "rsa") };
        let second = TlsBinding { origin: Origin::of("3"), client_auth: auth(false), ..binding(&["a.test"], "rsa") };
        let (names, problems) = compile(&listener(), &[second, silent, first], &specs, None, now());
        let entry = names.exact("a.test").unwrap();
        assert_eq!(entry.policy.certificates, ["ecdsa", "rsa"]);
        assert!(entry.policy.client_auth.as_ref().unwrap().required);
        assert_eq!(entry.certificates.len(), 2);
        assert_eq!(problems.iter().map(|problem| &*problem.origin.place).collect::<Vec<_>>(), ["3"]);
    }

    #[test]
    fn one_bad_pair_leaves_the_other_kind_alone() {
        let authority = Authority::new();
        let (ecdsa, rsa) = (authority.issue(&["a.test"]), authority.issue_for(Kind::Rsa, &["a.test"], 2020, 2090));
        let (before, _) = compiled(&[certificate("a", [ecdsa, rsa.clone()])], None);
        let renewed = authority.issue(&["a.test"]);
        let bad = (rsa.0.clone(), renewed.1.clone());
        let (after, problems) = compiled(&[certificate("a", [renewed.clone(), bad])], Some(&before));
        let entry = after.exact("a.test").unwrap();
        assert!(entry.certificates[0].is_of(&renewed) && entry.certificates[1].is_of(&rsa));
        assert_eq!(problems.len(), 1);
    }

    #[test]
    fn a_certificate_that_expires_soon_or_does_not_cover_its_host_is_a_warning() {
        let specs = [certificate("a", [Authority::new().issue_for(Kind::Ecdsa, &["b.test"], 2020, 2021)])];
        let day = 24 * 60 * 60;
        let end = 1_609_459_200;
        for (days, said) in [(20, false), (14, false), (13, true)] {
            let (names, problems) = at(end - days * day, &specs, None);
            assert!(names.find(Some("a.test")).is_some());
            assert!(problems.iter().all(|problem| problem.severity == Severity::Warning));
            assert_eq!(problems.iter().any(|p| p.what.contains("expires in 13 days, on 2021-01-01")), said, "{days}");
            assert!(problems.iter().any(|p| p.what.contains("does not cover a.test")));
        }
    }

    #[test]
    fn a_binding_holds_for_its_listeners_and_without_hosts_for_the_names_of_its_certificate() {
        let authority = Authority::new();
        let specs = [certificate("a", [authority.issue(&["a.test", "*.b.test"])])];
        let (names, _) = compile(&listener(), &[binding(&[], "a")], &specs, None, now());
        assert!(names.find(Some("a.test")).is_some() && names.find(Some("x.b.test")).is_some());
        assert!(names.find(Some("y.x.b.test")).is_none(), "a certificate's wildcard is for one label");
        let elsewhere = TlsBinding { listeners: vec!["other".to_owned()], ..binding(&["a.test"], "a") };
        assert!(compile(&listener(), &[elsewhere], &specs, None, now()).0.find(Some("a.test")).is_none());
    }

    #[test]
    fn a_description_says_which_hosts_a_certificate_serves_and_until_when() {
        let specs = [certificate("a", [Authority::new().issue(&["a.test", "*.b.test"])])];
        let listener = listener_with(|tls| tls.default_certificate = Some("a".to_owned()));
        let (names, problems) = compile(&listener, &[binding(&["a.test", "*.b.test"], "a")], &specs, None, now());
        assert_eq!(problems, []);
        let views = names.describe();
        assert_eq!(views.len(), 1);
        assert_eq!((views[0].name.as_str(), views[0].kind, views[0].last_good), ("a", "ECDSA", false));
        assert_eq!(views[0].hosts, ["*.b.test", "a.test", "default"]);
        assert_eq!(views[0].not_after, "2090-01-01T00:00:00Z");
        assert!(views[0].days_left > 365 && !serde_json::to_string(&views).unwrap().contains("PRIVATE"));
    }

    #[test]
    fn a_cleartext_listener_has_no_names() {
        let listener = ListenerSpec { protocol: ListenerProtocol::Http, ..listener() };
        assert!(compile(&listener, &[binding(&["a.test"], "a")], &[], None, now()).1.is_empty());
    }
}
