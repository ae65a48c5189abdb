//! What of a cluster is looked at, and who is this gate in it?

use super::decode::Fields;
use super::kind::{List, Scalar, Section};
use super::values;
use crate::model::{HostPattern, ValueError};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

/// The meaning of `sources.kubernetes`, every default filled in but what only the cluster's configuration knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Kubeconfig file; `None`: the service account of the pod, or else `KUBECONFIG` and `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; `None`: its current one.
    pub context: Option<String>,
    /// The gate's own namespace: routes ConfigMaps, certificates they name, leases. `None`: the service account's or the
    /// context's.
    pub namespace: Option<String>,
    /// Namespaces whose Services and Ingresses are looked at; empty: all (needs a ClusterRole).
    pub namespaces: Vec<String>,
    /// The node this gate runs on; `None`: no endpoint is near.
    pub node: Option<String>,
    /// The zone of that node; `None`: learnt from EndpointSlices that name the node.
    pub zone: Option<String>,
    /// The pod this gate runs in, told in what it writes to the cluster; `None`: it has none.
    pub pod: Option<String>,
    /// Addresses clients reach this gate at, published in the status of Ingresses while it is ready.
    pub addresses: Vec<IpAddr>,
    /// Ingresses of which class are served.
    pub ingress: IngressSettings,
    /// Which Services may expose themselves by annotation; empty: none.
    pub expose: Vec<ExposeRule>,
    /// Names of the certificates of the install configuration: a `tls:` of a routes document that names one of them asks for
    /// no Secret.
    pub certificates: BTreeSet<String>,
    /// Whether near endpoints are preferred.
    pub locality: bool,
    /// Whether Services of type ExternalName are followed. Never to loopback, link-local or node addresses.
    pub external_names: bool,
    /// Whether status, Events and annotations are written.
    pub status: bool,
}

/// Ingresses of which class are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressSettings {
    /// Whether Ingresses are served at all.
    pub enabled: bool,
    /// The controller name that IngressClasses carry in `spec.controller`. Default: `tidegate.io/ingress`.
    pub controller: String,
    /// The class name of the old annotation `kubernetes.io/ingress.class`. Default: `tidegate`.
    pub class: String,
}

/// The name that IngressClasses of this controller carry.
pub const CONTROLLER: &str = "tidegate.io/ingress";
/// The class of the old annotation, and of the IngressClass in `deploy/`.
pub const CLASS: &str = "tidegate";

impl Default for IngressSettings {
    fn default() -> Self {
        Self { enabled: true, controller: CONTROLLER.into(), class: CLASS.into() }
    }
}

/// Which hosts the Services of a namespace may claim by annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExposeRule {
    /// The namespace, or `*`.
    pub namespace: String,
    /// Hosts it may claim: exact ones, `*.example.com` with everything below, or `*`.
    pub hosts: Vec<HostPattern>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            context: None,
            namespace: None,
            namespaces: Vec::new(),
            node: None,
            zone: None,
            pod: None,
            addresses: Vec::new(),
            ingress: IngressSettings::default(),
            expose: Vec::new(),
            certificates: BTreeSet::new(),
            locality: true,
            external_names: false,
            status: true,
        }
    }
}

/// `sources.kubernetes`.
pub(super) fn kubernetes() -> Section<Settings> {
    Section {
        name: "kubernetes",
        doc: "A Kubernetes cluster: routes in ConfigMaps, Ingresses and annotated Services; {} takes every default.",
        fields,
    }
}

fn fields(f: &mut Fields<'_, '_>) -> Option<Settings> {
    let doc = "Kubeconfig file. Default: the service account of the pod, or else KUBECONFIG and ~/.kube/config.";
    let kubeconfig = f.optional("kubeconfig", doc, values::text("a file")).map(PathBuf::from);
    let doc = "Context of the kubeconfig. Default: its current one.";
    let context = f.optional("context", doc, values::text("the name of a context"));
    let doc = "The gate's own namespace: routes ConfigMaps, the certificates they name, leases. \
               Default: TIDEGATE_NAMESPACE, or else that of the service account or of the context.";
    let namespace = f.optional("namespace", doc, namespace());
    let doc = "Namespaces whose Services and Ingresses are looked at. Default: all, which needs a ClusterRole.";
    let namespaces = f.or_default("namespaces", doc, List(self::namespace()));
    let doc = "The node this gate runs on, to prefer endpoints on it. Default: TIDEGATE_NODE.";
    let node = f.optional("node", doc, values::name("the name of a node"));
    let doc = "The zone of that node. Default: TIDEGATE_ZONE, or else learnt from EndpointSlices that name the node.";
    let zone = f.optional("zone", doc, values::name("the name of a zone"));
    let doc = "Addresses clients reach this gate at, put into the status of Ingresses while it is ready. \
               Default: TIDEGATE_ADDRESSES.";
    let addresses = f.or_default("addresses", doc, List(address()));
    let ingress = f.or_default("ingress", "Ingresses of which class are served.", ingress());
    let doc = "Which Services may make routes by the annotation tidegate.io/expose. Default: none.";
    let expose = f.or_default("expose", doc, List(expose()));
    let defaults = Settings::default();
    let doc = "Whether endpoints on the same node, then in the same zone, are preferred until they are busy; clusters \
               balanced by round_robin, random or hash do not look at it.";
    let locality = f.or("locality", doc, values::flag(), defaults.locality);
    let doc = "Whether Services of type ExternalName are followed; never to loopback, link-local or node addresses.";
    let external_names = f.or("external_names", doc, values::flag(), defaults.external_names);
    let doc = "Whether Ingress status, Events and annotations of routes ConfigMaps are written.";
    let status = f.or("status", doc, values::flag(), defaults.status);
    Some(Settings {
        kubeconfig,
        context,
        namespace,
        namespaces,
        node,
        zone,
        pod: None,
        addresses,
        ingress,
        expose,
        certificates: BTreeSet::new(),
        locality,
        external_names,
        status,
    })
}

fn ingress() -> Section<IngressSettings> {
    Section {
        name: "kubernetes_ingress",
        doc: "Ingresses of which class are served.",
        fields: |f| {
            let defaults = IngressSettings::default();
            let enabled = f.or("enabled", "Whether Ingresses are served at all.", values::flag(), defaults.enabled);
            let doc = "The controller that IngressClasses name in spec.controller.";
            let controller = f.or("controller", doc, controller(), defaults.controller);
            let doc = "The class in the old annotation kubernetes.io/ingress.class.";
            let class = f.or("class", doc, values::name("the name of a class"), defaults.class);
            Some(IngressSettings { enabled, controller, class })
        },
    }
}

fn expose() -> Section<ExposeRule> {
    Section {
        name: "kubernetes_expose",
        doc: "Hosts that the Services of a namespace may claim by the annotation tidegate.io/expose.",
        fields: |f| {
            let any = Scalar {
                expects: "a namespace, or *".into(),
                parse: Box::new(|t| if t == "*" { Ok(t.into()) } else { parse_namespace(t) }),
                ..namespace()
            };
            let namespace = f.required("namespace", "The namespace, or * for each.", any);
            let doc = "Hosts it may claim: exact, *.example.com with everything below, or *.";
            let hosts = f.required("hosts", doc, List(values::host()));
            Some(ExposeRule { namespace: namespace?, hosts: hosts? })
        },
    }
}

fn namespace() -> Scalar<String> {
    Scalar {
        expects: "a namespace".into(),
        parse: Box::new(parse_namespace),
        schema: Box::new(|| json!({ "type": ["string", "number"] })),
        show: Box::new(|t| json!(t)),
    }
}

/// Reads the name of a namespace, an RFC 1123 label.
pub fn parse_namespace(text: &str) -> Result<String, ValueError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let edges = text.starts_with('-') || text.ends_with('-');
    if text.is_empty() || text.len() > 63 || edges || !text.chars().all(fits) {
        let hint = "lower-case letters, digits and - inside, 63 at the most";
        return Err(ValueError::new(format!("{text:?} is not a namespace"), hint));
    }
    Ok(text.to_owned())
}

/// Whether this may be the name of a Secret, an RFC 1123 subdomain.
pub fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(|label| parse_namespace(label).is_ok())
}

/// The API server takes only such names as controllers of an IngressClass.
fn controller() -> Scalar<String> {
    let name = values::name("a controller such as tidegate.io/ingress");
    let parse = move |t: &str| match (name.parse)(t)? {
        t if t.trim_matches('/').contains('/') => Ok(t),
        t => {
            Err(ValueError::new(format!("{t:?} is not a controller"), "write DOMAIN/NAME, such as tidegate.io/ingress"))
        }
    };
    Scalar { parse: Box::new(parse), ..values::name("a controller such as tidegate.io/ingress") }
}

/// An address that clients reach.
fn address() -> Scalar<IpAddr> {
    Scalar {
        expects: "an IP address such as 192.0.2.10".into(),
        parse: Box::new(parse_address),
        schema: Box::new(|| json!({ "type": "string", "examples": ["192.0.2.10", "2001:db8::10"] })),
        show: Box::new(|a| json!(a.to_string())),
    }
}

fn parse_address(text: &str) -> Result<IpAddr, ValueError> {
    let wrong =
        |why| ValueError::new(format!("{text:?} {why}"), "write an IP address, such as 192.0.2.10 or 2001:db8::10");
    let address: IpAddr = text.parse().map_err(|_| wrong("is not an IP address"))?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(wrong("is no address that a client reaches"));
    }
    Ok(address)
}

/// Reads addresses divided by commas, as the downward API gives `status.hostIPs`.
pub fn parse_addresses(text: &str) -> Result<Vec<IpAddr>, ValueError> {
    text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(parse_address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use std::path::Path;

    fn load(kubernetes: &str) -> Result<Config, Vec<crate::model::Problem>> {
        let text = format!("listeners: {{ http: {{ address: :80 }} }}\nsources:\n  kubernetes: {kubernetes}\n");
        Config::parse("gate.yaml", &text, Path::new("/etc/gate"))
    }

    #[test]
    fn nothing_in_particular_is_every_default() {
        let config = load("{}").unwrap();
        assert_eq!(config.kubernetes, Some(Settings::default()));
        assert!(config.routes.is_empty(), "no routes files unless they are named");
    }

    #[test]
    fn routes_files_stand_beside_it_where_they_are_named() {
        let text = "listeners: { http: { address: :80 } }\nsources: { kubernetes: {}, routes: more.yaml }\n";
        let config = Config::parse("gate.yaml", text, Path::new("/etc/gate")).unwrap();
        assert_eq!(config.routes, [PathBuf::from("/etc/gate/more.yaml")]);
    }

    #[test]
    fn every_key_is_read() {
        let text = "{ kubeconfig: kube.config, context: test, namespace: edge, namespaces: [shop, desk], node: n1, \
                    zone: z1, addresses: [192.0.2.1, \"2001:db8::1\"], ingress: { enabled: false, controller: a.test/b, \
                    class: b }, expose: { namespace: \"*\", hosts: [\"*.a.test\", b.test] }, locality: false, \
                    external_names: true, status: false }";
        let settings = load(text).unwrap().kubernetes.unwrap();
        assert_eq!(settings.kubeconfig, Some("/etc/gate/kube.config".into()));
        assert_eq!((settings.context.as_deref(), settings.namespace.as_deref()), (Some("test"), Some("edge")));
        assert_eq!((settings.node.as_deref(), settings.zone.as_deref()), (Some("n1"), Some("z1")));
        assert_eq!((settings.namespaces, settings.addresses.len()), (vec!["shop".to_owned(), "desk".to_owned()], 2));
        assert_eq!(
            settings.ingress,
            IngressSettings { enabled: false, controller: "a.test/b".into(), class: "b".into() }
        );
        assert_eq!((settings.expose[0].namespace.as_str(), settings.expose[0].hosts.len()), ("*", 2));
        assert!(!settings.locality && settings.external_names && !settings.status);
    }

    #[test]
    fn every_mistake_is_told_at_its_place() {
        let wrong = [
            ("{ namespace: Edge }", "3:28: sources.kubernetes.namespace: error: \"Edge\" is not a namespace"),
            ("{ namespaces: [a, b_c] }", "sources.kubernetes.namespaces[1]: error"),
            ("{ addresses: localhost }", "sources.kubernetes.addresses: error"),
            ("{ addresses: [0.0.0.0] }", "is no address that a client reaches"),
            ("{ ingress: { controller: tidegate } }", "sources.kubernetes.ingress.controller: error"),
            ("{ expose: [{ namespace: shop }] }", "\"hosts\" is missing"),
            ("{ expose: [{ namespace: shop, hosts: \"a b\" }] }", "sources.kubernetes.expose[0].hosts: error"),
            ("{ localty: true }", "did you mean \"locality\"?"),
            ("{ status: maybe }", "write true or false"),
            ("true", "a map of keys and values"),
        ];
        for (text, told) in wrong {
            let all: Vec<_> = load(text).unwrap_err().iter().map(ToString::to_string).collect();
            assert!(all.iter().any(|m| m.starts_with("gate.yaml:3:") && m.contains(told)), "{text}: {all:#?}");
        }
    }

    #[test]
    fn addresses_of_a_node_come_divided_by_commas() {
        assert_eq!(parse_addresses("192.0.2.1,2001:db8::1, ").unwrap().len(), 2);
        assert_eq!(parse_addresses("").unwrap(), [] as [IpAddr; 0]);
        assert!(parse_addresses("192.0.2.1,a").is_err());
    }
}
