//! Is a chain with its key usable, and what does the certificate say?

use super::Error;
use crate::model::{HostPattern, Pem, WildcardDepth};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, SignatureAlgorithm};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::IpAddr;
use std::sync::Arc;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

/// A chain and its key that fit each other; whether it is their time is asked separately.
#[derive(Debug)]
pub(super) struct Certificate {
    /// The PEM texts that it was made of, to know it again.
    source: (Pem, Pem),
    /// What rustls serves.
    pub(super) certified: Arc<CertifiedKey>,
    /// Kind of the key.
    pub(super) kind: KeyKind,
    /// Hosts that the certificate itself covers (subjectAltName).
    pub(super) names: Vec<HostPattern>,
    /// Serial number in hexadecimal.
    pub(super) serial: String,
    not_before: i64,
    pub(super) not_after: i64,
}

/// Kinds of keys, the preferred first: ECDSA and Ed25519 sign an order of magnitude faster than RSA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KeyKind {
    /// Elliptic curves.
    Ecdsa,
    /// Ed25519.
    Ed25519,
    /// RSA.
    Rsa,
}

impl KeyKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ecdsa => "ECDSA",
            Self::Ed25519 => "Ed25519",
            Self::Rsa => "RSA",
        }
    }
}

impl Certificate {
    /// Reads a pair and proves that key and certificate fit.
    pub(super) fn parse(chain: &Pem, key: &Pem, provider: &CryptoProvider) -> Result<Self, Error> {
        let certificates = certificates(chain)?;
        let signing = provider.key_provider.load_private_key(private_key(key)?).map_err(Error::Key)?;
        let kind = match signing.algorithm() {
            SignatureAlgorithm::RSA => KeyKind::Rsa,
            SignatureAlgorithm::ED25519 => KeyKind::Ed25519,
            _ => KeyKind::Ecdsa,
        };
        let certified = CertifiedKey::new(certificates, signing);
        fits(&certified)?;
        let leaf = certified.cert.first().ok_or(Error::NoCertificate)?;
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| Error::Certificate(error.into()))?;
        Ok(Self {
            source: (chain.clone(), key.clone()),
            kind,
            names: names(&leaf),
            serial: leaf.raw_serial_as_string(),
            not_before: leaf.validity().not_before.timestamp(),
            not_after: leaf.validity().not_after.timestamp(),
            certified: Arc::new(certified),
        })
    }

    /// Whether it was made of these very texts.
    pub(super) fn is_of(&self, pair: &(Pem, Pem)) -> bool {
        self.source == *pair
    }

    /// Whether it may serve at `now` (seconds since the epoch).
    pub(super) fn usable_at(&self, now: i64) -> Result<(), Error> {
        if now > self.not_after {
            return Err(Error::Expired { on: self.not_after() });
        }
        if now < self.not_before {
            return Err(Error::NotYetValid { on: date(self.not_before) });
        }
        Ok(())
    }

    /// Whole days until it expires, negative afterwards.
    pub(super) fn days_left(&self, now: i64) -> i64 {
        (self.not_after - now).div_euclid(24 * 60 * 60)
    }

    /// When it expires, RFC 3339.
    pub(super) fn not_after(&self) -> String {
        date(self.not_after)
    }

    /// Whether clients that ask for `host` would accept it.
    pub(super) fn covers(&self, host: &HostPattern) -> bool {
        match host {
            HostPattern::Any => true,
            HostPattern::Exact(host) => self.names.iter().any(|name| covers(name, host)),
            HostPattern::Wildcard(suffix, _) => {
                self.names.iter().any(|name| matches!(name, HostPattern::Wildcard(own, _) if own == suffix))
            }
        }
    }
}

/// The authorities of a bundle; each must be usable, at least one must be there.
pub(super) fn authorities(bundle: &Pem) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for (index, authority) in CertificateDer::pem_slice_iter(&bundle.0).enumerate() {
        let position = index + 1;
        roots.add(authority.map_err(Error::Pem)?).map_err(|source| Error::Authority { position, source })?;
    }
    if roots.is_empty() {
        return Err(Error::NoAuthority);
    }
    Ok(roots)
}

fn certificates(chain: &Pem) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain.0).collect::<Result<_, _>>().map_err(Error::Pem)?;
    if chain.is_empty() {
        return Err(Error::NoCertificate);
    }
    Ok(chain)
}

fn private_key(text: &Pem) -> Result<PrivateKeyDer<'static>, Error> {
    // PKCS #8 says so in its BEGIN line, the older forms in a Proc-Type header.
    let encrypted = |part: &[u8]| memchr::memmem::find(&text.0, part).is_some();
    if encrypted(b"BEGIN ENCRYPTED PRIVATE KEY") || encrypted(b"Proc-Type: 4,ENCRYPTED") {
        return Err(Error::EncryptedKey);
    }
    PrivateKeyDer::from_pem_slice(&text.0).map_err(|error| match error {
        pem::Error::NoItemsFound => Error::NoKey,
        error => Error::Pem(error),
    })
}

/// A key of which rustls cannot tell the public half is taken as fitting: the handshake would show it.
fn fits(certified: &CertifiedKey) -> Result<(), Error> {
    let mismatch = rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(()),
        Err(error) if error == mismatch => {
            let later = certified.cert.iter().skip(1).position(|certificate| {
                CertifiedKey::new(vec![certificate.clone()], certified.key.clone()).keys_match().is_ok()
            });
            Err(later.map_or(Error::KeyMismatch, |index| Error::LeafNotFirst { position: index + 2 }))
        }
        Err(error) => Err(Error::Config(error)),
    }
}

/// The DNS names and addresses of the subjectAltName; of old certificates without one, the common name.
fn names(leaf: &X509Certificate<'_>) -> Vec<HostPattern> {
    let parse = |name: &str| HostPattern::parse(name, WildcardDepth::One).ok();
    if let Ok(Some(extension)) = leaf.subject_alternative_name() {
        let host = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => parse(name),
            GeneralName::IPAddress(octets) => address(octets).and_then(|address| parse(&host_of(address))),
            _ => None,
        };
        return extension.value.general_names.iter().filter_map(host).collect();
    }
    let common = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    common.filter_map(parse).collect()
}

/// An address as it stands in a URL, and so in host patterns.
pub(super) fn host_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// RFC 6125 section 6.4.3: a wildcard stands for one label.
fn covers(name: &HostPattern, host: &str) -> bool {
    match name {
        HostPattern::Any => true,
        HostPattern::Exact(name) => **name == *host,
        HostPattern::Wildcard(suffix, _) => host.split_once('.').is_some_and(|(_, rest)| *rest == **suffix),
    }
}

fn date(seconds: i64) -> String {
    let Ok(time) = ASN1Time::from_timestamp(seconds) else {
        return format!("@{seconds}");
    };
    let time = time.to_datetime();
    let (year, month, day) = (time.year(), u8::from(time.month()), time.day());
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time.hour(), time.minute(), time.second())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Authority, Kind, pem};
    use super::*;
    use rustls::crypto::aws_lc_rs;

    fn parse(pair: &(Pem, Pem)) -> Result<Certificate, Error> {
        Certificate::parse(&pair.0, &pair.1, &aws_lc_rs::default_provider())
    }

    fn host(text: &str) -> HostPattern {
        HostPattern::parse(text, WildcardDepth::Many).unwrap()
    }

    #[test]
    fn a_pair_says_its_kind_its_names_and_its_time() {
        let authority = Authority::new();
        let ecdsa = parse(&authority.issue(&["A.test", "*.b.test"])).unwrap();
        assert_eq!((ecdsa.kind, ecdsa.not_after().as_str()), (KeyKind::Ecdsa, "2090-01-01T00:00:00Z"));
        assert_eq!(ecdsa.names.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a.test", "*.b.test"]);
        assert!(!ecdsa.serial.is_empty());
        assert_eq!(parse(&authority.issue_for(Kind::Rsa, &["a.test"], 2020, 2090)).unwrap().kind, KeyKind::Rsa);
    }

    #[test]
    fn an_address_in_a_certificate_is_a_host_as_in_a_url() {
        let certificate = parse(&Authority::new().issue(&["127.0.0.1", "::1"])).unwrap();
        assert!(certificate.covers(&host("127.0.0.1")) && certificate.covers(&host("[::1]")));
        assert!(!certificate.covers(&host("127.0.0.2")));
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        let certificate = parse(&Authority::new().issue(&["a.test", "*.b.test"])).unwrap();
        for covered in ["a.test", "x.b.test", "*.b.test"] {
            assert!(certificate.covers(&host(covered)), "{covered}");
        }
        for other in ["b.test", "x.y.b.test", "x.a.test", "*.a.test", "*.x.b.test"] {
            assert!(!certificate.covers(&host(other)), "{other}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_said_to_not_fit() {
        let authority = Authority::new();
        let (one, two) = (authority.issue(&["a.test"]), authority.issue(&["a.test"]));
        assert_eq!(parse(&(one.0, two.1)).unwrap_err().to_string(), "the private key does not fit the certificate");
    }

    #[test]
    fn a_chain_in_the_wrong_order_is_told_from_a_wrong_key() {
        let authority = Authority::new();
        let (leaf, key) = authority.issue(&["a.test"]);
        let both = |a: &Pem, b: &Pem| Pem([&*a.0, &*b.0].concat().into());
        assert!(parse(&(both(&leaf, &authority.pem), key.clone())).is_ok());
        let error = parse(&(both(&authority.pem, &leaf), key)).unwrap_err();
        assert_eq!(error.to_string(), "the private key fits certificate 2 of the chain, not the first");
    }

    #[test]
    fn what_is_missing_encrypted_or_cut_short_is_named() {
        let (chain, key) = Authority::new().issue(&["a.test"]);
        let encrypted = pem("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
        let old =
            pem("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n");
        let cut = Pem(chain.0[..chain.0.len() / 2].into());
        let junk = pem("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
        for (pair, says) in [
            ((pem(""), key.clone()), "no certificate in the chain"),
            ((key.clone(), key.clone()), "no certificate in the chain"),
            ((chain.clone(), pem("")), "no private key"),
            ((chain.clone(), encrypted), "the private key is encrypted"),
            ((chain.clone(), old), "the private key is encrypted"),
            ((cut, key), "the PEM text cannot be read"),
            ((chain, junk), "the private key cannot be used"),
        ] {
            let error = parse(&pair).unwrap_err();
            assert_eq!(error.to_string(), says);
            assert!(!error.hint().is_empty(), "{says}");
        }
    }

    #[test]
    fn a_certificate_serves_in_its_time_alone() {
        let certificate = parse(&Authority::new().issue_for(Kind::Ecdsa, &["a.test"], 2001, 2002)).unwrap();
        let day = 24 * 60 * 60;
        let (begin, end) = (certificate.not_before, certificate.not_after);
        assert!(certificate.usable_at(begin).is_ok() && certificate.usable_at(end).is_ok());
        let early = certificate.usable_at(begin - 1).unwrap_err().to_string();
        assert_eq!(early, "the certificate is not valid before 2001-01-01T00:00:00Z");
        let late = certificate.usable_at(end + 1).unwrap_err().to_string();
        assert_eq!(late, "the certificate expired on 2002-01-01T00:00:00Z");
        assert_eq!((certificate.days_left(end - day), certificate.days_left(end + 1)), (1, -1));
    }

    #[test]
    fn a_bundle_without_authority_is_no_bundle() {
        assert!(matches!(authorities(&pem("")), Err(Error::NoAuthority)));
        assert_eq!(authorities(&Authority::new().pem).unwrap().len(), 1);
    }

    #[test]
    fn debug_output_shows_no_key() {
        let pair = Authority::new().issue(&["a.test"]);
        let text = format!("{:?}", parse(&pair).unwrap());
        let secret = private_key(&pair.1).unwrap();
        assert!(text.contains("Pem(") && !text.contains("PRIVATE"));
        assert!(!text.contains(&format!("{:?}", secret.secret_der()).trim_matches(['[', ']'])[..40]));
    }
}
