//! Which certificate do the proxies show, and how does the generator check it?

use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// A certificate of this run and its key: ECDSA P-256 for every host of the benchmark.
pub struct Identity {
    /// Certificate, PEM.
    pub chain: String,
    /// Key, PEM.
    pub key: String,
    roots: RootCertStore,
}

impl Identity {
    /// Makes one.
    pub fn new() -> Self {
        let names = vec!["*.bench.test".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate is made");
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("our own certificate is a good anchor");
        Self { chain: made.cert.pem(), key: made.signing_key.serialize_pem(), roots }
    }

    /// A client that trusts it, speaks HTTP/1.1 and never resumes.
    pub fn connector(&self) -> TlsConnector {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3 is there")
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}
