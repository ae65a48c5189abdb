//! Why can a certificate, a key or an authority not be used?

use thiserror::Error;

/// Why TLS material cannot be used, in the words of the person who has to repair it.
#[derive(Debug, Error)]
pub enum Error {
    /// The chain file has no PEM certificate.
    #[error("no certificate in the chain")]
    NoCertificate,
    /// The key file has no PEM key.
    #[error("no private key")]
    NoKey,
    /// The key is protected by a passphrase.
    #[error("the private key is encrypted")]
    EncryptedKey,
    /// Not PEM at all, or cut short.
    #[error("the PEM text cannot be read")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// The leaf is not an X.509 certificate.
    #[error("the certificate cannot be read")]
    Certificate(#[source] x509_parser::error::X509Error),
    /// The key is of a kind that TLS cannot sign with.
    #[error("the private key cannot be used")]
    Key(#[source] rustls::Error),
    /// Certificate and key belong to different pairs.
    #[error("the private key does not fit the certificate")]
    KeyMismatch,
    /// The key fits a certificate that is not the first of its chain.
    #[error("the private key fits certificate {position} of the chain, not the first")]
    LeafNotFirst {
        /// Counted from 1.
        position: usize,
    },
    /// Its time is over.
    #[error("the certificate expired on {on}")]
    Expired {
        /// RFC 3339.
        on: String,
    },
    /// Its time has not come.
    #[error("the certificate is not valid before {on}")]
    NotYetValid {
        /// RFC 3339.
        on: String,
    },
    /// An authority bundle without a usable certificate.
    #[error("no authority in the CA bundle")]
    NoAuthority,
    /// Authorities of which the name alone is known.
    #[error("the authorities of Secret {0:?} are not known")]
    UnknownAuthorities(String),
    /// An authority that cannot be used.
    #[error("authority {position} of the CA bundle cannot be used")]
    Authority {
        /// Counted from 1.
        position: usize,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The verifier of client certificates cannot be built.
    #[error("client certificates cannot be verified")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// A server name to verify that is neither a host name nor an IP address.
    #[error("{0:?} is not a server name")]
    ServerName(String),
    /// rustls refused the configuration.
    #[error("TLS cannot be configured")]
    Config(#[source] rustls::Error),
}

impl Error {
    /// What would be right; empty where there is nothing to say beyond the error.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoCertificate => "PEM text with BEGIN CERTIFICATE, the server's own certificate first",
            Self::NoKey => "PEM text with BEGIN PRIVATE KEY",
            Self::EncryptedKey => "store it without passphrase: openssl pkey -in key.pem -out plain.pem",
            Self::Pem(_) => "PEM text, complete from its BEGIN to its END line",
            Self::Key(_) => "an ECDSA (P-256, P-384, P-521), Ed25519 or RSA (2048 bits or more) key",
            Self::KeyMismatch => "give the key that this certificate was requested with",
            Self::LeafNotFirst { .. } => "put the server's own certificate first, then the intermediates",
            Self::Expired { .. } => "renew it",
            Self::NotYetValid { .. } => "check the clock of this machine and of the authority",
            Self::NoAuthority => "PEM text with BEGIN CERTIFICATE of the authorities that are trusted",
            Self::ServerName(_) => "a host name such as api.example.com, or an IP address",
            Self::Certificate(_)
            | Self::UnknownAuthorities(_)
            | Self::Authority { .. }
            | Self::Verifier(_)
            | Self::Config(_) => "",
        }
    }

    /// The error with its causes, in one line.
    pub fn full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
