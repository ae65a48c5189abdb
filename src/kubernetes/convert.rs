//! What is kept of an object of the API, and what is dropped?
//!
//! By value: texts are moved, not copied, because a ConfigMap may hold a megabyte of them. Nothing fails here: what an object
//! leaves out is empty, and what makes no sense is found by `translate`, which knows where to say so.

use super::objects::{
    Ingress, IngressBackend, IngressClass, IngressPath, IngressPort, IngressRule, IngressTls, Key, Meta,
    RoutesConfigMap, Secret, Service, ServicePort,
};
use crate::model::Pem;
use k8s_openapi::ByteString;
use k8s_openapi::api::{core::v1 as core, networking::v1 as networking};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Annotations of ours begin with this.
pub const PREFIX: &str = "tidegate.io/";
/// Hosts and paths under which a Service wants to be reached.
pub const EXPOSE: &str = "tidegate.io/expose";
/// The port of a Service that exposes itself; name or number.
pub const PORT: &str = "tidegate.io/port";
/// Annotations of another controller, which are told to change nothing here.
pub const OTHERS: &str = "nginx.ingress.kubernetes.io/";
/// The class of an Ingress before there was `spec.ingressClassName`.
const CLASS: &str = "kubernetes.io/ingress.class";
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

impl From<&ObjectMeta> for Meta {
    fn from(meta: &ObjectMeta) -> Self {
        let text = |text: &Option<String>| Arc::from(text.as_deref().unwrap_or_default());
        let created = meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
        Self {
            key: Key::new(text(&meta.namespace), text(&meta.name)),
            uid: text(&meta.uid),
            version: text(&meta.resource_version),
            created: created.try_into().unwrap_or_default(),
        }
    }
}

/// Without its version, which nobody asks for: of thousands of objects each write of a status would else be another object.
fn unversioned(meta: &ObjectMeta) -> Arc<Meta> {
    Meta { version: Arc::default(), ..Meta::from(meta) }.into()
}

impl From<core::ConfigMap> for RoutesConfigMap {
    fn from(map: core::ConfigMap) -> Self {
        let meta = Meta::from(&map.metadata).into();
        let annotations = map.metadata.annotations.unwrap_or_default();
        Self {
            meta,
            data: map.data.unwrap_or_default(),
            binary: map.binary_data.unwrap_or_default().into_keys().collect(),
            annotations: annotations.into_iter().filter(|(key, _)| key.starts_with(PREFIX)).collect(),
        }
    }
}

impl From<core::Service> for Service {
    fn from(service: core::Service) -> Self {
        let meta = unversioned(&service.metadata);
        let mut annotations = service.metadata.annotations.unwrap_or_default();
        let spec = service.spec.unwrap_or_default();
        let external = spec.type_.as_deref() == Some("ExternalName");
        let tcp = |port: &core::ServicePort| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        Self {
            meta,
            external_name: external.then(|| spec.external_name.unwrap_or_default()),
            ports: few(spec.ports.unwrap_or_default().into_iter().filter(tcp).map(service_port)),
            expose: annotations.remove(EXPOSE),
            expose_port: annotations.remove(PORT),
        }
    }
}

/// A list that holds no more than it needs: one that is made of another takes over its memory, and the API's own types are large.
fn few<T>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut few: Vec<T> = items.collect();
    few.shrink_to_fit();
    few
}

fn service_port(port: core::ServicePort) -> ServicePort {
    ServicePort {
        name: port.name.unwrap_or_default().into(),
        port: port.port.try_into().unwrap_or_default(),
        app_protocol: port.app_protocol.map(Into::into),
    }
}

impl From<networking::Ingress> for Ingress {
    fn from(ingress: networking::Ingress) -> Self {
        let meta = unversioned(&ingress.metadata);
        let mut annotations = ingress.metadata.annotations.unwrap_or_default();
        let spec = ingress.spec.unwrap_or_default();
        let status = ingress.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
        Self {
            meta,
            class: spec.ingress_class_name.map(Into::into),
            class_annotation: annotations.remove(CLASS),
            annotations: few(annotations.into_keys().filter(|key| key.starts_with(OTHERS))),
            default_backend: spec.default_backend.map(backend),
            rules: few(spec.rules.unwrap_or_default().into_iter().map(rule)),
            tls: few(spec.tls.unwrap_or_default().into_iter().map(tls)),
            addresses: status
                .unwrap_or_default()
                .into_iter()
                .filter_map(|entry| Some(entry.ip.or(entry.hostname)?.into()))
                .collect(),
        }
    }
}

fn rule(rule: networking::IngressRule) -> IngressRule {
    let paths = rule.http.map(|http| http.paths).unwrap_or_default();
    let path = |path: networking::HTTPIngressPath| IngressPath {
        path: path.path.filter(|text| !text.is_empty() && (text != "/" || path.path_type == "Exact")),
        path_type: match path.path_type.as_str() {
            "Prefix" => "Prefix".into(),
            "Exact" => "Exact".into(),
            _ => path.path_type.into(),
        },
        backend: backend(path.backend),
    };
    IngressRule { host: rule.host.filter(|host| !host.is_empty()), paths: few(paths.into_iter().map(path)) }
}

fn backend(backend: networking::IngressBackend) -> IngressBackend {
    let Some(service) = backend.service else {
        return IngressBackend::Resource(backend.resource.map(|resource| resource.kind).unwrap_or_default());
    };
    let port = service.port.unwrap_or_default();
    let port = match port.name.filter(|name| !name.is_empty()) {
        Some(name) => IngressPort::Name(name),
        None => IngressPort::Number(port.number.and_then(|number| number.try_into().ok()).unwrap_or_default()),
    };
    IngressBackend::Service(service.name, port)
}

fn tls(tls: networking::IngressTLS) -> IngressTls {
    IngressTls {
        hosts: few(tls.hosts.unwrap_or_default().into_iter()),
        secret: tls.secret_name.filter(|secret| !secret.is_empty()),
    }
}

impl From<networking::IngressClass> for IngressClass {
    fn from(class: networking::IngressClass) -> Self {
        let annotations = class.metadata.annotations.as_ref();
        Self {
            meta: Meta::from(&class.metadata).into(),
            is_default: annotations.and_then(|all| all.get(DEFAULT_CLASS)).is_some_and(|value| value == "true"),
            controller: class.spec.and_then(|spec| spec.controller).unwrap_or_default(),
        }
    }
}

impl From<core::Secret> for Secret {
    fn from(secret: core::Secret) -> Self {
        let mut data: BTreeMap<String, ByteString> = secret.data.unwrap_or_default();
        let mut pem = |key: &str| data.remove(key).map(|bytes| Pem(bytes.0.into()));
        Self {
            certificate: pem("tls.crt"),
            key: pem("tls.key"),
            ca: pem("ca.crt"),
            meta: Meta::from(&secret.metadata),
            kind: secret.type_.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn from<T: serde::de::DeserializeOwned + Into<O>, O>(json: serde_json::Value) -> O {
        serde_json::from_value::<T>(json).unwrap().into()
    }

    #[test]
    fn a_name_and_the_age_in_seconds_are_kept_and_of_what_is_patched_by_it_the_version() {
        let meta = json!({ "namespace": "shop", "name": "web", "uid": "u", "resourceVersion": "7",
                           "creationTimestamp": "2026-01-02T03:04:05Z" });
        let service: Service = from::<core::Service, _>(json!({ "metadata": meta.clone() }));
        assert_eq!(service.meta.key, Key::new("shop", "web"));
        assert_eq!((&*service.meta.uid, &*service.meta.version, service.meta.created), ("u", "", 1_767_323_045));
        let map: RoutesConfigMap = from::<core::ConfigMap, _>(json!({ "metadata": meta }));
        assert_eq!((&*map.meta.uid, &*map.meta.version, map.meta.created), ("u", "7", 1_767_323_045));
    }

    #[test]
    fn a_service_keeps_its_tcp_ports_and_what_it_asks_for() {
        let ports = json!([{ "port": 80 }, { "port": 53, "protocol": "UDP", "name": "dns" },
                           { "port": 443, "protocol": "TCP", "name": "https", "appProtocol": "https" }]);
        let annotations = json!({ "tidegate.io/expose": "a.test/", "tidegate.io/port": "https", "other": "x" });
        let service: Service = from::<core::Service, _>(json!({ "metadata": { "annotations": annotations },
            "spec": { "ports": ports, "externalName": "left over" } }));
        let ports: Vec<_> = service.ports.iter().map(|p| (&*p.name, p.port, p.app_protocol.as_deref())).collect();
        assert_eq!(ports, [("", 80, None), ("https", 443, Some("https"))]);
        assert_eq!((service.expose.as_deref(), service.expose_port.as_deref()), (Some("a.test/"), Some("https")));
        assert_eq!(service.external_name, None, "a name counts only with its type");
        let service: Service =
            from::<core::Service, _>(json!({ "spec": { "type": "ExternalName", "externalName": "x.test" } }));
        assert_eq!(service.external_name.as_deref(), Some("x.test"));
    }

    #[test]
    fn an_ingress_keeps_its_rules_and_the_names_of_annotations() {
        let ingress: Ingress = from::<networking::Ingress, _>(json!({
            "metadata": { "annotations": { "kubernetes.io/ingress.class": "x", "nginx.ingress.kubernetes.io/a": "b" } },
            "spec": {
                "defaultBackend": { "resource": { "kind": "Bucket", "name": "b" } },
                "tls": [{ "hosts": ["a.test"], "secretName": "s" }, {}],
                "rules": [{ "host": "a.test" }, { "http": { "paths": [
                    { "path": "", "pathType": "Prefix", "backend": { "service": { "name": "web", "port": { "name": "http" } } } },
                    { "path": "/x", "pathType": "Exact", "backend": { "service": { "name": "web", "port": { "number": 8080 } } } },
                ] } }],
            },
            "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }, { "hostname": "h.test" }] } },
        }));
        assert_eq!(ingress.class_annotation.as_deref(), Some("x"));
        assert_eq!(ingress.annotations, ["nginx.ingress.kubernetes.io/a"]);
        assert_eq!(ingress.default_backend, Some(IngressBackend::Resource("Bucket".into())));
        assert_eq!((ingress.tls[0].secret.as_deref(), ingress.tls[1].secret.as_deref()), (Some("s"), None));
        assert_eq!(ingress.rules[0], IngressRule { host: Some("a.test".into()), paths: vec![] });
        let paths = &ingress.rules[1].paths;
        assert_eq!(paths[0].path, None);
        assert_eq!(paths[1].backend, IngressBackend::Service("web".into(), IngressPort::Number(8080)));
        assert_eq!(ingress.addresses[..], ["192.0.2.1", "h.test"].map(Box::from));
    }

    #[test]
    fn a_secret_keeps_what_tls_needs_and_shows_none_of_it() {
        let secret: Secret = from::<core::Secret, _>(json!({ "type": "kubernetes.io/tls",
            "data": { "tls.crt": "Y2VydA==", "tls.key": "c2VjcmV0", "password": "cGFzcw==" } }));
        assert_eq!(secret.certificate, Some(Pem(b"cert"[..].into())));
        assert_eq!((&secret.key, &secret.ca), (&Some(Pem(b"secret"[..].into())), &None));
        assert!(!format!("{secret:?}").contains("secret\""));
    }

    #[test]
    fn empty_objects_are_empty_and_not_a_panic() {
        assert_eq!(from::<core::Service, Service>(json!({})), Service::default());
        assert_eq!(from::<core::Secret, Secret>(json!({})), Secret::default());
        assert_eq!(from::<core::ConfigMap, RoutesConfigMap>(json!({})), RoutesConfigMap::default());
        assert_eq!(from::<networking::Ingress, Ingress>(json!({})), Ingress::default());
        assert_eq!(from::<networking::IngressClass, IngressClass>(json!({})), IngressClass::default());
    }
}
