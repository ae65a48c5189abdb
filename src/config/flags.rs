//! What is the configuration of a run without a configuration file?

use super::kubernetes::Settings;
use super::{Admin, CertificateFiles, Config, Drain, ProcessLimits, Telemetry, install, listener, values};
use crate::model::{
    EncodedSlash, Limits, ListenerProtocol, ListenerSpec, Origin, ProxyHeaders, TimeoutSpec, TlsBinding, ValueError,
};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Cleartext without root: ports below 1024 need a privilege that a first use has not.
pub const HTTP: &str = ":8080";
/// TLS without root.
pub const HTTPS: &str = ":8443";

/// What the flags of `run` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flags {
    /// Routes files and folders.
    pub routes: Vec<PathBuf>,
    /// Cleartext addresses; none: no such listener.
    pub http: Vec<SocketAddr>,
    /// TLS addresses, served when there is a certificate or may come one from the cluster; none: no such listener.
    pub https: Vec<SocketAddr>,
    /// Admin address; `None`: no admin port.
    pub admin: Option<SocketAddr>,
    /// Worker threads; `None`: one for each core.
    pub workers: Option<u32>,
    /// Certificates.
    pub certificates: Vec<CertificateFlag>,
    /// The Kubernetes cluster that is looked at; `None`: none.
    pub kubernetes: Option<Settings>,
}

/// `NAME=CERTIFICATE_FILE,KEY_FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFlag {
    /// The name that routes refer to.
    pub name: String,
    /// PEM file of the chain.
    pub certificate: PathBuf,
    /// PEM file of the key.
    pub key: PathBuf,
}

impl std::str::FromStr for CertificateFlag {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let parts = text.split_once('=').and_then(|(name, files)| Some((name, files.split_once(',')?)));
        match parts {
            Some((name, (certificate, key))) if !name.is_empty() && !certificate.is_empty() && !key.is_empty() => {
                Ok(Self { name: name.into(), certificate: certificate.into(), key: key.into() })
            }
            _ => Err(ValueError::new(format!("{text:?} is not a certificate"), "write NAME=CERTIFICATE_FILE,KEY_FILE")),
        }
    }
}

/// `off`, or where to listen.
pub fn parse_addresses(text: &str) -> Result<Vec<SocketAddr>, ValueError> {
    if text == "off" { Ok(Vec::new()) } else { values::parse_listen_address(text) }
}

impl Config {
    /// The configuration of flags: `http`, and `https` when there is a certificate to serve, or a cluster whose Secrets may
    /// bring one at any time.
    pub fn from_flags(flags: Flags) -> Self {
        let origin = || Origin::of("flags");
        let mut certificates: Vec<CertificateFiles> = Vec::new();
        for flag in flags.certificates {
            let pair = (flag.certificate, flag.key);
            match certificates.iter_mut().find(|c| c.name == flag.name) {
                Some(same) => same.pairs.push(pair),
                None => certificates.push(CertificateFiles { name: flag.name, origin: origin(), pairs: vec![pair] }),
            }
        }
        let mut listeners = plain("http", &flags.http, &ListenerProtocol::Http);
        let mut tls = Vec::new();
        if !(certificates.is_empty() && flags.kubernetes.is_none()) {
            listeners.extend(plain("https", &flags.https, &ListenerProtocol::Https(listener::DEFAULT_TLS)));
        }
        if !certificates.is_empty() && !flags.https.is_empty() {
            let names = certificates.iter().map(|c| c.name.clone()).collect();
            let (listeners, hosts) = (vec!["https".to_owned()], Vec::new());
            tls.push(TlsBinding { origin: origin(), listeners, hosts, certificates: names, client_auth: None });
        }
        Self {
            path: None,
            written: None,
            tls,
            listeners,
            certificates,
            routes: flags.routes,
            kubernetes: flags.kubernetes,
            workers: flags.workers,
            limits: ProcessLimits::default(),
            admin: Admin { address: flags.admin, ..Admin::default() },
            share_ports: false,
            telemetry: Telemetry::default(),
            drain: Drain::default(),
        }
    }
}

fn plain(name: &str, addresses: &[SocketAddr], protocol: &ListenerProtocol) -> Vec<ListenerSpec> {
    let one = |(index, address): (usize, &SocketAddr)| ListenerSpec {
        name: install::address_name(name, index),
        origin: Origin::of("flags"),
        address: *address,
        protocol: protocol.clone(),
        proxy_protocol_from: Vec::new(),
        trusted_proxies: Vec::new(),
        https_redirect: None,
        encoded_slash: EncodedSlash::default(),
        policies: Vec::new(),
        headers: ProxyHeaders::default(),
        limits: Limits::default(),
        timeouts: TimeoutSpec::default(),
    };
    addresses.iter().enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(certificates: Vec<CertificateFlag>) -> Flags {
        let address = |text| parse_addresses(text).unwrap();
        let (http, https) = (address("127.0.0.1:8080"), address("127.0.0.1:8443"));
        let routes = vec!["routes.yaml".into()];
        Flags { routes, http, https, admin: None, workers: None, certificates, kubernetes: None }
    }

    #[test]
    fn https_is_served_when_there_is_a_certificate() {
        let names = |config: &Config| config.listeners.iter().map(|l| l.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&Config::from_flags(flags(vec![]))), ["http"]);
        let cluster = Config::from_flags(Flags { kubernetes: Some(Settings::default()), ..flags(vec![]) });
        assert_eq!((names(&cluster).len(), cluster.tls.len()), (2, 0), "Secrets come later");
        let config =
            Config::from_flags(flags(vec!["desk=a.pem,a.key".parse().unwrap(), "desk=b.pem,b.key".parse().unwrap()]));
        assert_eq!(names(&config), ["http", "https"]);
        assert_eq!((config.certificates.len(), config.certificates[0].pairs.len()), (1, 2));
        assert_eq!(config.tls[0].certificates, ["desk"]);
    }

    #[test]
    fn a_certificate_flag_has_a_name_and_two_files() {
        for wrong in ["", "a", "a=b", "=a,b", "a=,b", "a=b,"] {
            assert!(wrong.parse::<CertificateFlag>().is_err(), "{wrong}");
        }
    }
}
