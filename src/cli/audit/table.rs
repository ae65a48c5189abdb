//! How is an audit told to people? In lines of 100 columns at the most, where names allow it.

use crate::kubernetes::audit::document;
use crate::kubernetes::audit::patch::When;
use crate::kubernetes::audit::report::{OpenPort, OpenService, Report, Verdict};
use std::fmt::Write as _;
use std::net::IpAddr;

/// Columns that a line of text is wrapped at.
const WIDTH: usize = 100;
/// A name of a Service in the table has at least this place; what is longer is cut where lines would get too long.
const NAME: usize = 20;

/// How commands are typed again, with the flags that choose the cluster.
pub(super) struct Again {
    /// This command.
    pub(super) command: String,
    /// `kubectl`.
    pub(super) kubectl: String,
}

/// The whole answer.
pub(super) fn render(report: &Report, again: &Again) -> String {
    let mut text = String::new();
    for note in &report.notes {
        paragraph(&mut text, "", &format!("note: {note}"));
    }
    if !report.is_open() {
        let _ = writeln!(text, "Nothing opens node ports ({} looked at).", count(report.summary.looked_at, "Service"));
        return text;
    }
    headline(&mut text, report);
    ports(&mut text, report);
    reach(&mut text, report);
    not_yet(&mut text, report);
    notes(&mut text, report);
    replacements(&mut text, report);
    next(&mut text, report, again);
    text
}

fn headline(text: &mut String, report: &Report) {
    let summary = &report.summary;
    let nodes = match report.nodes.len() {
        0 => "every node".into(),
        n => count(n, "node"),
    };
    let (services, open) = (count(summary.services, "Service"), count(summary.node_ports, "port"));
    let _ = writeln!(text, "{services} of {} open {open} on every address of {nodes}.", summary.looked_at);
    let parts = [
        (summary.replaceable, "Tidegate replaces"),
        (summary.partly, "in part"),
        (summary.not_yet, "not yet"),
        (summary.unused, "without anybody who answers"),
    ];
    let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{what}: {n}")).collect();
    let _ = writeln!(text, "{}.\n", parts.join("; "));
}

fn ports(text: &mut String, report: &Report) {
    let head = ["SERVICE", "TYPE", "NODE PORT", "SERVICE PORT", "ANSWERS", "CLIENT IP", "REPLACE"];
    let mut rows: Vec<[String; 7]> = vec![head.map(Into::into)];
    for service in &report.services {
        let mut first = true;
        let mut lead = || if std::mem::take(&mut first) { (service.key(), kind(service)) } else { Default::default() };
        let client = if service.client_address_lost { "lost" } else { "kept" };
        for port in &service.ports {
            let (name, kind) = lead();
            let replace = if port.replace { "yes" } else { "not yet" };
            let open = format!("{}/{}", port.node_port, port.protocol);
            rows.push([name, kind, open, target(port), answers(port), client.into(), replace.into()]);
        }
        if let Some(port) = service.health_check_node_port {
            let (name, kind) = lead();
            let health = "health of the node".to_owned();
            rows.push([name, kind, format!("{port}/TCP"), "-".into(), health, "-".into(), String::new()]);
        }
    }
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..head.len()).map(width).collect();
    let rest: usize = widths.iter().skip(1).map(|width| width + 2).sum();
    if let Some(name) = widths.first_mut() {
        *name = (*name).min(WIDTH.saturating_sub(rest).max(NAME));
    }
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{:width$}", cut(cell, *width))).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
}

fn kind(service: &OpenService) -> String {
    if service.kind == "LoadBalancer" { "LoadBal.".into() } else { service.kind.clone() }
}

/// `http 80 > 8080`, as much of it as says something.
fn target(port: &OpenPort) -> String {
    let name = if port.name.is_empty() { String::new() } else { format!("{} ", cut(&port.name, 12)) };
    let target = if port.target.is_empty() || port.target == port.port.to_string() || port.target == port.name {
        String::new()
    } else {
        format!(" > {}", cut(&port.target, 12))
    };
    format!("{name}{}{target}", port.port)
}

fn answers(port: &OpenPort) -> String {
    let who = match port.endpoints {
        None => String::new(),
        Some(e) if (e.ready, e.not_ready) == (0, 0) => ", nobody".into(),
        Some(e) if e.not_ready == 0 => format!(", {} ready", e.ready),
        Some(e) => format!(", {} of {} ready", e.ready, e.ready + e.not_ready),
    };
    format!("{}{who}", port.speaks.word())
}

fn reach(text: &mut String, report: &Report) {
    let _ = writeln!(
        text,
        "\nWho can reach them: whoever reaches a node, at each of its addresses, unless a firewall stands before it"
    );
    let width = report.nodes.iter().map(|node| node.name.chars().count()).max().unwrap_or_default();
    for node in &report.nodes {
        let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "  {:width$}  {}", node.name, addresses.join(", "));
    }
    for service in &report.services {
        let reach = &service.reach;
        let mut parts = Vec::new();
        if let Some(nodes) = &reach.only_nodes {
            parts.push(if nodes.is_empty() {
                "no node answers (policy Local)".into()
            } else {
                format!("{} alone answer (policy Local)", nodes.join(", "))
            });
        }
        for (what, list) in [
            ("load balancer", &reach.load_balancer),
            ("there only from", &reach.source_ranges),
            ("externalIPs", &reach.external_ips),
        ] {
            if !list.is_empty() {
                parts.push(format!("{what} {}", list.join(", ")));
            }
        }
        if !parts.is_empty() {
            paragraph(text, "  ", &format!("{}: {}", service.key(), parts.join("; ")));
        }
    }
}

fn not_yet(text: &mut String, report: &Report) {
    let ports = report.services.iter().flat_map(|s| s.ports.iter().filter(|p| !p.replace).map(move |p| (s, p)));
    for (at, (service, port)) in ports.enumerate() {
        if at == 0 {
            text.push_str("\nCannot be replaced yet\n");
        }
        paragraph(text, "  ", &format!("{} {}: {}", service.key(), target(port), port.why));
    }
}

/// What is to be known of several Services is told once.
fn notes(text: &mut String, report: &Report) {
    let mut told = Vec::<(&str, Vec<String>)>::new();
    for service in &report.services {
        let without_route = service.replace != Verdict::No && service.ports.iter().all(|p| p.routes.is_empty());
        let why = service.ports.iter().find(|port| port.replace && without_route).map(|port| &port.why);
        for note in why.into_iter().chain(&service.notes) {
            match told.iter_mut().find(|(there, _)| there == note) {
                Some((_, services)) => services.push(service.key()),
                None => told.push((note, vec![service.key()])),
            }
        }
    }
    if !told.is_empty() {
        text.push_str("\nTo know before changing them\n");
    }
    for (note, services) in told {
        paragraph(text, "  ", &format!("{}: {note}", services.join(", ")));
    }
}

fn replacements(text: &mut String, report: &Report) {
    if document::lines(report).next().is_some() {
        text.push_str("\nRoutes that replace them\n");
        for line in document::routes(report).lines().skip(1) {
            let _ = writeln!(text, "  {line}");
        }
    }
    for (at, (_, patch)) in document::patches(report).enumerate() {
        if at == 0 {
            text.push_str("\nCommands that close them\n");
        }
        let when = if patch.when == When::Unbalanced { "   # later: once its load balancer is not needed" } else { "" };
        let _ = writeln!(text, "  {}{when}", patch.command);
    }
}

fn next(text: &mut String, report: &Report, again: &Again) {
    let Again { command, kubectl } = again;
    let mut steps = Vec::new();
    if document::lines(report).any(|(.., route)| route.served_by.is_none()) {
        let apply = format!("{command} --format config-map | {kubectl} apply -f -");
        let hosts = document::lines(report).any(|(.., route)| route.placeholder);
        let how = if hosts { "apply the routes, with your hosts by an editor or --domain" } else { "apply the routes" };
        steps.push((how, apply));
        steps.push(("let the hosts resolve to the nodes that run Tidegate", addresses(report)));
        steps.push(("compare both ways", format!("{command} --verify --gate ADDRESS_OF_A_GATE")));
    }
    if document::patches(report).next().is_some() {
        steps.push(("close what is replaced", format!("{command} --format patches > close.sh; sh close.sh")));
    }
    let rest = "close at each node what nobody needs (--dry-run notes first who comes)";
    steps.push((rest, format!("{command} --firewall --keep-rest | sudo nft -f -")));
    steps.push(("have new ones refused", format!("tidegate audit --guard | {kubectl} apply -f -")));
    text.push_str("\nNext\n");
    for (at, (what, how)) in steps.iter().enumerate() {
        let _ = writeln!(text, "  {}. {what}:\n     {how}", at + 1);
    }
}

/// Addresses for DNS: those for the outside where nodes have some that are global, else the first of each.
fn addresses(report: &Report) -> String {
    let outer = report.nodes.iter().flat_map(|node| &node.addresses).filter(|address| is_public(**address));
    let mut found: Vec<String> = outer.map(ToString::to_string).collect();
    if found.is_empty() {
        found = report.nodes.iter().filter_map(|node| node.addresses.first()).map(ToString::to_string).collect();
    }
    if found.is_empty() { "A and AAAA records with their addresses".into() } else { found.join(" ") }
}

/// Neither private (RFC 1918, RFC 4193) nor of carriers (RFC 6598) nor of a link.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let carrier =
                v4.octets().first() == Some(&100) && v4.octets().get(1).is_some_and(|o| (64..128).contains(o));
            !(v4.is_private() || v4.is_link_local() || v4.is_loopback() || carrier)
        }
        IpAddr::V6(v6) => !(v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback()),
    }
}

/// One or many of something.
fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn cut(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.into();
    }
    text.chars().take(longest.saturating_sub(1)).chain(['~']).collect()
}

/// Words, wrapped; every line but the first begins with a deeper indent.
fn paragraph(text: &mut String, indent: &str, words: &str) {
    let mut line = indent.to_owned();
    let mut empty = true;
    for word in words.split(' ') {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{line}");
            line = format!("{indent}  ");
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    let _ = writeln!(text, "{line}");
}
