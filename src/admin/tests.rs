//! Does the admin port answer as it should, asked by a client over loopback?

use super::*;
use crate::lifecycle::Readiness;
use crate::model::{
    Action, ClusterSpec, EndpointSpec, FieldName, Fragment, HostPattern, Limits, ListenerProtocol, ListenerSpec, Match,
    Model, Origin, PathMatch, Policy, Position, Problem, ProxyHeaders, RespondSpec, RetrySpec, RouteSpec, StringMatch,
    TimeoutSpec, WeightedCluster, WildcardDepth,
};
use crate::snapshot::Snapshot;
use crate::telemetry::families;
use crate::tls::testing;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
async fn problems_say_where_and_what() {
    let mut port = port(AdminConfig::default(), false).await;
    let position = Some(Position { line: 3, column: 7 });
    let origin = Origin::of("routes.yaml").at("routes[0].path", position);
    let problems = vec![
        Problem::error(origin, "unknown key \"heders\"", "did you mean \"headers\"?"),
        Problem::warning(Origin::of("b.yaml"), "shadowed", ""),
    ];
    let published_at = Some(std::time::UNIX_EPOCH + Duration::from_millis(1500));
    port.publish(Report { generation: 7, problems: problems.into(), published_at, ..Report::default() });
    let config = port.get("/api/v1/config").await.json();
    assert_eq!((&config["generation"], &config["published_at"]), (&json!(7), &json!(1.5)));
    assert_eq!(config["problems"], json!({"errors": 1, "warnings": 1}));
    let page = port.get("/api/v1/problems?q=HEDERS").await.json();
    let expected = json!({
        "severity": "error", "place": "routes.yaml", "line": 3, "column": 7, "key": "routes[0].path",
        "at": "routes.yaml:3:7: routes[0].path", "what": "unknown key \"heders\"", "hint": "did you mean \"headers\"?",
    });
    assert_eq!(page, json!({"total": 1, "offset": 0, "items": [expected]}));
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

fn sample() -> Model {
    let spec = |name: &str, protocol| ListenerSpec {
        name: name.into(),
        origin: Origin::of("install.yaml"),
        address: "127.0.0.1:0".parse().unwrap(),
        protocol,
        proxy_protocol_from: Vec::new(),
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        https_redirect: None,
        policies: vec![Policy::BodyLimit(10)],
        headers: ProxyHeaders::default(),
        limits: Limits::default(),
        timeouts: TimeoutSpec::default(),
    };
    let endpoints = vec![EndpointSpec { address: "127.0.0.1:9001".parse().unwrap(), weight: 1 }];
    let route = |name: &str, action| RouteSpec {
        name: name.into(),
        origin: Origin::of("routes.yaml"),
        listeners: Vec::new(),
        hosts: vec![HostPattern::parse("*.example.com", WildcardDepth::Many).unwrap()],
        matches: Match {
            path: PathMatch::Exact(format!("/{name}")),
            methods: vec![Method::POST],
            headers: vec![(FieldName::parse("x-a").unwrap(), StringMatch::Regex("[0-9]".into()))],
            query: vec![("debug".into(), StringMatch::Absent)],
            sources: Vec::new(),
        },
        policies: Vec::new(),
        action,
        request_timeout: Some(Duration::from_secs(60)),
        try_timeout: None,
        idle_timeout: Duration::from_secs(60),
        retry: RetrySpec::default(),
    };
    let shares = vec![WeightedCluster { cluster: "shop/web".into(), weight: 3 }];
    let respond = RespondSpec { status: 204, headers: Vec::new(), body: String::new() };
    Model {
        wanted: Fragment {
            listeners: vec![spec("http", ListenerProtocol::Http)],
            routes: vec![route("a", Action::Forward(shares)), route("b", Action::Respond(respond))],
            clusters: vec![ClusterSpec::new("shop/web", Origin::of("routes.yaml"), endpoints)],
            ..Fragment::default()
        },
    }
}

/// A port that shows what serves for this model.
async fn serving(model: &Model) -> Port {
    let registry = Registry::new(1, 1000);
    let (snapshot, problems) = crate::snapshot::compile(model, &Snapshot::default(), &registry);
    assert_eq!(problems, []);
    for held in snapshot.clusters.values() {
        held.cluster.set_members(&held.cluster.spec().endpoints);
    }
    port_of(AdminConfig::default(), false, Shared::new(snapshot)).await
}

#[tokio::test]
async fn listeners_are_shown_with_where_they_are_bound() {
    let item = serving(&sample()).await.get("/api/v1/listeners").await.json()["items"][0].clone();
    let expected = json!({
        "name": "http", "origin": "install.yaml", "address": "127.0.0.1:0", "bound": "127.0.0.1:8080", "protocol": "http",
        "http2": true, "min_tls": null, "client_certificates": "none", "proxy_protocol_from": [],
        "trusted_proxies": ["10.0.0.0/8"], "https_redirect": null, "filters": ["body_limit"],
        "max_connections": 100_000, "routes": 2,
    });
    assert_eq!(item, expected);
}

#[tokio::test]
async fn routes_are_shown_as_they_are_written() {
    let port = serving(&sample()).await;
    let page = port.get("/api/v1/routes?limit=1").await.json();
    assert_eq!((&page["total"], page["items"].as_array().unwrap().len()), (&json!(2), 1));
    let expected = json!({
        "name": "a", "origin": "routes.yaml", "listeners": ["http"], "hosts": ["*.example.com"], "path": "=/a",
        "methods": ["POST"], "headers": ["x-a~[0-9]"], "query": ["!debug"], "sources": [], "filters": [],
        "action": {"kind": "forward", "clusters": [{"cluster": "shop/web", "weight": 3}]},
        "request_timeout_ms": 60_000, "try_timeout_ms": null, "idle_timeout_ms": 60_000, "attempts": 2,
    });
    assert_eq!(page["items"][0], expected);
    let page = port.get("/api/v1/routes?q=%3D/b").await.json();
    assert_eq!(page["items"][0]["action"], json!({"kind": "respond", "status": 204}));
}

#[tokio::test]
async fn clusters_and_endpoints_are_shown_with_their_health() {
    let port = serving(&sample()).await;
    let cluster = port.get("/api/v1/clusters").await.json()["items"][0].clone();
    assert_eq!((&cluster["name"], &cluster["available"]), (&json!("shop/web"), &json!(1)));
    let page = port.get("/api/v1/endpoints?cluster=shop%2Fweb").await.json();
    let item = &page["items"][0];
    assert_eq!((&item["cluster"], &item["address"]), (&json!("shop/web"), &json!("127.0.0.1:9001")));
    assert_eq!((&item["healthy"], &item["ejected"], &item["in_flight"]), (&json!(true), &json!(false), &json!(0)));
    assert_eq!(port.get("/api/v1/endpoints?cluster=none").await.json()["total"], 0);
}

#[tokio::test]
async fn certificates_are_shown_and_measured_until_they_expire() {
    let (cert, key) = testing::Authority::new().issue(&["desk.example.com"]);
    let mut model = sample();
    model.wanted.listeners.push(testing::listener());
    model.wanted.certificates.push(testing::certificate("desk", [(cert, key)]));
    model.wanted.tls.push(testing::binding(&["desk.example.com"], "desk"));
    let port = serving(&model).await;
    let page = port.get("/api/v1/certificates?q=desk").await.json();
    let item = &page["items"][0];
    assert_eq!((&item["name"], &item["hosts"]), (&json!("desk"), &json!(["desk.example.com"])));
    assert_eq!((&item["listener"], &item["last_good"]), (&json!(testing::listener().name), &json!(false)));
    let samples = crate::telemetry::parse_scrape(&port.get("/metrics").await.body);
    let expiry = samples[r#"tidegate_certificate_not_after_timestamp_seconds{certificate="desk"}"#];
    assert_eq!(Some(expiry), item["expires"].as_f64());
    assert_eq!(samples["tidegate_ready"], 1.0);
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

#[tokio::test]
async fn connections_are_listed() {
    let port = port(AdminConfig::default(), false).await;
    let open = port.handles.connections.open(&Arc::from("https"), "192.0.2.1:5".parse().unwrap(), true);
    open.request();
    let got = port.get("/api/v1/connections?limit=5").await.json();
    let item = &got["items"][0];
    assert_eq!((&got["total"], &item["peer"], &item["requests"]), (&json!(1), &json!("192.0.2.1:5"), &json!(1)));
    assert_eq!(
        (&item["listener"], &item["tls"], &item["protocol"]),
        (&json!("https"), &json!(true), &json!("unknown"))
    );
}
