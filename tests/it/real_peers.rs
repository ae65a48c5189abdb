//! Does it work with the programs that people use: curl, wrk and Python before it, nginx behind it? And with those that attack?

use crate::harness::certs::Authority;
use crate::harness::program::{Program, output_of};
use crate::harness::proxy::{Proxy, everything_to, route_to, routes};
use crate::harness::upstream::Upstream;

async fn curl(arguments: &[&str]) -> (i32, String) {
    let common = ["--silent", "--show-error", "--max-time", "15", "--noproxy", "*"];
    output_of("curl", &[&common, arguments].concat()).await
}

/// nginx that serves `size` bytes under `/file`, and what `locations` say.
async fn nginx(size: usize, locations: &str) -> Program {
    Program::start("nginx", |folder, address| {
        std::fs::write(folder.join("file"), vec![b'x'; size]).unwrap();
        let root = folder.display();
        let config = format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; client_body_temp_path {root}; proxy_temp_path {root}; fastcgi_temp_path {root};\n\
             uwsgi_temp_path {root}; scgi_temp_path {root};\n\
             server {{ listen {address}; root {root}; {locations} }} }}\n"
        );
        std::fs::write(folder.join("nginx.conf"), config).unwrap();
        vec!["-p".into(), folder.display().to_string(), "-c".into(), "nginx.conf".into(), "-e".into(), "stderr".into()]
    })
    .await
}

#[tokio::test]
async fn curl_gets_pages_over_http1_http2_and_tls_from_nginx() {
    let server = nginx(100_000, "").await;
    let authority = Authority::new("tests");
    let proxy = routes(everything_to(&[&server.address]))
        .http("")
        .https("")
        .certificate("a", &authority.issue(&["a.test"]))
        .file("ca.pem", &authority.pem)
        .start()
        .await;
    let (http, https) = (proxy.http().await, proxy.https().await);
    let ca = proxy.folder().join("ca.pem");
    let (plain, secure) = (format!("a.test:{}:127.0.0.1", http.port()), format!("a.test:{}:127.0.0.1", https.port()));
    let urls = [format!("http://a.test:{}/file", http.port()), format!("https://a.test:{}/file", https.port())];
    let show = "%{http_code} %{http_version} %{size_download}\n";
    let common =
        ["--resolve", &plain, "--resolve", &secure, "--cacert", ca.to_str().unwrap(), "-o", "/dev/null", "-w", show];
    for (version, url, expected) in [
        ("--http1.0", &urls[0], "200 1.1 100000\n"),
        ("--http1.1", &urls[0], "200 1.1 100000\n"),
        ("--http2-prior-knowledge", &urls[0], "200 2 100000\n"),
        ("--http1.1", &urls[1], "200 1.1 100000\n"),
        ("--http2", &urls[1], "200 2 100000\n"),
        ("--tlsv1.3", &urls[1], "200 2 100000\n"),
    ] {
        let mut arguments = common.to_vec();
        arguments.extend([version, url]);
        let (code, text) = curl(&arguments).await;
        assert_eq!((code, text.as_str()), (0, expected), "{version} {url}");
    }
}

#[tokio::test]
async fn curl_uploads_with_expect_and_in_chunks() {
    let up = Upstream::echo().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let url = format!("http://{}/", proxy.http().await);
    let file = proxy.folder().join("upload");
    std::fs::write(&file, vec![b'y'; 3_000_000]).unwrap();
    let data = format!("@{}", file.display());
    let back = proxy.folder().join("back");
    let out = back.to_str().unwrap();
    for arguments in [
        &["--data-binary", &data, "-H", "Expect: 100-continue", "-o", out, &url][..],
        &["--data-binary", &data, "-H", "Transfer-Encoding: chunked", "-o", out, &url],
        &["--http2-prior-knowledge", "--data-binary", &data, "-o", out, &url],
    ] {
        let (code, text) = curl(arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {text}");
        assert_eq!(std::fs::metadata(&back).unwrap().len(), 3_000_000, "{arguments:?}");
    }
}

#[tokio::test]
async fn curl_notices_a_response_that_is_cut() {
    let up = Upstream::raw_then_close("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let url = format!("http://{}/", proxy.http().await);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let (code, text) = curl(&[version, &url]).await;
        assert!([18, 56, 92].contains(&code), "{version}: {code} {text}");
    }
}

#[tokio::test]
async fn nginx_ranges_caching_and_errors_pass_unchanged() {
    let server = nginx(1000, "location /teapot { return 418 short; }").await;
    let proxy = routes(everything_to(&[&server.address])).start().await;
    let mut client = proxy.client().await;
    let whole = client.get("a.test", "/file").await;
    let (etag, modified) = (whole.get("etag").unwrap().to_owned(), whole.get("last-modified").unwrap().to_owned());
    assert_eq!((whole.status(), whole.body.len()), (200, 1000));
    let part = client.request("GET", "a.test", "/file", &[("Range", "bytes=10-19")], b"").await;
    assert_eq!((part.status(), part.body.len(), part.get("content-range")), (206, 10, Some("bytes 10-19/1000")));
    for fields in [[("If-None-Match", etag.as_str())], [("If-Modified-Since", modified.as_str())]] {
        assert_eq!(client.request("GET", "a.test", "/file", &fields, b"").await.status(), 304);
    }
    let tea = client.get("a.test", "/teapot").await;
    assert_eq!((tea.status(), tea.text()), (418, "short"));
    assert_eq!(client.get("a.test", "/none").await.status(), 404);
    let head = client.request("HEAD", "a.test", "/file", &[], b"").await;
    assert_eq!((head.status(), head.get("content-length")), (200, Some("1000")));
}

#[tokio::test]
async fn a_load_of_streams_from_nghttp2_comes_through_whole() {
    let up = Upstream::text("hello").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let url = format!("http://{}/", proxy.http().await);
    let (_, text) = output_of("h2load", &["-n", "500", "-c", "4", "-m", "16", &url]).await;
    assert!(text.contains("500 succeeded, 0 failed, 0 errored, 0 timeout"), "{text}");
}

#[tokio::test]
async fn a_load_of_requests_from_wrk_is_answered_whole() {
    let up = Upstream::text("hello").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let url = format!("http://{}/", proxy.http().await);
    let (code, text) = output_of("wrk", &["-t", "1", "-c", "16", "-d", "1s", &url]).await;
    assert!(code == 0 && text.contains("requests in"), "{text}");
    assert!(!text.contains("Socket errors") && !text.contains("Non-2xx"), "{text}");
}

/// Runs an attack with 50 connections for some seconds; others are served meanwhile.
async fn attack(proxy: &Proxy, arguments: &[&str]) -> String {
    let url = format!("http://{}/", proxy.http().await);
    let common = ["-c", "50", "-r", "50", "-i", "1", "-l", "3", "-u", &url];
    let arguments = [&common, arguments].concat();
    let running = output_of("slowhttptest", &arguments);
    let others = async {
        for _ in 0..20 {
            assert_eq!(proxy.get("a.test", "/").await.text(), "ok");
        }
    };
    let ((_, text), ()) = tokio::join!(running, others);
    text
}

#[tokio::test]
async fn slow_heads_and_slow_bodies_are_cut_off_and_hold_up_nobody() {
    let up = Upstream::text("ok").await;
    let text = route_to(&[&up], "idle_timeout: 300ms", "outlier: off");
    let proxy = routes(text).http("timeouts: { head: 500ms }").start().await;
    for (mode, reason) in [(&["-H"][..], "head_timeout"), (&["-B", "-t", "POST", "-s", "8192"], "body_timeout")] {
        let text = attack(&proxy, mode).await;
        let cut = proxy.metric("tidegate_own_responses_total", &[&format!("reason=\"{reason}\"")]).await;
        assert!(cut >= 50.0, "{reason}: {cut}\n{text}");
    }
}

/// Oddities that other clients do not do: chunks from an iterator, HTTP/1.0, a request in pieces, two in one piece.
const ODD: &str = r#"
import http.client, socket, sys
host, port = sys.argv[1].split(":")
conn = http.client.HTTPConnection(host, int(port), timeout=10)
conn.request("POST", "/", body=iter([b"hel", b"", b"lo"]), headers={"Host": "a.test"})
print(conn.getresponse().read().decode())
conn.request("PUT", "/", body=b"", headers={"Host": "a.test"})
put = conn.getresponse()
print(put.status, len(put.read()))
conn.request("HEAD", "/", headers={"Host": "a.test"})
print(len(conn.getresponse().read()))
conn.close()
old = http.client.HTTPConnection(host, int(port), timeout=10)
old._http_vsn, old._http_vsn_str = 10, "HTTP/1.0"
old.request("POST", "/", body=b"old", headers={"Host": "a.test"})
print(old.getresponse().read().decode())
raw = socket.create_connection((host, int(port)), 10)
raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
one = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 3\r\n\r\n"
for byte in one + b"one":
    raw.sendall(bytes([byte]))
raw.sendall((one + b"two") + (one.replace(b"1.1\r\n", b"1.1\r\nConnection: close\r\n") + b"end"))
data = b""
while True:
    piece = raw.recv(65536)
    if not piece:
        break
    data += piece
print(" ".join(part.rsplit(b"\r\n\r\n", 1)[-1].decode() for part in data.split(b"HTTP/1.1 200 OK")[1:]))
"#;

#[tokio::test]
async fn python_sends_oddities_and_each_is_understood() {
    let up = Upstream::echo().await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let (code, text) = output_of("python3", &["-c", ODD, &proxy.http().await.to_string()]).await;
    assert_eq!((code, text.as_str()), (0, "hello\n200 0\n0\nold\none two end\n"));
}
