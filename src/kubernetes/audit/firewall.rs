//! Which nftables rules close the node ports of a node?
//!
//! Packets to a node port must be dropped before kube-proxy translates their destination (hook prerouting, priority dstnat, -100):
//! behind it they carry the port of a pod and are forwarded, so that an input chain never sees them. And they must be dropped
//! after connection tracking (-200), not in `raw` (-300): kube-proxy and CNIs masquerade what pods send with random source
//! ports from 1024 on, so that answers come back to ports of this very range; only connection tracking tells them from
//! newcomers. That leaves -150. It holds for kube-proxy with iptables, nftables and IPVS (which takes packets at input). It
//! does not for eBPF at the interface, such as Cilium without kube-proxy: that answers before netfilter sees a packet.

use super::report::{OpenService, Report};
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::RangeInclusive;

/// The table, so that it can be removed alone.
pub const TABLE: &str = "tidegate_node_ports";
/// `--service-node-port-range` of an API server that was told nothing.
pub const RANGE: RangeInclusive<u16> = 30000..=32767;

/// What is closed, and to whom not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firewall {
    /// Ports that are closed: the range, and what was found open beside it.
    pub closed: BTreeSet<(u16, u16)>,
    /// Networks that still come through.
    pub allow: Vec<IpNet>,
    /// Ports that stay open to everybody: transport and number.
    pub keep: BTreeSet<(String, u16)>,
    /// Nothing is dropped; who comes is noted.
    pub note: bool,
}

impl Firewall {
    /// Closes a range, and node ports outside of it that an audit found.
    pub fn new(range: &RangeInclusive<u16>, report: &Report) -> Self {
        let mut closed = BTreeSet::from([(*range.start(), *range.end())]);
        let found = report
            .services
            .iter()
            .flat_map(|service| service.ports.iter().map(|port| port.node_port).chain(service.health_check_node_port));
        closed.extend(found.filter(|port| !range.contains(port)).map(|port| (port, port)));
        Self { closed, ..Self::default() }
    }

    /// Keeps the ports open that cannot be replaced yet.
    pub fn keep_rest(&mut self, report: &Report) {
        let rest = |service: &OpenService| {
            let kept = service.ports.iter().filter(|port| !port.replace);
            kept.map(|port| (port.protocol.to_ascii_lowercase(), port.node_port)).collect::<Vec<_>>()
        };
        self.keep.extend(report.services.iter().flat_map(rest));
    }

    /// The rule set, for `nft -f`. Loading it again replaces it.
    pub fn rules(&self) -> String {
        let closed =
            self.closed.iter().map(|(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") });
        let keep: Vec<String> = self.keep.iter().map(|(transport, port)| format!("{transport} . {port}")).collect();
        let of = |v4: bool| -> Vec<String> {
            let nets = IpNet::aggregate(&self.allow);
            nets.iter().filter(|net| net.addr().is_ipv4() == v4).map(ToString::to_string).collect()
        };
        let mut text = String::from(HEAD);
        let _ = writeln!(text, "table inet {TABLE} {{");
        set(&mut text, "closed", "inet_service", true, &closed.collect::<Vec<_>>());
        set(&mut text, "kept", "inet_proto . inet_service", false, &keep);
        set(&mut text, "allowed_v4", "ipv4_addr", true, &of(true));
        set(&mut text, "allowed_v6", "ipv6_addr", true, &of(false));
        if self.note {
            text += SEEN;
        }
        text += CHAIN;
        text += if self.note { NOTE } else { DROP };
        text += "\t}\n}\n";
        text
    }
}

const HEAD: &str = "\
#!/usr/sbin/nft -f
# Closes node ports on this node, written by `tidegate audit --firewall`. Load it on every node:
#   nft -c -f node-ports.nft && nft -f node-ports.nft
# See what it dropped:   nft list chain inet tidegate_node_ports prerouting
# Let one more through:  nft add element inet tidegate_node_ports allowed_v4 '{ 192.0.2.0/24 }'
# See who would suffer:  print it with --dry-run, load that first, and look a few days later
# Remove it:             nft delete table inet tidegate_node_ports
# Keep it over a reboot: include it from /etc/nftables.conf
#
# Connections that are open when it is loaded stay open until they end; conntrack -D ends them. Pods that use a node port
# of a node are strangers too: allow their network, or let them use the ClusterIP. It cannot close node ports that eBPF
# answers before netfilter (Cilium without kube-proxy).

# Made, removed and made again in one step, so that loading it twice replaces it.
add table inet tidegate_node_ports
delete table inet tidegate_node_ports
";

const CHAIN: &str = "\
\tchain prerouting {
\t\t# After connection tracking (-200), because answers to masqueraded connections come back to ports of this range;
\t\t# before kube-proxy's translation (-100), behind which a packet carries the port of a pod.
\t\ttype filter hook prerouting priority -150; policy accept;
\t\tiif lo accept
\t\tct state established,related accept
\t\tfib daddr type != local accept
\t\tmeta l4proto . th dport @kept accept
\t\tip saddr @allowed_v4 accept
\t\tip6 saddr @allowed_v6 accept
";

const DROP: &str = "\t\tmeta l4proto { tcp, udp, sctp } th dport @closed counter drop\n";

/// Address, protocol and port of newcomers, forgotten after a week without them.
const SEEN: &str = "\
\tset seen_v4 {
\t\ttype ipv4_addr . inet_proto . inet_service
\t\tsize 65535
\t\tflags dynamic,timeout
\t\tcounter
\t\ttimeout 7d
\t}
\tset seen_v6 {
\t\ttype ipv6_addr . inet_proto . inet_service
\t\tsize 65535
\t\tflags dynamic,timeout
\t\tcounter
\t\ttimeout 7d
\t}
";

const NOTE: &str = "\
\t\t# Nothing is dropped yet: who would be is noted. nft list set inet tidegate_node_ports seen_v4 shows it, or seen_v6.
\t\tmeta nfproto ipv4 meta l4proto { tcp, udp, sctp } th dport @closed update @seen_v4 { ip saddr . meta l4proto . th dport }
\t\tmeta nfproto ipv6 meta l4proto { tcp, udp, sctp } th dport @closed update @seen_v6 { ip6 saddr . meta l4proto . th dport }
";

fn set(text: &mut String, name: &str, kind: &str, interval: bool, elements: &[String]) {
    let _ = writeln!(text, "\tset {name} {{\n\t\ttype {kind}");
    if interval {
        *text += "\t\tflags interval\n";
    }
    if !elements.is_empty() {
        let _ = writeln!(text, "\t\telements = {{ {} }}", elements.join(", "));
    }
    *text += "\t}\n";
}
