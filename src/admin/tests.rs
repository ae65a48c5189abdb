//! Does the admin port answer as it should, asked by a client over loopback?

mod shapes;

use super::*;
use crate::lifecycle::Readiness;
use crate::telemetry::families;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

struct Port {
    address: SocketAddr,
    handles: Handles,
    drained: mpsc::Receiver<()>,
    report: watch::Sender<Report>,
    _task: crate::lifecycle::Task,
}

struct Got {
    status: u16,
    head: String,
    body: String,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn port(config: AdminConfig, drain: bool) -> Port {
    port_of(config, drain, Shared::default()).await
}

async fn port_of(config: AdminConfig, drain: bool, shared: Shared) -> Port {
    let (asked, drained) = mpsc::channel(1);
    let (report, reported) = watch::channel(Report::default());
    let handles = Handles {
        registry: Registry::new(1, 1000),
        readiness: Readiness::new(),
        log: Log::disconnected(),
        connections: Connections::new(1),
        shared,
        report: reported,
        bound: watch::channel(vec![("http".to_owned(), "127.0.0.1:8080".parse().unwrap())]).1,
        drain: drain.then_some(asked),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tasks, _) = Tasks::new();
    let task = tasks.spawn("admin", serve(listener, config, handles.clone(), tasks.clone()));
    Port { address, handles, drained, report, _task: task }
}

impl Port {
    fn publish(&mut self, report: Report) {
        self.report.send_replace(report);
    }

    async fn send(&self, request: &str) -> Got {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        Got { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    async fn ask(&self, method: &str, path: &str, more: &str, body: &str) -> Got {
        let (host, length) = (self.address, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {length}\r\n{more}\r\n{body}"
        );
        self.send(&request).await
    }

    async fn get(&self, path: &str) -> Got {
        self.ask("GET", path, "", "").await
    }
}

#[tokio::test]
async fn the_probes_say_alive_and_what_readiness_waits_for() {
    let port = port(AdminConfig::default(), false).await;
    let guard = port.handles.readiness.guard("first configuration");
    assert_eq!(port.get("/healthz").await.status, 200);
    let got = port.get("/readyz").await;
    assert_eq!((got.status, got.body.as_str()), (503, "waiting for first configuration\n"));
    drop(guard);
    assert_eq!(port.get("/readyz").await.status, 200);
    port.handles.readiness.set_not_ready("draining");
    assert_eq!(port.get("/readyz").await.body, "draining\n");
    assert_eq!(port.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn the_scrape_is_what_the_registry_counts() {
    let port = port(AdminConfig::default(), false).await;
    let counter = port.handles.registry.counter(&families::CONNECTIONS, &[("listener", "http")]);
    counter.add(5);
    let got = port.get("/metrics").await;
    assert!(got.head.contains("content-type: text/plain; version=0.0.4"));
    let samples = crate::telemetry::parse_scrape(&got.body);
    assert_eq!(samples[r#"tidegate_connections_total{listener="http"}"#], 5.0);
    port.get("/nothing").await;
    let samples = crate::telemetry::parse_scrape(&port.get("/metrics").await.body);
    assert_eq!(samples[r#"tidegate_admin_requests_total{class="4xx"}"#], 1.0);
}

#[tokio::test]
async fn every_page_of_the_index_answers() {
    let port = port(AdminConfig::default(), true).await;
    let index = port.get("/").await;
    for page in pages::PAGES {
        let listed = index.body.lines().any(|l| l.starts_with(page.method.as_str()) && l.contains(page.path));
        assert_eq!(listed, !page.about.is_empty(), "{}", page.path);
        if page.method == Method::GET {
            let got = port.get(page.path).await;
            let expected = if page.path == "/api/v1/explain" { 400 } else { 200 };
            assert_eq!(got.status, expected, "{}: {}", page.path, got.body);
            assert!(
                got.head.contains("x-content-type-options: nosniff") && got.head.contains("cache-control: no-store")
            );
        }
    }
    let api = port.get("/api/v1").await.json();
    assert!(api["pages"].as_array().unwrap().iter().all(|page| page["path"].as_str().unwrap().starts_with("/api/")));
}

#[tokio::test]
async fn unknown_pages_and_methods_are_told_apart() {
    let port = port(AdminConfig::default(), false).await;
    let got = port.get("/api/v1/nothing").await;
    assert_eq!((got.status, got.json()["error"].as_str()), (404, Some("there is no such page")));
    let got = port.ask("DELETE", "/api/v1/log-level", "", "").await;
    assert_eq!(got.status, 405);
    assert!(got.head.contains("allow: get, put"), "{}", got.head);
    let got = port.ask("HEAD", "/healthz", "", "").await;
    assert_eq!((got.status, got.body.as_str()), (200, ""));
}

#[tokio::test]
async fn without_the_api_there_are_probes_and_metrics_only() {
    let port = port(AdminConfig { api: false, ..AdminConfig::default() }, true).await;
    for path in ["/api/v1", "/console", "/api/v1/log-level"] {
        assert_eq!(port.get(path).await.status, 404, "{path}");
    }
    assert_eq!(port.get("/metrics").await.status, 200);
    assert!(!port.get("/").await.body.contains("/api"));
}

#[tokio::test]
async fn a_rebound_name_is_refused() {
    let port = port(AdminConfig { hosts: vec!["gate.test".into()], ..AdminConfig::default() }, false).await;
    for (request, status) in [
        ("GET /metrics HTTP/1.1\r\nhost: evil.test\r\nconnection: close\r\n\r\n", 421),
        ("GET http://evil.test/metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 421),
        ("GET /metrics HTTP/1.1\r\nhost: gate.test:1\r\nconnection: close\r\n\r\n", 200),
        ("GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 200),
        ("GET /metrics HTTP/1.0\r\n\r\n", 200),
    ] {
        assert_eq!(port.send(request).await.status, status, "{request}");
    }
}

#[tokio::test]
async fn the_log_level_is_read_and_changed() {
    let port = port(AdminConfig::default(), false).await;
    assert_eq!(port.get("/api/v1/log-level").await.json(), json!({"level": "info"}));
    let got = port.ask("PUT", "/api/v1/log-level", "", "warn,tidegate::upstream=debug\n").await;
    assert_eq!(got.json(), json!({"level": "warn,tidegate::upstream=debug"}));
    let got = port.ask("PUT", "/api/v1/log-level", "", r#"{"level":"trace"}"#).await;
    assert_eq!((got.status, port.handles.log.level().as_str()), (200, "trace"));
    let got = port.ask("PUT", "/api/v1/log-level", "", "lowd").await;
    assert_eq!((got.status, got.json()["error"].as_str()), (400, Some("\"lowd\" is not a log level")));
    assert_eq!(port.handles.log.level().as_str(), "trace");
    assert_eq!(port.ask("PUT", "/api/v1/log-level", "", &"x".repeat(BODY_BYTES + 1)).await.status, 413);
}

#[tokio::test]
async fn a_page_of_another_origin_changes_nothing() {
    let port = port(AdminConfig::default(), true).await;
    for header in ["origin: http://evil.test\r\n", "origin: null\r\n", "sec-fetch-site: cross-site\r\n"] {
        assert_eq!(port.ask("PUT", "/api/v1/log-level", header, "off").await.status, 403, "{header}");
        assert_eq!(port.ask("POST", "/api/v1/drain", header, "").await.status, 403, "{header}");
    }
    assert_eq!(port.handles.log.level().as_str(), "info");
}

#[test]
fn changes_are_taken_from_loopback_only() {
    // A request over a socket is always local here, so the check is asked by itself, with what it looks at.
    for (peer, allowed) in
        [("127.0.0.1:1", true), ("[::1]:1", true), ("[::ffff:127.0.0.1]:1", true), ("10.0.0.1:1", false)]
    {
        assert_eq!(is_local(peer.parse().unwrap()), allowed, "{peer}");
    }
}

#[tokio::test]
async fn a_drain_is_asked_for_only_where_it_is_switched_on() {
    let off = port(AdminConfig::default(), false).await;
    assert_eq!(off.ask("POST", "/api/v1/drain", "", "").await.status, 404);
    let mut on = port(AdminConfig::default(), true).await;
    assert_eq!(on.ask("POST", "/api/v1/drain", "", "").await.status, 202);
    assert_eq!(on.ask("POST", "/api/v1/drain", "", "").await.status, 202);
    assert_eq!(on.drained.recv().await, Some(()));
}

#[tokio::test]
async fn the_console_takes_nothing_from_elsewhere() {
    let port = port(AdminConfig::default(), false).await;
    let page = port.get("/console").await;
    for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        assert!(page.head.contains(part), "{part}");
    }
    for (path, kind) in [("/console/style.css", "text/css"), ("/console/script.js", "text/javascript")] {
        assert!(page.body.contains(path), "{path}");
        assert!(port.get(path).await.head.contains(&format!("content-type: {kind}")));
    }
    for path in ["/console", "/console/style.css", "/console/script.js"] {
        let body = port.get(path).await.body;
        for forbidden in ["http://", "https://", "innerHTML", "eval(", "onclick=", "style=", "<script>"] {
            assert!(!body.contains(forbidden), "{path} has {forbidden}");
        }
    }
}

#[tokio::test]
async fn the_console_asks_only_for_pages_that_there_are() {
    let port = port(AdminConfig::default(), false).await;
    let script = port.get("/console/script.js").await.body;
    let paths = script.split("path: \"").skip(1).filter_map(|rest| rest.split('"').next());
    for path in paths.chain(["config"]) {
        assert_eq!(port.get(&format!("/api/v1/{path}")).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn connections_beyond_the_cap_are_closed() {
    let port = port(AdminConfig { connections: 1, ..AdminConfig::default() }, false).await;
    let mut first = TcpStream::connect(port.address).await.unwrap();
    first.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).await.unwrap();
    let mut second = TcpStream::connect(port.address).await.unwrap();
    assert_eq!(second.read(&mut byte).await.unwrap_or(0), 0);
}
