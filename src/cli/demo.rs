//! What does a newcomer see in the first minute? Everything at once, in a folder that can be looked at and edited.

use super::echo;
use crate::app::{self, Opened};
use crate::config::Config;
use crate::message::random;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Ports that are tried first; any free one otherwise.
const HTTP: u16 = 8080;
const HTTPS: u16 = 8443;
const ADMIN: u16 = 9901;

/// Flags of `demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Folder for the demonstration's files; default: a temporary one, removed at the end
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

/// Runs the demonstration until a signal ends it.
pub(super) fn demo(args: DemoArgs) -> ExitCode {
    let temporary = args.folder.is_none();
    let folder = args.folder.unwrap_or_else(|| PathBuf::from(format!("/tmp/tidegate-demo-{:016x}", random::next())));
    let code = match make(&folder, temporary).and_then(|()| prepare(&folder)) {
        Err(error) => super::fail(&format!("the demonstration cannot be set up in {}: {error}", folder.display())),
        Ok(()) => run(&folder),
    };
    if temporary {
        // What is left over of a demonstration does no harm.
        let _ = fs::remove_dir_all(&folder);
    }
    code
}

/// A private key is kept here: the folder is ours alone, and a temporary one is new.
fn make(folder: &Path, new: bool) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).recursive(!new).create(folder)
}

fn run(folder: &Path) -> ExitCode {
    let config = match Config::load(&folder.join("gate.yaml")) {
        Ok(config) => config,
        Err(problems) => {
            super::tell(&problems);
            return super::fail("the demonstration's own configuration is wrong: please report this");
        }
    };
    super::run::report(app::run(config, |opened| show(folder, opened)))
}

/// Writes certificates, configuration and routes, and starts the upstreams.
fn prepare(folder: &Path) -> io::Result<()> {
    certificates(folder).map_err(io::Error::other)?;
    let (v1, v2) = (echo::start("v1")?, echo::start("v2")?);
    fs::write(folder.join("gate.yaml"), gate(free(HTTP), free(HTTPS), free(ADMIN)))?;
    fs::write(folder.join("routes.yaml"), routes(v1, v2))
}

/// The wanted port of 127.0.0.1 if it is free, 0 for any free one otherwise.
fn free(port: u16) -> u16 {
    if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() { port } else { 0 }
}

/// A certificate authority that lives as long as the demonstration, and a certificate by it.
fn certificates(folder: &Path) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(DnType::CommonName, "Tidegate demonstration");
    let authority_key = KeyPair::generate()?;
    let root = authority.self_signed(&authority_key)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec!["shop.example.com".into(), "*.example.com".into()])?
        .signed_by(&key, &Issuer::new(authority, authority_key))?;
    fs::write(folder.join("ca.pem"), root.pem())?;
    fs::write(folder.join("shop.pem"), leaf.pem())?;
    fs::write(folder.join("shop.key"), key.serialize_pem())?;
    Ok(())
}

fn gate(http: u16, https: u16, admin: u16) -> String {
    format!(
        "\
# Listeners and certificates (read again when they change), limits. `tidegate schema install` describes every key.
workers: 1
admin: {{ address: \"127.0.0.1:{admin}\" }}
certificates:
  shop: {{ certificate: shop.pem, key: shop.key }}
listeners:
  http: {{ address: \"127.0.0.1:{http}\" }}
  https: {{ address: \"127.0.0.1:{https}\", tls: {{ certificates: [shop] }} }}
sources: {{ routes: [routes.yaml] }}
"
    )
}

fn routes(v1: SocketAddr, v2: SocketAddr) -> String {
    format!(
        "\
# Edit and save: the change serves at once. A mistake is told in the log, and what was right before goes on.
shop.example.com/:      shop/v1                # host and path prefix -> cluster
shop.example.com/new/:  shop/v2
---
hosts: [desk.example.com]
headers:                                      # checks of every route below
  require: {{ x-api-key: \"[0-9a-f]{{8}}\" }}     # the whole value must match
routes:
  - {{ path: /, to: shop/v1 }}
---
hosts: [canary.example.com]
routes:
  - {{ path: /, to: [ {{ cluster: shop/v1, weight: 80 }}, {{ cluster: shop/v2, weight: 20 }} ] }}
---
clusters:
  shop/v1: {{ endpoints: [\"{v1}\"] }}
  shop/v2: {{ endpoints: [\"{v2}\"] }}
"
    )
}

fn show(folder: &Path, opened: &Opened) {
    let at = |name: &str| opened.listeners.iter().find(|l| &*l.name == name).map_or(0, |l| l.address.port());
    let (http, https, folder) = (at("http"), at("https"), folder.display());
    let mut text = format!(
        "
Tidegate runs. Its configuration is in {folder}:
  routes.yaml   edit it, save it, and ask again
  gate.yaml     listeners and certificates, read again when they change, too; limits

Try, in another terminal:
  # by host
  curl -H 'Host: shop.example.com' http://127.0.0.1:{http}/hello
  # by path
  curl -H 'Host: shop.example.com' http://127.0.0.1:{http}/new/hello
  # a header check that refuses: 403; add  -H 'x-api-key: 0123abcd'  and it passes
  curl -i -H 'Host: desk.example.com' http://127.0.0.1:{http}/
  # a canary: about 2 of 10 answers come from v2
  for i in $(seq 10); do curl -s -H 'Host: canary.example.com' http://127.0.0.1:{http}/ | head -n 1; done
  # https, verified by the demonstration's own certificate authority
  curl --cacert {folder}/ca.pem --resolve shop.example.com:{https}:127.0.0.1 https://shop.example.com:{https}/

"
    );
    if let Some(admin) = opened.admin {
        let _ = writeln!(text, "Look inside: http://{admin}/console   metrics: http://{admin}/metrics");
    }
    text.push_str("Ctrl-C drains and ends.\n");
    // The access log goes to standard output; this is for the person at the terminal, whoever reads that.
    let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FilesIn;
    use crate::source::grammar;

    #[test]
    fn the_configuration_of_the_demonstration_is_right() {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path()).unwrap();
        let config = Config::parse("gate.yaml", &gate(1, 2, 3), folder.path()).unwrap();
        assert_eq!(config.listeners.len(), 2);
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let parsed = grammar::parse("routes.yaml", &routes(address, address), &FilesIn(folder.path()));
        assert_eq!(parsed.problems, []);
        assert_eq!((parsed.fragment.routes.len(), parsed.fragment.clusters.len()), (4, 2));
    }
}
