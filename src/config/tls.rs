//! How are certificates, authorities and client certificates written?

use super::decode::{Decoder, Kind};
use super::kind::{List, Mapped, Section, Shapes};
use super::schema::Schema;
use super::values;
use super::yaml::{Node, Value};
use crate::model::{ClientAuthSpec, Pem};
use std::path::PathBuf;

/// Certificate authorities: a PEM file, or PEM text in place.
pub struct Authorities;

impl Kind for Authorities {
    type Out = Pem;

    fn decode(&self, node: &Node, decoder: &mut Decoder<'_>) -> Option<Pem> {
        let Value::Text(text) = &node.value else {
            decoder.mismatch(node, &self.expects());
            return None;
        };
        let (pem, name) = if text.trim_start().starts_with("-----BEGIN") {
            (text.as_bytes().to_vec(), "this text")
        } else {
            match decoder.files().read(text) {
                Ok(pem) => (pem, &**text),
                Err(why) => {
                    let hint = "name a PEM file of certificate authorities, or put its text here";
                    decoder.error(node.at, format!("{text:?} cannot be read: {why}"), hint);
                    return None;
                }
            }
        };
        if memchr::memmem::find(&pem, b"-----BEGIN CERTIFICATE-----").is_none() {
            decoder.error(node.at, format!("{name:?} has no certificate in it"), "a PEM file with BEGIN CERTIFICATE");
            return None;
        }
        Some(Pem(pem.into()))
    }

    fn schema(&self, _: &mut Schema) -> serde_json::Value {
        serde_json::json!({ "type": "string", "examples": ["ca.pem"] })
    }

    fn expects(&self) -> String {
        "a PEM file of certificate authorities".into()
    }
}

/// Client certificates of a listener or of a document's hosts.
pub fn client_auth() -> Section<ClientAuthSpec> {
    Section {
        name: "client_auth",
        doc: "Client certificates (mutual TLS).",
        fields: |f| {
            let ca = f.required("ca", "Authorities that sign clients: a PEM file, or PEM text in place.", Authorities);
            let mode =
                "`required` refuses the handshake without a valid certificate, `requested` verifies what is shown.";
            let modes = values::choice("a mode", &[("required", true), ("requested", false)]);
            let required = f.or("mode", mode, modes, true);
            Some(ClientAuthSpec { ca: ca?, required })
        },
    }
}

/// Names of certificates, one or several.
pub fn certificate_names() -> impl Kind<Out = Vec<String>> {
    List(certificate_name())
}

/// The name of a certificate of the install configuration.
pub fn certificate_name() -> super::kind::Scalar<String> {
    values::name("the name of a certificate")
}

/// The files of one certificate: one pair, or a list of pairs (ECDSA beside RSA).
pub(super) fn certificate_files() -> impl Kind<Out = Vec<(PathBuf, PathBuf)>> {
    Shapes::new().map(Mapped(pair(), |one| vec![one])).list(List(pair()))
}

fn pair() -> Section<(PathBuf, PathBuf)> {
    Section {
        name: "certificate",
        doc: "A certificate chain and its private key. Both files are watched and read again when they change.",
        fields: |f| {
            let chain = "PEM file: the certificate, then the intermediate ones that lead to the root.";
            let chain = f.required("certificate", chain, values::text("a PEM file"));
            let key =
                f.required("key", "PEM file with the private key of the certificate.", values::text("a PEM file"));
            Some((chain?.into(), key?.into()))
        },
    }
}
