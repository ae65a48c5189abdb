//! What has a test in its hands?

use super::cluster::Cluster;
use super::process::write;
use super::{AGES, LONG, eventually};
use k8s_openapi::api::core::v1::{Namespace, Pod as PodObject};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::json;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::AsyncWriteExt;

/// A test with a namespace of its own in the cluster that all tests share. Clones are the same test.
#[derive(Clone)]
pub struct Test {
    pub cluster: Arc<Cluster>,
    /// An administrator's client.
    pub client: kube::Client,
    /// Its own namespace; removed with all that is in it when the test ends.
    pub namespace: String,
    name: String,
    /// An administrator's, its namespace the test's.
    pub kubeconfig: PathBuf,
    shared: Rc<RefCell<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// What is shown when the test fails: name, file.
    logs: Vec<(String, PathBuf)>,
    /// What stands outside of the namespace and goes with the test, as `kubectl delete` names it.
    others: Vec<String>,
}

/// A pod as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub address: IpAddr,
    pub node: String,
}

impl Test {
    /// Makes the namespace.
    pub async fn new(name: &str, cluster: Arc<Cluster>) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let short: String = name.rsplit("::").next().unwrap_or_default().replace('_', "-").chars().take(40).collect();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("t{number}-{}", short.trim_matches('-'));
        Self::named(name, &namespace, cluster).await
    }

    /// Makes a namespace of exactly this name.
    pub async fn named(name: &str, namespace: &str, cluster: Arc<Cluster>) -> Result<Self, String> {
        let this = Self::within(name, namespace, cluster).await?;
        this.make_namespace(namespace).await?;
        Ok(this)
    }

    /// In a namespace that somebody else makes.
    pub async fn within(name: &str, namespace: &str, cluster: Arc<Cluster>) -> Result<Self, String> {
        let client = cluster.client().await?;
        let kubeconfig = cluster.folder.join(format!("admin-of-{namespace}.kubeconfig"));
        write(&kubeconfig, &cluster.control_plane.admin_kubeconfig_in(namespace))?;
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Ok(Self { cluster, client, namespace, name, kubeconfig, shared: Rc::default() })
    }

    /// A further namespace, which ends with the test too; its name begins with that of the test's own.
    pub async fn another_namespace(&self, suffix: &str) -> String {
        let name = format!("{}-{suffix}", self.namespace);
        self.make_namespace(&name).await.unwrap();
        self.remove_at_end(format!("namespace/{name}"));
        name
    }

    async fn make_namespace(&self, name: &str) -> Result<(), String> {
        let object = serde_json::from_value(json!({ "metadata": { "name": name } })).map_err(|e| e.to_string())?;
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.create(&PostParams::default(), &object).await.map(drop).map_err(|e| format!("namespace {name}: {e}"))
    }

    /// Objects of one kind in the test's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// `kubectl` as an administrator in the test's namespace; what it prints.
    pub async fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments, "").await.unwrap_or_else(|why| panic!("kubectl {arguments:?}: {why}"))
    }

    /// The same with an input; what it says when it fails is the error.
    pub async fn try_kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut command = tokio::process::Command::from(self.cluster.kubectl_with(&self.kubeconfig));
        command.args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|e| e.to_string())?;
        if let Some(mut stdin) = child.stdin.take() {
            // What it does not read it does not need; its exit status tells.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = child.wait_with_output().await.map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() { Ok(said) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// Applies manifests, in the test's namespace where they name none.
    pub async fn apply(&self, yaml: impl AsRef<str>) {
        self.try_apply(yaml).await.unwrap_or_else(|why| panic!("apply: {why}"));
    }

    /// The same; what the API server refuses is the error.
    pub async fn try_apply(&self, yaml: impl AsRef<str>) -> Result<String, String> {
        self.try_kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "-"], yaml.as_ref()).await
    }

    /// Waits until exactly so many pods with `app: NAME` are there, all ready and none on its way out.
    pub async fn ready_pods(&self, name: &str, count: usize) -> Vec<Pod> {
        eventually(AGES, || async {
            let pods = self.pods(name).await;
            if pods.len() == count { Ok(pods) } else { Err(format!("{count} pods of {name} wanted: {pods:?}")) }
        })
        .await
    }

    /// The ready pods with `app: NAME` that are not on their way out.
    pub async fn pods(&self, name: &str) -> Vec<Pod> {
        let selected = ListParams::default().labels(&format!("app={name}"));
        let list = self.api::<PodObject>().list(&selected).await.unwrap();
        list.items.iter().filter(|pod| self.cluster.echoes.follows(pod)).filter_map(ready).collect()
    }

    /// A log that is shown when the test fails.
    pub fn show_on_failure(&self, name: &str, file: PathBuf) {
        self.shared.borrow_mut().logs.push((name.into(), file));
    }

    /// An object outside of the namespace that goes with the test: `clusterrolebinding/web`.
    pub fn remove_at_end(&self, object: String) {
        self.shared.borrow_mut().others.push(object);
    }

    /// The logs, the end of each; all of them are kept.
    pub fn logs(&self) -> String {
        let kept = kept().join(self.name.replace("::", "-"));
        let mut text = String::new();
        for (name, file) in &self.shared.borrow().logs {
            let log = std::fs::read_to_string(file).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(40)..].join("\n");
            // Showing them is more than nothing where they cannot be kept.
            let _ = std::fs::create_dir_all(&kept).and_then(|()| std::fs::write(kept.join(name), &log));
            let _ = write!(text, "--- {name} (all of it in {})\n{last}\n", kept.join(name).display());
        }
        text
    }

    /// Keeps what the cluster knows of the namespace, and what its programs say, beside the logs; where that is.
    pub async fn evidence(&self) -> String {
        let kept = kept().join(self.name.replace("::", "-"));
        let all = "pods,replicasets,daemonsets,deployments,services,endpointslices,configmaps,ingresses,events";
        let objects = self.try_kubectl(&["get", all, "--output=yaml"], "").await.unwrap_or_else(|why| why);
        // A failed test is told of all the same.
        let _ = std::fs::create_dir_all(&kept).and_then(|()| std::fs::write(kept.join("objects.yaml"), objects));
        for log in self.cluster.control_plane.logs() {
            let _ = log.file_name().map(|name| std::fs::copy(&log, kept.join(name)));
        }
        format!("what the cluster knows and its programs say: {}\n", kept.display())
    }

    /// Removes what the test made; what the cluster does later nobody waits for.
    pub async fn clean(&self) {
        let others = std::mem::take(&mut self.shared.borrow_mut().others);
        let own = format!("namespace/{}", self.namespace);
        let mut arguments = vec!["delete", "--wait=false", "--ignore-not-found", &own];
        arguments.extend(others.iter().map(String::as_str));
        let _ = self.try_kubectl(&arguments, "").await;
    }

    /// Removes the namespace of the test and waits until nothing of it is left.
    pub async fn remove_namespace(&self) {
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.delete(&self.namespace, &DeleteParams::background()).await.unwrap();
        eventually(LONG, || async {
            let there = api.get_opt(&self.namespace).await.unwrap();
            super::holds(there.is_none(), || format!("{} is still there", self.namespace))
        })
        .await;
    }
}

fn ready(pod: &PodObject) -> Option<Pod> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let ready = conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
    let leaving = pod.metadata.deletion_timestamp.is_some();
    let name = pod.metadata.name.clone()?;
    let address = status.pod_ip.as_ref()?.parse().ok()?;
    (ready && !leaving).then_some(Pod { name, address, node: pod.spec.as_ref()?.node_name.clone()? })
}

/// Where logs of tests that failed are kept.
fn kept() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cluster-logs")
}
