//! How does a test run the real program, and what can it ask of it?

use super::certs::Identity;
use super::client::Client;
use super::h2::H2Client;
use super::until;
use super::wire::Message;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use tempfile::TempDir;

/// What the install configuration of a test says. What is not said is: two workers, one `http` listener, an admin port,
/// the access log in a file, all on free ports of the loopback, and a folder of its own.
pub struct Setup {
    folder: TempDir,
    listeners: Vec<(String, String)>,
    certificates: String,
    sections: Vec<(String, String)>,
    routes: String,
    files: Option<u32>,
}

/// Begins a configuration whose routes file has this text.
pub fn routes(text: impl Into<String>) -> Setup {
    let folder = tempfile::Builder::new().prefix("tidegate-it-").tempdir().unwrap();
    Setup { folder, listeners: vec![], certificates: String::new(), sections: vec![], routes: text.into(), files: None }
}

/// A routes file that sends everything to the cluster `up` with these endpoints.
pub fn everything_to(endpoints: &[&dyn std::fmt::Display]) -> String {
    format!("\"*/\": up\n---\nclusters:\n  up: {{ endpoints: [{}] }}\n", quoted(endpoints))
}

/// The same with further settings of the cluster, such as `balance: round_robin`.
pub fn everything_to_with(endpoints: &[&dyn std::fmt::Display], settings: &str) -> String {
    format!("\"*/\": up\n---\nclusters:\n  up: {{ endpoints: [{}], {settings} }}\n", quoted(endpoints))
}

/// The same with further settings of the route, such as `retry: { attempts: 2 }`.
pub fn route_to(endpoints: &[&dyn std::fmt::Display], route: &str, cluster: &str) -> String {
    let endpoints = quoted(endpoints);
    format!(
        "hosts: [\"*\"]\nroutes:\n  - {{ path: /, to: up, {route} }}\n---\nclusters:\n  up: {{ endpoints: [{endpoints}], {cluster} }}\n"
    )
}

fn quoted(endpoints: &[&dyn std::fmt::Display]) -> String {
    endpoints.iter().map(|e| format!("\"{e}\"")).collect::<Vec<_>>().join(", ")
}

impl Setup {
    /// The `http` listener with further settings, such as `limits: { connections: 2 }`.
    #[must_use]
    pub fn http(self, settings: &str) -> Self {
        self.listener("http", "127.0.0.1:0", settings)
    }

    /// An `https` listener with further settings, such as `tls: { min_version: 1.3 }`.
    #[must_use]
    pub fn https(self, settings: &str) -> Self {
        let settings =
            if settings.is_empty() { "protocol: https".to_owned() } else { format!("protocol: https, {settings}") };
        self.listener("https", "127.0.0.1:0", &settings)
    }

    #[must_use]
    pub fn listener(mut self, name: &str, address: &str, settings: &str) -> Self {
        let settings = if settings.is_empty() { String::new() } else { format!(", {settings}") };
        self.listeners.push((name.to_owned(), format!("{{ address: \"{address}\"{settings} }}")));
        self
    }

    /// A certificate, its files written into the folder.
    #[must_use]
    pub fn certificate(self, name: &str, identity: &Identity) -> Self {
        self.certificate_pairs(name, &[identity])
    }

    /// A certificate of several pairs, such as ECDSA and RSA.
    #[must_use]
    pub fn certificate_pairs(mut self, name: &str, identities: &[&Identity]) -> Self {
        let mut pairs = Vec::new();
        for (index, identity) in identities.iter().enumerate() {
            let (chain, key) = (format!("{name}-{index}.pem"), format!("{name}-{index}.key"));
            fs::write(self.path(&chain), &identity.chain).unwrap();
            fs::write(self.path(&key), &identity.key).unwrap();
            pairs.push(format!("{{ certificate: {chain}, key: {key} }}"));
        }
        let _ = writeln!(self.certificates, "  {name}: [{}]", pairs.join(", "));
        self
    }

    /// A section of the install configuration, such as `drain` and `{ deadline: 1s }`.
    #[must_use]
    pub fn section(mut self, name: &str, value: &str) -> Self {
        self.sections.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The program may open so many files and no more, as if the machine allowed no more.
    #[must_use]
    pub fn files(self, limit: u32) -> Self {
        Self { files: Some(limit), ..self }
    }

    /// A file in the folder, for settings that name one.
    #[must_use]
    pub fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        fs::write(self.path(name), text).unwrap();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder_path().join(name)
    }

    pub fn folder_path(&self) -> &Path {
        self.folder.path()
    }

    fn install(&self) -> String {
        if self.sections.iter().any(|(name, _)| name == "listeners") {
            return self.others(String::new());
        }
        let mut text = String::from("listeners:\n");
        for (name, value) in &self.listeners {
            let _ = writeln!(text, "  {name}: {value}");
        }
        if self.listeners.is_empty() {
            text.push_str("  http: { address: \"127.0.0.1:0\" }\n");
        }
        self.others(text)
    }

    /// Everything but the listeners, after `text`.
    fn others(&self, mut text: String) -> String {
        if !self.certificates.is_empty() {
            let _ = write!(text, "certificates:\n{}", self.certificates);
        }
        let usual = [
            ("workers", "2"),
            ("admin", "{ address: \"127.0.0.1:0\" }"),
            ("sources", "{ routes: routes.yaml }"),
            ("drain", "{ deadline: 5s }"),
            ("telemetry", "{ access_log: { path: access.log } }"),
        ];
        let said = self.sections.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        let unsaid = usual.into_iter().filter(|(name, _)| !self.sections.iter().any(|(n, _)| n == name));
        for (name, value) in said.chain(unsaid) {
            let _ = writeln!(text, "{name}: {value}");
        }
        text
    }

    /// Starts the program and waits until it is ready.
    pub async fn start(self) -> Proxy {
        let proxy = self.spawn().await;
        until("ready", || async {
            proxy.assert_running();
            (proxy.admin_get("/readyz").await.status() == 200).then_some(())
        })
        .await;
        proxy
    }

    /// Starts the program and waits for its admin port alone.
    pub async fn spawn(self) -> Proxy {
        fs::write(self.path("tidegate.yaml"), self.install()).unwrap();
        self.spawn_with(&["--config", "tidegate.yaml"]).await
    }

    /// Starts the program without an install configuration, by flags alone.
    pub async fn spawn_by_flags(self, flags: &[&str]) -> Proxy {
        let free = ["--admin", "127.0.0.1:0", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0"];
        self.spawn_with(&[&free, flags].concat()).await
    }

    async fn spawn_with(self, flags: &[&str]) -> Proxy {
        fs::write(self.path("routes.yaml"), &self.routes).unwrap();
        let out = |name| Stdio::from(fs::File::create(self.path(name)).unwrap());
        let child = self
            .program()
            .arg("run")
            .args(flags)
            .current_dir(self.folder.path())
            .stdout(out("stdout"))
            .stderr(out("stderr"))
            .spawn()
            .unwrap();
        let mut proxy = Proxy { child: Mutex::new(child), folder: self.folder, admin: ([127, 0, 0, 1], 0).into() };
        proxy.admin = until("the admin address in the log", || async {
            proxy.assert_running();
            admin_address(&proxy.log())
        })
        .await;
        proxy
    }

    fn program(&self) -> Command {
        let Some(files) = self.files else { return tidegate() };
        // Both limits, because the program raises the one to the other.
        let script = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        let mut command = in_peace(Command::new("sh"));
        command.args(["-c", &script, env!("CARGO_BIN_EXE_tidegate")]);
        command
    }
}

/// The program, to be run with arguments.
pub fn tidegate() -> Command {
    in_peace(Command::new(env!("CARGO_BIN_EXE_tidegate")))
}

fn in_peace(mut command: Command) -> Command {
    command.stdin(Stdio::null()).env_remove("RUST_LOG").env("NO_COLOR", "1");
    command
}

/// Runs a command of the program to its end: exit code, standard output, standard error.
pub fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = tidegate().args(arguments).current_dir(folder).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn admin_address(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|l| l.contains("admin") && l.contains("127.0.0.1:"))?;
    let at = line.find("127.0.0.1:")?;
    let end = line[at..].find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':').map_or(line.len(), |n| at + n);
    line[at..end].parse().ok()
}

/// The running program.
pub struct Proxy {
    child: Mutex<Child>,
    folder: TempDir,
    pub admin: SocketAddr,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default();
            eprintln!("--- log of the proxy\n{log}---");
        }
    }
}

impl Proxy {
    fn assert_running(&self) {
        if let Some(status) = self.child.lock().unwrap().try_wait().unwrap() {
            panic!("the proxy ended: {status}\n{}", self.log());
        }
    }

    /// Where a listener is bound, as soon as it is.
    pub async fn address(&self, listener: &str) -> SocketAddr {
        until("a bound listener", || async {
            let all = self.api("listeners").await;
            let found = items(&all).iter().find(|l| l["name"] == listener).cloned();
            let found = found.unwrap_or_else(|| panic!("no listener {listener}: {all}"));
            found["bound"].as_str().and_then(|a| a.parse().ok())
        })
        .await
    }

    pub async fn http(&self) -> SocketAddr {
        self.address("http").await
    }

    pub async fn https(&self) -> SocketAddr {
        self.address("https").await
    }

    /// A connection to the `http` listener.
    pub async fn client(&self) -> Client {
        Client::connect(self.http().await).await
    }

    /// A connection to the `http` listener that speaks HTTP/2 with prior knowledge.
    pub async fn h2(&self) -> H2Client {
        H2Client::cleartext(self.http().await).await
    }

    /// A GET on a connection of its own.
    pub async fn get(&self, host: &str, path: &str) -> Message {
        self.client().await.get(host, path).await
    }

    /// A GET of the admin port.
    pub async fn admin_get(&self, path: &str) -> Message {
        self.admin_request("GET", path, b"").await
    }

    pub async fn admin_request(&self, method: &str, path: &str, body: &[u8]) -> Message {
        let fields = [("Connection", "close")];
        Client::connect(self.admin).await.request(method, "localhost", path, &fields, body).await
    }

    /// A page of the API.
    pub async fn api(&self, page: &str) -> Value {
        let message = self.admin_get(&format!("/api/v1/{page}")).await;
        assert_eq!(message.status(), 200, "{page}: {message:?}");
        serde_json::from_slice(&message.body).unwrap()
    }

    pub async fn metrics(&self) -> String {
        self.admin_get("/metrics").await.text().to_owned()
    }

    /// The sum of a metric's series whose labels include these, such as `code="200"`; 0 when there is none.
    pub async fn metric(&self, family: &str, labels: &[&str]) -> f64 {
        let text = self.metrics().await;
        let series = text.lines().filter(|line| {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            name == family && labels.iter().all(|label| line.contains(label))
        });
        series.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).fold(0.0, |sum, value| sum + value)
    }

    /// Waits until the sum of a metric's series is at least so much.
    pub async fn wait_for_metric(&self, family: &str, labels: &[&str], least: f64) {
        until(family, || async { (self.metric(family, labels).await >= least).then_some(()) }).await;
    }

    /// What the proxy logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap()
    }

    /// Waits until there are so many access records, and reads them.
    pub async fn access_log(&self, n: usize) -> Vec<Value> {
        let lines = self.access_lines(n).await;
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    /// The same as plain lines.
    pub async fn access_lines(&self, n: usize) -> Vec<String> {
        let path = self.folder.path().join("access.log");
        until("access records", || async {
            let text = String::from_utf8(fs::read(&path).ok()?).expect("access records are text");
            let whole = &text[..text.rfind('\n')? + 1];
            let lines: Vec<String> = whole.lines().map(str::to_owned).collect();
            (lines.len() >= n).then_some(lines)
        })
        .await
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the folder whole, as editors do: under another name, then renamed.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let new = self.folder.path().join(format!(".{name}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, self.folder.path().join(name)).unwrap();
    }

    /// The generation of the snapshot that serves.
    pub async fn generation(&self) -> u64 {
        let status = self.api("config").await;
        status["generation"].as_u64().unwrap_or_else(|| panic!("no generation: {status}"))
    }

    /// Changes published so far; a change of endpoints alone is one, and keeps the generation.
    pub async fn published(&self) -> f64 {
        self.metric("tidegate_config_publishes_total", &["result=\"published\""]).await
    }

    /// Writes other routes and waits until they serve.
    pub async fn reload(&self, routes: impl AsRef<[u8]>) {
        let before = self.published().await;
        self.write("routes.yaml", routes);
        until("the change to be published", || async { (self.published().await > before).then_some(()) }).await;
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid().try_into().unwrap()).unwrap(), signal).unwrap();
    }

    /// Waits until the program has ended of its own accord.
    pub async fn ended(&self) -> ExitStatus {
        until("the end of the proxy", || async { self.child.lock().unwrap().try_wait().unwrap() }).await
    }

    /// Asks it to end, and waits for it.
    pub async fn stop(&self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended().await
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

/// The items of an API page, whether it is a list or an object that holds one.
pub fn items(page: &Value) -> Vec<Value> {
    match page {
        Value::Array(items) => items.clone(),
        Value::Object(map) => map.values().find_map(Value::as_array).cloned().unwrap_or_default(),
        _ => Vec::new(),
    }
}
