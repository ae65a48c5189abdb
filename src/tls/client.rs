//! How does the proxy, as a client, trust an upstream and show who it is?

use super::Error;
use super::certificate::{self, Certificate};
use super::now;
use crate::model::{Authorities, CertificateSpec, Pem, UpstreamTlsSpec};
use rustls::crypto::aws_lc_rs;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
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
    let builder = builder.map_err(Error::Config)?.with_root_certificates(trusted(&spec.ca)?);
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

/// Authorities that are not known yet are none, so that the cluster is there and every handshake with it fails.
fn trusted(ca: &Authorities) -> Result<RootCertStore, Error> {
    match ca {
        Authorities::Known(bundle) => certificate::authorities(bundle),
        Authorities::Named(_) => Ok(RootCertStore::empty()),
    }
}

/// Whether this PEM text has authorities, all of which can be trusted.
pub fn check_authorities(bundle: &Pem) -> Result<(), Error> {
    certificate::authorities(bundle).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::ServerNames;
    use super::super::testing::{Authority, Kind, binding, certificate, listener, pem, shake};
    use super::*;
    use crate::model::{ClientAuthSpec, TlsBinding};

    fn spec(authority: &Authority) -> UpstreamTlsSpec {
        UpstreamTlsSpec {
            ca: authority.pem.clone().into(),
            server_name: "api.test".to_owned(),
            client_certificate: Some("us".to_owned()),
        }
    }

    fn upstream(authority: &Authority) -> ServerNames {
        let client_auth = Some(ClientAuthSpec { ca: authority.pem.clone().into(), required: true });
        let bindings = [TlsBinding { client_auth, ..binding(&["api.test"], "api") }];
        let specs = [certificate("api", [authority.issue(&["api.test"])])];
        ServerNames::compile(&listener(), &bindings, &specs, None).0
    }

    #[test]
    fn an_upstream_is_verified_and_shown_who_asks() {
        let authority = Authority::new();
        let us = certificate("us", [authority.issue(&["us.test"])]);
        let config = client_config(&spec(&authority), Some(&us), true).unwrap();
        let shaken = shake(&config, &upstream(&authority), "api.test").unwrap();
        assert!(shaken.info.client_certificate.is_some());
        assert_eq!(shaken.alpn.as_deref(), Some(&b"h2"[..]));
    }

    #[test]
    fn an_upstream_of_another_authority_or_name_is_refused() {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let us = certificate("us", [authority.issue(&["us.test"])]);
        let trusting = |authority| client_config(&spec(authority), Some(&us), false).unwrap();
        assert!(shake(&trusting(&stranger), &upstream(&authority), "api.test").is_err());
        let specs = [certificate("api", [authority.issue(&["other.test"])])];
        let (other, _) = ServerNames::compile(&listener(), &[binding(&["api.test"], "api")], &specs, None);
        assert!(shake(&trusting(&authority), &other, "api.test").is_err());
    }

    #[test]
    fn nobody_is_trusted_as_long_as_the_authorities_are_not_known() {
        let authority = Authority::new();
        let us = certificate("us", [authority.issue(&["us.test"])]);
        let unknown = UpstreamTlsSpec { ca: Authorities::Named("authorities".to_owned()), ..spec(&authority) };
        let config = client_config(&unknown, Some(&us), false).unwrap();
        assert!(shake(&config, &upstream(&authority), "api.test").is_err());
    }

    #[test]
    fn what_cannot_work_is_an_error_before_the_first_connection() {
        let authority = Authority::new();
        let expired = certificate("us", [authority.issue_for(Kind::Ecdsa, &["us.test"], 2001, 2002)]);
        let good = spec(&authority);
        assert!(matches!(client_config(&good, Some(&expired), true), Err(Error::Expired { .. })));
        assert!(matches!(client_config(&good, Some(&certificate("us", [])), true), Err(Error::NoCertificate)));
        let without_ca = UpstreamTlsSpec { ca: pem("").into(), ..good.clone() };
        assert!(matches!(client_config(&without_ca, None, true), Err(Error::NoAuthority)));
        let without_name = UpstreamTlsSpec { server_name: "a b".to_owned(), ..good };
        assert!(matches!(client_config(&without_name, None, true), Err(Error::ServerName(_))));
    }
}
