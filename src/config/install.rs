//! How is the install configuration read from its file: listeners, certificates, sources and the process?

use super::decode::{Decoder, Fields, Files};
use super::kind::{List, Named, Names, Section};
use super::kubernetes::{self, Settings};
use super::listener::{self, Written};
use super::{CertificateFiles, Config, ROUTES, process, tls, values, yaml};
use crate::model::{ListenerProtocol, ListenerSpec, Origin, Position, Problem, TlsBinding};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Keys that only an install configuration has at its top: how the two kinds of file are told apart.
pub const KEYS: [&str; 7] = ["workers", "admin", "share_ports", "telemetry", "drain", "certificates", "sources"];

/// Reads a text; `base` is the folder that relative paths start from.
pub(super) fn parse(place: &str, text: &str, base: &Path, files: &dyn Files) -> Result<Config, Vec<Problem>> {
    let place: Arc<str> = place.into();
    let documents = yaml::parse(text).map_err(|error| {
        vec![Problem::error(Origin::of(place.clone()).at("", Some(error.at)), error.what, error.hint)]
    })?;
    let mut decoder = Decoder::new(place.clone(), files);
    let [document] = documents.as_slice() else {
        let what = format!("an install configuration is one document, this text has {}", documents.len());
        return Err(vec![Problem::error(
            Origin::of(place)
                .at("", Some(documents.get(1).map_or(Position { line: 1, column: 1 }, |second| second.at))),
            what,
            "routes stand in files of their own: sources.routes",
        )]);
    };
    let config = Fields::decode(document, &mut decoder, root().fields);
    match (config, decoder.finish()) {
        (Some(config), problems) if problems.is_empty() => Ok(resolve(config, base)),
        (_, problems) => Err(problems),
    }
}

/// The whole install configuration.
pub fn root() -> Section<Config> {
    Section {
        name: "install",
        doc: "An install configuration of Tidegate. Its listeners and certificates are read again when it changes, all else needs a restart.",
        fields,
    }
}

fn fields(f: &mut Fields<'_, '_>) -> Option<Config> {
    let doc = "The addresses to listen on, by name. At least one.";
    let name = || values::name("a name");
    let listeners =
        f.required("listeners", doc, Names { key: listener::name(), value: listener::listener(), each: false });
    let doc = "Certificates by the name that listeners and routes refer to.";
    let files = Names { key: name(), value: tls::certificate_files(), each: false };
    let certificates = f.or_default("certificates", doc, files);
    let Sources { routes, kubernetes } = f.or_default("sources", "Where routes come from.", sources());
    let workers = f.or("workers", "Worker threads; `auto` is one for each core.", process::workers(), None);
    let limits = f.or_default("limits", "What the process takes at the most.", process::limits());
    let admin = f.or_default("admin", "The admin port.", process::admin());
    let doc = "Whether another gate of the same user may run on the same ports for a while, as when a DaemonSet surges: \
               new connections go to either, and the admin port is waited for until the other leaves it.";
    let share_ports = f.or("share_ports", doc, values::flag(), false);
    let telemetry = f.or_default("telemetry", "What the proxy tells about its work.", process::telemetry());
    let drain = f.or_default("drain", "How the proxy ends.", process::drain());
    let certificates: Vec<_> = certificates.into_iter().map(certificate).collect();
    let (listeners, tls) = spread(f, listeners?, &certificates);
    Some(Config {
        path: None,
        written: None,
        listeners,
        tls,
        certificates,
        routes,
        kubernetes,
        workers,
        limits,
        admin,
        share_ports,
        telemetry,
        drain,
    })
}

/// Where routes come from.
struct Sources {
    routes: Vec<PathBuf>,
    kubernetes: Option<Settings>,
}

impl Default for Sources {
    fn default() -> Self {
        Self { routes: vec![ROUTES.into()], kubernetes: None }
    }
}

fn sources() -> Section<Sources> {
    Section {
        name: "sources",
        doc: "Where routes come from.",
        fields: |f| {
            let doc = "Routes files, or folders whose *.yaml and *.yml files are read. All are watched. \
                       Default: routes.yaml, or none beside `kubernetes`.";
            let routes = f.optional("routes", doc, List(values::text("a file or a folder")));
            let doc = "The Kubernetes cluster that this proxy is the front door of.";
            let settings = f.optional("kubernetes", doc, kubernetes::kubernetes());
            let routes = match routes {
                Some(routes) => routes.into_iter().map(PathBuf::from).collect(),
                None if f.has("kubernetes") => Vec::new(),
                None => Sources::default().routes,
            };
            Some(Sources { routes, kubernetes: settings })
        },
    }
}

fn certificate(named: Named<String, Vec<(PathBuf, PathBuf)>>) -> CertificateFiles {
    CertificateFiles { name: named.name, origin: named.origin, pairs: named.value }
}

/// One specification for each address, and which certificates each listener serves.
fn spread(
    f: &mut Fields<'_, '_>,
    listeners: Vec<Named<String, Written>>,
    certificates: &[CertificateFiles],
) -> (Vec<ListenerSpec>, Vec<TlsBinding>) {
    if listeners.is_empty() {
        f.error("listeners", "there is no listener", "add one, such as http: { address: \":8080\" }");
    }
    let mut bindings = Vec::new();
    let mut specs = Vec::new();
    for Named { name, origin, value } in listeners {
        if let ListenerProtocol::Https(tls) = &value.spec.protocol {
            let all = || certificates.iter().map(|c| c.name.clone()).collect();
            let served = value.certificates.clone().unwrap_or_else(all);
            for wanted in served.iter().chain(&tls.default_certificate) {
                if !certificates.iter().any(|c| c.name == *wanted) {
                    let known: Vec<_> = certificates.iter().map(|c| c.name.as_str()).collect();
                    let hint = super::decode::suggest(wanted, &known);
                    f.error(
                        "listeners",
                        format!("the listener {name:?} names the certificate {wanted:?}, which is not there"),
                        hint,
                    );
                }
            }
            if !served.is_empty() {
                bindings.push(TlsBinding {
                    origin: origin.clone(),
                    listeners: vec![name.clone()],
                    hosts: Vec::new(),
                    certificates: served,
                    client_auth: None,
                });
            }
        }
        for (index, address) in value.addresses.iter().enumerate() {
            let name = address_name(&name, index);
            specs.push(ListenerSpec { name, origin: origin.clone(), address: *address, ..value.spec.clone() });
        }
    }
    refuse_shared(f, &specs);
    (specs, bindings)
}

/// Sockets are opened so that several may listen at one address: two listeners there would take each other's connections.
fn refuse_shared(f: &mut Fields<'_, '_>, specs: &[ListenerSpec]) {
    for (index, spec) in specs.iter().enumerate() {
        let same = |other: &&ListenerSpec| other.address == spec.address && spec.address.port() != 0;
        if let Some(other) = specs.iter().take(index).find(same) {
            let what =
                format!("the listeners {:?} and {:?} have the same address {}", other.name, spec.name, spec.address);
            f.error("listeners", what, "give each a port of its own");
        }
    }
}

/// A listener of several addresses is one for each of them.
pub(super) fn address_name(name: &str, index: usize) -> String {
    if index == 0 { name.to_owned() } else { format!("{name}#{}", index + 1) }
}

fn resolve(config: Config, base: &Path) -> Config {
    let mut config = config;
    for pair in config.certificates.iter_mut().flat_map(|c| &mut c.pairs) {
        *pair = (base.join(&pair.0), base.join(&pair.1));
    }
    for route in &mut config.routes {
        *route = base.join(&*route);
    }
    if let Some(file) = config.kubernetes.as_mut().and_then(|settings| settings.kubeconfig.as_mut()) {
        *file = base.join(&*file);
    }
    if let Some(socket) = &mut config.admin.socket {
        *socket = base.join(&*socket);
    }
    if let super::Access::File(path) = &mut config.telemetry.access_log.to {
        *path = base.join(&*path);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::decode::NoFiles;
    use crate::config::{Access, AccessFormat};

    fn load(text: &str) -> Result<Config, Vec<Problem>> {
        parse("gate.yaml", text, Path::new("/etc/gate"), &NoFiles)
    }

    fn mistakes(text: &str) -> Vec<String> {
        load(text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_listener_is_enough() {
        let config = load("listeners: { http: { address: 127.0.0.1:0 } }").unwrap();
        assert_eq!(config.listeners[0].name, "http");
        assert_eq!(config.listeners[0].protocol, ListenerProtocol::Http);
        assert_eq!(config.routes, [PathBuf::from("/etc/gate/routes.yaml")]);
        assert_eq!(config.admin.address.unwrap().to_string(), "127.0.0.1:9901");
        assert_eq!(config.telemetry.access_log.format, AccessFormat::Json);
    }

    #[test]
    fn several_addresses_are_several_listeners() {
        let config = load("listeners: { http: { address: [0.0.0.0:80, \"[::1]:80\"] } }").unwrap();
        let names: Vec<_> = config.listeners.iter().map(|l| l.name.as_str()).collect();
        assert_eq!(names, ["http", "http#2"]);
    }

    #[test]
    fn an_https_listener_serves_every_certificate_unless_it_names_some() {
        let text = "listeners:\n  a: { address: :1, protocol: https }\n  b: { address: :2, tls: { certificates: y } }\n\
                    certificates:\n  x: { certificate: x.pem, key: x.key }\n  y: { certificate: y.pem, key: y.key }\n";
        let config = load(text).unwrap();
        assert_eq!(config.tls[0].certificates, ["x", "y"]);
        assert_eq!(config.tls[1].certificates, ["y"]);
        assert!(config.listeners.iter().any(|l| l.name == "b") && config.tls[1].listeners == ["b"]);
        assert_eq!(config.certificates[0].pairs[0].0, PathBuf::from("/etc/gate/x.pem"));
    }

    #[test]
    fn every_mistake_is_told_at_once_with_its_place_and_a_suggestion() {
        let text =
            "listeners:\n  http: { adress: :80 }\n  tls: { address: x, limits: { head: 1 } }\nworkers: 0\nadmn: {}\n";
        let all = mistakes(text);
        assert!(
            all.contains(
                &"gate.yaml:2:11: listeners.http: error: unknown key \"adress\"; did you mean \"address\"?".into()
            ),
            "{all:#?}"
        );
        assert!(all.iter().any(|m| m.starts_with("gate.yaml:3:19: listeners.tls.address: error: \"x\"")), "{all:#?}");
        assert!(all.iter().any(|m| m.contains("listeners.tls.limits.head")), "{all:#?}");
        assert!(all.iter().any(|m| m.starts_with("gate.yaml:4:10: workers")), "{all:#?}");
        assert!(all.iter().any(|m| m.contains("did you mean \"admin\"?")), "{all:#?}");
    }

    #[test]
    fn a_certificate_that_is_not_there_is_a_mistake() {
        let text = "listeners: { a: { address: :1, tls: { certificates: shp } } }\ncertificates: { shop: { certificate: a, key: b } }";
        assert!(mistakes(text)[0].contains("did you mean \"shop\"?"));
    }

    #[test]
    fn the_access_log_has_a_short_and_a_long_form() {
        let base = "listeners: { http: { address: :1 } }\ntelemetry: ";
        let config = load(&format!("{base}{{ access_log: off }}")).unwrap();
        assert_eq!(config.telemetry.access_log.format, AccessFormat::Off);
        let config = load(&format!("{base}{{ access_log: {{ format: combined, path: a.log }} }}")).unwrap();
        assert_eq!(config.telemetry.access_log.to, Access::File("/etc/gate/a.log".into()));
    }

    #[test]
    fn two_listeners_cannot_share_an_address() {
        let shared = "listeners: { a: { address: 127.0.0.1:80 }, b: { address: [127.0.0.1:81, 127.0.0.1:80] } }";
        assert!(mistakes(shared)[0].contains("\"a\" and \"b#2\" have the same address"), "{:?}", mistakes(shared));
        let free = "listeners: { a: { address: 127.0.0.1:0 }, b: { address: 127.0.0.1:0 } }";
        assert!(load(free).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(listeners|http|address|tls|limits|workers|: |\\{|\\}|\\[|\\]|, |\n|  |:80|1|\"|x){0,30}") {
            let _ = load(&text);
        }
    }

    #[test]
    fn an_empty_text_is_told_what_is_missing() {
        assert!(!mistakes("").is_empty());
        assert!(mistakes("{}")[0].contains("\"listeners\" is missing"));
    }
}
