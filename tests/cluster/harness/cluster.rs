//! What is a cluster, once it runs?

use super::control_plane::{self, ControlPlane};
use super::echo::Echoes;
use super::network::{self, Node};
use super::sandbox;
use k8s_openapi::api::core::v1::Node as NodeObject;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A control plane, its nodes, and what answers for their pods.
pub struct Cluster {
    pub control_plane: ControlPlane,
    pub nodes: Vec<Node>,
    pub echoes: Arc<Echoes>,
    /// Where everything of this cluster stands.
    pub folder: PathBuf,
}

impl Cluster {
    /// Starts it, inside a sandbox. Takes about five seconds.
    pub fn start() -> Result<Self, String> {
        let folder = sandbox::furnish()?;
        let nodes = network::lay()?;
        let echoes = Arc::new(Echoes::start(&nodes)?);
        let control_plane = ControlPlane::start(&folder)?;
        let this = Self { control_plane, nodes, echoes, folder };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        runtime.block_on(this.join())?;
        let file = this.control_plane.admin_kubeconfig();
        this.echoes.follow(|| async move { client(&file).await });
        Ok(this)
    }

    /// An administrator's client, for the runtime that asks.
    pub async fn client(&self) -> Result<kube::Client, String> {
        client(&self.control_plane.admin_kubeconfig()).await
    }

    /// `kubectl` as an administrator.
    pub fn kubectl(&self) -> Command {
        self.kubectl_with(&self.control_plane.admin_kubeconfig())
    }

    /// `kubectl` with this kubeconfig.
    pub fn kubectl_with(&self, kubeconfig: &Path) -> Command {
        let mut command = Command::new(self.control_plane.program("kubectl"));
        command.arg(format!("--kubeconfig={}", kubeconfig.display()));
        command.arg(format!("--cache-dir={}", self.folder.join("kubectl-cache").display()));
        command
    }

    /// A client with the token of a ServiceAccount.
    pub async fn client_with(&self, namespace: &str, token: &str) -> Result<kube::Client, String> {
        let text = control_plane::kubeconfig(&self.control_plane.ca(), namespace, &json!({ "token": token }));
        connect(Kubeconfig::from_yaml(&text).map_err(|e| e.to_string())?).await
    }

    pub fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.name() == name).unwrap_or_else(|| panic!("no node {name}"))
    }

    /// Makes the objects of the nodes, and waits until the cluster takes pods.
    async fn join(&self) -> Result<(), String> {
        let client = self.client().await?;
        let api: Api<NodeObject> = Api::all(client.clone());
        for node in &self.nodes {
            let object = serde_json::from_value(object(node)).map_err(|e| e.to_string())?;
            api.create(&PostParams::default(), &object).await.map_err(|e| e.to_string())?;
        }
        let start = Instant::now();
        while let Err(why) = settled(&api, client.clone()).await {
            self.control_plane.running()?;
            if start.elapsed() > Duration::from_secs(60) {
                return Err(why);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

async fn client(file: &Path) -> Result<kube::Client, String> {
    connect(Kubeconfig::read_from(file).map_err(|e| e.to_string())?).await
}

async fn connect(kubeconfig: Kubeconfig) -> Result<kube::Client, String> {
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| e.to_string())?;
    kube::Client::try_from(config).map_err(|e| e.to_string())
}

/// Whether the nodes are ready and free of taints, and pods find their ServiceAccount.
async fn settled(nodes: &Api<NodeObject>, client: kube::Client) -> Result<(), String> {
    use k8s_openapi::api::core::v1::ServiceAccount;
    let list = nodes.list(&kube::api::ListParams::default()).await.map_err(|e| e.to_string())?;
    for node in &list.items {
        let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let ready = conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
        let tainted = node.spec.iter().any(|s| s.taints.iter().flatten().next().is_some());
        if !ready || tainted {
            return Err(format!("node {:?} is not ready", node.metadata.name));
        }
    }
    let accounts: Api<ServiceAccount> = Api::namespaced(client, "default");
    accounts.get("default").await.map(drop).map_err(|e| e.to_string())
}

fn object(node: &Node) -> serde_json::Value {
    let [v4, v6] = node.place.addresses();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name(),
            "labels": {
                "kubernetes.io/hostname": node.name(),
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "topology.kubernetes.io/zone": node.zone,
            },
            "annotations": { "kwok.x-k8s.io/node": "fake" },
        },
        "spec": { "podCIDR": node.managed_pods(), "podCIDRs": [node.managed_pods()] },
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": v4 },
                { "type": "InternalIP", "address": v6 },
                { "type": "Hostname", "address": node.name() },
            ],
        },
    })
}
