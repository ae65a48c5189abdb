//! What does h2spec, a conformance suite of others, say of HTTP/2 (RFC 9113, RFC 7541)?

use crate::harness::certs::Authority;
use crate::harness::proxy::{everything_to, routes};
use crate::harness::upstream::Upstream;
use crate::harness::{DEADLINE, within_time};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

/// Of version 2.2.1, with those of `--strict`.
const CASES: usize = 146;

/// Built from Go modules with the control plane.
fn program() -> String {
    let build = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/control-plane/build.sh");
    let said = Command::new(build).arg("--where").output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    format!("{}/h2spec", String::from_utf8_lossy(&said.stdout).trim())
}

/// What failed, by section and name.
async fn failures(address: SocketAddr, tls: bool) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.xml");
    let mut h2spec = tokio::process::Command::new(program());
    h2spec.args(["-h", "127.0.0.1", "-p", &address.port().to_string(), "-o", "15", "--strict", "-j"]).arg(&report);
    h2spec.args(tls.then_some(["-t", "-k"]).into_iter().flatten());
    let run = h2spec.stdin(Stdio::null()).kill_on_drop(true).output();
    let said = within_time(8 * DEADLINE, "h2spec", run).await.expect("`make control-plane` builds h2spec");
    let report = std::fs::read_to_string(&report).unwrap_or_else(|_| panic!("{said:?}"));
    let cases: Vec<_> = report.split("<testcase ").skip(1).collect();
    assert_eq!(cases.len(), CASES, "{report}");
    let of =
        |case: &str, key: &str| case.split(&format!("{key}=\"")).nth(1).unwrap().split('"').next().unwrap().to_owned();
    let failed = cases.iter().filter(|case| case.contains("<error") || case.contains("<failure"));
    failed
        .inspect(|case| eprintln!("{case}"))
        .map(|case| format!("{}: {}", of(case, "package"), of(case, "classname")))
        .collect()
}

#[tokio::test]
async fn h2spec_finds_nothing_over_tls_and_in_cleartext_but_what_http1_answers() {
    let up = Upstream::text("ok").await;
    let identity = Authority::new("tests").issue(&["a.test"]);
    let proxy =
        routes(everything_to(&[&up])).https("tls: { default: a }").certificate("a", &identity).http("").start().await;
    assert_eq!(failures(proxy.https().await, true).await, Vec::<String>::new());
    // Without TLS, who does not begin with the preface of HTTP/2 speaks HTTP/1, and is told 400 in it.
    let known = "http2/3.5: Sends invalid connection preface";
    assert_eq!(failures(proxy.http().await, false).await, [known]);
}
