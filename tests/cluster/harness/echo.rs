//! What answers at the address of a pod?
//!
//! One listener for all addresses of a node. It tells which of them was asked, so that each pod answers as itself; what it says
//! and how stands in [`speak`].
//!
//! A pod that the cluster has removed answers no more: its connections are reset, and its address is not reachable until
//! another pod has it. Addresses that the kubelet gives to nobody always answer.

use super::network::Node;
use super::speak::{self, Identities};
use futures_util::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::watcher::{self, Event, watcher};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Ports that every pod answers on.
pub const PORTS: [u16; 2] = [8080, 8081];

/// The echo of all nodes of a cluster: one thread.
pub struct Echoes {
    dead: Arc<watch::Sender<HashSet<IpAddr>>>,
    open: Arc<Open>,
    /// What pods show to whom comes with TLS.
    pub identities: Arc<Identities>,
    nodes: Vec<Node>,
    /// Cut and mended one at a time.
    cutting: Mutex<()>,
    /// Pods whose address answers, by their unique name.
    followed: Mutex<HashSet<String>>,
}

impl Echoes {
    /// Listens on all nodes.
    pub fn start(nodes: &[Node]) -> Result<Self, String> {
        let dead = Arc::new(watch::Sender::new(HashSet::new()));
        let mut listeners = Vec::new();
        for node in nodes {
            for port in PORTS {
                let listener = node.place.bind(port)?;
                listener.set_nonblocking(true).map_err(|e| e.to_string())?;
                listeners.push(listener);
            }
        }
        let open = Arc::<Open>::default();
        let identities = Arc::<Identities>::default();
        let (seen, opened, shown) = (Arc::clone(&dead), Arc::clone(&open), Arc::clone(&identities));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for listener in listeners {
                    let listener = TcpListener::from_std(listener).unwrap();
                    tokio::spawn(accept(listener, Arc::clone(&seen), Arc::clone(&opened), Arc::clone(&shown)));
                }
                std::future::pending::<()>().await;
            });
        });
        Ok(Self { dead, open, identities, nodes: nodes.to_vec(), cutting: Mutex::new(()), followed: Mutex::default() })
    }

    /// A pod dies without a word to anybody: its connections are reset, and its address is not reachable any more.
    pub fn kill(&self, address: IpAddr) -> Result<(), String> {
        let _one = self.cutting.lock().unwrap_or_else(PoisonError::into_inner);
        let node = self.node_of(address)?;
        if !self.dead.send_if_modified(|dead| dead.insert(address)) {
            return Ok(());
        }
        // A reset that is sent after the cut would never arrive.
        self.open.wait_for_none(address);
        node.cut(address)
    }

    /// The address answers again.
    pub fn revive(&self, address: IpAddr) -> Result<(), String> {
        let _one = self.cutting.lock().unwrap_or_else(PoisonError::into_inner);
        let node = self.node_of(address)?;
        if self.dead.send_if_modified(|dead| dead.remove(&address)) { node.mend(address) } else { Ok(()) }
    }

    /// Lets pods live and die as the cluster says, on a thread of its own.
    pub fn follow<F>(self: &Arc<Self>, client: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = Result<kube::Client, String>>,
    {
        let this = Arc::clone(self);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let pods: Api<Pod> = Api::all(client().await.unwrap());
                let mut events = std::pin::pin!(watcher(pods, watcher::Config::default()));
                let mut known = Known::default();
                loop {
                    match events.try_next().await {
                        Ok(Some(event)) => this.take(&mut known, event),
                        Ok(None) => return,
                        // The API server is away: nobody dies meanwhile.
                        Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                    }
                }
            });
        });
    }

    /// Whether the address of this pod answers; on a busy machine that may come after the pod is ready.
    pub fn follows(&self, pod: &Pod) -> bool {
        let followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        pod.metadata.uid.as_ref().is_some_and(|name| followed.contains(name))
    }

    fn take(&self, known: &mut Known, event: Event<Pod>) {
        // Addresses of pods in the network of their node are no pods' own, and cannot be cut.
        let died = match event {
            Event::Init => {
                known.listed.clear();
                return;
            }
            Event::InitApply(pod) | Event::Apply(pod) => {
                let Some((name, address)) = named(&pod) else { return };
                known.listed.insert(name.clone());
                // Once: a test may have killed it since.
                if known.pods.insert(name.clone(), address) != Some(address) {
                    let _ = self.revive(address);
                    self.followed.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
                }
                return;
            }
            Event::Delete(pod) => named(&pod).and_then(|(name, _)| known.pods.remove(&name)).into_iter().collect(),
            Event::InitDone => {
                let Known { pods, listed } = known;
                let gone: Vec<_> = pods.extract_if(|name, _| !listed.contains(name)).map(|(_, ip)| ip).collect();
                gone
            }
        };
        for address in died.into_iter().filter(|address| known.pods.values().all(|other| other != address)) {
            let _ = self.kill(address);
        }
    }

    fn node_of(&self, address: IpAddr) -> Result<&Node, String> {
        self.nodes.iter().find(|node| node.has(address)).ok_or_else(|| format!("{address} is no pod's"))
    }
}

/// Pods that have an address, by their unique name.
#[derive(Default)]
struct Known {
    pods: HashMap<String, IpAddr>,
    /// Those of the list that is being read, and later ones.
    listed: HashSet<String>,
}

fn named(pod: &Pod) -> Option<(String, IpAddr)> {
    Some((pod.metadata.uid.clone()?, pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?))
}

/// How many connections each address has.
#[derive(Default)]
struct Open(Mutex<HashMap<IpAddr, usize>>);

impl Open {
    fn count(&self, address: IpAddr) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&address).copied().unwrap_or_default()
    }

    /// New ones may come for as long as the address is not cut; they are reset as soon as they are accepted.
    fn wait_for_none(&self, address: IpAddr) {
        let start = Instant::now();
        while self.count(address) > 0 && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn change(&self, address: IpAddr, by: impl FnOnce(&mut usize)) {
        by(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(address).or_default());
    }
}

/// One connection of an address, until it is closed.
struct OpenOne(Arc<Open>, IpAddr);

impl OpenOne {
    fn new(open: &Arc<Open>, address: IpAddr) -> Self {
        open.change(address, |count| *count += 1);
        Self(Arc::clone(open), address)
    }
}

impl Drop for OpenOne {
    fn drop(&mut self) {
        self.0.change(self.1, |count| *count -= 1);
    }
}

async fn accept(
    listener: TcpListener,
    dead: Arc<watch::Sender<HashSet<IpAddr>>>,
    open: Arc<Open>,
    identities: Arc<Identities>,
) {
    loop {
        // Running out of descriptors passes.
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Ok(local) = stream.local_addr() else { continue };
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        let (dead, one, identities) = (dead.subscribe(), OpenOne::new(&open, local.ip()), Arc::clone(&identities));
        tokio::spawn(async move {
            serve(stream, local, dead, &identities).await;
            // Closed by now.
            drop(one);
        });
    }
}

async fn serve(
    stream: TcpStream,
    local: SocketAddr,
    mut dead: watch::Receiver<HashSet<IpAddr>>,
    identities: &Identities,
) {
    // The same socket by another number, to reset it while another has it.
    let Ok(socket) = stream.as_fd().try_clone_to_owned() else { return };
    tokio::select! {
        _ = speak::serve(stream, local, identities) => {}
        _ = dead.wait_for(|dead| dead.contains(&local.ip())) => {
            let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
    }
}
