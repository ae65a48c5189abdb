//! Does it work with the programs that people use: curl before it, nginx behind it?

use crate::harness::certs::Authority;
use crate::harness::proxy::{everything_to, routes};
use crate::harness::upstream::Upstream;
use crate::harness::{until, within};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tokio::net::TcpStream;

async fn curl(arguments: &[&str]) -> (i32, String) {
    let output = tokio::process::Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "15", "--noproxy", "*"])
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within("curl", output).await.unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

/// nginx with a configuration of its own, on a port that it was given.
struct Nginx {
    child: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Nginx {
    /// Serves `size` bytes under `/file`, and what `locations` say.
    async fn start(size: usize, locations: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::write(path.join("file"), vec![b'x'; size]).unwrap();
        loop {
            // nginx cannot be given port 0. Another process may take the port in between: then the next one is tried.
            let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
            let root = path.display();
            let config = format!(
                "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;\n\
                 events {{ worker_connections 64; }}\n\
                 http {{ access_log off; client_body_temp_path {root}; proxy_temp_path {root}; fastcgi_temp_path {root};\n\
                 uwsgi_temp_path {root}; scgi_temp_path {root};\n\
                 server {{ listen {address}; root {root}; {locations} }} }}\n"
            );
            std::fs::write(path.join("nginx.conf"), config).unwrap();
            let mut child = nginx(path);
            let ended = until("nginx", || {
                let ended = child.try_wait().unwrap().is_some();
                let address = address.clone();
                async move { (ended || TcpStream::connect(address).await.is_ok()).then_some(ended) }
            })
            .await;
            if !ended {
                return Self { child, address, _folder: folder };
            }
            let log = std::fs::read_to_string(path.join("error.log")).unwrap_or_default();
            assert!(log.contains("Address already in use"), "nginx: {log}");
        }
    }
}

fn nginx(folder: &Path) -> Child {
    let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "nginx"].into_iter().find(|p| Path::new(p).exists());
    Command::new(program.unwrap_or("nginx"))
        .args(["-p", folder.to_str().unwrap(), "-c", "nginx.conf", "-e", "stderr"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nginx is installed")
}

#[tokio::test]
async fn curl_gets_pages_over_http1_http2_and_tls_from_nginx() {
    let nginx = Nginx::start(100_000, "").await;
    let authority = Authority::new("tests");
    let proxy = routes(everything_to(&[&nginx.address]))
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
    let nginx = Nginx::start(1000, "location /teapot { return 418 short; }").await;
    let proxy = routes(everything_to(&[&nginx.address])).start().await;
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
    let output = tokio::process::Command::new("h2load")
        .args(["-n", "500", "-c", "4", "-m", "16", &url])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within("h2load", output).await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("500 succeeded, 0 failed, 0 errored, 0 timeout"), "{text}");
}
