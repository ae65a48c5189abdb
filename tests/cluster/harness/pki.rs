//! Who signs the certificates of the cluster and of a test?

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub pem: String,
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A server's certificate for these names and addresses.
    pub fn issue(&self, names: &[&str]) -> Identity {
        self.sign(&Self::server(names))
    }

    /// The same, valid until 2020.
    pub fn issue_expired(&self, names: &[&str]) -> Identity {
        let mut params = Self::server(names);
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        self.sign(&params)
    }

    /// A client's certificate; the API server takes the user from its name and the group from its organization.
    pub fn issue_client(&self, user: &str, group: Option<&str>) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    /// What a client needs that trusts this authority alone.
    pub fn trusted(&self) -> Arc<ClientConfig> {
        Arc::new(ClientConfig::builder().with_root_certificates(authorities(&self.pem)).with_no_client_auth())
    }

    /// The same of a client that shows a certificate where it is asked for one.
    pub fn trusted_by(&self, client: &Identity) -> Arc<ClientConfig> {
        let chain = CertificateDer::pem_slice_iter(client.chain.as_bytes()).collect::<Result<_, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(client.key.as_bytes()).unwrap();
        let builder = ClientConfig::builder().with_root_certificates(authorities(&self.pem));
        Arc::new(builder.with_client_auth_cert(chain, key).unwrap())
    }

    fn server(names: &[&str]) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().unwrap();
        Identity { chain: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }
}

/// Authorities of a PEM text.
pub fn authorities(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    roots
}

/// The key that service account tokens are signed with: private, public, PEM.
pub fn token_key() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    (key.serialize_pem(), key.public_key_pem())
}
