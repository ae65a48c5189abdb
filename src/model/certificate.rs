//! Which certificates are there, and which names do they serve?

use super::{HostPattern, Origin};
use std::fmt;
use std::sync::Arc;

/// PEM text; `Debug` shows its length alone, so that no key reaches a log.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pem(pub Arc<[u8]>);

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({} bytes)", self.0.len())
    }
}

/// Certificate authorities that are trusted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Authorities {
    /// Their certificates, PEM.
    Known(Pem),
    /// Those in the Secret of this name. Sources put them in its place; as long as there are none, nobody is trusted.
    Named(String),
}

impl From<Pem> for Authorities {
    fn from(pem: Pem) -> Self {
        Self::Known(pem)
    }
}

/// A certificate chain and its key, as read; the `tls` room says whether they are usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateSpec {
    /// Name that routes and listeners refer to.
    pub name: String,
    /// Where it was said.
    pub origin: Origin,
    /// Chains and keys; more than one pair for the same names means ECDSA beside RSA.
    pub pairs: Vec<(Pem, Pem)>,
}

/// Which certificates serve which host names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsBinding {
    /// Where it was said.
    pub origin: Origin,
    /// Listeners it holds for; empty: all that speak TLS.
    pub listeners: Vec<String>,
    /// Server names; empty: the names in the certificates themselves.
    pub hosts: Vec<HostPattern>,
    /// Certificates by name.
    pub certificates: Vec<String>,
    /// Client certificates; `None`: as the listener says.
    pub client_auth: Option<ClientAuthSpec>,
}

/// Client certificates.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientAuthSpec {
    /// Authorities that sign clients.
    pub ca: Authorities,
    /// Refuse the handshake without a valid certificate; otherwise ask, and verify what is shown.
    pub required: bool,
}
