//! Does an audit of one whole cluster read as it is meant to?

use super::*;
use clap::Parser as _;
use std::path::Path;

/// The flags alone, as they are parsed.
#[derive(clap::Parser)]
struct Flags {
    #[command(flatten)]
    args: AuditArgs,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/audit")
}

/// What `tidegate audit --from cluster.json` and these flags print.
fn printed(line: &str) -> (String, ExitCode) {
    let flags: Vec<&str> = line.split(' ').filter(|flag| !flag.is_empty()).collect();
    let mut args =
        Flags::try_parse_from([&["audit"], flags.as_slice()].concat()).unwrap_or_else(|e| panic!("{e}")).args;
    args.from = args.from.or(Some(golden().join("cluster.json")));
    let mut out = Vec::new();
    let code = audit(&args, &mut out).unwrap();
    (String::from_utf8(out).unwrap().replace(&golden().display().to_string(), "tests/audit"), code)
}

/// Compares with a file, or writes it anew where UPDATE_GOLDEN is set.
fn same(file: &str, line: &str) -> ExitCode {
    let (text, code) = printed(line);
    let path = golden().join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == wanted, "{file} differs; UPDATE_GOLDEN=1 writes it anew\n--- wanted\n{wanted}\n--- is\n{text}");
    code
}

#[test]
fn every_format_of_a_whole_cluster_is_as_it_was_agreed() {
    for (file, line) in [
        ("table.txt", ""),
        ("report.json", "--format json"),
        ("report.yaml", "--format yaml"),
        ("config-map.yaml", "--format config-map"),
        ("routes.yaml", "--format routes --domain example.net"),
        ("patches.sh", "--format patches --domain example.net"),
    ] {
        assert_eq!(same(file, line), ExitCode::from(FAILED), "{file}");
    }
    let line = "--firewall --allow 10.0.0.0/8 --allow fd00::/8 --keep-rest --keep 31000/udp";
    assert_eq!(same("firewall.nft", line), ExitCode::SUCCESS);
    assert_eq!(same("firewall-dry-run.nft", "--firewall --dry-run"), ExitCode::SUCCESS);
}

#[test]
fn the_table_fits_in_a_hundred_columns() {
    let (text, _) = printed("");
    let table = text.split("\n\nWho can reach").next().unwrap();
    let long: Vec<&str> = table.lines().filter(|line| line.chars().count() > 100).collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn the_routes_are_read_without_a_problem() {
    for line in ["--format routes", "--format routes --domain example.net"] {
        let (text, _) = printed(line);
        let parsed = crate::source::grammar::parse("routes", &text, &crate::config::decode::NoFiles);
        let wrong: Vec<String> = parsed.problems.iter().map(ToString::to_string).collect();
        assert!(wrong.is_empty(), "{wrong:#?}\n{text}");
        assert_eq!(parsed.fragment.routes.len(), 7, "{text}");
    }
}

#[test]
fn a_namespace_without_open_ports_is_told_so() {
    let (text, code) = printed("-n nowhere");
    assert_eq!(code, ExitCode::SUCCESS);
    assert!(text.ends_with("Nothing opens node ports (0 Services looked at).\n"), "{text}");
}

#[test]
fn what_cannot_be_read_is_broken_not_closed() {
    for from in ["/nowhere/dump.json", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")] {
        assert_eq!(printed(&format!("--from {from}")).1, ExitCode::from(super::super::BROKEN), "{from}");
    }
    let nowhere = Flags::try_parse_from(["audit", "--kubeconfig", "/nowhere/kubeconfig"]).unwrap().args;
    assert_eq!(audit(&nowhere, &mut Vec::new()).unwrap(), ExitCode::from(super::super::BROKEN));
}

#[test]
fn a_guard_needs_no_cluster() {
    let args = Flags::try_parse_from(["audit", "--guard", "--kubeconfig", "/nowhere"]).unwrap().args;
    let mut out = Vec::new();
    assert_eq!(audit(&args, &mut out).unwrap(), ExitCode::SUCCESS);
    assert!(String::from_utf8(out).unwrap().contains("kind: ValidatingAdmissionPolicyBinding"));
}

#[test]
fn flags_that_mean_nothing_are_refused() {
    let refused = |line: &str| Flags::try_parse_from(format!("audit {line}").split(' ')).is_err();
    for line in [
        "--range 1-2",
        "--firewall --range 2-1",
        "--firewall --range 0-1",
        "--firewall --allow x",
        "--domain a/b",
        "--domain *.a",
    ] {
        assert!(refused(line), "{line}");
    }
    for line in [
        "--firewall --keep 1/icmp",
        "--firewall --keep 0",
        "--from x --context y",
        "--domain 10.0.0.1",
        "--dry-run",
        "--guard --firewall",
        "--verify",
        "--gate 10.0.0.1",
    ] {
        assert!(refused(line), "{line}");
    }
    assert!(!refused("--firewall --range 30000-32767 --allow 10.0.0.1 --allow fd00::/8 --keep 31000"));
}

#[test]
fn commands_name_the_cluster_that_was_looked_at() {
    let args =
        Flags::try_parse_from(["audit", "--kubeconfig", "my config", "--context", "prod", "-n", "a"]).unwrap().args;
    assert_eq!(args.wishes().kubectl, "kubectl --kubeconfig 'my config' --context prod");
    assert_eq!(args.repeated(), "tidegate audit --kubeconfig 'my config' --context prod -n a");
}

/// What is printed of a dump with these Services alone.
fn printed_of(services: &[serde_json::Value], line: &str) -> (String, ExitCode) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dump.json");
    std::fs::write(&path, serde_json::json!({ "kind": "List", "items": services }).to_string()).unwrap();
    printed(&format!("--from {} {line}", path.display()))
}

/// A Service of type NodePort with the label of its program and ports as name, number and node port.
fn node_port_service(name: &str, ports: &[(&str, u16, u16)]) -> serde_json::Value {
    let port = |(name, port, node_port): &(&str, u16, u16)| serde_json::json!({ "name": name, "port": port, "nodePort": node_port, "protocol": "TCP" });
    let ports: Vec<serde_json::Value> = ports.iter().map(port).collect();
    let labels = serde_json::json!({ "app.kubernetes.io/name": name });
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": "shop", "labels": labels },
        "spec": { "type": "NodePort", "ports": ports },
    })
}

#[test]
fn a_comparison_that_compared_nothing_is_no_success() {
    let verify = "--verify --gate 127.0.0.1:1 --node 127.0.0.1 --timeout 100ms";
    let open = [
        (node_port_service("traefik", &[("web", 80, 30080)]), "shop/traefik 30080/TCP: no Ingress is known"),
        (node_port_service("db", &[("", 5432, 30432)]), "shop/db 30432/TCP: PostgreSQL is no HTTP"),
    ];
    for (service, why) in open {
        let (text, code) = printed_of(&[service], verify);
        assert_eq!(code, ExitCode::from(super::super::BROKEN), "{text}");
        assert!(text.contains(why), "{text}");
    }
    let (text, code) = printed_of(&[node_port_service("grpc", &[("grpc", 9000, 1)])], verify);
    assert_eq!(code, ExitCode::from(FAILED), "it is asked, and nobody answers: {text}");
    let inner = serde_json::json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "a", "namespace": "b" },
        "spec": { "type": "ClusterIP", "ports": [{ "port": 80 }] } });
    let (text, code) = printed_of(&[inner], verify);
    assert_eq!((text.as_str(), code), ("Nothing opens node ports: there is nothing to compare.\n", ExitCode::SUCCESS));
}

#[test]
fn what_an_ingress_controller_carries_beside_http_is_not_replaced_and_stays_open() {
    for name in ["traefik", "ingress-nginx"] {
        let ports = [("web", 80, 30080), ("websecure", 443, 30443), ("", 5432, 30432), ("proxied", 7777, 30777)];
        let services = [node_port_service(name, &ports)];
        let (text, _) = printed_of(&services, "--format json");
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        let ports = report["services"][0]["ports"].as_array().unwrap();
        let replaced: Vec<bool> = ports.iter().map(|port| port["replace"].as_bool().unwrap()).collect();
        assert_eq!(replaced, [true, true, false, false], "{text}");
        assert!(ports[2]["why"].as_str().unwrap().starts_with("PostgreSQL is no HTTP"), "{text}");
        let (rules, _) = printed_of(&services, "--firewall --keep-rest");
        assert!(rules.contains("elements = { tcp . 30432, tcp . 30777 }"), "{rules}");
    }
}

#[test]
fn the_report_as_yaml_says_what_it_says_as_json() {
    let (yaml, code) = printed("--format yaml");
    assert_eq!(code, ExitCode::from(FAILED));
    let yaml: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
    let json: serde_json::Value = serde_json::from_str(&printed("--format json").0).unwrap();
    assert_eq!(yaml, json);
}
