//! Which methods, targets and paths are refused, and in which form does the upstream receive the others?

use super::Gate;
use crate::harness::proxy::{everything_to, routes};
use crate::harness::upstream::Upstream;

#[tokio::test]
async fn a_target_that_names_a_host_agrees_with_the_host_field() {
    let gate = Gate::start().await;
    for (target, host, reason) in [
        ("http://b.test/", "a.test", "host_mismatch"),
        ("http://a.test:81/", "a.test", "host_mismatch"),
        ("http://u@a.test/", "a.test", "host_malformed"),
        ("http:///x", "a.test", "host_malformed"),
        ("http://a.test\\@b.test/", "a.test", "host_malformed"),
        ("ftp://a.test/", "a.test", "target_malformed"),
        ("http:/a.test/", "a.test", "target_malformed"),
    ] {
        gate.refuses(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"), 400, reason).await;
    }
    gate.refuses("GET http://a.test/ HTTP/1.1\r\n\r\n", 400, "host_missing").await;
    for (target, first) in [
        ("HTTP://A.test/x/../y?z", "GET /y?z HTTP/1.1"),
        ("http://a.test", "GET / HTTP/1.1"),
        ("http://a.test?q", "GET /?q HTTP/1.1"),
    ] {
        let request = gate.passes(format!("GET {target} HTTP/1.1\r\nHost: a.TEST\r\n\r\n")).await;
        assert_eq!((request.head.first.as_str(), request.get("host")), (first, Some("a.test")));
    }
}

#[tokio::test]
async fn a_request_target_has_one_of_the_forms_of_its_method() {
    let gate = Gate::start().await;
    let line = |line: &str| format!("{line} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    for target in [
        "*",
        "a",
        "a.test",
        "a.test:80",
        "?x",
        "/a#b",
        "/?a#b",
        "#",
        "*/",
        "/a?\u{e4}",
        "/\u{e4}",
        "/?\"",
        "/?<",
        "/?>",
    ] {
        gate.refuses(line(&format!("GET {target}")), 400, "target_malformed").await;
    }
    gate.refuses(line("POST *"), 400, "target_malformed").await;
    assert_eq!(gate.passes(line("OPTIONS /x")).await.head.first, "OPTIONS /x HTTP/1.1");
    gate.told("target_malformed").await;
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    // `*` names no path that a route could have: the proxy answers for itself.
    assert_eq!(proxy.client().await.request("OPTIONS", "a.test", "*", &[], b"").await.status(), 204);
    assert!(up.requests().is_empty());
}

#[tokio::test]
async fn connect_and_trace_are_off_in_any_case() {
    let gate = Gate::start().await;
    for line in ["CONNECT a.test:443", "TRACE /", "connect /", "Trace /", "head /", "Get /", "PRI /", "PRI *"] {
        gate.refuses(format!("{line} HTTP/1.1\r\nHost: a.test\r\n\r\n"), 405, "method_not_allowed").await;
    }
    for method in ["PROPFIND", "M-SEARCH", "QUERY"] {
        assert_eq!(gate.passes(format!("{method} / HTTP/1.1\r\nHost: a.test\r\n\r\n")).await.head.method(), method);
    }
    gate.told("method_not_allowed").await;
}

#[tokio::test]
async fn the_canonical_path_is_what_the_upstream_receives() {
    let gate = Gate::start().await;
    for (sent, received) in [
        ("/a/./b/../c", "/a/c"),
        ("/../../x", "/x"),
        ("/a/%2E%2e/b", "/b"),
        ("/%61%7e%2D%5f", "/a~-_"),
        ("/%e4%3c%20", "/%E4%3C%20"),
        ("/%c3%a4", "/%C3%A4"),
        ("/a%09%0d%0a", "/a%09%0D%0A"),
        ("/a//b/", "/a//b/"),
        ("/a;b=c/d,e", "/a;b=c/d,e"),
        ("/a?/../%2f//%zz", "/a?/../%2f//%zz"),
        ("/?", "/?"),
    ] {
        let request = gate.passes(format!("GET {sent} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        assert_eq!(request.head.first, format!("GET {received} HTTP/1.1"), "{sent}");
    }
}

#[tokio::test]
async fn a_path_of_two_readings_is_refused() {
    let gate = Gate::start().await;
    for (path, reason) in [
        ("/a%2fb", "path_ambiguous"),
        ("/a%2Fb", "path_ambiguous"),
        ("/a%5cb", "path_ambiguous"),
        ("/a\\b", "path_ambiguous"),
        ("/a%00", "path_ambiguous"),
        ("/a//../b", "path_ambiguous"),
        ("/a/..;/b", "path_ambiguous"),
        ("/a/.;x/b", "path_ambiguous"),
        ("/a/..%3b/b", "path_ambiguous"),
        ("/%c0%ae%c0%ae/b", "path_ambiguous"),
        ("/%c0%af", "path_ambiguous"),
        ("/%e0%80%af", "path_ambiguous"),
        ("/%f0%80%80%af", "path_ambiguous"),
        ("/%", "target_malformed"),
        ("/%2", "target_malformed"),
        ("/%zz", "target_malformed"),
        ("/%u002f", "target_malformed"),
        ("/<", "target_malformed"),
        ("/>", "target_malformed"),
        ("/\"", "target_malformed"),
        ("/`", "target_malformed"),
    ] {
        gate.refuses(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"), 400, reason).await;
    }
    gate.told("path_ambiguous").await;
}

#[tokio::test]
async fn an_escaped_slash_is_kept_where_the_listener_says_so_and_no_reader_goes_astray() {
    let (up, admin) = (Upstream::text("ok").await, Upstream::text("admin").await);
    let text = format!(
        "\"*/\": up\n\"*/admin/\": admin\n\"*/old/\": {{ to: up, rewrite: {{ path: /new/ }} }}\n---\nclusters:\n  \
         up: {{ endpoints: [\"{up}\"] }}\n  admin: {{ endpoints: [\"{admin}\"] }}\n"
    );
    let proxy = routes(text).http("encoded_slash: keep").start().await;
    let gate = Gate { http: proxy.http().await, proxy, up };
    for (path, forwarded) in [
        ("/@scope%2fpkg?a=%2f", "/@scope%2Fpkg?a=%2f"),
        ("/api/queues/%2F/name", "/api/queues/%2F/name"),
        ("/old/a%2Fb", "/new/a%2Fb"),
    ] {
        let request = gate.passes(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        assert_eq!(request.head.target(), forwarded);
    }
    for path in ["/%2Fadmin", "/x/..%2fadmin", "/x%2F..%2F..%2Fadmin/y", "/admin%2Fx", "/a%5cb", "/a%2Fb/../c"] {
        gate.refuses(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"), 400, "path_ambiguous").await;
    }
}

#[tokio::test]
async fn a_path_that_a_looser_reader_takes_to_another_route_is_refused() {
    let (up, admin) = (Upstream::text("ok").await, Upstream::text("admin").await);
    let text = format!(
        "\"*/\": up\n\"*/admin/\": admin\n---\nclusters:\n  up: {{ endpoints: [\"{up}\"] }}\n  admin: {{ endpoints: [\"{admin}\"] }}\n"
    );
    let proxy = routes(text).start().await;
    let gate = Gate { http: proxy.http().await, proxy, up };
    for path in ["//admin", "//admin/x", "/admin;x=1", "/admin;x/y", "/;/admin/", "///admin"] {
        gate.refuses(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n"), 400, "path_ambiguous").await;
    }
    for path in ["//adminx", "/a//b", "/a;b"] {
        let request = gate.passes(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await;
        assert_eq!(request.head.target(), path);
    }
    assert!(admin.requests().is_empty());
    assert_eq!(gate.proxy.get("a.test", "/admin//x").await.text(), "admin");
}
