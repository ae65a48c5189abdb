//! What do header checks, address lists, limits, rewrites and edits do to a request?

use crate::harness::client::Client;
use crate::harness::proxy::{Setup, routes};
use crate::harness::upstream::Upstream;

fn with(policies: &str, route: &str, up: &Upstream) -> Setup {
    routes(format!(
        "hosts: [a.test]\n{policies}\nroutes:\n  - {{ path: /, to: up{route} }}\n---\nclusters:\n  up: {{ endpoints: [\"{up}\"] }}\n"
    ))
}

#[tokio::test]
async fn header_checks_refuse_what_is_missing_forbidden_or_malformed() {
    let up = Upstream::text("ok").await;
    let checks = "headers:\n  require: { x-api-key: \"[0-9a-f]{4}\" }\n  forbid: [x-debug]\n  pattern: { x-lang: \"[a-z]{2}\" }\n  \
                  max_length: { x-long: 5 }\n  one_of: { x-env: [prod, test] }\n";
    let proxy = with(checks, "", &up).start().await;
    let mut client = proxy.client().await;
    let key = ("X-Api-Key", "00ff");
    for (fields, status) in [
        (&[key][..], 200),
        (&[], 403),
        (&[("X-Api-Key", "00FF")], 403),
        (&[("X-Api-Key", "00ff0")], 403),
        (&[("X-Api-Key", "")], 403),
        (&[key, ("X-Api-Key", "bad!")], 403),
        (&[key, ("X-Debug", "")], 403),
        (&[key, ("X-Lang", "de")], 200),
        (&[key, ("X-Lang", "deu")], 403),
        (&[key, ("X-Long", "12345")], 200),
        (&[key, ("X-Long", "123456")], 403),
        (&[key, ("X-Env", "prod")], 200),
        (&[key, ("X-Env", "Prod")], 403),
    ] {
        assert_eq!(client.request("GET", "a.test", "/", fields, b"").await.status(), status, "{fields:?}");
    }
    assert_eq!(up.requests().len(), 4);
}

#[tokio::test]
async fn header_checks_hold_for_a_listener_a_host_and_a_route_together() {
    let up = Upstream::text("ok").await;
    let host = "headers: { require: [x-host], status: 401 }";
    let route = ", headers: { require: [x-route], status: 422 }";
    let proxy = with(host, route, &up).http("headers: { require: [x-listener], status: 400 }").start().await;
    let mut client = proxy.client().await;
    let (a, b, c) = (("X-Listener", "1"), ("X-Host", "1"), ("X-Route", "1"));
    for (fields, status) in [(&[b, c][..], 400), (&[a, c], 401), (&[a, b], 422), (&[a, b, c], 200)] {
        assert_eq!(client.request("GET", "a.test", "/", fields, b"").await.status(), status, "{fields:?}");
    }
}

#[tokio::test]
async fn an_audited_check_lets_pass_counts_and_logs() {
    let up = Upstream::text("ok").await;
    let proxy = with("headers: { require: [x-key], audit: true }", "", &up).start().await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "ok");
    let record = proxy.access_log(1).await.remove(0);
    assert_eq!(record["audited"], "header x-key is missing");
    assert_eq!(proxy.metric("tidegate_filter_audited_total", &[]).await, 1.0);
}

#[tokio::test]
async fn an_audited_check_of_a_listener_lets_pass_counts_and_says_where_and_what() {
    let up = Upstream::text("ok").await;
    let route = ", headers: { require: [x-route], audit: true }";
    let proxy = with("", route, &up).http("headers: { require: [x-outer], audit: true }").start().await;
    let mut client = proxy.client().await;
    let (outer, inner) = (("X-Outer", "1"), ("X-Route", "1"));
    let mut sent = 0;
    for (fields, audited, by_listener, by_route) in [
        (&[inner][..], "listener http: header x-outer is missing", 1.0, 0.0),
        (&[outer], "header x-route is missing", 1.0, 1.0),
        (&[], "listener http: header x-outer is missing; header x-route is missing", 2.0, 2.0),
        (&[outer, inner], "", 2.0, 2.0),
    ] {
        assert_eq!(client.request("GET", "a.test", "/", fields, b"").await.text(), "ok");
        sent += 1;
        let record = proxy.access_log(sent).await.pop().unwrap();
        assert_eq!(record["audited"].as_str().unwrap_or_default(), audited, "{record}");
        let counted = ["listener=\"http\"", "filter=\"header_check\""];
        assert_eq!(proxy.metric("tidegate_listener_filter_audited_total", &counted).await, by_listener, "{fields:?}");
        let counted = ["route=\"a.test/\"", "filter=\"header_check\""];
        assert_eq!(proxy.metric("tidegate_filter_audited_total", &counted).await, by_route, "{fields:?}");
    }
    assert_eq!(client.request("GET", "b.test", "/", &[], b"").await.status(), 404);
    let record = proxy.access_log(sent + 1).await.pop().unwrap();
    assert_eq!(record["audited"], "listener http: header x-outer is missing", "without a route, too: {record}");
    assert_eq!(proxy.metric("tidegate_listener_filter_audited_total", &[]).await, 3.0);
}

#[tokio::test]
async fn address_lists_let_in_and_keep_out() {
    let up = Upstream::text("ok").await;
    for (access, first, second) in [
        ("access: { allow: [127.0.0.2] }", 403, 200),
        ("access: { deny: [127.0.0.2/32] }", 200, 403),
        ("access: { allow: [127.0.0.0/8], deny: [127.0.0.2] }", 200, 403),
    ] {
        let proxy = with(access, "", &up).start().await;
        let http = proxy.http().await;
        assert_eq!(Client::connect(http).await.get("a.test", "/").await.status(), first, "{access}");
        assert_eq!(Client::connect_from("127.0.0.2", http).await.get("a.test", "/").await.status(), second, "{access}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_whether_announced_or_not() {
    let up = Upstream::echo().await;
    let proxy = with("max_body: 10", "", &up).start().await;
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\n";
    let mut client = proxy.client().await;
    assert_eq!(client.request("POST", "a.test", "/", &[], b"0123456789").await.text(), "0123456789");
    client.send(format!("{head}Content-Length: 11\r\n\r\n")).await;
    assert_eq!(client.response().await.status(), 413);
    let mut client = proxy.client().await;
    client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n")).await;
    assert_eq!(client.response().await.status(), 413);
    assert_eq!(up.requests().len(), 1);
}

#[tokio::test]
async fn paths_and_hosts_are_rewritten_before_they_are_forwarded() {
    let up = Upstream::text("ok").await;
    let text = format!(
        "hosts: [a.test]\nroutes:\n  \
         - {{ path: /v1/, to: up, rewrite: {{ path: /v2/ }} }}\n  \
         - {{ path: /bare, to: up, rewrite: {{ path: / }} }}\n  \
         - {{ path: /full/, to: up, rewrite: {{ path: {{ full: /one }}, host: inner.test }} }}\n  \
         - {{ path: /re/, to: up, rewrite: {{ path: {{ regex: \"^/re/([^/]+)/(?<id>.*)$\", replace: \"/$id/$1\" }} }} }}\n\
         ---\nclusters:\n  up: {{ endpoints: [\"{up}\"] }}\n"
    );
    let proxy = routes(text).start().await;
    let mut client = proxy.client().await;
    for (sent, path, host) in [
        ("/v1/x?y=1", "/v2/x?y=1", "a.test"),
        ("/v1", "/v2", "a.test"),
        ("/bare", "/", "a.test"),
        ("/bare/x", "/x", "a.test"),
        ("/full/x?y", "/one?y", "inner.test"),
        ("/re/users/7", "/7/users", "a.test"),
    ] {
        assert_eq!(client.get("a.test", sent).await.status(), 200, "{sent}");
        let seen = up.requests().pop().unwrap();
        assert!(seen.head.target().trim_end_matches('/') == path.trim_end_matches('/'), "{sent}: {}", seen.head.first);
        assert_eq!(seen.get("host"), Some(host), "{sent}");
    }
}

#[tokio::test]
async fn headers_are_edited_in_both_directions() {
    let up = Upstream::raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Old: 1\r\nX-Gone: 1\r\nX-More: 1\r\n\r\n").await;
    let edits = "request_headers: { set: { x-old: new }, add: { x-more: \"2\" }, remove: [x-gone] }\n\
                 response_headers: { set: { x-old: new }, add: { x-more: \"2\" }, remove: [x-gone] }\n";
    let proxy = with(edits, "", &up).start().await;
    let fields = [("X-Old", "1"), ("X-Gone", "1"), ("X-More", "1")];
    let response = proxy.client().await.request("GET", "a.test", "/", &fields, b"").await;
    for head in [&response.head, &up.request().head] {
        assert_eq!(head.all("x-old"), ["new"]);
        assert_eq!(head.all("x-more"), ["1", "2"]);
        assert!(!head.has("x-gone"));
    }
}

#[tokio::test]
async fn a_route_whose_security_filter_cannot_be_built_fails_closed() {
    let up = Upstream::text("ok").await;
    let proxy = with("headers: { require: { x-key: \"[\" } }", "", &up).spawn().await;
    crate::harness::until("the problem", || async {
        (!crate::harness::proxy::items(&proxy.api("problems").await).is_empty()).then_some(())
    })
    .await;
    let status = proxy.get("a.test", "/").await.status();
    assert!(status == 500 || status == 404, "{status}");
    assert_eq!(up.connections(), 0);
}

#[tokio::test]
async fn a_whole_listener_can_redirect_to_https() {
    let up = Upstream::text("ok").await;
    let proxy = with("", "", &up).http("https_redirect: { port: 8443, status: 301 }").start().await;
    let response = proxy.get("a.test:8080", "/x?y=1").await;
    assert_eq!((response.status(), response.get("location")), (301, Some("https://a.test:8443/x?y=1")));
    let proxy = with("", "", &up).http("https_redirect: true").start().await;
    let response = proxy.get("a.test", "/x").await;
    assert_eq!((response.status(), response.get("location")), (308, Some("https://a.test/x")));
    assert_eq!(up.connections(), 0);
}
