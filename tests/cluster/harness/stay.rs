//! What does `make cluster` show a newcomer?

use super::cluster::Cluster;
use super::control_plane::API;
use super::gate::Gate;
use super::network::Node;
use super::objects::application;
use super::pki::Authority;
use super::process::{run, write};
use super::test::Test;
use super::{ROLE, sandbox, wire};
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The role of the process inside.
pub const INSIDE: &str = "stay-inside";
/// Tells the process inside which folder both see.
const FOLDER: &str = "TIDEGATE_CLUSTER_FOLDER";
/// Tells it the ports that lead to it, as [`Ports`] lists them.
const PORTS: &str = "TIDEGATE_CLUSTER_PORTS";

/// Names of the nodes, as far as the outside must know them.
const NODES: [(&str, u8); 3] = [("node-a", 11), ("node-b", 12), ("node-c", 13)];

/// Outside: a folder, ports of the loopback, and a sandbox; until it ends or a signal ends it.
pub fn outside() -> ExitCode {
    if let Err(why) = sandbox::missing() {
        eprintln!("cluster: {why}");
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match runtime.block_on(supervise()) {
        Ok(true) => {
            println!("\nThe cluster is removed.");
            ExitCode::SUCCESS
        }
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("cluster: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Whether a person ended it.
async fn supervise() -> Result<bool, String> {
    // The path of a socket ends after 107 bytes, so it does not stand below the repository.
    let mut builder = tempfile::Builder::new();
    // It holds an administrator's key, and the way in.
    builder.prefix("tidegate-cluster-").permissions(Permissions::from_mode(0o700));
    let folder = builder.tempdir().map_err(|e| e.to_string())?;
    let mut ports = Vec::new();
    for (port, whom) in ways() {
        ports.push(wire::lead(folder.path(), port, whom).await.map_err(|e| e.to_string())?.to_string());
    }
    let mut command = sandbox::command(INSIDE);
    command.env(ROLE, INSIDE).env(FOLDER, folder.path()).env(PORTS, ports.join(","));
    let ended = sandbox::supervise(command).await?;
    folder.close().map_err(|e| e.to_string())?;
    Ok(ended.is_none())
}

/// The API server, then HTTP, HTTPS and the admin port of each node: the wanted port, and whom it leads to.
fn ways() -> Vec<(u16, String)> {
    let mut ways = vec![(16443, format!("home {API}"))];
    for (at, (node, last)) in (1..).zip(NODES) {
        ways.push((8080 + at, format!("{node} 10.240.0.{last}:80")));
        ways.push((8440 + at, format!("{node} 10.240.0.{last}:443")));
        ways.push((9900 + at, format!("{node} 127.0.0.1:9901")));
    }
    ways
}

/// Ports of the person's loopback.
struct Ports {
    api: u16,
    nodes: Vec<[u16; 3]>,
}

/// Inside: the cluster, the gates and an application, then what to try; until it is killed.
pub fn inside() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The cluster uses a runtime of its own while it starts.
    let started = Step::new("control plane of Kubernetes, three nodes").done(Cluster::start());
    let local = tokio::task::LocalSet::new();
    let outcome = started.and_then(|cluster| local.block_on(&runtime, show(Arc::new(cluster))));
    match outcome {
        Ok(never) => match never {},
        Err(why) => {
            eprintln!("cluster: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn show(cluster: Arc<Cluster>) -> Result<std::convert::Infallible, String> {
    let folder = PathBuf::from(std::env::var(FOLDER).map_err(|e| e.to_string())?);
    let ports = Ports::read(&std::env::var(PORTS).map_err(|e| e.to_string())?)?;
    let places = cluster.nodes.iter().map(|node| node.place.clone()).collect();
    wire::serve(&folder, places).map_err(|e| e.to_string())?;
    write_kubeconfig(&cluster, &folder, ports.api)?;
    let step = Step::new("deploy/kustomize/base, an application, its routes");
    let own = Test::named("cluster", "tidegate", Arc::clone(&cluster)).await?;
    let shop = Test::named("shop", "shop", Arc::clone(&cluster)).await?;
    let authority = Authority::new("tidegate example");
    write(&folder.join("ca.pem"), &authority.pem)?;
    step.done(furnish(&own, &shop, &authority).await)?;
    let step = Step::new("gates");
    let (gates, problems) = start_gates(&own, &cluster.nodes).await;
    step.done(Ok(()))?;
    println!("{}", text(&cluster, &folder, &ports));
    for problem in problems {
        println!("{problem}\n");
    }
    // Tells by its log when one ends; the person sees it by what it answers.
    let _alive = gates;
    std::future::pending().await
}

/// What there is to see: the gate as it is deployed, three pods, a route, an Ingress, a certificate.
async fn furnish(own: &Test, shop: &Test, authority: &Authority) -> Result<(), String> {
    let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kustomize/base");
    own.try_kubectl(&["apply", "--server-side", "--force-conflicts", "-k", deploy], "").await?;
    shop.try_apply(application("web", 3)).await?;
    shop.try_apply(include_str!("manifests/example.yaml")).await?;
    let identity = authority.issue(&["shop.example.com"]);
    let secret = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": "shop-cert" },
        "type": "kubernetes.io/tls",
        "stringData": { "tls.crt": identity.chain, "tls.key": identity.key },
    });
    own.try_apply(secret.to_string()).await?;
    let routes = serde_json::json!({ "data": { "shop.yaml": include_str!("manifests/shop.yaml") } });
    own.try_kubectl(&["patch", "configmap", "routes", "-p", &routes.to_string()], "").await.map(drop)
}

/// One on each node. Those that do not get ready stay, and their last words are given back.
async fn start_gates(own: &Test, nodes: &[Node]) -> (Vec<Gate>, Vec<String>) {
    let (mut gates, mut problems) = (Vec::new(), Vec::new());
    for node in nodes {
        gates.push(own.gate(node.name()).in_the_node().only_kubernetes("").spawn().await);
    }
    for gate in &gates {
        if let Err(why) = gate.ready_within(Duration::from_secs(10)).await {
            problems.push(format!("The gate on {} is not ready: {why}", gate.node()));
        }
    }
    (gates, problems)
}

/// The administrator's kubeconfig with everything in it, for the port that leads here.
fn write_kubeconfig(cluster: &Cluster, folder: &Path, port: u16) -> Result<(), String> {
    let flat = run(cluster.kubectl().args(["config", "view", "--flatten", "--raw"]), "")?;
    write(&folder.join("kubeconfig"), &flat.replace(&API.to_string(), &format!("127.0.0.1:{port}")))
}

fn text(cluster: &Cluster, folder: &Path, ports: &Ports) -> String {
    let folder = folder.display();
    let programs = cluster.control_plane.program("kubectl");
    let programs = programs.parent().unwrap_or(Path::new("")).display();
    let [http, https, admin] = ports.nodes[0];
    let others: Vec<_> = ports.nodes.iter().zip(NODES).map(|(p, (node, _))| format!("{node} {}", p[0])).collect();
    format!(
        "
A cluster of three nodes with a gate on each runs. In another shell:

  export KUBECONFIG={folder}/kubeconfig
  export PATH={programs}:$PATH

  curl -H 'Host: shop.example.com' http://127.0.0.1:{http}/           # a pod of that node answers; ports: {others}
  curl --cacert {folder}/ca.pem --connect-to ::127.0.0.1:{https} https://shop.example.com/     # by TLS
  kubectl edit configmap -n tidegate routes                       # change the path, save, ask again
  kubectl get configmap -n tidegate routes -o yaml                # what came of it, in annotations
  kubectl scale -n shop deployment/web --replicas=5               # more pods answer, those of the other nodes when these are busy
  curl -H 'Host: ingress.example.com' http://127.0.0.1:{http}/        # by an Ingress: kubectl get ingress -n shop
  kubectl get nodes,pods,services,ingresses -A

  {tidegate} routes --admin 127.0.0.1:{admin}
  {tidegate} audit

Ctrl-C removes everything.",
        others = others.join(", "),
        tidegate = env!("CARGO_BIN_EXE_tidegate"),
    )
}

impl Ports {
    fn read(text: &str) -> Result<Self, String> {
        let all: Result<Vec<u16>, _> = text.split(',').map(str::parse).collect();
        let all = all.map_err(|e| e.to_string())?;
        let (api, rest) = all.split_first().ok_or("no ports")?;
        let nodes = rest.chunks_exact(3).map(|chunk| [chunk[0], chunk[1], chunk[2]]).collect();
        Ok(Self { api: *api, nodes })
    }
}

/// A line that says what is being done, and how long it took.
struct Step(Instant);

impl Step {
    fn new(what: &str) -> Self {
        print!("  {what} ... ");
        // Seen late is better than not at all.
        let _ = std::io::stdout().flush();
        Self(Instant::now())
    }

    fn done<T>(&self, outcome: Result<T, String>) -> Result<T, String> {
        println!(
            "{}",
            if outcome.is_ok() { format!("{:.1} s", self.0.elapsed().as_secs_f64()) } else { "failed".into() }
        );
        outcome
    }
}
