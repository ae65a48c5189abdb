//! How does the proxy, as a client, trust an upstream and show who it is?

use super::Error;
use super::certificate::{Certificate, authorities};
use super::now;
use crate::model::{CertificateSpec, UpstreamTlsSpec};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::ServerName;
use std::sync::Arc;

/// The configuration of connections to a cluster: its authorities, its protocol by ALPN, the client certificate if it wants one.
/// The upstream is always verified; there is no switch. An expired client certificate is an error here rather than at each
/// handshake.
pub fn client_config(
    spec: &UpstreamTlsSpec,
    certificate: Option<&CertificateSpec>,
    http2: bool,
) -> Result<Arc<ClientConfig>, Error> {
    ServerName::try_from(spec.server_name.as_str()).map_err(|_| Error::ServerName(spec.server_name.clone()))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(Error::Config)?.with_root_certificates(authorities(&spec.ca)?);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let (chain, key) = certificate.pairs.first().ok_or(Error::NoCertificate)?;
            let certificate = Certificate::parse(chain, key, &provider)?;
            certificate.usable_at(now())?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certificate.certified)))
        }
    };
    config.alpn_protocols = if http2 { vec![b"h2".to_vec()] } else { vec![b"http/1.1".to_vec()] };
    Ok(Arc::new(config))
}
