//! How does a gate run on a node, as its DaemonSet would run it?
//!
//! On a node by name, with the ServiceAccount of its pod and what the downward API says, and with ports 80 and 443 for itself: a
//! gate of a test has a network namespace of its own, so that many tests have a gate on `node-a` at the same time.

use super::control_plane::{API, kubeconfig};
use super::http::{self, Response};
use super::network::{self, Place};
use super::process::{Process, write};
use super::test::Test;
use super::{LONG, eventually};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use rustix::process::Signal;
use rustls::ClientConfig;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;

/// Where the admin port of every gate is, on the loopback of its node.
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);
/// The folder that pods find their ServiceAccount in.
const ACCOUNT: &str = "/run/secrets/kubernetes.io/serviceaccount";

/// What a gate may do, and its ServiceAccount.
const PERMISSIONS: &str = concat!(
    include_str!("../../../deploy/kustomize/base/service-account.yaml"),
    "---\n",
    include_str!("../../../deploy/kustomize/base/rbac.yaml"),
);

/// A gate before it starts.
pub struct Setup {
    test: Test,
    node: String,
    place: Option<Place>,
    by_kubeconfig: bool,
    /// Who is asked for addresses of names; `None`: whom this machine asks.
    resolver: Option<Ipv4Addr>,
    /// What its user may do; `None`: what the base of `deploy/` says.
    permissions: Option<String>,
    kubernetes: String,
    sections: Vec<(String, String)>,
    /// The whole install configuration, instead of all this.
    whole: Option<String>,
}

/// A gate that runs.
pub struct Gate {
    process: Process,
    test: Test,
    place: Place,
    /// Whether the place goes with the gate.
    own_place: bool,
    folder: PathBuf,
    node: String,
}

impl Test {
    /// A gate on this node, whose own namespace is the test's.
    pub fn gate(&self, node: &str) -> Setup {
        // An Ingress is for the gates of one test; else tests side by side would fight over its status.
        let class = &self.namespace;
        Setup {
            test: self.clone(),
            node: self.cluster.node(node).name().into(),
            place: None,
            by_kubeconfig: false,
            resolver: None,
            permissions: None,
            kubernetes: format!("ingress: {{ controller: tidegate.io/{class}, class: {class} }}"),
            sections: Vec::new(),
            whole: None,
        }
    }

    /// What its user may do, as `deploy` says it. Once is enough, more do no harm.
    pub async fn permit_gates(&self) {
        self.remove_at_end(format!("clusterrolebinding/{}", self.namespace));
        // The names of cluster-wide objects are not divided by namespace; the ClusterRoles are the same for all tests.
        let binding = "kind: ClusterRoleBinding\nmetadata:\n  name: tidegate\n";
        assert!(PERMISSIONS.contains(binding), "the binding has another form");
        let own = PERMISSIONS
            .replace(binding, &binding.replace("tidegate", &self.namespace))
            .replace("namespace: tidegate", &format!("namespace: {}", self.namespace));
        self.apply(own).await;
    }

    /// A token of the gates' ServiceAccount that is good for this time.
    pub async fn token(&self, seconds: i64) -> String {
        let request = json!({ "spec": { "audiences": [], "expirationSeconds": seconds } });
        let request: TokenRequest = serde_json::from_value(request).unwrap();
        let api = self.api::<ServiceAccount>();
        let answer = api.create_token_request("tidegate", &kube::api::PostParams::default(), &request).await.unwrap();
        answer.status.unwrap().token.unwrap()
    }

    /// The user that the gates are, as the audit log names it.
    pub fn gate_user(&self) -> String {
        format!("system:serviceaccount:{}:tidegate", self.namespace)
    }
}

impl Setup {
    /// In the namespace of the node itself, which no other gate may be in.
    #[must_use]
    pub fn in_the_node(mut self) -> Self {
        self.place = Some(self.test.cluster.node(&self.node).place.clone());
        self
    }

    /// In a place that was settled for it alone, whose addresses are known before it starts.
    #[must_use]
    pub fn at(mut self, place: &Place) -> Self {
        self.place = Some(place.clone());
        self
    }

    /// Asks this name server.
    #[must_use]
    pub fn resolver(mut self, address: Ipv4Addr) -> Self {
        self.resolver = Some(address);
        self
    }

    /// By a kubeconfig, as outside of a cluster, instead of by the ServiceAccount's folder.
    #[must_use]
    pub fn by_kubeconfig(mut self) -> Self {
        self.by_kubeconfig = true;
        self
    }

    /// Further settings of `sources.kubernetes`, such as `external_names: true`.
    #[must_use]
    pub fn kubernetes(mut self, settings: &str) -> Self {
        let _ = write!(self.kubernetes, ", {settings}");
        self
    }

    /// The same instead of the class of its own that each test has.
    #[must_use]
    pub fn only_kubernetes(mut self, settings: &str) -> Self {
        self.kubernetes = settings.into();
        self
    }

    /// A section of the install configuration, such as `drain` and `{ deadline: 1s }`.
    #[must_use]
    pub fn section(mut self, name: &str, value: &str) -> Self {
        self.sections.push((name.into(), value.into()));
        self
    }

    /// What its user may do, instead of what the base of `deploy/` says.
    #[must_use]
    pub fn permitted(mut self, manifests: String) -> Self {
        self.permissions = Some(manifests);
        self
    }

    /// As `deploy/` has it and somebody has applied it: the install configuration, and no permission given here.
    #[must_use]
    pub fn deployed(mut self) -> Self {
        self.whole = Some(include_str!("../../../deploy/kustomize/base/gate.yaml").to_owned());
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Gate {
        let gate = self.spawn().await;
        gate.ready().await;
        gate
    }

    /// Starts it.
    pub async fn spawn(self) -> Gate {
        self.spawn_after(async || {}).await
    }

    /// Starts it after something that happens when all is prepared.
    pub async fn spawn_after(self, prepared: impl AsyncFnOnce()) -> Gate {
        match &self.permissions {
            Some(manifests) => self.test.apply(manifests).await,
            None if self.whole.is_none() => self.test.permit_gates().await,
            None => {}
        }
        let own_place = self.place.is_none();
        let place = self.place.clone().unwrap_or_else(|| network::settle(&self.test.cluster.nodes).unwrap());
        let folder = self.test.cluster.folder.join(&place.name);
        std::fs::create_dir_all(&folder).unwrap();
        write(&folder.join("gate.yaml"), &self.install()).unwrap();
        if let Some(resolver) = self.resolver {
            write(&folder.join("resolv.conf"), &format!("nameserver {resolver}\n")).unwrap();
        }
        write_account(&folder, &self.test, &self.test.token(3600).await);
        let log = folder.join("log");
        self.test.show_on_failure(&format!("{}-{}", self.node, place.name), log.clone());
        prepared().await;
        let process = Process::start("tidegate", self.command(&place, &folder), &log).unwrap();
        Gate { process, place, own_place, folder, node: self.node, test: self.test }
    }

    fn install(&self) -> String {
        if let Some(whole) = &self.whole {
            return whole.clone();
        }
        let usual = [
            ("listeners", "{ http: { address: \":80\" }, https: { address: \":443\", protocol: https } }"),
            ("admin", "{ address: \"127.0.0.1:9901\" }"),
            ("workers", "2"),
            ("drain", "{ deadline: 5s }"),
            ("telemetry", "{ access_log: { path: access.log } }"),
        ];
        let unsaid = usual.iter().filter(|(name, _)| !self.sections.iter().any(|(said, _)| said == name));
        let said = self.sections.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut text = String::new();
        for (name, value) in unsaid.copied().chain(said) {
            let _ = writeln!(text, "{name}: {value}");
        }
        if !self.sections.iter().any(|(name, _)| name == "sources") {
            let _ = writeln!(text, "sources: {{ kubernetes: {{ {} }} }}", self.kubernetes);
        }
        text
    }

    /// With the mounts of a pod: the folder of its ServiceAccount stands where pods look for it, and its name server.
    fn command(&self, place: &Place, folder: &Path) -> Command {
        let mut command = place.command("unshare");
        let account = if self.by_kubeconfig { "" } else { "mount --bind serviceaccount \"$0\" && " };
        let resolver = if self.resolver.is_none() { "" } else { "mount --bind resolv.conf /etc/resolv.conf && " };
        let mount = [account, resolver].concat();
        command.args(["--mount", "sh", "-c", &format!("{mount} exec \"$@\""), ACCOUNT, env!("CARGO_BIN_EXE_tidegate")]);
        command.args(["run", "--config", "gate.yaml"]).current_dir(folder).env("NO_COLOR", "1").env_remove("RUST_LOG");
        if self.by_kubeconfig {
            command.env("KUBECONFIG", folder.join("kubeconfig"));
        } else {
            command.env("KUBERNETES_SERVICE_HOST", API.ip().to_string());
            command.env("KUBERNETES_SERVICE_PORT", API.port().to_string());
        }
        let addresses = format!("{},{}", place.v4, place.v6);
        command.env("TIDEGATE_NODE", &self.node).env("TIDEGATE_ADDRESSES", addresses);
        command.env("TIDEGATE_NAMESPACE", &self.test.namespace).env("TIDEGATE_POD", format!("tidegate-{}", place.name));
        command
    }
}

fn write_account(folder: &Path, test: &Test, token: &str) {
    let account = folder.join("serviceaccount");
    std::fs::create_dir_all(&account).unwrap();
    let ca = test.cluster.control_plane.ca();
    std::fs::copy(&ca, account.join("ca.crt")).unwrap();
    write(&account.join("namespace"), &test.namespace).unwrap();
    write(&account.join("token"), token).unwrap();
    let user = json!({ "tokenFile": account.join("token") });
    write(&folder.join("kubeconfig"), &kubeconfig(&ca, &test.namespace, &user)).unwrap();
}

impl Gate {
    /// Waits until it is ready.
    pub async fn ready(&self) {
        eventually(LONG, || async {
            self.process.running().unwrap_or_else(|why| panic!("{why}"));
            self.admin("/readyz").await?.expect(200).map(drop)
        })
        .await;
    }

    /// The same without failing: why it is not ready in this time.
    pub async fn ready_within(&self, limit: std::time::Duration) -> Result<(), String> {
        let start = std::time::Instant::now();
        loop {
            self.process.running()?;
            match self.admin("/readyz").await.and_then(|answer| answer.expect(200)) {
                Ok(_) => return Ok(()),
                Err(why) if start.elapsed() > limit => return Err(format!("{why}\n{}", self.process.last_words(20))),
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    }

    /// Where clients reach it in plain HTTP.
    pub fn http(&self) -> SocketAddr {
        (self.place.v4, 80).into()
    }

    /// Where clients reach it over TLS.
    pub fn https(&self) -> SocketAddr {
        (self.place.v4, 443).into()
    }

    /// The addresses that it was told are its own.
    pub fn addresses(&self) -> [std::net::IpAddr; 2] {
        self.place.addresses()
    }

    /// The node it runs on.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// A GET over a connection of its own.
    pub async fn get(&self, host: &str, path: &str) -> Result<Response, String> {
        http::send(self.http(), http::get(host, path)).await
    }

    /// The same over TLS; the host is the server name too.
    pub async fn get_tls(&self, host: &str, path: &str, trust: Arc<ClientConfig>) -> Result<Response, String> {
        http::send_tls(self.https(), host, trust, http::get(host, path)).await
    }

    /// Waits until a GET is answered with this status.
    #[track_caller]
    pub fn answers(&self, host: &str, path: &str, status: u16) -> impl Future<Output = Response> {
        eventually(super::SOON, move || async move { self.get(host, path).await?.expect(status) })
    }

    /// A GET of its admin port, from inside its node.
    pub async fn admin(&self, path: &str) -> Result<Response, String> {
        http::send_over(self.place.connect(ADMIN)?, http::get("localhost", path)).await
    }

    /// A page of its API.
    pub async fn api(&self, page: &str) -> Value {
        let answer = self.admin(&format!("/api/v1/{page}")).await.and_then(|answer| answer.expect(200)).unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The sum of a metric's series whose labels include these; 0 when there is none.
    pub async fn metric(&self, family: &str, labels: &[&str]) -> f64 {
        let text = self.admin("/metrics").await.unwrap().text();
        let named = |line: &&str| line.split(['{', ' ']).next() == Some(family);
        let series = text.lines().filter(named).filter(|line| labels.iter().all(|label| line.contains(label)));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Another token for its ServiceAccount, as the kubelet renews it.
    pub fn renew_token(&self, token: &str) {
        write_account(&self.folder, &self.test, token);
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Asks it to end, and waits for it.
    pub async fn stop(&self) -> ExitStatus {
        self.signal(Signal::TERM);
        eventually(LONG, || async { self.process.ended().ok_or_else(|| "the gate still runs".to_owned()) }).await
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// How long its control thread, which is its first, could run and had no CPU.
    pub fn waited(&self) -> std::time::Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/schedstat", self.process.pid())).unwrap();
        std::time::Duration::from_nanos(stat.split_whitespace().nth(1).unwrap().parse().unwrap())
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.process.kill();
        if self.own_place {
            // It goes with the sandbox at the latest.
            let _ = self.place.remove();
        }
    }
}
