//! Which certificates come from Secrets, and what serves while one of them is wrong?
//!
//! Only Secrets that something names are asked for. Whether a key fits and a chain is in its time, the `tls` room finds out and
//! keeps its own last good version; here it is whether there is a certificate at all.

use super::super::objects::{Key, Objects, Secret, SecretState, WantedSecrets};
use super::piece::origin;
use crate::model::{CertificateSpec, Origin, Pem, Problem};
use std::collections::BTreeMap;

/// The Secrets that were usable when they were last seen.
pub(super) type LastGood = BTreeMap<Key, Usable>;

/// Certificate and key of a Secret.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Usable {
    origin: Origin,
    pair: (Pem, Pem),
}

/// The role that lets the gate read the Secrets of a namespace, where its owner binds it.
const ROLE: &str = "tidegate-secrets";
/// The gate's ServiceAccount, in its own namespace.
const ACCOUNT: &str = "tidegate";

/// The Secrets that one translation asks for.
pub(super) struct Secrets<'a> {
    objects: &'a Objects,
    own_namespace: &'a str,
    last: LastGood,
    /// What is asked for.
    pub(super) wanted: WantedSecrets,
    /// Certificates by the name that bindings use.
    pub(super) certificates: BTreeMap<String, CertificateSpec>,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Secrets<'a> {
    pub(super) fn new(objects: &'a Objects, own_namespace: &'a str, last: LastGood) -> Self {
        let (wanted, certificates, problems) = Default::default();
        Self { objects, own_namespace, last, wanted, certificates, problems }
    }

    /// Asks for the Secret behind a certificate's name; `origin` is who names it. Whether there is a certificate to serve.
    pub(super) fn certificate(&mut self, name: &str, key: &Key, origin: &Origin) -> bool {
        if self.wanted.insert(key.clone()) {
            self.look_at(key);
        }
        let state = self.objects.secrets.get(key).unwrap_or(&SecretState::Unknown);
        let then = if self.last.contains_key(key) { "until then the last good one serves" } else { "" };
        match state {
            SecretState::Unknown | SecretState::Present(_) => {}
            SecretState::Absent => {
                let hint = format!(
                    "kubectl create secret tls {} --namespace={} --cert=FILE --key=FILE",
                    key.name, key.namespace
                );
                self.told(origin, format!("there is no Secret {key}"), hint, then);
            }
            SecretState::Forbidden(words) => {
                let what = format!("the Secret {key} may not be read: {words}");
                let hint = format!(
                    "kubectl create rolebinding {ROLE} --clusterrole={ROLE} --serviceaccount={}:{ACCOUNT} --namespace={}",
                    self.own_namespace, key.namespace
                );
                self.told(origin, what, hint, then);
            }
        }
        let Some(usable) = self.last.get(key) else { return false };
        if !self.certificates.contains_key(name) {
            let spec = CertificateSpec {
                name: name.to_owned(),
                origin: usable.origin.clone(),
                pairs: vec![usable.pair.clone()],
            };
            self.certificates.insert(name.to_owned(), spec);
        }
        true
    }

    /// What later translations may fall back on: the Secrets that are still asked for.
    pub(super) fn finish(self) -> (WantedSecrets, Vec<CertificateSpec>, Vec<Problem>, LastGood) {
        let mut last = self.last;
        last.retain(|key, _| self.wanted.contains(key));
        (self.wanted, self.certificates.into_values().collect(), self.problems, last)
    }

    fn told(&mut self, origin: &Origin, what: String, hint: String, then: &str) {
        let hint = if then.is_empty() { hint } else { format!("{hint}; {then}") };
        self.problems.push(Problem::error(origin.clone(), what, hint));
    }

    fn look_at(&mut self, key: &Key) {
        let Some(SecretState::Present(secret)) = self.objects.secrets.get(key) else { return };
        match usable(secret) {
            Ok(usable) => drop(self.last.insert(key.clone(), usable)),
            Err((what, hint)) => {
                let then = if self.last.contains_key(key) { "until then the last good one serves" } else { "" };
                self.told(&origin("Secret", &secret.meta, ""), what, hint, then);
            }
        }
    }
}

fn usable(secret: &Secret) -> Result<Usable, (String, String)> {
    if secret.kind != "kubernetes.io/tls" {
        let what = format!("a certificate is a Secret of type kubernetes.io/tls, this is of type {}", secret.kind);
        // The type of a Secret cannot be changed.
        let hint = format!("make it again: kubectl create secret tls {} --cert=FILE --key=FILE", secret.meta.key.name);
        return Err((what, hint));
    }
    let part = |pem: &Option<Pem>, key: &str| {
        let pem = pem.as_ref().filter(|pem| !pem.0.iter().all(u8::is_ascii_whitespace));
        let pem = pem.ok_or_else(|| (format!("{key} is missing or empty"), "write PEM text there".to_owned()))?;
        match memchr::memmem::find(&pem.0, b"-----BEGIN ") {
            Some(_) => Ok(pem.clone()),
            None => Err((format!("{key} is not PEM text"), "it has lines -----BEGIN".to_owned())),
        }
    };
    let pair = (part(&secret.certificate, "tls.crt")?, part(&secret.key, "tls.key")?);
    Ok(Usable { origin: origin("Secret", &secret.meta, ""), pair })
}
