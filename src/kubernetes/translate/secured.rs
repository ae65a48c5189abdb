//! Which certificates, authorities and settings of clusters do all pieces ask for together?
//!
//! It is found out from nothing, but only where a piece that asks for some, or a Secret, is another one than the last time. A
//! certificate that was renewed takes the place of the one before.

use super::super::objects::{Key, Objects, Secret, SecretState, WantedSecrets};
use super::piece::{Owned, Piece};
use super::secret::{LastGood, Secrets};
use super::seen::News;
use super::service::Settled;
use crate::model::{CertificateSpec, Problem, Sorted, TlsBinding};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// What came of it the last time.
#[derive(Debug, Default)]
pub(super) struct Secured {
    /// Those that ask, by where they are in memory.
    pieces: BTreeMap<*const Owned, Rc<Owned>>,
    seen: BTreeMap<Key, SecretState>,
    last: LastGood,
    pub(super) tls: Arc<[TlsBinding]>,
    pub(super) certificates: Sorted<Arc<CertificateSpec>>,
    pub(super) wanted: Arc<WantedSecrets>,
    pub(super) problems: Vec<Problem>,
    pub(super) said: Settled,
}

/// With more changes at once than these, everything is found out anew without asking whether it must be.
const MANY: usize = 64;

impl Secured {
    /// Finds out anew where it must. Gives the Services (`namespace/name`) whose settings are others then; `None`: nothing is new.
    pub(super) fn follow(&mut self, news: &News, objects: &Objects, own: &str) -> Option<BTreeSet<String>> {
        let stale = is_stale(news);
        for owned in &news.gone {
            self.pieces.remove(&Rc::as_ptr(owned));
        }
        let asking = news.come.iter().filter(|owned| owned.piece().secures());
        self.pieces.extend(asking.map(|owned| (Rc::as_ptr(owned), Rc::clone(owned))));
        if !stale && self.renew(objects) {
            return None;
        }
        self.seen.clone_from(&objects.secrets);
        let mut secrets = Secrets::new(objects, own, std::mem::take(&mut self.last));
        let mut pieces: Vec<Rc<Owned>> = self.pieces.values().cloned().collect();
        pieces.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let bindings = pieces.iter().flat_map(|owned| owned.piece().fragment.tls.iter().map(|b| (b, owned.piece())));
        let tls: Vec<_> = bindings.filter_map(|(binding, piece)| bound(binding, piece, &mut secrets)).collect();
        let mut problems = Vec::new();
        let said = Settled::of(&pieces, &mut secrets, &mut problems);
        let (wanted, certificates, more, last) = secrets.finish();
        problems.extend(more);
        (self.problems, self.last) = (problems, last);
        if *self.wanted != wanted {
            self.wanted = Arc::new(wanted);
        }
        if *self.tls != *tls {
            self.tls = tls.into();
        }
        self.hold(certificates);
        let before = std::mem::replace(&mut self.said, said);
        Some(before.differences(&self.said))
    }

    /// Takes over other versions of Secrets, where nothing comes of them but other certificates. Nearly always they were renewed.
    fn renew(&mut self, objects: &Objects) -> bool {
        let Some(changed) = renewed(&self.seen, &objects.secrets) else { return false };
        let mut renewals = BTreeMap::new();
        for (key, old, new) in &changed {
            // What was taken over until then does no harm: everything is found out anew.
            let Some((before, now, pair)) = self.last.renew(key, (old, new)) else { return false };
            renewals.insert(before, (now, pair));
        }
        let (mut gone, mut come) = (Vec::new(), Vec::new());
        for spec in self.certificates.iter().filter(|_| !renewals.is_empty()) {
            let Some((origin, pair)) = renewals.get(&spec.origin).cloned() else { continue };
            let new = CertificateSpec { name: spec.name.clone(), origin, pairs: vec![pair] };
            if **spec != new {
                gone.push(Arc::clone(spec));
                come.push(Arc::new(new));
            }
        }
        self.certificates.edit(gone, come);
        self.seen.extend(changed.into_iter().map(|(key, _, new)| (key, SecretState::Present(new))));
        true
    }

    /// What is equal stays the same.
    fn hold(&mut self, certificates: Vec<Arc<CertificateSpec>>) {
        let held = &mut self.certificates;
        let same =
            |new: Arc<CertificateSpec>| held.get(&*new.name).filter(|held| **held == new).cloned().unwrap_or(new);
        let new: Sorted<_> = certificates.into_iter().map(same).collect();
        let (gone, come): (Vec<_>, Vec<_>) = held.diff(&new).into_iter().unzip();
        let (gone, come) = [gone, come].map(|all| all.into_iter().flatten().cloned().collect()).into();
        held.edit(gone, come);
    }
}

/// A Secret as it was, and as it is.
type Versions = (Key, Arc<Secret>, Arc<Secret>);

/// Secrets that are there in another version than before; `None` where others are there.
fn renewed(seen: &BTreeMap<Key, SecretState>, now: &BTreeMap<Key, SecretState>) -> Option<Vec<Versions>> {
    let mut changed = Vec::new();
    for ((before, old), (key, new)) in seen.iter().zip(now) {
        match (old, new) {
            _ if before != key => return None,
            (SecretState::Present(old), SecretState::Present(new)) if Arc::ptr_eq(old, new) => {}
            _ if old == new => {}
            (SecretState::Present(old), SecretState::Present(new)) => {
                changed.push((key.clone(), Arc::clone(old), Arc::clone(new)));
            }
            _ => return None,
        }
    }
    (seen.len() == now.len() && changed.len() <= MANY).then_some(changed)
}

/// Whether what pieces ask for of this is another thing now.
fn is_stale(news: &News) -> bool {
    let asks = |owned: &&Rc<Owned>| owned.piece().secures();
    let (gone, come) = (news.gone.iter().filter(asks), news.come.iter().filter(asks));
    if news.gone.len().max(news.come.len()) > MANY {
        return gone.chain(come).next().is_some();
    }
    let same = |a: &Rc<Owned>, b: &Rc<Owned>| a.rank() == b.rank() && a.piece().secures_as(b.piece());
    gone.clone().any(|old| !come.clone().any(|new| same(old, new)))
        || come.clone().any(|new| !gone.clone().any(|old| same(old, new)))
}

/// A binding with the certificates and authorities that are there; `None` where there is none. One that asks for client
/// certificates stays all the same, because its hosts must not fall to a wildcard that does not ask.
fn bound(binding: &TlsBinding, piece: &Piece, secrets: &mut Secrets<'_>) -> Option<TlsBinding> {
    let mut binding = binding.clone();
    binding.certificates.retain(|name| match piece.secrets.get(name) {
        Some(key) => secrets.certificate(name, key, &binding.origin),
        None => true,
    });
    if let Some(client_auth) = &mut binding.client_auth {
        secrets.find(&mut client_auth.ca, &binding.origin);
    }
    (!binding.certificates.is_empty() || binding.client_auth.is_some()).then_some(binding)
}
