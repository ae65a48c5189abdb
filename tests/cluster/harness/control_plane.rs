//! How is a Kubernetes control plane started, and how does it lose its API server?
//!
//! etcd, kube-apiserver (RBAC on, anonymous requests off, every request in an audit log), kube-controller-manager,
//! kube-scheduler, and kwok as the kubelet of all nodes. About four seconds and 560 MiB.

use super::network::HOME;
use super::pki::{Authority, Identity, token_key};
use super::process::{Process, run, write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where the API server listens.
pub const API: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(HOME), 6443);
const ETCD: &str = "http://127.0.0.1:2379";
/// Tests run beside builds on small machines.
const PATIENCE: Duration = Duration::from_secs(60);

const CONTROLLERS: &[&str] = &[
    "clusterrole-aggregation-controller",
    "daemonset-controller",
    "deployment-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "endpointslice-mirroring-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "taint-eviction-controller",
];

/// The folder of the programs, all of them there.
pub fn programs() -> Result<PathBuf, String> {
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/control-plane/build.sh");
    let folder = run(Command::new(&build).arg("--where"), "")?;
    let missing = "the control plane is not built; tests/cluster/control-plane/build.sh builds it";
    run(Command::new(&build).arg("--built"), "").map_err(|_| missing.to_owned())?;
    Ok(folder.trim().into())
}

/// The running programs.
pub struct ControlPlane {
    programs: PathBuf,
    folder: PathBuf,
    api: Mutex<Process>,
    others: Vec<Process>,
    /// Signs the API server's certificate, and the certificates of its users.
    pub authority: Authority,
}

impl ControlPlane {
    /// Starts everything in `folder`, and waits until the API server is ready.
    pub fn start(folder: &Path) -> Result<Self, String> {
        let programs = programs()?;
        let authority = Authority::new("cluster");
        write_certificates(folder, &authority)?;
        write(&folder.join("audit-policy.yaml"), include_str!("manifests/audit-policy.yaml"))?;
        write(&folder.join("stages.yaml"), include_str!("manifests/stages.yaml"))?;
        let etcd = Process::start("etcd", etcd(&programs, folder), &folder.join("etcd.log"))?;
        wait(&etcd, "etcd", || TcpStream::connect((Ipv4Addr::LOCALHOST, 2379)).is_ok())?;
        let api = Mutex::new(start_api(&programs, folder)?);
        let mut this = Self { programs, folder: folder.into(), api, others: vec![etcd], authority };
        this.wait_ready()?;
        for (name, command) in this.clients() {
            let process = Process::start(name, command, &this.log(name))?;
            this.others.push(process);
        }
        Ok(this)
    }

    /// The program of this name.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// The administrator's kubeconfig with another namespace; for a file of its own.
    pub fn admin_kubeconfig_in(&self, namespace: &str) -> String {
        kubeconfig(&self.ca(), namespace, &certified(&self.folder, "admin"))
    }

    pub fn audit_log(&self) -> PathBuf {
        self.folder.join("audit.log")
    }

    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// What its programs have written since they were started.
    pub fn logs(&self) -> Vec<PathBuf> {
        ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"]
            .map(|name| self.log(name))
            .into()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// SIGKILL: every watch ends without a word. After SIGTERM it would wait a minute for them.
    pub fn kill_api_server(&self) {
        self.api().kill();
    }

    /// Starts it again on the data that is there, and waits until it is ready.
    pub fn restart_api_server(&self) -> Result<(), String> {
        *self.api() = start_api(&self.programs, &self.folder)?;
        self.wait_ready()
    }

    /// Why one of the programs does not run, if one does not.
    pub fn running(&self) -> Result<(), String> {
        self.others.iter().try_for_each(Process::running)?;
        self.api().running()
    }

    fn api(&self) -> std::sync::MutexGuard<'_, Process> {
        self.api.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_ready(&self) -> Result<(), String> {
        let ready = || {
            let mut kubectl = Command::new(self.program("kubectl"));
            kubectl.args(["get", "--raw", "/readyz", "--request-timeout=2s", "--kubeconfig"]);
            // Asking by kubectl costs 0.1 s of CPU, which a port that is closed needs not.
            TcpStream::connect(API).is_ok() && run(kubectl.arg(self.admin_kubeconfig()), "").is_ok()
        };
        wait(&self.api(), "kube-apiserver", ready)
    }

    /// The programs that speak to the API server.
    fn clients(&self) -> [(&'static str, Command); 3] {
        let kubeconfig = |name: &str| format!("--kubeconfig={}", self.folder.join(name).display());
        let folder = self.folder.display();
        let mut manager = Command::new(self.program("kube-controller-manager"));
        manager.arg(kubeconfig("controller-manager.kubeconfig")).args([
            "--bind-address=127.0.0.1".into(),
            format!("--cert-dir={folder}"),
            "--leader-elect=false".into(),
            // Without, its own user lacks permissions for some controllers.
            "--use-service-account-credentials=true".into(),
            format!("--service-account-private-key-file={folder}/token.key"),
            format!("--root-ca-file={folder}/ca.crt"),
            // With the default of 20 requests a second, 200 pods take 9 seconds.
            "--kube-api-qps=500".into(),
            "--kube-api-burst=1000".into(),
            format!("--controllers={}", CONTROLLERS.join(",")),
        ]);
        let mut scheduler = Command::new(self.program("kube-scheduler"));
        scheduler.arg(kubeconfig("scheduler.kubeconfig")).args([
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        ]);
        scheduler.arg(format!("--cert-dir={folder}"));
        let mut kubelet = Command::new(self.program("kwok"));
        kubelet.arg(kubeconfig("kwok.kubeconfig")).args([
            "--manage-all-nodes=false",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            "--node-ip=127.0.0.1",
            "--node-port=0",
            "--server-address=127.0.0.1:10247",
            "--cidr=10.244.255.0/24",
            "--node-lease-duration-seconds=40",
        ]);
        kubelet.arg(format!("--config={folder}/stages.yaml"));
        [("kube-controller-manager", manager), ("kube-scheduler", scheduler), ("kwok", kubelet)]
    }
}

fn etcd(programs: &Path, folder: &Path) -> Command {
    let peer = "http://127.0.0.1:2380";
    let mut command = Command::new(programs.join("etcd"));
    command.args(["--name=one", "--log-level=warn", "--unsafe-no-fsync"]);
    command.arg(format!("--data-dir={}", folder.join("etcd").display()));
    command.args([format!("--listen-client-urls={ETCD}"), format!("--advertise-client-urls={ETCD}")]);
    command.args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")]);
    command.arg(format!("--initial-cluster=one={peer}"));
    command
}

fn start_api(programs: &Path, folder: &Path) -> Result<Process, String> {
    let mut command = Command::new(programs.join("kube-apiserver"));
    let file = |name: &str| folder.join(name).display().to_string();
    command.args([
        format!("--etcd-servers={ETCD}"),
        format!("--bind-address={HOME}"),
        format!("--advertise-address={HOME}"),
        format!("--secure-port={}", API.port()),
        format!("--tls-cert-file={}", file("api.crt")),
        format!("--tls-private-key-file={}", file("api.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--service-account-key-file={}", file("token.pub")),
        format!("--service-account-signing-key-file={}", file("token.key")),
        format!("--audit-policy-file={}", file("audit-policy.yaml")),
        format!("--audit-log-path={}", file("audit.log")),
    ]);
    command.args([
        "--endpoint-reconciler-type=none",
        "--authorization-mode=RBAC",
        "--anonymous-auth=false",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        "--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112",
        "--allow-privileged=true",
        // The tests are many clients under few names.
        "--enable-priority-and-fairness=false",
    ]);
    Process::start("kube-apiserver", command, &folder.join("kube-apiserver.log"))
}

fn write_certificates(folder: &Path, authority: &Authority) -> Result<(), String> {
    let home = HOME.to_string();
    let names = ["localhost", "kubernetes.default.svc", "127.0.0.1", "10.96.0.1", &home];
    let Identity { chain, key } = authority.issue(&names);
    let (private, public) = token_key();
    let files = [
        ("api.crt", &chain),
        ("api.key", &key),
        ("ca.crt", &authority.pem),
        ("token.key", &private),
        ("token.pub", &public),
    ];
    for (name, text) in files {
        write(&folder.join(name), text)?;
    }
    let users = [
        ("admin", "admin", Some("system:masters")),
        ("controller-manager", "system:kube-controller-manager", None),
        ("scheduler", "system:kube-scheduler", None),
        ("kwok", "kwok", Some("system:masters")),
    ];
    for (file, user, group) in users {
        let Identity { chain, key } = authority.issue_client(user, group);
        write(&folder.join(format!("{file}.crt")), &chain)?;
        write(&folder.join(format!("{file}.key")), &key)?;
        let user = certified(folder, file);
        write(&folder.join(format!("{file}.kubeconfig")), &kubeconfig(&folder.join("ca.crt"), "default", &user))?;
    }
    Ok(())
}

/// The user of a kubeconfig, with a certificate of this folder.
fn certified(folder: &Path, name: &str) -> serde_json::Value {
    let file = |end: &str| folder.join(format!("{name}.{end}"));
    serde_json::json!({ "client-certificate": file("crt"), "client-key": file("key") })
}

/// A kubeconfig for the API server; JSON, which is YAML too.
pub fn kubeconfig(ca: &Path, namespace: &str, user: &serde_json::Value) -> String {
    let text = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "tidegate", "cluster": { "server": format!("https://{API}"), "certificate-authority": ca } }],
        "users": [{ "name": "user", "user": user }],
        "contexts": [{ "name": "tidegate", "context": { "cluster": "tidegate", "user": "user", "namespace": namespace } }],
        "current-context": "tidegate",
    });
    format!("{text:#}\n")
}

fn wait(process: &Process, name: &str, ready: impl Fn() -> bool) -> Result<(), String> {
    let start = Instant::now();
    while !ready() {
        process.running()?;
        if start.elapsed() > PATIENCE {
            return Err(format!("{name} is not ready after {PATIENCE:?}\n{}", process.last_words(20)));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
