//! How is what replaces node ports written: the routes document, its ConfigMap, the commands?

use super::patch::{Patch, When};
use super::report::{OpenPort, OpenService, Report, Route};
use std::fmt::Write as _;

/// The label of ConfigMaps with routes.
pub const LABEL: &str = "tidegate.io/routes";
/// The ConfigMap, and with `.yaml` its key.
pub const NAME: &str = "node-ports";

/// The routes document: lines of `host/path: namespace/service:port`, each with where it comes from.
pub fn routes(report: &Report) -> String {
    let mut text = String::from("# Routes that replace node ports, written by `tidegate audit`.\n");
    let all: Vec<(&OpenService, &OpenPort, &Route)> = lines(report).collect();
    if all.iter().any(|(.., route)| route.placeholder) {
        text += "# Where it says \"your host\", write yours in the place of a made-up one, and let it resolve to the nodes.\n";
    }
    if all.is_empty() {
        text += "# There is none to write.\n";
    }
    let written: Vec<String> = all.iter().map(|(.., route)| line(route)).collect();
    let width = written.iter().map(String::len).max().unwrap_or_default().min(64);
    let mut seen = Vec::<(&str, &str)>::new();
    for ((service, port, route), written) in all.iter().zip(&written) {
        let again = seen.contains(&(&route.host, &route.path));
        seen.push((&route.host, &route.path));
        let (mark, note) = match (&route.served_by, again, route.placeholder) {
            (Some(by), ..) => ("# ", format!("; served already by {by}")),
            (None, true, _) => ("# ", "; this host and path stand above already".to_owned()),
            (None, false, true) => ("", "; your host".to_owned()),
            (None, false, false) => ("", format!("; from {}", route.from)),
        };
        let _ = writeln!(text, "{mark}{written:width$}  # {} {}{note}", service.kind, port.node_port);
    }
    text
}

/// The same as a ConfigMap that `kubectl apply -f -` takes.
pub fn config_map(report: &Report, namespace: &str) -> String {
    let mut text = format!(
        "# Routes that replace node ports, written by `tidegate audit`; apply with: kubectl apply -f -\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {NAME}\n  namespace: {namespace}\n  labels:\n    {LABEL}: \"\"\n\
         data:\n  {NAME}.yaml: |\n"
    );
    for line in routes(report).lines() {
        let _ = writeln!(text, "    {line}");
    }
    text
}

/// The commands as a shell script that stops at the first that fails.
pub fn script(report: &Report) -> String {
    let mut text = String::from(
        "#!/bin/sh\n# Closes node ports that Tidegate replaces, written by `tidegate audit`.\n\
         # Apply the routes first and compare both ways: tidegate audit --verify --gate ADDRESS\nset -e\n",
    );
    let sections = [
        (When::Now, "At once"),
        (When::Served, "Once the routes answer"),
        (When::Unbalanced, "Once nobody comes to the addresses of the load balancer any more (take the # away)"),
    ];
    for (when, title) in sections {
        let all: Vec<(&OpenService, &Patch)> = patches(report).filter(|(_, patch)| patch.when == when).collect();
        if !all.is_empty() {
            let _ = writeln!(text, "\n# {title}");
        }
        let mark = if when == When::Unbalanced { "# " } else { "" };
        for (service, patch) in all {
            let _ = writeln!(text, "# {}: {}\n{mark}{}", service.key(), patch.does, patch.command);
        }
    }
    text
}

/// Every route with its Service and port.
pub fn lines(report: &Report) -> impl Iterator<Item = (&OpenService, &OpenPort, &Route)> {
    let ports = report.services.iter().flat_map(|service| service.ports.iter().map(move |port| (service, port)));
    ports.flat_map(|(service, port)| port.routes.iter().map(move |route| (service, port, route)))
}

/// Every patch with its Service.
pub fn patches(report: &Report) -> impl Iterator<Item = (&OpenService, &Patch)> {
    report.services.iter().flat_map(|service| service.patches.iter().map(move |patch| (service, patch)))
}

/// `host/path: namespace/service:port`, quoted where YAML would read something else.
fn line(route: &Route) -> String {
    let key = format!("{}{}", route.host, route.path);
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
    let quoted = !key.chars().all(plain) || key.starts_with(['-', '.']);
    let key = if quoted { format!("{}", serde_json::Value::from(key)) } else { key };
    format!("{key}: {}", route.cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_yaml_would_misread_is_quoted() {
        let route = |host: &str, path: &str| {
            line(&Route { host: host.into(), path: path.into(), cluster: "a/b:80".into(), ..Route::default() })
        };
        assert_eq!(route("a.test", "/x/"), "a.test/x/: a/b:80");
        assert_eq!(route("*.a.test", "/"), "\"*.a.test/\": a/b:80");
        assert_eq!(route("a.test", "~^/\\d+$"), "\"a.test~^/\\\\d+$\": a/b:80");
        assert_eq!(route("a.test", "=/#"), "\"a.test=/#\": a/b:80");
        assert_eq!(route("", "/"), "/: a/b:80");
    }
}
