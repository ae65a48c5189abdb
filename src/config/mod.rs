//! What does the install configuration say, and how is any configuration text read with every mistake named at its place?
//!
//! The install configuration is read at the start, and its listeners and certificates whenever it changes; routes have a grammar of their own in
//! `source`, written with the same kinds and sections.

pub mod decode;
pub mod flags;
pub mod install;
pub mod kind;
pub mod kubernetes;
pub mod listener;
pub mod policy;
pub mod process;
pub mod schema;
pub mod tls;
pub mod values;
pub mod yaml;

pub use flags::{CertificateFlag, Flags};

use crate::model::{ListenerSpec, Origin, Problem, TlsBinding};
use decode::Files;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Routes are read from here unless someone says otherwise: a first use needs this one file and nothing else.
pub const ROUTES: &str = "routes.yaml";
/// Larger files are no configuration.
pub const MAX_FILE: u64 = 1 << 30;

/// The install configuration as meant: every default filled in, every path made relative to the working folder.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it came from; `None`: from flags.
    pub path: Option<PathBuf>,
    /// As that file said it when it was read, before flags changed any of it; `None`: from flags, or from a text.
    pub written: Option<Arc<Config>>,
    /// One for each address; a further address of one listener has the name `NAME#2`.
    pub listeners: Vec<ListenerSpec>,
    /// Which certificates the listeners serve for the names in them.
    pub tls: Vec<TlsBinding>,
    /// The files of certificates by name.
    pub certificates: Vec<CertificateFiles>,
    /// Routes files and folders.
    pub routes: Vec<PathBuf>,
    /// The Kubernetes cluster that is looked at; `None`: none.
    pub kubernetes: Option<kubernetes::Settings>,
    /// Worker threads; `None`: one for each core.
    pub workers: Option<u32>,
    /// Limits of the process.
    pub limits: ProcessLimits,
    /// The admin port.
    pub admin: Admin,
    /// Whether a second gate of the same user may run on these ports for a while, as in a surge of a DaemonSet.
    pub share_ports: bool,
    /// Logs and metrics.
    pub telemetry: Telemetry,
    /// How the process ends.
    pub drain: Drain,
}

impl Config {
    /// Reads a file; either all of it is right, or every mistake is told.
    pub fn load(path: &Path) -> Result<Self, Vec<Problem>> {
        Self::load_with(path, &FilesIn(path.parent().unwrap_or(Path::new(""))))
    }

    /// The same, where `files` reads what the file names (authorities).
    pub fn load_with(path: &Path, files: &dyn Files) -> Result<Self, Vec<Problem>> {
        let place = path.display().to_string();
        let text = read_text(path).map_err(|why| {
            vec![Problem::error(
                Origin::of(place.as_str()),
                why,
                "name an install configuration, see `tidegate schema install`",
            )]
        })?;
        let base = path.parent().unwrap_or(Path::new(""));
        let config = install::parse(&place, &text, base, files)?;
        let written = Some(Arc::new(config.clone()));
        Ok(Self { path: Some(path.into()), written, ..config })
    }

    /// Reads a text, as if it stood in a file of this folder.
    pub fn parse(place: &str, text: &str, base: &Path) -> Result<Self, Vec<Problem>> {
        install::parse(place, text, base, &FilesIn(base))
    }

    /// Worker threads to start.
    pub fn worker_count(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.workers.map_or_else(cores, |n| usize::try_from(n).unwrap_or(1))
    }
}

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The name that listeners and routes refer to.
    pub name: String,
    /// Where it was said.
    pub origin: Origin,
    /// Chain and key, for each pair (ECDSA beside RSA).
    pub pairs: Vec<(PathBuf, PathBuf)>,
}

/// What the process takes at the most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Connections at a time over all listeners.
    pub connections: u32,
    /// File descriptors kept from listeners.
    pub admin_reserve: u32,
}

impl Default for ProcessLimits {
    fn default() -> Self {
        Self { connections: process::CONNECTIONS, admin_reserve: process::ADMIN_RESERVE }
    }
}

/// The admin port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where it listens; `None`: nowhere.
    pub address: Option<SocketAddr>,
    /// A Unix socket with the same pages, which stays this process' own where the port is shared; `None`: there is none.
    pub socket: Option<PathBuf>,
    /// Whether the read API is there.
    pub api: bool,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: process::ADMIN_ADDRESS.parse().ok(), socket: None, api: true }
    }
}

/// Logs and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Telemetry {
    /// The log of the proxy itself.
    pub log: Log,
    /// The record of requests.
    pub access_log: AccessLog,
    /// Prometheus metrics.
    pub metrics: Metrics,
}

/// The log of the proxy itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level, or levels of parts, as `tracing` filters are written.
    pub level: String,
    /// How lines are written.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: process::LOG_LEVEL.into(), format: LogFormat::Text }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The record of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// How records are written.
    pub format: AccessFormat,
    /// Where they go.
    pub to: Access,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { format: AccessFormat::Json, to: Access::Stdout }
    }
}

/// How access records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFormat {
    /// Not at all.
    Off,
    /// One JSON object a line.
    Json,
    /// The combined format of Apache and nginx.
    Combined,
}

/// Where access records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Standard output.
    Stdout,
    /// Appended to this file.
    File(PathBuf),
}

/// Prometheus metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Time series at the most.
    pub max_series: u32,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { max_series: process::MAX_SERIES }
    }
}

/// How the process ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Between "not ready" and the end of accepting.
    pub delay: Duration,
    /// Longest wait for requests in flight.
    pub deadline: Duration,
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay: process::DRAIN_DELAY, deadline: process::DRAIN_DEADLINE }
    }
}

/// Files of a folder: a relative path starts there.
#[derive(Clone, Copy, Debug)]
pub struct FilesIn<'p>(pub &'p Path);

impl Files for FilesIn<'_> {
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        read_bytes(&self.0.join(path))
    }
}

/// Reads a text file; the error is in words for the person who named it.
pub fn read_text(path: &Path) -> Result<String, String> {
    String::from_utf8(read_bytes(path)?).map_err(|_| "it is not UTF-8 text".into())
}

/// Reads a file; the error is in words for the person who named it.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, String> {
    let about = std::fs::metadata(path).map_err(|error| in_words(&error))?;
    if about.is_dir() {
        return Err("it is a folder".into());
    }
    if about.len() > MAX_FILE {
        return Err(format!("it has {} bytes", about.len()));
    }
    std::fs::read(path).map_err(|error| in_words(&error))
}

fn in_words(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}
