//! What can an operator see and change while it runs?

use crate::harness::DEADLINE;
use crate::harness::certs::Authority;
use crate::harness::client::Client;
use crate::harness::proxy::{everything_to, items, routes};
use crate::harness::upstream::Upstream;
use serde_json::Value;
use std::time::{Duration, Instant};

#[tokio::test]
async fn the_probes_tell_alive_from_ready() {
    let proxy = routes(everything_to(&[])).start().await;
    assert_eq!(proxy.admin_get("/healthz").await.status(), 200);
    assert_eq!(proxy.admin_get("/readyz").await.status(), 200);
    assert_eq!(proxy.admin_get("/nowhere").await.status(), 404);
    assert_eq!(proxy.admin_request("POST", "/healthz", b"").await.status(), 405);
}

#[tokio::test]
async fn the_api_shows_listeners_routes_clusters_endpoints_certificates_and_connections() {
    let up = Upstream::text("ok").await;
    let authority = Authority::new("tests");
    let text = format!("a.test/x/: shop/web\n---\nclusters:\n  shop/web: {{ endpoints: [\"{up}\"] }}\n");
    let proxy = routes(text).http("").https("").certificate("cert", &authority.issue(&["a.test"])).start().await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("a.test", "/x/").await.text(), "ok");
    let find = async |page: &str, key: &str, value: &str| -> Value {
        let all = proxy.api(page).await;
        let found = items(&all).into_iter().find(|i| i[key] == value);
        found.unwrap_or_else(|| panic!("no {key} {value} in {page}: {all:#}"))
    };
    assert!(find("listeners", "name", "https").await["bound"].as_str().unwrap().starts_with("127.0.0.1:"));
    find("listeners", "name", "http").await;
    find("routes", "name", "a.test/x/").await;
    find("clusters", "name", "shop/web").await;
    find("endpoints", "address", &up.to_string()).await;
    find("certificates", "name", "cert").await;
    assert_eq!(items(&proxy.api("connections").await).len(), 1);
    assert!(items(&proxy.api("problems").await).is_empty());
}

#[tokio::test]
async fn probes_and_scrapes_do_not_wait_while_a_large_configuration_is_compiled() {
    let proxy = routes("a.test/: { respond: 200 }\n").start().await;
    let expressions = (0..6000).map(|n| format!("  - {{ path: \"~^/{n}/[a-z]{{2,200}}/(x|y|z)+$\", respond: 200 }}\n"));
    proxy.write("routes.yaml", format!("host: a.test\nroutes:\n{}", expressions.collect::<String>()));
    let mut client = Client::connect(proxy.admin).await;
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    // Asked on and on, so that some probe falls into the compile.
    let took = loop {
        assert!(begun.elapsed() < 4 * DEADLINE, "nothing was published");
        for page in ["/readyz", "/metrics"] {
            let asked = Instant::now();
            assert_eq!(client.get("localhost", page).await.status(), 200);
            longest = asked.elapsed().max(longest);
        }
        if let Some(took) = proxy.log().lines().filter_map(took).nth(1) {
            break took;
        }
    };
    assert!(took >= Duration::from_millis(500), "too fast to prove anything: {took:?}");
    assert!(longest < took / 2, "a probe waited {longest:?} while a compile took {took:?}");
}

/// How long a publish took, by its line in the log.
fn took(line: &str) -> Option<Duration> {
    let micros = line.split_once("took_us=")?.1;
    micros.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok().map(Duration::from_micros)
}

#[tokio::test]
async fn metrics_are_in_the_format_of_prometheus() {
    let up = Upstream::text("hello").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    for _ in 0..3 {
        client.get("a.test", "/").await;
    }
    client.get("a.test", "/a%2fb").await;
    let page = proxy.admin_get("/metrics").await;
    assert!(page.get("content-type").unwrap().starts_with("text/plain; version=0.0.4"), "{page:?}");
    for line in page.text().lines() {
        let fine = line.starts_with("# HELP ") || line.starts_with("# TYPE ") || {
            let (series, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().is_ok() && series.starts_with(|c: char| c.is_ascii_alphabetic())
        };
        assert!(fine, "{line}");
    }
    assert_eq!(proxy.metric("tidegate_requests_total", &["class=\"2xx\""]).await, 3.0);
    assert_eq!(proxy.metric("tidegate_response_body_bytes_total", &[]).await, 15.0);
    assert_eq!(proxy.metric("tidegate_own_responses_total", &["reason=\"path_ambiguous\""]).await, 1.0);
    assert_eq!(proxy.metric("tidegate_upstream_connects_total", &["cluster=\"up\""]).await, 1.0);
    assert_eq!(proxy.metric("tidegate_upstream_connections_reused_total", &[]).await, 2.0);
    assert_eq!(proxy.metric("tidegate_config_generation", &[]).await, 1.0);
    assert!(proxy.metric("process_open_fds", &[]).await > 0.0);
}

#[tokio::test]
async fn series_beyond_the_cap_are_counted_together() {
    let up = Upstream::text("ok").await;
    let lines: String = (0..300).map(|n| format!("h{n}.test/: up\n")).collect();
    let text = format!("{lines}---\nclusters:\n  up: {{ endpoints: [\"{up}\"] }}\n");
    let proxy = routes(text).section("telemetry", "{ metrics: { max_series: 200 }, access_log: off }").start().await;
    let mut client = proxy.client().await;
    for n in 0..300 {
        assert_eq!(client.get(&format!("h{n}.test"), "/").await.text(), "ok");
    }
    // The last one is counted a moment after its answer.
    proxy.wait_for_metric("tidegate_requests_total", &[], 300.0).await;
    assert_eq!(proxy.metric("tidegate_requests_total", &[]).await, 300.0);
    assert!(proxy.metric("tidegate_requests_total", &["route=\"other\""]).await > 0.0);
    assert!(proxy.metrics().await.lines().count() < 2500);
}

#[tokio::test]
async fn the_log_level_changes_at_run_time() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    assert_eq!(proxy.api("log-level").await["level"], "info");
    let changed = proxy.admin_request("PUT", "/api/v1/log-level", br#"{"level":"trace"}"#).await;
    assert_eq!(changed.status(), 200, "{changed:?}");
    proxy.get("a.test", "/").await;
    assert_eq!(proxy.api("log-level").await["level"], "trace");
    let wrong = proxy.admin_request("PUT", "/api/v1/log-level", b"loud").await;
    assert_eq!(wrong.status(), 400);
}

#[tokio::test]
async fn a_web_page_cannot_reach_the_admin_port_by_a_name_of_its_own() {
    let proxy = routes(everything_to(&[])).start().await;
    let rebound = Client::connect(proxy.admin).await.get("evil.test", "/api/v1/listeners").await;
    assert_ne!(rebound.status(), 200);
}

#[tokio::test]
async fn the_api_can_be_switched_off_and_probes_stay() {
    let proxy = routes(everything_to(&[])).section("admin", "{ address: \"127.0.0.1:0\", api: false }").spawn().await;
    crate::harness::until("ready", || async { (proxy.admin_get("/readyz").await.status() == 200).then_some(()) }).await;
    assert_eq!(proxy.admin_get("/api/v1/listeners").await.status(), 404);
    assert_eq!(proxy.admin_get("/metrics").await.status(), 200);
}

#[tokio::test]
async fn the_log_speaks_json_where_asked_to() {
    let proxy = routes(everything_to(&[])).section("telemetry", "{ log: { format: json } }").start().await;
    for line in proxy.log().lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}
