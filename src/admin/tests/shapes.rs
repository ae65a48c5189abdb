//! Do the lists of the API have the shapes that they promise?

use super::*;
use crate::model::{
    Action, ClusterSpec, EncodedSlash, EndpointSpec, FieldName, Fragment, HostPattern, Limits, ListenerProtocol,
    ListenerSpec, Match, Origin, PathMatch, Policy, Position, Problem, ProxyHeaders, RespondSpec, RetrySpec, RouteSpec,
    StringMatch, TimeoutSpec, WeightedCluster, WildcardDepth,
};
use crate::snapshot::Snapshot;
use crate::tls::testing;

fn sample() -> Fragment {
    let spec = |name: &str, protocol| ListenerSpec {
        name: name.into(),
        origin: Origin::of("install.yaml"),
        address: "127.0.0.1:0".parse().unwrap(),
        protocol,
        proxy_protocol_from: Vec::new(),
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        https_redirect: None,
        encoded_slash: EncodedSlash::default(),
        policies: vec![Policy::BodyLimit(10)],
        headers: ProxyHeaders::default(),
        limits: Limits::default(),
        timeouts: TimeoutSpec::default(),
    };
    let endpoints = vec![EndpointSpec::new("127.0.0.1:9001".parse().unwrap(), 1)];
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
    Fragment {
        listeners: vec![spec("http", ListenerProtocol::Http)],
        routes: vec![route("a", Action::Forward(shares)).into(), route("b", Action::Respond(respond.into())).into()],
        clusters: vec![ClusterSpec::new("shop/web", Origin::of("routes.yaml"), endpoints).into()],
        ..Fragment::default()
    }
}

/// A port that shows what serves for this model.
async fn serving(model: &Fragment) -> Port {
    let registry = Registry::new(1, 1000);
    let (snapshot, problems) = crate::snapshot::compile(&model.clone().into(), &Snapshot::default(), &registry);
    assert_eq!(problems, []);
    for held in snapshot.clusters.iter() {
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
    model.listeners.push(testing::listener());
    model.certificates.push(testing::certificate("desk", [(cert, key)]));
    model.tls.push(testing::binding(&["desk.example.com"], "desk"));
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
async fn a_request_that_nobody_sent_is_explained() {
    let port = serving(&sample()).await;
    let got = port.get("/api/v1/explain?method=POST&url=http://a.example.com/b&header=x-a:%201").await.json();
    assert_eq!((&got["listener"], &got["routes"]["route"]), (&json!("http"), &json!("b")), "{got}");
    let got = port.get("/api/v1/explain?url=http://a.example.com/b").await.json();
    assert_eq!(got["routes"]["route"], json!(null));
    for wrong in
        ["", "?url=ftp://a", "?url=http://a/&header=x", "?url=http://a/&client=me", "?url=http://a/&method=%20"]
    {
        let got = port.get(&format!("/api/v1/explain{wrong}")).await;
        assert_eq!(got.status, 400, "{wrong}");
        assert!(got.json()["hint"].is_string());
    }
}

#[tokio::test]
async fn routes_are_listed_in_their_order_and_people_get_text() {
    let port = serving(&sample()).await;
    let page = port.get("/api/v1/precedence").await.json();
    let total = page["total"].as_u64().unwrap();
    assert!(total > 0 && page["items"][0]["route"].is_string(), "{page}");
    let text = port.get("/api/v1/precedence?format=text").await.body;
    assert!(text.lines().count() as u64 >= total && text.contains(" -> "), "{text}");
    let text =
        port.get("/api/v1/explain?method=POST&url=http://a.example.com/b&header=x-a:%201&format=text").await.body;
    assert!(text.contains("listener  http") && text.contains("route     b"), "{text}");
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
