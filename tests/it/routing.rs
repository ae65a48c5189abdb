//! Which route takes a request: host, path, method, headers, query, source, and precedence among them?

use crate::harness::client::Client;
use crate::harness::proxy::{Proxy, routes};
use crate::harness::upstream::Upstream;
use rustix::process::Signal;

/// Routes that answer with their own names, so that no upstream is needed.
fn answers(lines: &[(&str, &str)]) -> String {
    let line = |(key, name): &(&str, &str)| format!("  - {{ {key}, respond: {{ body: {name} }} }}\n");
    lines.iter().map(line).collect()
}

async fn one(proxy: &Proxy, host: &str, path: &str) -> String {
    let response = proxy.get(host, path).await;
    if response.status() == 200 { response.text().to_owned() } else { response.status().to_string() }
}

#[tokio::test]
async fn hosts_go_from_exact_over_the_longest_wildcard_to_any() {
    let document =
        |host: &str, name: &str| format!("---\nhosts: [\"{host}\"]\nroutes:\n{}", answers(&[("path: /", name)]));
    let documents = [
        document("*", "any"),
        document("*.example.com", "wide"),
        document("*.desk.example.com", "narrow"),
        document("shop.example.com", "exact"),
    ];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        let proxy = routes(order.iter().map(|i| documents[*i].as_str()).collect::<String>()).start().await;
        for (host, name) in [
            ("shop.example.com", "exact"),
            ("SHOP.example.com.", "exact"),
            ("shop.example.com:8080", "exact"),
            ("desk.example.com", "wide"),
            ("a.desk.example.com", "narrow"),
            ("a.b.desk.example.com", "narrow"),
            ("x.shop.example.com", "wide"),
            ("example.com", "any"),
            ("notexample.com", "any"),
            ("[::1]", "any"),
        ] {
            assert_eq!(one(&proxy, host, "/").await, name, "{host} in order {order:?}");
        }
    }
}

#[tokio::test]
async fn paths_go_from_exact_over_the_longest_prefix_in_whole_segments() {
    let mut lines = vec![
        ("path: =/api", "exact"),
        ("path: /api/", "prefix"),
        ("path: /api/v1/", "longer"),
        ("path: =/api/v1/x", "exact-x"),
    ];
    for _ in 0..2 {
        let proxy = routes(format!("hosts: [a.test]\nroutes:\n{}", answers(&lines))).start().await;
        for (path, name) in [
            ("/api", "exact"),
            ("/api/", "prefix"),
            ("/api/v2", "prefix"),
            ("/api/v1", "longer"),
            ("/api/v1/y", "longer"),
            ("/api/v1/x", "exact-x"),
            ("/api/v1/x?q", "exact-x"),
            ("/api/v10", "prefix"),
            ("/apix", "404"),
            ("/", "404"),
        ] {
            assert_eq!(one(&proxy, "a.test", path).await, name, "{path}");
        }
        lines.reverse();
    }
}

#[tokio::test]
async fn a_regular_expression_matches_the_whole_path() {
    let lines = [("path: \"~^/item/[0-9]+$\"", "anchored"), ("path: \"~/thing/[a-z]+\"", "free")];
    let proxy = routes(format!("hosts: [a.test]\nroutes:\n{}", answers(&lines))).start().await;
    for (path, name) in [
        ("/item/7", "anchored"),
        ("/item/7/x", "404"),
        ("/thing/abc", "free"),
        ("/thing/abc/d", "404"),
        ("/x/thing/abc", "404"),
    ] {
        assert_eq!(one(&proxy, "a.test", path).await, name, "{path}");
    }
}

#[tokio::test]
async fn a_regular_expression_goes_before_a_prefix_and_after_an_exact_path() {
    let mut lines = vec![
        ("path: /", "all"),
        ("path: /item/", "prefix"),
        ("path: =/item/7", "exact"),
        ("path: \"~^/item/[0-9]+$\"", "long"),
        ("path: \"~/item/.*[0-9]\"", "short"),
    ];
    for _ in 0..2 {
        let proxy = routes(format!("hosts: [a.test]\nroutes:\n{}", answers(&lines))).start().await;
        for (path, name) in [
            ("/item/7", "exact"),
            ("/item/8", "long"),
            ("/item/x8", "short"),
            ("/item/x", "prefix"),
            ("/item", "prefix"),
            ("/items", "all"),
        ] {
            assert_eq!(one(&proxy, "a.test", path).await, name, "{path}");
        }
        lines.reverse();
    }
}

#[tokio::test]
async fn more_conditions_win_over_fewer_whatever_the_order() {
    let mut lines = vec![
        ("path: /", "plain"),
        ("path: /, method: POST", "method"),
        ("path: /, match: { headers: { x-canary: \"1\" } }", "header"),
        ("path: /, match: { headers: { x-canary: \"1\", x-b: { present: true } } }", "two-headers"),
        ("path: /, match: { query: { v: \"~[0-9]+\" } }", "query"),
        ("path: /, match: { source: [127.0.0.2] }", "source"),
    ];
    for _ in 0..2 {
        let proxy = routes(format!("hosts: [a.test]\nroutes:\n{}", answers(&lines))).start().await;
        let http = proxy.http().await;
        let ask = async |method: &str, path: &str, fields: &[(&str, &str)]| {
            Client::connect(http).await.request(method, "a.test", path, fields, b"").await.text().to_owned()
        };
        assert_eq!(ask("GET", "/", &[]).await, "plain");
        assert_eq!(ask("POST", "/", &[("X-Canary", "1")]).await, "method");
        assert_eq!(ask("GET", "/", &[("X-Canary", "1")]).await, "header");
        assert_eq!(ask("GET", "/", &[("X-Canary", "2")]).await, "plain");
        assert_eq!(ask("GET", "/", &[("X-Canary", "1"), ("X-B", "")]).await, "two-headers");
        assert_eq!(ask("GET", "/?v=12", &[]).await, "query");
        assert_eq!(ask("GET", "/?v=%31", &[]).await, "query");
        assert_eq!(ask("GET", "/?v=x", &[]).await, "plain");
        assert_eq!(ask("GET", "/?w=1&v=2", &[("X-Canary", "1")]).await, "header");
        let other = Client::connect_from("127.0.0.2", http).await.get("a.test", "/").await;
        assert_eq!(other.text(), "source");
        lines.reverse();
    }
}

#[tokio::test]
async fn a_request_that_fits_no_route_of_its_path_falls_back_to_a_shorter_prefix() {
    let lines = [("path: /", "all"), ("path: /api/, method: GET", "get")];
    let proxy = routes(format!("hosts: [a.test]\nroutes:\n{}", answers(&lines))).start().await;
    assert_eq!(one(&proxy, "a.test", "/api/").await, "get");
    assert_eq!(proxy.client().await.request("POST", "a.test", "/api/", &[], b"").await.text(), "all");
}

#[tokio::test]
async fn weights_share_requests_among_clusters() {
    let (web, canary, never) =
        (Upstream::text("web").await, Upstream::text("canary").await, Upstream::text("never").await);
    let text = format!(
        "hosts: [a.test]\nroutes:\n  - {{ path: /, to: [ {{ cluster: web, weight: 3 }}, {{ cluster: canary, weight: 1 }}, \
         {{ cluster: never, weight: 0 }} ] }}\n---\nclusters:\n  web: {{ endpoints: [\"{web}\"] }}\n  \
         canary: {{ endpoints: [\"{canary}\"] }}\n  never: {{ endpoints: [\"{never}\"] }}\n"
    );
    let proxy = routes(text).start().await;
    let mut client = proxy.client().await;
    for _ in 0..400 {
        assert_eq!(client.get("a.test", "/").await.status(), 200);
    }
    let share = canary.requests().len();
    assert!((50..=150).contains(&share), "{share} of 400 for a weight of 1 in 4");
    assert_eq!(never.connections(), 0);
}

#[tokio::test]
async fn a_redirect_takes_from_the_request_what_it_does_not_say() {
    let lines = "hosts: [a.test]\nroutes:\n\
        \x20 - { path: /old/, redirect: { path: /new/, status: 308 } }\n\
        \x20 - { path: /tls/, redirect: { scheme: https } }\n\
        \x20 - { path: /host/, redirect: { host: b.test, port: 8443, scheme: https, status: 301 } }\n\
        \x20 - { path: =/one, redirect: { path: /two } }\n";
    let proxy = routes(lines).start().await;
    let port = proxy.http().await.port();
    let host = format!("a.test:{port}");
    for (path, status, location) in [
        ("/old/x?y=1", 308, format!("http://a.test:{port}/new/x?y=1")),
        ("/tls/x", 302, "https://a.test/tls/x".to_owned()),
        ("/host/x?y", 301, "https://b.test:8443/host/x?y".to_owned()),
        ("/one", 302, format!("http://a.test:{port}/two")),
    ] {
        let response = proxy.get(&host, path).await;
        assert_eq!((response.status(), response.get("location")), (status, Some(location.as_str())), "{path}");
    }
}

#[tokio::test]
async fn a_direct_response_has_its_status_headers_and_body() {
    let text = "hosts: [a.test]\nroutes:\n\
        \x20 - { path: =/health, respond: { status: 200, body: ok } }\n\
        \x20 - { path: =/gone, respond: 410 }\n\
        \x20 - { path: =/json, respond: { status: 201, headers: { content-type: application/json, x-a: b }, body: \"{}\" } }\n";
    let proxy = routes(text).start().await;
    let mut client = proxy.client().await;
    let health = client.get("a.test", "/health").await;
    assert_eq!((health.status(), health.text()), (200, "ok"));
    assert_eq!(health.get("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(client.get("a.test", "/gone").await.status(), 410);
    let json = client.get("a.test", "/json").await;
    assert_eq!((json.status(), json.text(), json.get("x-a")), (201, "{}", Some("b")));
    assert_eq!(json.get("content-type"), Some("application/json"));
    let head = client.request("HEAD", "a.test", "/health", &[], b"").await;
    assert_eq!((head.get("content-length"), head.body.len()), (Some("2"), 0));
}

#[tokio::test]
async fn the_sketch_of_the_documentation_works_as_it_stands() {
    let web = Upstream::text("web").await;
    let api = Upstream::text("api").await;
    let text = format!(
        r#"shop.example.com/:      shop/web          # host and path prefix -> cluster (in Kubernetes: namespace/service[:port])
shop.example.com/api/:  shop/api:8080
---
hosts: [desk.example.com, "*.desk.example.com"]
tls: desk-cert                            # a certificate of the install configuration (in Kubernetes: a Secret)
headers:                                  # header checks of every route below
  require: {{ x-api-key: "[0-9a-f]{{32}}" }}  # the whole value must match
  forbid: [x-debug]
routes:
  - {{ path: /api/, method: [GET, POST], to: shop/api:8080, timeout: 10s, retry: {{ attempts: 2 }} }}
  - {{ path: =/health, respond: {{ status: 200, body: ok }} }}
  - {{ path: "~^/item/[0-9]+$", to: [ {{ cluster: shop/web, weight: 90 }}, {{ cluster: shop/web-v2, weight: 10 }} ] }}
  - {{ path: /old/, redirect: {{ path: /new/, status: 308 }} }}
---
clusters:                                 # only in files; in Kubernetes a cluster is a Service
  shop/web: {{ endpoints: ["{web}", "{web}"] }}
  shop/web-v2: {{ endpoints: ["{web}"] }}
  shop/api:8080: {{ endpoints: ["{api}"] }}
"#
    );
    let authority = crate::harness::certs::Authority::new("tests");
    let identity = authority.issue(&["desk.example.com"]);
    let proxy = routes(text).http("").https("").certificate("desk-cert", &identity).start().await;
    assert_eq!(one(&proxy, "shop.example.com", "/x").await, "web");
    assert_eq!(one(&proxy, "shop.example.com", "/api/x").await, "api");
    assert_eq!(one(&proxy, "desk.example.com", "/health").await, "403");
    let key = [("X-Api-Key", "0123456789abcdef0123456789abcdef")];
    let mut client = Client::tls(proxy.https().await, &authority.client(&["http/1.1"]), "desk.example.com").await;
    let mut ask = async |method, path| client.request(method, "desk.example.com", path, &key, b"").await;
    assert_eq!(ask("GET", "/health").await.text(), "ok");
    assert_eq!(ask("POST", "/api/x").await.text(), "api");
    assert_eq!(ask("PUT", "/api/x").await.status(), 404);
    assert_eq!(ask("GET", "/item/42").await.text(), "web");
    assert_eq!(ask("GET", "/old/x").await.get("location"), Some("https://desk.example.com/new/x"));
    proxy.signal(Signal::TERM);
    assert!(proxy.ended().await.success());
}
