//! Which machines are there, and which wire is between them?
//!
//! A bridge in the namespace of the tests, where the API server listens too, and a network namespace for each node and each gate:
//!
//! ```text
//! tests, API server ── 10.240.0.1/16 ── bridge ─┬─ node-a  10.240.0.11   pods 10.244.1.0/24
//!                      fd00:240::1/64           ├─ node-b  10.240.0.12   pods 10.244.2.0/24
//!                                               ├─ node-c  10.240.0.13   pods 10.244.3.0/24
//!                                               └─ a gate  10.240.1.N    on a node by name, alone on its ports
//! ```
//!
//! Each address of a pod network is an address of its node (`ip route add local`), so that every pod answers as itself.

use super::process::{run, write};
use std::fmt::Write as _;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// The address of the API server, and of the tests when they are clients.
pub const HOME: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 1);
/// Where programs find namespaces by name.
const NAMES: &str = "/run/netns";

/// A network namespace on the bridge.
#[derive(Clone, Debug)]
pub struct Place {
    pub name: String,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

/// A node: a place that has pods, and an object in the cluster.
#[derive(Clone, Debug)]
pub struct Node {
    pub place: Place,
    pub zone: &'static str,
    number: u8,
}

/// The nodes of every cluster: name, zone.
const NODES: [(&str, &str); 3] = [("node-a", "east"), ("node-b", "east"), ("node-c", "west")];

/// Lays the bridge and the nodes. Once in a sandbox.
pub fn lay() -> Result<Vec<Node>, String> {
    let nodes: Vec<Node> = NODES.iter().zip(1..).map(|((name, zone), number)| Node::new(name, zone, number)).collect();
    // Of its own address: else it has the lowest of whoever is on it, which changes as gates come and go, and those who have learnt
    // the one before it reach nobody for half a minute.
    ip(
        &[],
        "link set lo up\nlink add br0 address 02:00:0a:f0:00:01 type bridge\naddr add 10.240.0.1/16 dev br0\n\
         addr add fd00:240::1/64 dev br0 nodad\nlink set br0 up",
    )?;
    for node in &nodes {
        node.place.lay()?;
        let (pods, pods6) = (node.pods(), node.pods6());
        node.place.ip(&format!("route add local {pods} dev lo\nroute add local {pods6} dev lo"))?;
        node.place.route()?;
        node.place.ip(&ways(nodes.iter().filter(|other| other.number != node.number), "eth0"))?;
    }
    ip(&[], &ways(nodes.iter(), "br0"))?;
    Ok(nodes)
}

/// A new place with a way to every pod, for one gate.
pub fn settle(nodes: &[Node]) -> Result<Place, String> {
    static NEXT: AtomicU16 = AtomicU16::new(256);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let v6 = Ipv6Addr::new(0xfd00, 0x240, 0, 0, 0, 0, u16::from(high), u16::from(low));
    let place = Place { name: format!("gate-{high}-{low}"), v4: Ipv4Addr::new(10, 240, high, low), v6 };
    place.lay()?;
    place.ip(&ways(nodes.iter(), "eth0"))?;
    Ok(place)
}

impl Node {
    fn new(name: &str, zone: &'static str, number: u8) -> Self {
        let v4 = Ipv4Addr::new(10, 240, 0, 10 + number);
        let v6 = format!("fd00:240::1{number}").parse().unwrap();
        Self { place: Place { name: name.into(), v4, v6 }, zone, number }
    }

    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// Every address here answers.
    pub fn pods(&self) -> String {
        format!("10.244.{}.0/24", self.number)
    }

    pub fn pods6(&self) -> String {
        format!("fd00:244:{}::/64", self.number)
    }

    /// The part of [`Node::pods`] that the kubelet gives away; the first 63 are free for endpoints made by hand.
    pub fn managed_pods(&self) -> String {
        format!("10.244.{}.64/26", self.number)
    }

    /// An address for an endpoint made by hand, 1 to 63.
    pub fn pod(&self, n: u8) -> IpAddr {
        assert!((1..64).contains(&n), "{n} is the kubelet's");
        Ipv4Addr::new(10, 244, self.number, n).into()
    }

    /// The same in IPv6.
    pub fn pod6(&self, n: u8) -> IpAddr {
        Ipv6Addr::new(0xfd00, 0x244, u16::from(self.number), 0, 0, 0, 0, u16::from(n)).into()
    }

    /// Whether this address is one of its pods'.
    pub fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => v4.octets()[..3] == [10, 244, self.number],
            IpAddr::V6(v6) => v6.segments()[..3] == [0xfd00, 0x244, u16::from(self.number)],
        }
    }

    /// Takes an address off the network: packets to it are answered by ICMP "unreachable".
    pub fn cut(&self, address: IpAddr) -> Result<(), String> {
        self.place.ip(&format!("route add unreachable {address} table local"))
    }

    /// Puts it back.
    pub fn mend(&self, address: IpAddr) -> Result<(), String> {
        self.place.ip(&format!("route del unreachable {address} table local"))
    }
}

impl Place {
    fn lay(&self) -> Result<(), String> {
        let Self { name, v4, v6 } = self;
        // Names of interfaces end after 15 characters.
        let end = format!("v-{}", name.replace("node-", "n").replace("gate-", "g"));
        let outside = format!(
            "netns add {name}\nlink add {end} type veth peer name eth0 netns {name}\nlink set {end} master br0 up"
        );
        ip(&[], &outside)?;
        self.ip(&format!(
            "link set lo up\naddr add {v4}/16 dev eth0\naddr add {v6}/64 dev eth0 nodad\nlink set eth0 up"
        ))
    }

    /// Only a router says that an address is unreachable; how often it says so is limited unless this is lifted.
    fn route(&self) -> Result<(), String> {
        let settings = [
            ("/proc/sys/net/ipv4/ip_forward", "1"),
            ("/proc/sys/net/ipv4/icmp_ratelimit", "0"),
            ("/proc/sys/net/ipv6/conf/all/forwarding", "1"),
            ("/proc/sys/net/ipv6/icmp/ratelimit", "0"),
        ];
        self.inside(move || settings.iter().try_for_each(|(file, value)| write(Path::new(file), value)))
    }

    /// Takes it away with everything on it.
    pub fn remove(&self) -> Result<(), String> {
        ip(&[], &format!("netns del {}", self.name))
    }

    /// Runs lines of `ip` inside.
    pub fn ip(&self, lines: &str) -> Result<(), String> {
        ip(&["-n", &self.name], lines)
    }

    /// A program that will run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={NAMES}/{}", self.name)).arg(program);
        command
    }

    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }

    /// A connection that leaves from here, such as to the loopback of this place.
    pub fn connect(&self, to: SocketAddr) -> Result<TcpStream, String> {
        self.inside(move || {
            TcpStream::connect_timeout(&to, Duration::from_secs(5)).map_err(|e| format!("{to} from there: {e}"))
        })
    }

    /// A listener that is bound here.
    pub fn bind(&self, port: u16) -> Result<TcpListener, String> {
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        self.inside(move || TcpListener::bind(address).map_err(|e| format!("{address} there: {e}")))
    }

    /// A socket for datagrams that is bound here.
    pub fn bind_udp(&self, port: u16) -> Result<UdpSocket, String> {
        let address = SocketAddr::from((self.v4, port));
        self.inside(move || UdpSocket::bind(address).map_err(|e| format!("{address} there: {e}")))
    }

    /// Does something on a thread of its own that stands in this namespace; sockets stay in the one they were made in.
    fn inside<T: Send + 'static>(&self, act: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
        let path = PathBuf::from(NAMES).join(&self.name);
        let enter = move || {
            let namespace = File::open(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            rustix::thread::move_into_link_name_space(namespace.as_fd(), None).map_err(|e| e.to_string())?;
            act()
        };
        std::thread::spawn(enter).join().map_err(|_| "panicked inside a network namespace".to_owned())?
    }
}

/// The ways to the pods of these nodes, as lines of `ip`.
fn ways<'a>(nodes: impl Iterator<Item = &'a Node>, device: &str) -> String {
    let mut text = String::new();
    for node in nodes {
        let Place { v4, v6, .. } = &node.place;
        let (pods, pods6) = (node.pods(), node.pods6());
        let _ = write!(text, "route add {pods} via {v4} dev {device}\nroute add {pods6} via {v6} dev {device}\n");
    }
    text
}

/// Runs lines of `ip`, in the namespace of this process unless options say another.
fn ip(options: &[&str], lines: &str) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(options).args(["-batch", "-"]).env("PATH", search());
    run(&mut command, lines).map(drop).map_err(|e| format!("{e}\n{lines}"))
}

/// Where system programs are, also for users whose path leaves out `sbin`.
pub fn search() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}
