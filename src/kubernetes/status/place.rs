//! Which object is a problem about?

use crate::kubernetes::objects::{Key, Objects, SecretState};
use crate::model::Origin;
use std::sync::Arc;

/// A kind of object that problems are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    ConfigMap,
    Ingress,
    Secret,
    Service,
}

/// The object that an [`Origin`] names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) kind: Kind,
    pub(super) key: Key,
}

impl Place {
    /// Of `Kind/namespace/name`, whatever follows; `None`: a file, or a kind that nothing is written to.
    pub(super) fn of(origin: &Origin) -> Option<Self> {
        let mut parts = origin.place.splitn(4, '/');
        let kind = match parts.next()? {
            "ConfigMap" => Kind::ConfigMap,
            "Ingress" => Kind::Ingress,
            "Secret" => Kind::Secret,
            "Service" => Kind::Service,
            _ => return None,
        };
        let (namespace, name) = (parts.next()?, parts.next()?);
        (!namespace.is_empty() && !name.is_empty()).then(|| Self { kind, key: Key::new(namespace, name) })
    }

    /// uid of the object, where it is there.
    pub(super) fn uid(&self, objects: &Objects) -> Option<Arc<str>> {
        let key = &self.key;
        let meta = match self.kind {
            Kind::ConfigMap => objects.config_maps.get(key).map(|o| &*o.meta),
            Kind::Ingress => objects.ingresses.get(key).map(|o| &*o.meta),
            Kind::Service => objects.services.get(key).map(|o| &*o.meta),
            Kind::Secret => match objects.secrets.get(key) {
                Some(SecretState::Present(secret)) => Some(&secret.meta),
                _ => None,
            },
        };
        meta.map(|meta| meta.uid.clone()).filter(|uid| !uid.is_empty())
    }
}

impl Kind {
    /// As in `kind`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Ingress => "Ingress",
            Self::Secret => "Secret",
            Self::Service => "Service",
        }
    }

    /// As in `apiVersion`.
    pub(super) fn api_version(self) -> &'static str {
        if self == Self::Ingress { "networking.k8s.io/v1" } else { "v1" }
    }
}

/// Where in its object a problem is: `shop.yaml:3:5: routes[0].path`, each part only where known.
pub(super) fn within(origin: &Origin) -> String {
    let rest = origin.place.splitn(4, '/').nth(3).unwrap_or_default();
    let inner = Origin { place: rest.into(), ..origin.clone() };
    inner.to_string().trim_start_matches(':').trim_start().to_owned()
}

/// The text, cut at a character so that it has `most` bytes at the most.
pub(super) fn cut(mut text: String, most: usize) -> String {
    const MARK: &str = "…";
    if text.len() > most {
        let end = (0..=most.saturating_sub(MARK.len())).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push_str(MARK);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Position;

    #[test]
    fn an_origin_names_its_object_and_a_place_in_it() {
        let at = Some(Position { line: 3, column: 5 });
        let origin = Origin::of("ConfigMap/tidegate/routes/shop.yaml").at("routes[0]", at);
        assert_eq!(Place::of(&origin), Some(Place { kind: Kind::ConfigMap, key: Key::new("tidegate", "routes") }));
        assert_eq!(within(&origin), "shop.yaml:3:5: routes[0]");
        let ingress = Origin::of("Ingress/shop/web").at("spec.rules[0]", None);
        assert_eq!(Place::of(&ingress).unwrap().kind, Kind::Ingress);
        assert_eq!(within(&ingress), "spec.rules[0]");
        for file in ["routes.yaml", "/etc/Ingress/a/b", "Ingress/shop", "Ingress//web", "IngressClass/x/y"] {
            assert_eq!(Place::of(&Origin::of(file)), None, "{file}");
        }
    }

    #[test]
    fn a_text_is_cut_at_a_character() {
        assert_eq!(cut("abc".into(), 3), "abc");
        assert_eq!(cut("ääää".into(), 6), "ä…");
        assert!(cut("ä".repeat(1_000), 1_024).len() <= 1_024);
    }
}
