//! How does a case become the objects that a watch would have kept?

use k8s_openapi::api::{core::v1 as core, networking::v1 as networking};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tidegate::config::kubernetes::{ExposeRule, IngressSettings, Settings};
use tidegate::kubernetes::objects::{Key, Objects, Secret, SecretState};
use tidegate::kubernetes::translate::{Memory, Translation, translate};
use tidegate::model::{HostPattern, WildcardDepth};

pub(crate) const OWN: &str = "tidegate";

/// What is there, and how it is looked at.
pub(crate) struct Cluster {
    pub(crate) documents: Vec<serde_json::Value>,
    written: Written,
    objects: Objects,
    secrets: BTreeMap<Key, Arc<Secret>>,
}

/// `settings.yaml`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    namespaces: Vec<String>,
    expose: Vec<WrittenRule>,
    external_names: bool,
    certificates: BTreeSet<String>,
    ingress: Option<bool>,
    /// Secrets that may not be read, `namespace/name`.
    forbidden: BTreeSet<String>,
    /// Secrets whose watch has not delivered.
    unknown: BTreeSet<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    namespace: String,
    hosts: Vec<String>,
}

impl Cluster {
    pub(crate) fn read(case: &Path, file: &str) -> Self {
        let written = fs::read_to_string(case.join("settings.yaml")).unwrap_or_default();
        let written = if written.is_empty() { Written::default() } else { yaml(&written) };
        let text = fs::read_to_string(case.join(file)).unwrap_or_else(|e| panic!("{}: {e}", case.display()));
        let mut cluster =
            Self { documents: Vec::new(), written, objects: Objects::default(), secrets: BTreeMap::new() };
        for text in text.split("\n---\n").filter(|text| !text.trim().is_empty()) {
            cluster.add(yaml(text));
        }
        cluster
    }

    /// The same objects, read anew.
    pub(crate) fn again(&self) -> Self {
        let mut again = self.empty();
        self.documents.iter().cloned().for_each(|document| again.add(document));
        again
    }

    pub(crate) fn empty(&self) -> Self {
        Self {
            documents: Vec::new(),
            written: self.written.clone(),
            objects: Objects::default(),
            secrets: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, document: serde_json::Value) {
        let objects = &mut self.objects;
        match document["kind"].as_str().unwrap() {
            "ConfigMap" => put(&mut objects.config_maps, read::<core::ConfigMap, _>(&document), |o| &o.meta.key),
            "Service" => put(&mut objects.services, read::<core::Service, _>(&document), |o| &o.meta.key),
            "Ingress" => put(&mut objects.ingresses, read::<networking::Ingress, _>(&document), |o| &o.meta.key),
            "IngressClass" => {
                put(&mut objects.classes, read::<networking::IngressClass, _>(&document), |o| &o.meta.key)
            }
            "Secret" => put(&mut self.secrets, read::<core::Secret, _>(&document), |o| &o.meta.key),
            other => panic!("{other}"),
        }
        self.documents.push(document);
    }

    /// Translates as often as it takes for the Secrets that are asked for to be there.
    pub(crate) fn translate(&self, memory: &mut Memory) -> Translation {
        let settings = self.settings();
        let mut objects = self.objects.clone();
        loop {
            let translation = translate(&objects, &settings, OWN, memory);
            let states: BTreeMap<Key, SecretState> =
                translation.secrets.iter().map(|key| (key.clone(), self.state(key))).collect();
            if states == objects.secrets {
                return translation;
            }
            objects.secrets = states;
        }
    }

    fn state(&self, key: &Key) -> SecretState {
        let name = key.to_string();
        if self.written.unknown.contains(&name) {
            return SecretState::Unknown;
        }
        if self.written.forbidden.contains(&name) {
            return SecretState::Forbidden(format!("secrets {:?} is forbidden", key.name));
        }
        self.secrets.get(key).map_or(SecretState::Absent, |secret| SecretState::Present(Arc::clone(secret)))
    }

    fn settings(&self) -> Settings {
        let written = &self.written;
        let host = |text: &String| HostPattern::parse(text, WildcardDepth::Many).unwrap();
        let rule = |rule: &WrittenRule| ExposeRule {
            namespace: rule.namespace.clone(),
            hosts: rule.hosts.iter().map(host).collect(),
        };
        Settings {
            namespaces: written.namespaces.clone(),
            expose: written.expose.iter().map(rule).collect(),
            external_names: written.external_names,
            certificates: written.certificates.clone(),
            ingress: IngressSettings { enabled: written.ingress.unwrap_or(true), ..IngressSettings::default() },
            ..Settings::default()
        }
    }
}

fn put<T>(all: &mut BTreeMap<Key, Arc<T>>, object: T, key: impl Fn(&T) -> &Key) {
    all.insert(key(&object).clone(), Arc::new(object));
}

fn read<K: DeserializeOwned + Into<O>, O>(document: &serde_json::Value) -> O {
    serde_json::from_value::<K>(document.clone()).unwrap().into()
}

fn yaml<T: DeserializeOwned>(text: &str) -> T {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}
