//! How are certificates, authorities and client certificates written?

use super::decode::{Decoder, Kind};
use super::kind::{List, Mapped, Section, Shapes};
use super::schema::Schema;
use super::values;
use super::yaml::{Node, Value};
use crate::model::{self, ClientAuthSpec, Pem};
use std::path::PathBuf;

/// Certificate authorities: PEM text in place, or a PEM file; in a text that lives in an object, the name of a Secret instead of a
/// file. PEM text begins with what no name of either does.
pub struct Authorities;

impl Kind for Authorities {
    type Out = model::Authorities;

    fn decode(&self, node: &Node, decoder: &mut Decoder<'_>) -> Option<model::Authorities> {
        let Value::Text(text) = &node.value else {
            decoder.mismatch(node, &self.expects());
            return None;
        };
        let (pem, name) = if text.trim_start().starts_with("-----BEGIN") {
            (text.as_bytes().to_vec(), "this text")
        } else if decoder.files().objects() {
            return Some(model::Authorities::Named(text.to_string()));
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
        Some(Pem(pem.into()).into())
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
            let doc = "Authorities that sign clients: a PEM file, or PEM text in place; in a routes ConfigMap also the name of a Secret with them in ca.crt.";
            let ca = f.required("ca", doc, Authorities);
            if let Some(name) = ca.as_ref().and_then(no_secret) {
                f.error(
                    "ca",
                    no_authorities(name),
                    "name a Secret of the gate's namespace that has ca.crt, without the namespace",
                );
            }
            let mode =
                "`required` refuses the handshake without a valid certificate, `requested` verifies what is shown.";
            let modes = values::choice("a mode", &[("required", true), ("requested", false)]);
            let required = f.or("mode", mode, modes, true);
            Some(ClientAuthSpec { ca: ca?, required })
        },
    }
}

/// The name of a Secret that cannot be one.
pub fn no_secret(ca: &model::Authorities) -> Option<&str> {
    match ca {
        model::Authorities::Named(name) if !super::kubernetes::is_subdomain(name) => Some(name),
        model::Authorities::Named(_) | model::Authorities::Known(_) => None,
    }
}

/// What is wrong with such a name.
pub fn no_authorities(name: &str) -> String {
    format!("{name:?} is neither PEM text nor the name of a Secret")
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
