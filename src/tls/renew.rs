//! What do renewed certificates change, where nothing else does?
//!
//! Nearly always a certificate is another one by the same name, for the same hosts and with the same kind of key. Then the names that
//! it serves get another configuration, and nothing is asked of the thousands of others.

use super::certificate::Certificate;
use super::compile::{DAY, SOON, Served, build, one_of_each_kind};
use super::sni::{Bound, Entry, ServerNames};
use crate::model::{CertificateSpec, Sorted};
use hashbrown::HashMap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use std::sync::Arc;

/// An entry in the place of another one, by where that is in memory.
type Renewed = HashMap<*const Entry, Arc<Entry>>;

impl ServerNames {
    /// The same names with other certificates, of which one by the same name was there before, and with the same problems; `None`
    /// where more may be different. Bindings and the listener must be those that this was compiled of.
    pub fn renewed<'a>(&self, certificates: impl IntoIterator<Item = &'a CertificateSpec>) -> Option<Self> {
        self.renewed_at(certificates, super::now())
    }

    pub(super) fn renewed_at<'a>(
        &self,
        certificates: impl IntoIterator<Item = &'a CertificateSpec>,
        now: i64,
    ) -> Option<Self> {
        if self.unsettled || self.day != now.div_euclid(DAY) {
            return None;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for spec in certificates {
            // Nobody may refer to it.
            if let Some(served) = self.served.get(&*spec.name) {
                come.push(Arc::new(renewal(served, spec, now, &provider)?));
                gone.push(Arc::clone(served));
            }
        }
        let mut names = self.clone();
        names.served.edit(gone, come.clone());
        let entries = names.renewed_entries(&come, &provider)?;
        names.replace(&entries);
        Some(names)
    }

    fn renewed_entries(&self, renewed: &[Arc<Served>], provider: &Arc<CryptoProvider>) -> Option<Renewed> {
        let other = |name: &String| renewed.iter().any(|served| served.name == *name);
        let mut entries = Renewed::new();
        for entry in self.entries.iter().filter(|entry| entry.policy.certificates.iter().any(other)) {
            entry.found.as_ref()?;
            let certificates = one_of_each_kind(&entry.policy.certificates, |name| self.served.get(name));
            let new = build(&entry.policy, certificates, Some(entry), provider).ok()?;
            entries.insert(Arc::as_ptr(entry), Arc::new(new));
        }
        Some(entries)
    }

    fn replace(&mut self, entries: &Renewed) {
        let new = |entry: &Arc<Entry>| entries.get(&Arc::as_ptr(entry));
        let both = self.entries.iter().filter_map(|entry| Some((Arc::clone(entry), Arc::clone(new(entry)?))));
        let (gone, come) = both.unzip();
        let bound = |bound: &Bound| Some(Bound { entry: Arc::clone(new(&bound.entry)?), ..bound.clone() });
        replace_some(&mut self.exact, bound);
        self.entries.edit(gone, come);
        let renew = |entry: &mut Option<Arc<Entry>>| {
            if let Some(renewed) = entry.as_ref().and_then(new) {
                *entry = Some(Arc::clone(renewed));
            }
        };
        let wild = self.wildcards.values().flat_map(|below| below.one.iter().chain(&below.many));
        if wild.into_iter().any(|entry| new(entry).is_some()) {
            for below in Arc::make_mut(&mut self.wildcards).values_mut() {
                renew(&mut below.one);
                renew(&mut below.many);
            }
        }
        renew(&mut self.any);
        renew(&mut self.default);
    }
}

fn replace_some(all: &mut Sorted<Bound>, new: impl Fn(&Bound) -> Option<Bound>) {
    let (gone, come) = all.iter().filter_map(|bound| Some((bound.clone(), new(bound)?))).unzip();
    all.edit(gone, come);
}

/// The same certificates in another version; `None` where there is, or was, anything to say about them, or they are for others.
fn renewal(before: &Served, spec: &CertificateSpec, now: i64, provider: &CryptoProvider) -> Option<Served> {
    if before.flawed || before.certificates.len() != spec.pairs.len() {
        return None;
    }
    let mut certificates = Vec::with_capacity(spec.pairs.len());
    for (old, pair) in before.certificates.iter().zip(&spec.pairs) {
        if old.is_of(pair) {
            certificates.push(Arc::clone(old));
            continue;
        }
        let new = Certificate::parse(&pair.0, &pair.1, provider).ok()?;
        new.usable_at(now).ok()?;
        if new.kind != old.kind || new.names != old.names || new.days_left(now) < SOON {
            return None;
        }
        certificates.push(Arc::new(new));
    }
    Some(Served { origin: spec.origin.clone(), certificates, ..before.clone() })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, Kind, binding, certificate, listener_with};
    use super::*;
    use crate::model::TlsBinding;
    use crate::tls::now;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    type Pair = (crate::model::Pem, crate::model::Pem);

    /// Versions of a certificate. From the fourth on there is something to say about each.
    static VERSIONS: LazyLock<Vec<Vec<Pair>>> = LazyLock::new(|| {
        let authority = Authority::new();
        let [a, b, other] = [&["a.test"], &["a.test"], &["b.test"]].map(|names| authority.issue(names));
        let rsa = authority.issue_for(Kind::Rsa, &["a.test"], 2020, 2090);
        let expired = authority.issue_for(Kind::Ecdsa, &["a.test"], 2020, 2021);
        let early = authority.issue_for(Kind::Ecdsa, &["a.test"], 2089, 2090);
        let mismatched = (a.0.clone(), b.1.clone());
        let twice = vec![a.clone(), b.clone()];
        let mut all = vec![vec![a.clone(), rsa.clone()], twice, Vec::new()];
        all.extend([a, b, rsa, other, expired, early, mismatched].map(|pair| vec![pair]));
        all
    });

    fn bindings() -> [TlsBinding; 4] {
        let both = TlsBinding { certificates: vec!["c0".into(), "c1".into()], ..binding(&["c.test"], "c0") };
        [binding(&["a.test", "*.a.test"], "c0"), binding(&["*"], "c1"), binding(&[], "c2"), both]
    }

    fn compiled(
        specs: &[CertificateSpec],
        previous: Option<&ServerNames>,
    ) -> (ServerNames, Vec<crate::model::Problem>) {
        let listener = listener_with(|tls| tls.default_certificate = Some("c1".to_owned()));
        ServerNames::compile(&listener, &bindings(), specs, previous)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn renewed_names_are_what_they_would_be_compiled(
            changes in prop::collection::vec((0usize..3, prop_oneof![3 => 3usize..5, 1 => 0usize..10]), 1..12),
        ) {
            let mut specs: Vec<_> = (0..3).map(|n| certificate(&format!("c{n}"), VERSIONS[3].clone())).collect();
            let (mut whole, mut problems) = compiled(&specs, None);
            let mut renewed = whole.clone();
            for (which, version) in changes {
                specs[which] = certificate(&format!("c{which}"), VERSIONS[version].clone());
                let before = problems.clone();
                (whole, problems) = compiled(&specs, Some(&whole));
                match renewed.renewed([&specs[which]]) {
                    Some(names) => {
                        prop_assert_eq!(&before, &problems);
                        renewed = names;
                    }
                    None => renewed = compiled(&specs, Some(&renewed)).0,
                }
                prop_assert_eq!(renewed.describe(), whole.describe());
                for name in [Some("a.test"), Some("x.a.test"), Some("b.test"), Some("c.test"), None] {
                    let policy = |names: &ServerNames| names.find(name).map(|found| found.policy);
                    prop_assert_eq!(policy(&renewed), policy(&whole));
                }
                let known: Vec<_> = renewed.entries.iter().map(Arc::as_ptr).collect();
                prop_assert!(renewed.exact.iter().all(|bound| known.contains(&Arc::as_ptr(&bound.entry)) || renewed.unsettled));
            }
        }
    }

    #[test]
    fn only_a_certificate_for_the_same_hosts_is_a_renewal() {
        let specs: Vec<_> = (0..3).map(|n| certificate(&format!("c{n}"), VERSIONS[3].clone())).collect();
        let (names, _) = compiled(&specs, None);
        for (version, renews) in (0..VERSIONS.len()).map(|version| (version, (3..5).contains(&version))) {
            let spec = certificate("c0", VERSIONS[version].clone());
            let renewed = names.renewed_at([&spec], now());
            assert_eq!(renewed.is_some(), renews, "{version}");
            assert!(names.renewed_at([&spec], now() + DAY).is_none(), "what is said of its end may be another thing");
            let Some(renewed) = renewed else { continue };
            let config = |names: &ServerNames, name| Arc::as_ptr(&names.find(Some(name)).unwrap().config);
            assert_eq!(config(&renewed, "z.test"), config(&names, "z.test"));
            assert_ne!(config(&renewed, "x.a.test"), config(&names, "x.a.test"));
        }
        assert!(names.renewed([&certificate("unheard", VERSIONS[0].clone())]).is_some());
    }
}
