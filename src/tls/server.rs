//! Which rustls configuration belongs to a TLS policy?
//!
//! Resumption is stateless: sessions travel in tickets under keys that rotate and never leave the process. Each policy has keys of
//! its own, so that a ticket from a name without client certificates opens nothing at a name that requires them; rustls
//! besides resumes only for the server name that the ticket was given to.

use super::Error;
use super::certificate::{Certificate, authorities};
use crate::model::{ClientAuthSpec, TlsVersion};
use rustls::crypto::{CryptoProvider, GetRandomFailed, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion, TicketRotator, version};
use std::sync::Arc;

/// Everything that makes two names share a configuration. Certificates count by name: a renewed one is the same policy, so
/// that open connections and tickets outlive the renewal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Policy {
    /// Certificates by name, in order of preference.
    pub(super) certificates: Vec<String>,
    /// Client certificates.
    pub(super) client_auth: Option<ClientAuthSpec>,
    /// Oldest version.
    pub(super) min_version: TlsVersion,
    /// Whether ALPN offers h2.
    pub(super) http2: bool,
}

impl Policy {
    /// The policy as a number: the same on every node, and nobody can choose a certificate's name so that his policy gets the
    /// number of another (the first half of a SHA-256).
    pub(super) fn id(&self) -> u64 {
        let mut text = vec![u8::from(self.min_version == TlsVersion::V1_3), u8::from(self.http2)];
        let mut part = |bytes: &[u8]| {
            text.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
            text.extend_from_slice(bytes);
        };
        if let Some(auth) = &self.client_auth {
            part(if auth.required { b"required" } else { b"requested" });
            part(&auth.ca.0);
        }
        self.certificates.iter().for_each(|name| part(name.as_bytes()));
        let digest = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256
            .tls13()
            .map(|suite| suite.common.hash_provider.hash(&text));
        let first = digest.as_ref().and_then(|digest| digest.as_ref().first_chunk());
        first.map_or(0, |first| u64::from_be_bytes(*first))
    }
}

/// The configuration of `policy`, serving one of `certificates` by what the client can verify.
pub(super) fn config(
    policy: &Policy,
    certificates: &[Arc<Certificate>],
    ticketer: Arc<dyn ProducesTickets>,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, Error> {
    let versions: &[&SupportedProtocolVersion] = match policy.min_version {
        TlsVersion::V1_2 => &[&version::TLS13, &version::TLS12],
        TlsVersion::V1_3 => &[&version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
    let builder = builder.map_err(Error::Config)?;
    let builder = match &policy.client_auth {
        None => builder.with_no_client_auth(),
        Some(auth) => builder.with_client_cert_verifier(verifier(auth, provider)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByKind::new(certificates)));
    config.alpn_protocols = alpn(policy.http2);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ticketer;
    // A ticket costs an encryption and a write; clients that want more than one get the next with each resumption.
    config.send_tls13_tickets = 1;
    config.max_early_data_size = 0;
    Ok(config)
}

/// Fresh ticket keys for one policy. Where clients show certificates a session lives two hours at the most, because their
/// validity is not looked at again when it is resumed; otherwise twelve.
pub(super) fn ticketer(policy: &Policy) -> Result<Arc<dyn ProducesTickets>, Error> {
    if policy.client_auth.is_none() {
        return aws_lc_rs::Ticketer::new().map_err(Error::Config);
    }
    let hourly = TicketRotator::new(HOUR, || match aws_lc_rs::Ticketer::new() {
        Ok(keys) => Ok(Box::new(Short(keys))),
        Err(_) => Err(GetRandomFailed),
    });
    Ok(Arc::new(hourly.map_err(Error::Config)?))
}

/// Protocols offered or asked for, the preferred first.
pub(super) fn alpn(http2: bool) -> Vec<Vec<u8>> {
    let h1 = b"http/1.1".to_vec();
    if http2 { vec![b"h2".to_vec(), h1] } else { vec![h1] }
}

const HOUR: u32 = 60 * 60;

/// Ticket keys that say two hours instead of twelve.
#[derive(Debug)]
struct Short(Arc<dyn ProducesTickets>);

impl ProducesTickets for Short {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        2 * HOUR
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}

/// One certificate of each kind of key, the cheapest to sign with first.
#[derive(Debug)]
struct ByKind(Vec<Arc<CertifiedKey>>);

impl ByKind {
    fn new(certificates: &[Arc<Certificate>]) -> Self {
        let mut sorted: Vec<_> = certificates.iter().collect();
        sorted.sort_by_key(|certificate| certificate.kind);
        Self(sorted.into_iter().map(|certificate| certificate.certified.clone()).collect())
    }
}

impl ResolvesServerCert for ByKind {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offered = hello.signature_schemes();
        let fitting = self.0.iter().find(|certificate| certificate.key.choose_scheme(offered).is_some());
        // Nothing fits: rustls refuses with the alert that says so.
        fitting.or(self.0.first()).cloned()
    }
}

fn verifier(auth: &ClientAuthSpec, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, Error> {
    let roots = Arc::new(authorities(&auth.ca)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let builder = if auth.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(Error::Verifier)
}
