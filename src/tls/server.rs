//! Which rustls configuration belongs to a TLS policy?
//!
//! Resumption is stateless: sessions travel in tickets under keys that rotate and never leave the process. Each policy has keys of
//! its own, so that a ticket from a name without client certificates opens nothing at a name that requires them; rustls
//! besides resumes only for the server name that the ticket was given to.

use super::Error;
use super::certificate::{Certificate, authorities};
use crate::model::{Authorities, ClientAuthSpec, TlsVersion};
use rustls::crypto::{CryptoProvider, GetRandomFailed, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion, TicketRotator, version};
use std::sync::Arc;

/// Everything that makes two names share a configuration. Certificates count by name: a renewed one is the same policy, so
/// that open connections and tickets outlive the renewal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
            match &auth.ca {
                Authorities::Known(bundle) => part(&bundle.0),
                Authorities::Named(name) => part(name.as_bytes()),
            }
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

/// Protocols that are spoken, the preferred first.
pub(super) fn alpn(http2: bool) -> Vec<Vec<u8>> {
    let spoken: &[&[u8]] = if http2 { &[b"h2", b"http/1.1", b"http/1.0"] } else { &[b"http/1.1", b"http/1.0"] };
    spoken.iter().map(|name| name.to_vec()).collect()
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
    let roots = match &auth.ca {
        Authorities::Known(bundle) => Arc::new(authorities(bundle)?),
        Authorities::Named(name) => return Err(Error::UnknownAuthorities(name.clone())),
    };
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let builder = if auth.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(Error::Verifier)
}

#[cfg(test)]
mod tests {
    use super::super::ServerNames;
    use super::super::testing::{
        Authority, Client, Kind, TLS12, TLS13, binding, certificate, listener, listener_with, shake,
    };
    use super::*;
    use crate::model::{CertificateSpec, TlsBinding};
    use rustls::{AlertDescription, HandshakeKind, SignatureScheme};

    fn names(bindings: &[TlsBinding], specs: &[CertificateSpec], previous: Option<&ServerNames>) -> ServerNames {
        let (names, problems) = ServerNames::compile(&listener(), bindings, specs, previous);
        assert_eq!(problems, []);
        names
    }

    fn with_clients(authority: &Authority, required: bool) -> TlsBinding {
        let client_auth = Some(ClientAuthSpec { ca: authority.pem.clone().into(), required });
        TlsBinding { client_auth, ..binding(&["a.test"], "a") }
    }

    #[test]
    fn a_client_gets_the_kind_of_certificate_that_it_can_verify() {
        let authority = Authority::new();
        let pairs = [authority.issue_for(Kind::Rsa, &["a.test"], 2020, 2090), authority.issue(&["a.test"])];
        let names = names(&[binding(&["a.test"], "a")], &[certificate("a", pairs)], None);
        let entry = names.exact("a.test").unwrap();
        let leaf = |index: usize| entry.certificates[index].certified.cert[0].clone();
        let modern = shake(&Client::of(&authority).config(), &names, "a.test").unwrap();
        assert_eq!(modern.leaf, leaf(1), "ECDSA, although RSA was said first");
        let old = Client { only: Some(SignatureScheme::RSA_PSS_SHA256), ..Client::of(&authority) };
        assert_eq!(shake(&old.config(), &names, "a.test").unwrap().leaf, leaf(0));
    }

    #[test]
    fn both_versions_are_spoken_unless_the_listener_wants_the_newer() {
        let authority = Authority::new();
        let specs = [certificate("a", [authority.issue(&["a.test"])])];
        let bindings = [binding(&["a.test"], "a")];
        let old = Client { versions: TLS12, ..Client::of(&authority) }.config();
        let both = names(&bindings, &specs, None);
        assert_eq!(shake(&old, &both, "a.test").unwrap().info.version, "TLSv1.2");
        let new = shake(&Client::of(&authority).config(), &both, "a.test").unwrap();
        assert_eq!((new.info.version, new.info.server_name.as_deref()), ("TLSv1.3", Some("a.test")));
        assert!(new.info.cipher.starts_with("TLS_"), "{}", new.info.cipher);
        let newer = listener_with(|tls| tls.min_version = TlsVersion::V1_3);
        let (newer, _) = ServerNames::compile(&newer, &bindings, &specs, None);
        assert!(matches!(shake(&old, &newer, "a.test"), Err(rustls::Error::PeerIncompatible(_))));
    }

    #[test]
    fn alpn_offers_h2_first_unless_the_listener_does_not() {
        let authority = Authority::new();
        let specs = [certificate("a", [authority.issue(&["a.test"])])];
        let bindings = [binding(&["a.test"], "a")];
        let alpn = |http2| {
            let (names, _) = ServerNames::compile(&listener_with(|tls| tls.http2 = http2), &bindings, &specs, None);
            shake(&Client::of(&authority).config(), &names, "a.test").unwrap().alpn.unwrap()
        };
        assert_eq!((alpn(true), alpn(false)), (b"h2".to_vec(), b"http/1.1".to_vec()));
    }

    #[test]
    fn sessions_resume_by_ticket_in_both_versions_and_outlive_a_renewal() {
        let authority = Authority::new();
        let bindings = [binding(&["a.test"], "a")];
        for versions in [TLS12, TLS13] {
            let before = names(&bindings, &[certificate("a", [authority.issue(&["a.test"])])], None);
            let client = Client { versions, ..Client::of(&authority) }.config();
            let kind = |names| shake(&client, names, "a.test").unwrap().kind;
            assert_eq!(kind(&before), HandshakeKind::Full);
            assert_eq!(kind(&before), HandshakeKind::Resumed);
            let renewed = names(&bindings, &[certificate("a", [authority.issue(&["a.test"])])], Some(&before));
            assert_eq!(kind(&renewed), HandshakeKind::Resumed);
            let restarted = names(&bindings, &[certificate("a", [authority.issue(&["a.test"])])], None);
            assert_eq!(kind(&restarted), HandshakeKind::Full, "keys never leave the process");
        }
    }

    #[test]
    fn a_ticket_opens_nothing_under_another_policy() {
        let authority = Authority::new();
        let specs = [certificate("a", [authority.issue(&["a.test"])])];
        for versions in [TLS12, TLS13] {
            let open = names(&[binding(&["a.test"], "a")], &specs, None);
            let client = Client { versions, ..Client::of(&authority) }.config();
            shake(&client, &open, "a.test").unwrap();
            let requested = names(&[with_clients(&authority, false)], &specs, Some(&open));
            assert_eq!(shake(&client, &requested, "a.test").unwrap().kind, HandshakeKind::Full);
            let required = names(&[with_clients(&authority, true)], &specs, Some(&requested));
            assert_eq!(shake(&client, &required, "a.test").unwrap_err(), rustls::Error::NoCertificatesPresented);
        }
    }

    #[test]
    fn a_required_client_certificate_is_verified_and_told() {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let specs = [certificate("a", [authority.issue(&["a.test"])])];
        let required = names(&[with_clients(&authority, true)], &specs, None);
        let client = |pair| Client { certificate: pair, ..Client::of(&authority) }.config();
        let known = client(Some(authority.issue(&["client.test"])));
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let shaken = shake(&known, &required, "a.test").unwrap();
            assert_eq!(shaken.kind, kind);
            let value = shaken.info.client_certificate.expect("told, also when resumed");
            assert!(value.starts_with(":MII") && value.ends_with(':'), "{value}");
        }
        let unknown = client(Some(stranger.issue(&["client.test"])));
        assert!(matches!(shake(&unknown, &required, "a.test"), Err(rustls::Error::InvalidCertificate(_))));
        assert_eq!(shake(&client(None), &required, "a.test").unwrap_err(), rustls::Error::NoCertificatesPresented);
    }

    #[test]
    fn a_requested_client_certificate_may_be_missing_but_not_wrong() {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let specs = [certificate("a", [authority.issue(&["a.test"])])];
        let requested = names(&[with_clients(&authority, false)], &specs, None);
        let client = |pair| Client { certificate: pair, ..Client::of(&authority) }.config();
        assert_eq!(shake(&client(None), &requested, "a.test").unwrap().info.client_certificate, None);
        let known = client(Some(authority.issue(&["client.test"])));
        assert!(shake(&known, &requested, "a.test").unwrap().info.client_certificate.is_some());
        let unknown = client(Some(stranger.issue(&["client.test"])));
        assert!(matches!(shake(&unknown, &requested, "a.test"), Err(rustls::Error::InvalidCertificate(_))));
    }

    #[test]
    fn a_client_with_no_protocol_in_common_is_refused() {
        let authority = Authority::new();
        let names = names(&[binding(&["a.test"], "a")], &[certificate("a", [authority.issue(&["a.test"])])], None);
        let mut client = (*Client::of(&authority).config()).clone();
        client.alpn_protocols = vec![b"smtp".to_vec()];
        let error = shake(&Arc::new(client), &names, "a.test").unwrap_err();
        let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
        assert!(error == rustls::Error::NoApplicationProtocol || error == alert, "{error}");
    }

    #[test]
    fn sessions_of_clients_with_certificates_live_two_hours() {
        let policy =
            |client_auth| Policy { certificates: Vec::new(), client_auth, min_version: TlsVersion::V1_2, http2: true };
        let authority = Authority::new();
        let auth = ClientAuthSpec { ca: authority.pem.into(), required: false };
        assert_eq!(ticketer(&policy(Some(auth))).unwrap().lifetime(), 2 * HOUR);
        assert_eq!(ticketer(&policy(None)).unwrap().lifetime(), 12 * HOUR);
    }

    #[test]
    fn policies_that_differ_anywhere_have_different_numbers() {
        let base = Policy {
            certificates: vec!["a".to_owned(), "b".to_owned()],
            client_auth: None,
            min_version: TlsVersion::V1_2,
            http2: true,
        };
        let auth = |required| Some(ClientAuthSpec { ca: Authority::new().pem.into(), required });
        let others = [
            Policy { certificates: vec!["ab".to_owned()], ..base.clone() },
            Policy { certificates: vec!["b".to_owned(), "a".to_owned()], ..base.clone() },
            Policy { min_version: TlsVersion::V1_3, ..base.clone() },
            Policy { http2: false, ..base.clone() },
            Policy { client_auth: auth(true), ..base.clone() },
            Policy { client_auth: auth(false), ..base.clone() },
        ];
        let ids: std::collections::BTreeSet<_> = others.iter().chain([&base]).map(Policy::id).collect();
        assert_eq!(ids.len(), others.len() + 1);
        assert_eq!(base.id(), base.clone().id());
    }
}
