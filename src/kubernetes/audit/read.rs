//! How is a cluster read: from its API server, or from what `kubectl get -o json` wrote?

use super::super::client;
use super::inventory::Inventory;
use super::objects::Lists;
use crate::config::kubernetes::Settings;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, ListParams};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use thiserror::Error;

/// Objects that are asked for at once, so that large clusters come in pieces.
const PAGE: u32 = 500;
/// An API server that does not answer in this time does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which cluster, and what of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Kubeconfig file; `None`: the service account of the pod, or else `KUBECONFIG` and `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// Context; `None`: the current one.
    pub context: Option<String>,
    /// Namespaces; empty: all.
    pub namespaces: Vec<String>,
}

/// Why a cluster could not be read.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum ReadError {
    #[error(transparent)]
    Connect(#[from] client::Error),
    #[error("Services cannot be read from {server}: {why}")]
    Services { server: String, why: String },
    #[error("the dump cannot be read")]
    Dump(#[source] std::io::Error),
    #[error("the dump is not what `kubectl get services,endpointslices,ingresses,nodes -A -o json` writes")]
    Json(#[source] serde_json::Error),
}

/// Reads a cluster. Without its Services there is nothing to say; whatever else may not be read becomes a note.
pub async fn cluster(place: &Place) -> Result<Inventory, ReadError> {
    let (client, server) = connect(place).await?;
    let services = all::<Service>(&client, &place.namespaces).await;
    let services = services.map_err(|why| ReadError::Services { server, why })?;
    let (slices, ingresses, nodes) = tokio::join!(
        all::<EndpointSlice>(&client, &place.namespaces),
        all::<Ingress>(&client, &place.namespaces),
        pages(Api::<Node>::all(client.clone())),
    );
    let mut notes = Vec::new();
    let lists = Lists {
        services,
        slices: optional(slices, "EndpointSlices", "who answers is not known", &mut notes),
        ingresses: optional(ingresses, "Ingresses", "hosts they name are not known", &mut notes),
        nodes: optional(nodes, "Nodes", "their addresses are not known", &mut notes),
        notes,
    };
    Ok(lists.inventory())
}

/// Reads a `List` as kubectl writes it, or a single object; what is neither Service, EndpointSlice, Ingress nor Node is passed over.
pub fn dump(text: &str) -> Result<Inventory, ReadError> {
    let value: Value = serde_json::from_str(text).map_err(ReadError::Json)?;
    let items = match value.get("items") {
        Some(Value::Array(items)) => items.clone(),
        _ => vec![value],
    };
    let mut lists =
        Lists { slices: Some(Vec::new()), ingresses: Some(Vec::new()), nodes: Some(Vec::new()), ..Lists::default() };
    for item in items {
        match item.get("kind").and_then(Value::as_str) {
            Some("Service") => lists.services.push(object(item)?),
            Some("EndpointSlice") => lists.slices.get_or_insert_default().push(object(item)?),
            Some("Ingress") => lists.ingresses.get_or_insert_default().push(object(item)?),
            Some("Node") => lists.nodes.get_or_insert_default().push(object(item)?),
            _ => {}
        }
    }
    if lists.slices.as_ref().is_some_and(Vec::is_empty) {
        lists.slices = None;
        lists.notes.push("the dump has no EndpointSlices: who answers is not known".into());
    }
    if lists.nodes.as_ref().is_some_and(Vec::is_empty) {
        lists.nodes = None;
        lists.notes.push("the dump has no Nodes: their addresses are not known".into());
    }
    Ok(lists.inventory())
}

fn object<T: DeserializeOwned>(value: Value) -> Result<T, ReadError> {
    serde_json::from_value(value).map_err(ReadError::Json)
}

/// A client, and the address of its API server.
async fn connect(place: &Place) -> Result<(Client, String), ReadError> {
    let (kubeconfig, context) = (place.kubeconfig.clone(), place.context.clone());
    let settings = Settings { kubeconfig, context, ..Settings::default() };
    let mut config = client::configuration(&settings).await?;
    config.connect_timeout = Some(PATIENCE);
    config.read_timeout = Some(PATIENCE);
    let server = config.cluster_url.to_string();
    Ok((Client::try_from(config).map_err(client::Error::Client)?, server))
}

/// Every object of the namespaces, or of all.
async fn all<K>(client: &Client, namespaces: &[String]) -> Result<Vec<K>, String>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    if namespaces.is_empty() {
        return pages(Api::all(client.clone())).await;
    }
    let mut found = Vec::new();
    for namespace in namespaces {
        found.extend(pages(Api::namespaced(client.clone(), namespace)).await?);
    }
    Ok(found)
}

async fn pages<K: Clone + DeserializeOwned + std::fmt::Debug>(api: Api<K>) -> Result<Vec<K>, String> {
    let mut found = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await.map_err(|error| told(&error))?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// The API server's own words where it has said some, else every cause.
fn told(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => causes(other).trim_start_matches("ServiceError: ").to_owned(),
    }
}

/// An error and what caused it, in one line.
pub fn causes(error: &dyn std::error::Error) -> String {
    client::chain(error)
}

fn optional<T>(read: Result<Vec<T>, String>, what: &str, so: &str, notes: &mut Vec<String>) -> Option<Vec<T>> {
    read.map_err(|why| notes.push(format!("{what} cannot be read, so {so}: {why}"))).ok()
}
