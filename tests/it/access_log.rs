//! What does the access log say, and what does it never say?

use crate::harness::h2::request;
use crate::harness::proxy::{everything_to, routes};
use crate::harness::until;
use crate::harness::upstream::Upstream;
use rustix::process::Signal;

#[tokio::test]
async fn a_record_tells_everything_about_a_request_and_nothing_secret() {
    let up = Upstream::text("hello").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let fields = [
        ("User-Agent", "test/1"),
        ("Referer", "http://b.test/"),
        ("Authorization", "Bearer secret-token"),
        ("Cookie", "session=secret-cookie"),
    ];
    proxy.client().await.request("POST", "a.test", "/x/y?q=1", &fields, b"body").await;
    let line = proxy.access_lines(1).await.remove(0);
    assert!(!line.contains("secret"), "{line}");
    let record: serde_json::Value = serde_json::from_str(&line).unwrap();
    for (key, value) in [
        ("client", "127.0.0.1"),
        ("listener", "http"),
        ("method", "POST"),
        ("host", "a.test"),
        ("path", "/x/y"),
        ("query", "q=1"),
        ("version", "HTTP/1.1"),
        ("cluster", "up"),
        ("endpoint", &up.to_string()),
        ("user_agent", "test/1"),
        ("referer", "http://b.test/"),
    ] {
        assert_eq!(record[key], value, "{key}: {line}");
    }
    assert_eq!((record["status"].as_u64(), record["attempts"].as_u64()), (Some(200), Some(1)), "{line}");
    assert_eq!((record["bytes_in"].as_u64(), record["bytes_out"].as_u64()), (Some(4), Some(5)), "{line}");
    assert!(record["duration_us"].as_u64().unwrap() >= record["upstream_us"].as_u64().unwrap(), "{line}");
    assert!(record["route"].is_string() && record["request_id"].is_string() && record["time"].is_string(), "{line}");
}

#[tokio::test]
async fn an_http2_request_is_recorded_in_the_same_way() {
    let up = Upstream::text("hello").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    proxy.h2().await.request(request("GET", "http://a.test/x?q"), b"").await;
    let record = proxy.access_log(1).await.remove(0);
    assert_eq!((record["host"].as_str(), record["path"].as_str()), (Some("a.test"), Some("/x")), "{record}");
    assert_eq!((record["version"].as_str(), record["bytes_out"].as_u64()), (Some("HTTP/2.0"), Some(5)), "{record}");
}

#[tokio::test]
async fn no_client_can_forge_a_record() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send(b"GET /%0a%22 HTTP/1.1\r\nHost: a.test\r\nUser-Agent: \"},{\"x\":\"\xff\t\xe2\x80\xae\r\n\r\n").await;
    assert_eq!(client.response().await.status(), 200);
    let lines = proxy.access_lines(1).await;
    assert_eq!(lines.len(), 1);
    let record: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert!(record["user_agent"].as_str().unwrap().starts_with("\"},{\"x\":\""), "{record}");
    assert!(record.get("x").is_none() && lines[0].bytes().all(|b| b >= b' '), "{}", lines[0]);
}

#[tokio::test]
async fn the_combined_format_is_that_of_nginx_and_apache() {
    let up = Upstream::text("hello").await;
    let proxy = routes(everything_to(&[&up]))
        .section("telemetry", "{ access_log: { format: combined, path: access.log } }")
        .start()
        .await;
    proxy.client().await.request("GET", "a.test", "/x?y", &[("User-Agent", "a\"b")], b"").await;
    let line = proxy.access_lines(1).await.remove(0);
    assert!(line.starts_with("127.0.0.1 - - ["), "{line}");
    assert!(line.ends_with("] \"GET /x?y HTTP/1.1\" 200 5 \"-\" \"a\\x22b\""), "{line}");
}

#[tokio::test]
async fn requests_that_were_refused_are_recorded_too() {
    let proxy = routes(everything_to(&[])).start().await;
    let client = proxy.client().await;
    client.refused("nonsense\r\n\r\n", 400).await;
    let record = proxy.access_log(1).await.remove(0);
    assert_eq!((record["status"].as_u64(), record["reason"].as_str()), (Some(400), Some("bad_first_line")), "{record}");
}

#[tokio::test]
async fn a_log_that_was_moved_away_is_opened_anew() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    proxy.get("a.test", "/one").await;
    proxy.access_lines(1).await;
    std::fs::rename(proxy.folder().join("access.log"), proxy.folder().join("access.log.1")).unwrap();
    proxy.signal(Signal::HUP);
    crate::harness::until("a new file", || async { proxy.folder().join("access.log").exists().then_some(()) }).await;
    proxy.get("a.test", "/two").await;
    let record = proxy.access_log(1).await.remove(0);
    assert_eq!(record["path"], "/two");
}

#[tokio::test]
async fn what_was_recorded_last_is_written_before_the_program_ends() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    for _ in 0..10 {
        client.get("a.test", "/").await;
    }
    assert!(proxy.stop().await.success());
    let text = std::fs::read_to_string(proxy.folder().join("access.log")).unwrap();
    assert_eq!(text.lines().count(), 10);
}

#[tokio::test]
async fn a_log_that_takes_nothing_costs_records_and_no_request() {
    let up = Upstream::text("ok").await;
    let setup = routes(everything_to(&[&up]));
    let pipe = setup.folder_path().join("access.log");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    // Both ends are held and nobody reads: the writer blocks as soon as the pipe is full.
    let mut held = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let proxy = setup.start().await;
    let path = format!("/{}", "x".repeat(7000));
    let mut client = proxy.client().await;
    let mut sent = 0.0;
    // The pipe, the batches that may wait and the one being written hold less than so much.
    while sent < 2000.0 {
        assert_eq!(client.get("a.test", &path).await.text(), "ok");
        sent += 1.0;
    }
    proxy.wait_for_metric("tidegate_access_log_dropped_total", &[], 1.0).await;
    let reader = std::thread::spawn(move || {
        let mut sink = vec![0; 1 << 20];
        while std::io::Read::read(&mut held, &mut sink).is_ok_and(|n| n > 0) {}
    });
    let all = until("every record to be written or counted as lost", || async {
        let written = proxy.metric("tidegate_access_log_records_total", &[]).await;
        let dropped = proxy.metric("tidegate_access_log_dropped_total", &[]).await;
        (written + dropped >= sent).then_some(written + dropped)
    })
    .await;
    assert_eq!(all, sent, "none is counted twice");
    drop(reader); // It holds both ends, so it ends with the test program.
}
