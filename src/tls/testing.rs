//! Which authorities, certificates and handshakes do tests use?

use super::ServerNames;
use crate::message::TlsInfo;
use crate::model::{
    CertificateSpec, EncodedSlash, HostPattern, Limits, ListenerProtocol, ListenerSpec, Origin, Pem, ProxyHeaders,
    TimeoutSpec, TlsBinding, TlsSpec, TlsVersion, WildcardDepth,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm, date_time_ymd,
};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::Acceptor;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, SignatureScheme, SupportedProtocolVersion, version,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;

/// The key that certificates of an authority are asked with.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Ecdsa,
    Rsa,
}

/// A certificate authority of a test.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: Pem,
}

pub(crate) fn pem(text: impl AsRef<str>) -> Pem {
    Pem(text.as_ref().as_bytes().into())
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let pem = pem(params.self_signed(&key).unwrap().pem());
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A pair for these names, valid from 2020 to 2090.
    pub(crate) fn issue(&self, names: &[&str]) -> (Pem, Pem) {
        self.issue_for(Kind::Ecdsa, names, 2020, 2090)
    }

    /// A pair valid from the first of January of one year to that of another.
    pub(crate) fn issue_for(&self, kind: Kind, names: &[&str], from: i32, to: i32) -> (Pem, Pem) {
        let algorithm: &'static SignatureAlgorithm = match kind {
            Kind::Ecdsa => &PKCS_ECDSA_P256_SHA256,
            Kind::Rsa => &PKCS_RSA_SHA256,
        };
        let key = KeyPair::generate_for(algorithm).unwrap();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (pem(certificate.pem()), pem(key.serialize_pem()))
    }
}

/// A certificate of the configuration.
pub(crate) fn certificate(name: &str, pairs: impl IntoIterator<Item = (Pem, Pem)>) -> CertificateSpec {
    CertificateSpec { name: name.to_owned(), origin: Origin::of(name), pairs: pairs.into_iter().collect() }
}

/// A binding for these hosts, wildcards for one label or more.
pub(crate) fn binding(hosts: &[&str], certificate: &str) -> TlsBinding {
    TlsBinding {
        origin: Origin::of(format!("binding of {certificate}")),
        listeners: Vec::new(),
        hosts: hosts.iter().map(|host| HostPattern::parse(host, WildcardDepth::Many).unwrap()).collect(),
        certificates: vec![certificate.to_owned()],
        client_auth: None,
    }
}

/// An https listener on a free port.
pub(crate) fn listener() -> ListenerSpec {
    let tls = TlsSpec { min_version: TlsVersion::V1_2, client_auth: None, default_certificate: None, http2: true };
    ListenerSpec {
        name: "https".to_owned(),
        origin: Origin::of("tidegate.yaml"),
        address: ([127, 0, 0, 1], 0).into(),
        protocol: ListenerProtocol::Https(tls),
        proxy_protocol_from: Vec::new(),
        trusted_proxies: Vec::new(),
        https_redirect: None,
        encoded_slash: EncodedSlash::default(),
        policies: Vec::new(),
        headers: ProxyHeaders::default(),
        limits: Limits::default(),
        timeouts: TimeoutSpec::default(),
    }
}

/// The same with other TLS settings.
pub(crate) fn listener_with(change: impl FnOnce(&mut TlsSpec)) -> ListenerSpec {
    let mut listener = listener();
    if let ListenerProtocol::Https(tls) = &mut listener.protocol {
        change(tls);
    }
    listener
}

/// Version 1.2 alone.
pub(crate) static TLS12: &[&SupportedProtocolVersion] = &[&version::TLS12];
/// Version 1.3 alone.
pub(crate) static TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// A client of a test, which remembers tickets.
pub(crate) struct Client {
    pub(crate) ca: Pem,
    pub(crate) certificate: Option<(Pem, Pem)>,
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    /// Signature schemes that it offers; all where there is none.
    pub(crate) only: Option<SignatureScheme>,
}

impl Client {
    pub(crate) fn of(authority: &Authority) -> Self {
        Self { ca: authority.pem.clone(), certificate: None, versions: rustls::ALL_VERSIONS, only: None }
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.ca.0).unwrap()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(self.provider()));
        let builder = builder.with_protocol_versions(self.versions).unwrap().with_root_certificates(roots);
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = CertificateDer::pem_slice_iter(&chain.0).map(Result::unwrap).collect();
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(&key.0).unwrap()).unwrap()
            }
        };
        config.resumption = Resumption::in_memory_sessions(16);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    fn provider(&self) -> CryptoProvider {
        let mut provider = aws_lc_rs::default_provider();
        if let Some(only) = self.only {
            let algorithms = &mut provider.signature_verification_algorithms;
            let mapping: Vec<_> = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == only).copied().collect();
            algorithms.mapping = Box::leak(mapping.into_boxed_slice());
        }
        provider
    }
}

/// What both sides of a handshake know afterwards.
#[derive(Debug)]
pub(crate) struct Shaken {
    pub(crate) info: TlsInfo,
    pub(crate) kind: HandshakeKind,
    pub(crate) alpn: Option<Vec<u8>>,
    /// The certificate that the client saw.
    pub(crate) leaf: CertificateDer<'static>,
}

/// A whole handshake in memory, tickets included; the server's error, or the client's if the server has none.
pub(crate) fn shake(client: &Arc<ClientConfig>, names: &ServerNames, name: &str) -> Result<Shaken, rustls::Error> {
    let mut client = ClientConnection::new(client.clone(), name.to_owned().try_into().unwrap())?;
    let (mut wire, mut acceptor) = (Vec::new(), Acceptor::default());
    client.write_tls(&mut wire).unwrap();
    acceptor.read_tls(&mut wire.as_slice()).unwrap();
    let accepted = acceptor.accept().map_err(|(error, _)| error)?.unwrap();
    let found = names.find(accepted.client_hello().server_name()).expect("a name that is served");
    let mut server = accepted.into_connection(found.config.clone()).map_err(|(error, _)| error)?;
    while server.wants_write() || client.wants_write() {
        let (mut down, mut up) = (Vec::new(), Vec::new());
        server.write_tls(&mut down).unwrap();
        let answered = if down.is_empty() { Ok(()) } else { feed(&mut client, &down) };
        client.write_tls(&mut up).unwrap();
        if !up.is_empty() {
            feed(&mut server, &up)?;
        }
        answered?;
    }
    Ok(Shaken {
        info: super::info(&server, server.server_name(), found.policy),
        kind: server.handshake_kind().unwrap(),
        alpn: server.alpn_protocol().map(<[u8]>::to_vec),
        leaf: client.peer_certificates().unwrap()[0].clone().into_owned(),
    })
}

fn feed<D>(
    connection: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<D>>,
    mut bytes: &[u8],
) -> Result<(), rustls::Error>
where
    D: rustls::SideData,
{
    while !bytes.is_empty() {
        connection.read_tls(&mut bytes).unwrap();
        connection.process_new_packets()?;
    }
    Ok(())
}
