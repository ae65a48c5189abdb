//! What opens node ports in a cluster, and what would replace each?

mod compare;
mod table;
mod yaml;

use super::FAILED;
use crate::kubernetes::audit::firewall::{Firewall, RANGE};
use crate::kubernetes::audit::read::{Place, ReadError};
use crate::kubernetes::audit::verify::Verify;
use crate::kubernetes::audit::{Inventory, Probed, Report, Wishes, document, guard, judge, probe, read};
use clap::ValueEnum;
use ipnet::IpNet;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use table::Again;

const TEACH: &str = "\
The way away from node ports:
  tidegate audit                                        what is open, to whom, and what replaces it
  tidegate audit --domain example.com --format config-map | kubectl apply -f -     the routes
  tidegate audit --probe --verify --gate 10.0.0.11      asks both ways and compares, before anything is closed
  tidegate audit --format patches > close.sh            the kubectl commands that close them, to read and run
  tidegate audit --firewall --dry-run | nft -f -        at each node: notes who still comes to node ports
  tidegate audit --firewall --keep-rest | nft -f -      at each node: closes them but what Tidegate cannot replace
  tidegate audit --guard | kubectl apply -f -           the API server refuses Services that open new ones
  tidegate audit                                        exit status 0: nothing is open any more
  tidegate audit --format json | jq '.services[] | select(.replace != \"yes\")'

Without a way to the API server, from what somebody else reads:
  kubectl get services,endpointslices,ingresses,nodes -A -o json | tidegate audit --from -

It asks for nothing but get and list of Services, EndpointSlices, Ingresses and Nodes, goes on without the last three
where they are forbidden, and changes nothing. --probe and --verify send GET requests, nothing else.

Exit status: 0 nothing opens node ports; 1 something does; 2 the cluster could not be read.
With --verify: 0 both ways answer the same for all that Tidegate replaces; 1 something answers differently or not at all;
2 nothing was compared, or not everything that Tidegate replaces, such as the port of an Ingress controller without Ingresses:
the answer names each. Ports of HTTP/2 and gRPC are asked in HTTP/2, those of Ingress controllers for what their Ingresses say.
Ports that it does not replace are named too; --format patches leaves them open. 0 also where nothing opens node ports.
With --firewall and --guard: 0 it was printed.";

/// Flags of `audit`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = TEACH)]
pub struct AuditArgs {
    /// Kubeconfig file; default: the service account of a pod, or else KUBECONFIG and ~/.kube/config
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; default: its current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace to look at; may be repeated; default: all
    #[arg(long = "namespace", short = 'n', value_name = "NAMESPACE")]
    pub namespaces: Vec<String>,
    /// Read what `kubectl get ... -o json` wrote instead of asking a cluster; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kubeconfig", "context"])]
    pub from: Option<PathBuf>,
    /// Ask each port that may speak HTTP what it speaks, instead of guessing by names and numbers
    #[arg(long)]
    pub probe: bool,
    /// Domain of the hosts in routes that neither an Ingress nor an annotation names
    #[arg(long, value_name = "DOMAIN", value_parser = domain)]
    pub domain: Option<String>,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: AuditFormat,
    /// Namespace of the ConfigMap that --format config-map prints: that of Tidegate
    #[arg(long, value_name = "NAMESPACE", default_value = "tidegate")]
    pub gate_namespace: String,
    /// Ask for each route both ways, at the node port and at the gate, and compare the answers
    #[arg(long, requires = "gate", conflicts_with = "firewall")]
    pub verify: bool,
    /// Address of Tidegate, such as 10.0.0.11, 10.0.0.11:8080 or https://10.0.0.11
    #[arg(long, value_name = "ADDRESS", value_parser = compare::gate, requires = "verify")]
    pub gate: Option<compare::Gate>,
    /// Address of the node that is asked; default: some that the cluster names
    #[arg(long, value_name = "IP", requires = "verify")]
    pub node: Option<IpAddr>,
    /// Path that is asked for; default: that of each route
    #[arg(long, value_name = "PATH", value_parser = compare::path, requires = "verify")]
    pub path: Option<String>,
    /// Longest wait for an answer when ports are asked
    #[arg(long, value_name = "DURATION", value_parser = compare::patience, default_value = "3s")]
    pub timeout: Duration,
    /// Print nftables rules that close the node ports of a node, and how to load and to remove them
    #[arg(long)]
    pub firewall: bool,
    /// Ports that the rules close; others that are found open are closed as well
    #[arg(long, value_name = "FROM-TO", value_parser = range, default_value = "30000-32767", requires = "firewall")]
    pub range: RangeInclusive<u16>,
    /// Network that still reaches node ports; may be repeated
    #[arg(long, value_name = "CIDR", value_parser = network, requires = "firewall")]
    pub allow: Vec<IpNet>,
    /// Port that stays open to everybody, such as 30053/udp; may be repeated
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_parser = kept, requires = "firewall")]
    pub keep: Vec<(String, u16)>,
    /// Ports that Tidegate cannot replace yet stay open to everybody
    #[arg(long, requires = "firewall")]
    pub keep_rest: bool,
    /// The rules drop nothing: they note who comes to which port
    #[arg(long, requires = "firewall")]
    pub dry_run: bool,
    /// Print an admission policy by which the cluster refuses new Services that open node ports; reads nothing
    #[arg(long, conflicts_with_all = ["firewall", "verify", "probe", "format", "from"])]
    pub guard: bool,
}

/// How the answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum AuditFormat {
    /// For people
    #[default]
    Table,
    /// For programs: everything
    Json,
    /// The same as YAML
    Yaml,
    /// A ConfigMap with the routes, for kubectl apply
    #[value(alias = "configmap")]
    ConfigMap,
    /// The routes alone, for `tidegate check` and for files
    Routes,
    /// The kubectl commands that close node ports, as a shell script
    Patches,
}

impl AuditFormat {
    /// Whether it is the report itself, notes included, and not something made of it.
    fn is_report(self) -> bool {
        matches!(self, Self::Table | Self::Json | Self::Yaml)
    }
}

/// Prints the answer.
pub(super) fn audit(args: &AuditArgs, out: &mut dyn Write) -> io::Result<ExitCode> {
    if args.guard {
        return out.write_all(guard::policy().as_bytes()).map(|()| ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let inventory = match runtime.block_on(inventory(args)) {
        Ok(inventory) => inventory,
        Err(error) => return Ok(super::fail(&read::causes(&error))),
    };
    let probed = match args.probe {
        true => runtime.block_on(probe::probe(&inventory, args.timeout)),
        false => Probed::new(),
    };
    let report = judge(&inventory, &args.wishes(), &probed);
    if args.firewall || args.verify || !args.format.is_report() {
        tell(&report);
    }
    if args.firewall {
        return out.write_all(args.rules(&report).as_bytes()).map(|()| ExitCode::SUCCESS);
    }
    if let Some(verify) = args.comparison() {
        let compared = runtime.block_on(verify.compare(&inventory, &report));
        return compare::print(&compared, args.format, out);
    }
    let text = match args.format {
        AuditFormat::Table => table::render(&report, &args.again()),
        AuditFormat::Json => format!("{:#}\n", serde_json::json!(report)),
        AuditFormat::Yaml => yaml::document(&serde_json::json!(report)),
        AuditFormat::ConfigMap => document::config_map(&report, &args.gate_namespace),
        AuditFormat::Routes => document::routes(&report),
        AuditFormat::Patches => document::script(&report),
    };
    out.write_all(text.as_bytes())?;
    Ok(if report.is_open() { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

async fn inventory(args: &AuditArgs) -> Result<Inventory, ReadError> {
    let Some(path) = &args.from else { return read::cluster(&args.place()).await };
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        io::stdin().lock().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(path).map(|content| text = content)
    };
    read.map_err(ReadError::Dump)?;
    let mut inventory = read::dump(&text)?;
    inventory.services.retain(|service| args.namespaces.is_empty() || args.namespaces.contains(&service.namespace));
    Ok(inventory)
}

/// What could not be read, where the answer itself has no place for it.
fn tell(report: &Report) {
    let mut out = io::stderr().lock();
    for note in &report.notes {
        let _ = writeln!(out, "tidegate: {note}");
    }
}

impl AuditArgs {
    fn place(&self) -> Place {
        let Self { kubeconfig, context, namespaces, .. } = self.clone();
        Place { kubeconfig, context, namespaces }
    }

    fn wishes(&self) -> Wishes {
        Wishes { domain: self.domain.clone(), kubectl: format!("kubectl{}", self.cluster_flags()) }
    }

    /// The flags by which kubectl and this command find the same cluster.
    fn cluster_flags(&self) -> String {
        let path = self.kubeconfig.as_ref().map(|path| path.display().to_string());
        let flags = [("kubeconfig", path.as_ref()), ("context", self.context.as_ref())];
        flags.iter().filter_map(|(flag, value)| Some(format!(" --{flag} {}", quoted((*value)?)))).collect()
    }

    /// How commands are typed that do what is next.
    fn again(&self) -> Again {
        Again { command: self.repeated(), kubectl: self.wishes().kubectl }
    }

    /// This command with the flags that choose what is looked at.
    fn repeated(&self) -> String {
        let mut text = format!("tidegate audit{}", self.cluster_flags());
        for namespace in &self.namespaces {
            text += &format!(" -n {}", quoted(namespace));
        }
        for (flag, value) in
            [("domain", self.domain.clone()), ("from", self.from.as_ref().map(|p| p.display().to_string()))]
        {
            text += &value.map(|value| format!(" --{flag} {}", quoted(&value))).unwrap_or_default();
        }
        text
    }

    fn comparison(&self) -> Option<Verify> {
        let gate = self.gate.filter(|_| self.verify)?;
        let (node, path, patience) = (self.node, self.path.clone(), self.timeout);
        Some(Verify { gate: gate.address, tls: gate.tls, node, path, patience })
    }

    fn rules(&self, report: &Report) -> String {
        let mut firewall = Firewall::new(&self.range, report);
        firewall.allow.clone_from(&self.allow);
        firewall.keep.extend(self.keep.iter().cloned());
        firewall.note = self.dry_run;
        if self.keep_rest {
            firewall.keep_rest(report);
        }
        firewall.rules()
    }
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/:@".contains(c);
    if text.chars().all(plain) && !text.is_empty() { text.into() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn domain(text: &str) -> Result<String, String> {
    use crate::model::{HostPattern, WildcardDepth};
    match HostPattern::parse(text, WildcardDepth::Many) {
        Ok(HostPattern::Exact(name)) if name.parse::<IpAddr>().is_err() => Ok(name.to_string()),
        Ok(_) => Err("write a domain such as example.com".into()),
        Err(error) => Err(format!("{}; {}", error.what, error.hint)),
    }
}

fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    match (from.parse::<u16>(), to.parse::<u16>()) {
        (Ok(from), Ok(to)) if 0 < from && from <= to => Ok(from..=to),
        _ => Err(format!("write two ports such as {}-{}", RANGE.start(), RANGE.end())),
    }
}

/// A network, or a single address.
fn network(text: &str) -> Result<IpNet, String> {
    let single = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(single).ok_or_else(|| "write a network such as 10.0.0.0/8 or fd00::/8".into())
}

fn kept(text: &str) -> Result<(String, u16), String> {
    let (port, transport) = text.split_once('/').unwrap_or((text, "tcp"));
    let transport = transport.to_ascii_lowercase();
    match port.parse() {
        Ok(port) if port > 0 && ["tcp", "udp", "sctp"].contains(&transport.as_str()) => Ok((transport, port)),
        _ => Err("write a port such as 30432, or 30053/udp".into()),
    }
}

#[cfg(test)]
mod tests;
