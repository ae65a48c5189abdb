//! Does a browser of our time get pages, over TLS that it verifies itself and without a person to click warnings away?

use crate::harness::certs::Authority;
use crate::harness::proxy::{everything_to, routes};
use crate::harness::upstream::Upstream;
use crate::harness::{DEADLINE, within, within_time};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::sync::OnceCell;

/// A browser is 300 MB, and its first start reads them: half a minute from a disk that gives 10 MB/s.
const FIRST_START: Duration = Duration::from_secs(240);

async fn output(program: &str, home: &Path, arguments: &[&str]) -> String {
    let output = tokio::process::Command::new(program)
        .env("HOME", home)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    String::from_utf8_lossy(&output.await.unwrap().stdout).into_owned()
}

/// What the browser makes of a page: its document after scripts have run for two seconds of the browser's own time. Each page is a start
/// and an end of the browser: six seconds beside eight busy loops, where two CPUs had nothing else to do.
async fn page(home: &Path, url: &str) -> String {
    static STARTED: OnceCell<()> = OnceCell::const_new();
    STARTED.get_or_init(first_start).await;
    within_time(4 * DEADLINE, url, dump(home, url)).await
}

/// The browser once without us, so that a page's deadline is about the page and not about the disk.
async fn first_start() {
    let home = tempfile::tempdir().unwrap();
    let seen = within_time(FIRST_START, "a browser that starts", dump(home.path(), "data:text/html,<p>started")).await;
    assert!(seen.contains("started"), "the browser does not work here: {seen}");
}

async fn dump(home: &Path, url: &str) -> String {
    let profile = format!("--user-data-dir={}", home.join("profile").display());
    let arguments = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--host-resolver-rules=MAP shop.example.com 127.0.0.1",
        "--virtual-time-budget=2000",
        &profile,
        "--dump-dom",
        url,
    ];
    output("chromium", home, &arguments).await
}

/// Has the browser of this home trust an authority.
async fn trust(home: &Path, authority: &Authority) {
    let (store, file) = (home.join(".pki/nssdb"), home.join("ca.pem"));
    std::fs::create_dir_all(&store).unwrap();
    std::fs::write(&file, &authority.pem).unwrap();
    let (store, file) = (format!("sql:{}", store.display()), file.display().to_string());
    within("a certificate store", output("certutil", home, &["-N", "--empty-password", "-d", &store])).await;
    let add = ["-A", "-n", "tests", "-t", "C,,", "-i", &file, "-d", &store];
    within("an authority in it", output("certutil", home, &add)).await;
}

#[tokio::test]
async fn a_browser_gets_a_page_over_http2_and_tls_that_it_verifies_and_refuses_what_it_does_not() {
    let up = Upstream::raw(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 28\r\n\r\n<p>hello from the shop</p>\r\n",
    )
    .await;
    let authority = Authority::new("tests");
    let identity = authority.issue(&["shop.example.com"]);
    let proxy = routes(everything_to(&[&up])).https("").certificate("shop", &identity).start().await;
    let url = format!("https://shop.example.com:{}/", proxy.https().await.port());
    let (friend, stranger) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    trust(friend.path(), &authority).await;
    let seen = page(friend.path(), &url).await;
    assert!(seen.contains("hello from the shop"), "{seen}");
    let record = proxy.access_log(1).await.remove(0);
    assert_eq!((record["version"].as_str(), record["status"].as_u64()), (Some("HTTP/2.0"), Some(200)), "{record}");
    let refused = page(stranger.path(), &url).await;
    assert!(!refused.contains("hello from the shop"), "{refused}");
}

#[tokio::test]
async fn the_console_shows_what_serves() {
    let proxy =
        routes("shop.example.com/: web\n---\nclusters:\n  web: { endpoints: [\"127.0.0.1:1\"] }\n").start().await;
    let home = tempfile::tempdir().unwrap();
    let seen = page(home.path(), &format!("http://{}/console", proxy.admin)).await;
    assert!(seen.contains("127.0.0.1:") && seen.contains("ready"), "{seen}");
}
