//! Which certificates and authorities come from Secrets, and what serves while one of them is wrong?
//!
//! Only Secrets that something names are asked for. Whether a key fits and a chain is in its time, the `tls` room finds out and
//! keeps its own last good version; here it is whether there is a certificate at all. Authorities are read here, because there is
//! nothing else to know of them.

use super::super::objects::{Key, Objects, Secret, SecretState, WantedSecrets};
use super::piece::origin;
use crate::config::kubernetes::is_subdomain;
use crate::model::{Authorities, CertificateSpec, Origin, Pem, Problem};
use crate::tls::check_authorities;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What was usable in Secrets when they were last seen.
#[derive(Clone, Debug, Default)]
pub(super) struct LastGood {
    certificates: BTreeMap<Key, Usable>,
    authorities: BTreeMap<Key, Pem>,
    /// Secrets that are asked for authorities.
    trusted: BTreeSet<Key>,
}

impl LastGood {
    /// Takes another version of a Secret that is asked for a certificate, has one, and had one before; gives where the one
    /// before came from, and the one of now. `None` where more may come of it than another certificate.
    pub(super) fn renew(&mut self, key: &Key, (old, new): (&Secret, &Secret)) -> Option<(Origin, Origin, (Pem, Pem))> {
        let (old, new) = (usable(old).ok()?, usable(new).ok()?);
        let held = self.certificates.get_mut(key).filter(|held| **held == old && !self.trusted.contains(key))?;
        *held = new.clone();
        Some((old.origin, new.origin, new.pair))
    }
}

/// Certificate and key of a Secret.
#[derive(Clone, Debug, PartialEq)]
struct Usable {
    origin: Origin,
    pair: (Pem, Pem),
}

/// What is wrong, and what would be right.
type Fault = (String, String);

/// The role that lets the gate read the Secrets of a namespace, where its owner binds it.
const ROLE: &str = "tidegate-secrets";
/// The gate's ServiceAccount, in its own namespace.
const ACCOUNT: &str = "tidegate";

/// The Secrets that one translation asks for.
pub(super) struct Secrets<'a> {
    objects: &'a Objects,
    own_namespace: &'a str,
    last: LastGood,
    /// Secrets that were looked at for a certificate.
    certified: BTreeSet<Key>,
    /// Secrets that were looked at for authorities.
    trusted: BTreeSet<Key>,
    /// Certificates by the name that bindings use.
    certificates: BTreeMap<String, Arc<CertificateSpec>>,
    problems: Vec<Problem>,
}

impl<'a> Secrets<'a> {
    pub(super) fn new(objects: &'a Objects, own_namespace: &'a str, last: LastGood) -> Self {
        let (certified, trusted, certificates, problems) = Default::default();
        Self { objects, own_namespace, last, certified, trusted, certificates, problems }
    }

    /// Asks for the Secret behind a certificate's name; `origin` is who names it. Whether there is a certificate to serve.
    pub(super) fn certificate(&mut self, name: &str, key: &Key, origin: &Origin) -> bool {
        let found = self.certified.insert(key.clone()).then(|| self.present(key).map(usable)).flatten();
        let fault = found.and_then(|found| match found {
            Ok(usable) => self.last.certificates.insert(key.clone(), usable).and(None),
            Err(fault) => Some(fault),
        });
        let kept = self.last.certificates.contains_key(key);
        let then = if kept { "until then the last good one serves" } else { "" };
        self.tell(key, origin, fault, &Asked { kind: "tls", from: "--cert=FILE --key=FILE", then });
        let Some(usable) = self.last.certificates.get(key) else { return false };
        if !self.certificates.contains_key(name) {
            let spec = CertificateSpec {
                name: name.to_owned(),
                origin: usable.origin.clone(),
                pairs: vec![usable.pair.clone()],
            };
            self.certificates.insert(name.to_owned(), Arc::new(spec));
        }
        true
    }

    /// Puts authorities in the place of the name of their Secret, which is one of the gate's own namespace; `origin` is who names it.
    /// Whether there are authorities now.
    pub(super) fn find(&mut self, ca: &mut Authorities, origin: &Origin) -> bool {
        let Authorities::Named(name) = ca else { return true };
        if !is_subdomain(name) {
            // Told where the text was read.
            return false;
        }
        let key = Key::new(self.own_namespace, name.as_str());
        let found = self.trusted.insert(key.clone()).then(|| self.present(&key).map(authorities)).flatten();
        let fault = found.and_then(|found| match found {
            Ok(pem) => self.last.authorities.insert(key.clone(), pem).and(None),
            Err(fault) => Some(fault),
        });
        let last = self.last.authorities.get(&key).cloned();
        let then = if last.is_some() { "until then the last good ones are trusted" } else { "" };
        self.tell(&key, origin, fault, &Asked { kind: "generic", from: "--from-file=ca.crt=FILE", then });
        let Some(pem) = last else { return false };
        *ca = Authorities::Known(pem);
        true
    }

    /// What later translations may fall back on: the Secrets that are still asked for.
    pub(super) fn finish(self) -> (WantedSecrets, Vec<Arc<CertificateSpec>>, Vec<Problem>, LastGood) {
        let mut last = self.last;
        last.certificates.retain(|key, _| self.certified.contains(key));
        last.authorities.retain(|key, _| self.trusted.contains(key));
        last.trusted.clone_from(&self.trusted);
        let wanted = self.certified.into_iter().chain(self.trusted).collect();
        (wanted, self.certificates.into_values().collect(), self.problems, last)
    }

    fn present(&self, key: &Key) -> Option<&'a Secret> {
        match self.objects.secrets.get(key)? {
            SecretState::Present(secret) => Some(secret),
            SecretState::Unknown | SecretState::Absent | SecretState::Forbidden(_) => None,
        }
    }

    /// Tells what is wrong with a Secret at the Secret, and at `origin`, which names it, that it cannot be read.
    fn tell(&mut self, key: &Key, origin: &Origin, fault: Option<Fault>, asked: &Asked) {
        let Asked { kind, from, then } = asked;
        let (origin, what, hint) = match (self.objects.secrets.get(key), fault) {
            (Some(SecretState::Present(secret)), Some((what, hint))) => {
                (self::origin("Secret", &secret.meta, ""), what, hint)
            }
            (Some(SecretState::Absent), _) => {
                let hint = format!("kubectl create secret {kind} {} --namespace={} {from}", key.name, key.namespace);
                (origin.clone(), format!("there is no Secret {key}"), hint)
            }
            (Some(SecretState::Forbidden(words)), _) => {
                let hint = format!(
                    "kubectl create rolebinding {ROLE} --clusterrole={ROLE} --serviceaccount={}:{ACCOUNT} --namespace={}",
                    self.own_namespace, key.namespace
                );
                (origin.clone(), format!("the Secret {key} may not be read: {words}"), hint)
            }
            (None | Some(SecretState::Unknown | SecretState::Present(_)), _) => return,
        };
        let hint = if then.is_empty() { hint } else { format!("{hint}; {then}") };
        self.problems.push(Problem::error(origin, what, hint));
    }
}

/// What a Secret is asked for.
struct Asked {
    /// As what `kubectl create secret` makes it.
    kind: &'static str,
    /// Of which files.
    from: &'static str,
    /// What holds until it is usable.
    then: &'static str,
}

fn usable(secret: &Secret) -> Result<Usable, Fault> {
    if secret.kind != "kubernetes.io/tls" {
        let what = format!("a certificate is a Secret of type kubernetes.io/tls, this is of type {}", secret.kind);
        // The type of a Secret cannot be changed.
        let hint = format!("make it again: kubectl create secret tls {} --cert=FILE --key=FILE", secret.meta.key.name);
        return Err((what, hint));
    }
    let pair = (part(secret.certificate.as_ref(), "tls.crt")?, part(secret.key.as_ref(), "tls.key")?);
    Ok(Usable { origin: origin("Secret", &secret.meta, ""), pair })
}

/// Of a Secret of any type: cert-manager, for one, writes `ca.crt` beside the certificate.
fn authorities(secret: &Secret) -> Result<Pem, Fault> {
    let pem = part(secret.ca.as_ref(), "ca.crt")?;
    let hint = "write the certificates of the authorities there, and nothing else";
    check_authorities(&pem).map_err(|error| (format!("ca.crt cannot be used: {}", error.full()), hint.to_owned()))?;
    Ok(pem)
}

fn part(pem: Option<&Pem>, key: &str) -> Result<Pem, Fault> {
    let pem = pem.filter(|pem| !pem.0.iter().all(u8::is_ascii_whitespace));
    let pem = pem.ok_or_else(|| (format!("{key} is missing or empty"), "write PEM text there".to_owned()))?;
    match memchr::memmem::find(&pem.0, b"-----BEGIN ") {
        Some(_) => Ok(pem.clone()),
        None => Err((format!("{key} is not PEM text"), "it has lines -----BEGIN".to_owned())),
    }
}
