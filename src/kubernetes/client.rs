//! How is the API server reached, as whom, and is it there?
//!
//! In a pod by its service account, elsewhere by a kubeconfig. Tokens and the authorities of the service account are read again each
//! minute by the client itself; everything, kubeconfig included, is read again when the API server refuses who we are.

use super::backoff::Backoff;
use crate::config::kubernetes::Settings;
use crate::telemetry::{Gauge, Registry, families};
use kube::client::{ClientBuilder, DynBody};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;
use tower::util::MapResponseLayer;

const CONNECT: Duration = Duration::from_secs(5);
const WRITE: Duration = Duration::from_secs(10);
/// Longer than any watch stays silent (see `watch`): what says nothing for so long is half open.
const READ: Duration = Duration::from_secs(58);
/// Who we are is not read again more often than this.
const RENEW: Duration = Duration::from_secs(1);
/// The API server is away when calls fail and it has answered nothing for so long.
const SILENCE: Duration = Duration::from_secs(2);

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Error {
    #[error(
        "no cluster is configured: tried the service account of a pod and KUBECONFIG or ~/.kube/config; give --kubeconfig, or in a \
         pod mount its service account's token"
    )]
    Nowhere {
        in_cluster: InClusterError,
        #[source]
        kubeconfig: KubeconfigError,
    },
    #[error("the kubeconfig {} cannot be used", .0.display())]
    Kubeconfig(PathBuf, #[source] KubeconfigError),
    #[error("no client can be made of this configuration: does it name a certificate, key and CA that exist?")]
    Client(#[from] kube::Error),
}

/// The way to the API server. It is the same for all watches, and for what is written.
pub struct Connection {
    settings: Settings,
    current: RefCell<Current>,
    namespace: Arc<str>,
    heard: Heard,
}

#[derive(Clone)]
struct Current {
    client: Client,
    made: Instant,
}

impl Connection {
    /// A way to the API server, as soon as there is a configuration that says which. Does not ask whether it is there.
    pub async fn open(settings: &Settings, registry: &Registry) -> Self {
        let heard = Heard::new(registry);
        let mut backoff = Backoff::new();
        let mut told = String::new();
        loop {
            match connect(settings, &heard).await {
                Ok((client, config)) => {
                    let namespace = settings.namespace.clone().unwrap_or(config.default_namespace);
                    tracing::info!(api_server = %config.cluster_url, namespace, "looking at a Kubernetes cluster");
                    let current = RefCell::new(Current { client, made: Instant::now() });
                    return Self { settings: settings.clone(), current, namespace: namespace.into(), heard };
                }
                Err(error) => {
                    let error = chain(&error);
                    if told != error {
                        tracing::error!(error, "no way to a Kubernetes cluster; trying again");
                        told = error;
                    }
                }
            }
            backoff.wait().await;
        }
    }

    /// A way to whatever this client speaks to; who we are cannot be read again.
    #[cfg(test)]
    pub(super) fn of(client: Client, registry: &Registry) -> Self {
        let settings = Settings { kubeconfig: Some("/nowhere".into()), ..Settings::default() };
        let current = RefCell::new(Current { client, made: Instant::now() });
        Self { settings, current, namespace: "edge".into(), heard: Heard::new(registry) }
    }

    /// The client to use now; another one may be there after a while.
    pub fn client(&self) -> Client {
        self.current.borrow().client.clone()
    }

    /// The gate's own namespace.
    pub fn namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    /// Reads again who we are and where the API server is. Where that fails, what was read before holds.
    pub async fn renew(&self) {
        if self.current.borrow().made.elapsed() < RENEW {
            return;
        }
        self.current.borrow_mut().made = Instant::now();
        match connect(&self.settings, &self.heard).await {
            Ok((client, _)) => self.current.borrow_mut().client = client,
            Err(error) => tracing::warn!(error = chain(&error), "who we are cannot be read again"),
        }
    }

    /// A call got no answer. Told once, until there is one again.
    pub(super) fn unanswered(&self, error: &dyn std::error::Error) {
        if self.heard.silence() > SILENCE && !self.heard.away.swap(true, Relaxed) {
            tracing::warn!(error = chain(error), "the API server is away; what was learnt keeps serving");
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// When the API server answered last. Clones are the same.
#[derive(Clone, Debug)]
struct Heard {
    start: Instant,
    /// Milliseconds after `start`.
    last: Arc<AtomicU64>,
    away: Arc<AtomicBool>,
    gauge: Gauge,
}

impl Heard {
    fn new(registry: &Registry) -> Self {
        let gauge = registry.gauge(&families::KUBERNETES_LAST_ANSWER, &[]);
        Self { start: Instant::now(), last: Arc::default(), away: Arc::default(), gauge }
    }

    /// Any answer is one, a refusal too.
    fn answer(&self) {
        self.last.store(self.millis(), Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.gauge.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        if self.away.swap(false, Relaxed) {
            tracing::info!("the API server is back");
        }
    }

    fn silence(&self) -> Duration {
        Duration::from_millis(self.millis().saturating_sub(self.last.load(Relaxed)))
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

async fn connect(settings: &Settings, heard: &Heard) -> Result<(Client, Config), Error> {
    let mut config = configuration(settings).await?;
    config.connect_timeout = Some(CONNECT);
    config.write_timeout = Some(WRITE);
    config.read_timeout = Some(READ);
    // Otherwise the time a connection lay idle would count against the next answer.
    config.reset_reader_on_write = true;
    // Each watch has its own backoff, and says what went wrong.
    config.default_retry = false;
    if config.accept_invalid_certs {
        tracing::warn!("the kubeconfig switches verification of the API server's certificate off");
    }
    let heard = heard.clone();
    let answered = MapResponseLayer::new(move |response: http::Response<Box<DynBody>>| {
        heard.answer();
        response
    });
    let client = ClientBuilder::try_from(config.clone())?.with_layer(&answered).build();
    Ok((client, config))
}

/// Where the API server is and who we are, as read now.
pub(super) async fn configuration(settings: &Settings) -> Result<Config, Error> {
    let options = KubeConfigOptions { context: settings.context.clone(), ..KubeConfigOptions::default() };
    if let Some(path) = &settings.kubeconfig {
        let wrong = |error| Error::Kubeconfig(path.clone(), error);
        let file = Kubeconfig::read_from(path).map_err(wrong)?;
        return Config::from_custom_kubeconfig(file, &options).await.map_err(wrong);
    }
    match Config::incluster() {
        Ok(config) => Ok(config),
        Err(in_cluster) => {
            Config::from_kubeconfig(&options).await.map_err(|kubeconfig| Error::Nowhere { in_cluster, kubeconfig })
        }
    }
}

/// An error and what caused it, in one line; what is said twice is said once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        next = cause.source();
    }
    text
}
