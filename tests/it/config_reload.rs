//! What happens when the routes change while requests run?

use crate::harness::certs::Authority;
use crate::harness::client::Client;
use crate::harness::h2::{H2Client, collect, request};
use crate::harness::proxy::{Proxy, everything_to, items, routes};
use crate::harness::until;
use crate::harness::upstream::{Peer, Upstream};
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

fn respond(name: &str) -> String {
    format!("hosts: [a.test]\nroutes: [{{ path: /, respond: {{ body: {name} }} }}]\n")
}

async fn wait_for_problem(proxy: &Proxy, text: &str) -> String {
    until(text, || async {
        let all = items(&proxy.api("problems").await);
        all.iter().map(ToString::to_string).find(|p| p.contains(text))
    })
    .await
}

#[tokio::test]
async fn an_edited_file_serves_without_a_restart_and_open_connections_stay() {
    let proxy = routes(respond("one")).start().await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("a.test", "/").await.text(), "one");
    for name in ["two", "three"] {
        proxy.reload(respond(name)).await;
        assert_eq!(client.get("a.test", "/").await.text(), name);
    }
}

#[tokio::test]
async fn a_file_that_is_written_in_place_is_noticed_too() {
    let proxy = routes(respond("one")).start().await;
    std::fs::write(proxy.folder().join("routes.yaml"), respond("two")).unwrap();
    until("two", || async { (proxy.get("a.test", "/").await.body == b"two").then_some(()) }).await;
}

#[tokio::test]
async fn sighup_reads_the_routes_again() {
    let proxy = routes(respond("one")).start().await;
    proxy.write("routes.yaml", respond("two"));
    proxy.signal(Signal::HUP);
    until("two", || async { (proxy.get("a.test", "/").await.body == b"two").then_some(()) }).await;
}

/// Writes the install configuration anew, with these replacements.
fn edit(proxy: &Proxy, replacements: &[(&str, &str)]) {
    let mut text = std::fs::read_to_string(proxy.folder().join("tidegate.yaml")).unwrap();
    for (old, new) in replacements {
        assert!(text.contains(old), "no {old}: {text}");
        text = text.replace(old, new);
    }
    proxy.write("tidegate.yaml", text);
}

/// Where a listener is bound, as soon as it is.
async fn bound(proxy: &Proxy, listener: &str) -> std::net::SocketAddr {
    until(listener, || async {
        let all = items(&proxy.api("listeners").await);
        all.iter().find(|l| l["name"] == listener)?["bound"].as_str()?.parse().ok()
    })
    .await
}

#[tokio::test]
async fn listeners_come_go_and_change_while_the_others_are_not_touched() {
    let go = Arc::new(Notify::new());
    let told = go.clone();
    let up = Upstream::start(move |mut peer: Peer| {
        let told = told.clone();
        async move {
            while let Some(request) = peer.request().await {
                if request.head.target() == "/slow" {
                    told.notified().await;
                }
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    let proxy = routes(everything_to(&[&up]))
        .listener("stays", "127.0.0.1:0", "")
        .listener("goes", "127.0.0.1:0", "")
        .start()
        .await;
    let (stays, goes) = (proxy.address("stays").await, proxy.address("goes").await);
    let mut staying = Client::connect(stays).await;
    assert_eq!(staying.get("a.test", "/").await.get("x-new"), None);
    let mut leaving = Client::connect(goes).await;
    leaving.send("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    up.wait_for_requests(2).await;
    let new = "  comes: { address: \"127.0.0.1:0\" }\n  stays: { response_headers: { set: { x-new: yes } }, ";
    edit(&proxy, &[("  goes: { address: \"127.0.0.1:0\" }\n", ""), ("  stays: { ", new)]);
    let comes = bound(&proxy, "comes").await;
    assert_eq!(Client::connect(comes).await.get("a.test", "/").await.text(), "ok");
    until("a closed port", || async { tokio::net::TcpStream::connect(goes).await.is_err().then_some(()) }).await;
    assert_eq!(staying.get("a.test", "/").await.get("x-new"), Some("yes"), "the open connection has the new settings");
    assert_eq!(bound(&proxy, "stays").await, stays);
    assert_eq!(Client::connect(stays).await.get("a.test", "/").await.text(), "ok");
    go.notify_one();
    let last = leaving.response().await;
    assert_eq!((last.text(), last.get("connection")), ("ok", Some("close")), "what was in flight is finished");
    assert_eq!(leaving.end().await, crate::harness::wire::End::Fin);
    assert!(items(&proxy.api("problems").await).is_empty());
    edit(&proxy, &[("  comes: ", "  renamed: ")]);
    let renamed = bound(&proxy, "renamed").await;
    assert_eq!(Client::connect(renamed).await.get("a.test", "/").await.text(), "ok");
    assert!(proxy.stop().await.success());
}

#[tokio::test]
async fn no_connection_is_lost_while_a_listener_is_renamed_again_and_again() {
    let proxy = routes(respond("one")).http("").start().await;
    let http = proxy.http().await;
    let asked = tokio::spawn(async move {
        for n in 0..600 {
            let answer = Client::all_of(http).await;
            assert!(answer.starts_with(b"HTTP/1.1 200 "), "connection {n}: {:?}", String::from_utf8_lossy(&answer));
        }
    });
    let mut last = "  http: { address: \"127.0.0.1:0\" }".to_owned();
    for n in 0..3 {
        let next = format!("  http-{n}: {{ address: \"{http}\" }}");
        edit(&proxy, &[(&last, &next)]);
        assert_eq!(bound(&proxy, &format!("http-{n}")).await, http);
        last = next;
    }
    asked.await.unwrap();
    assert!(items(&proxy.api("problems").await).is_empty());
}

#[tokio::test]
async fn connections_at_rest_end_with_their_listener_and_those_at_work_after_their_request() {
    let go = Arc::new(Notify::new());
    let told = go.clone();
    let up = Upstream::start(move |mut peer: Peer| {
        let told = told.clone();
        async move {
            while let Some(request) = peer.request().await {
                if request.head.target() == "/slow" {
                    told.notified().await;
                }
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    // Longer than the test waits for anything.
    let patient = "timeouts: { keep_alive: 1h }";
    let setup = routes(everything_to(&[&up])).http(patient).listener("goes", "127.0.0.1:0", patient);
    let proxy = setup.start().await;
    let (goes, http) = (proxy.address("goes").await, proxy.http().await);
    let (mut staying, mut resting) = (Client::connect(http).await, Client::connect(goes).await);
    let mut connected = Client::connect(goes).await;
    let (mut staying_h2, mut resting_h2) = (H2Client::cleartext(http).await, H2Client::cleartext(goes).await);
    for client in [&mut staying, &mut resting] {
        assert_eq!(client.get("a.test", "/").await.text(), "ok");
    }
    for client in [&mut staying_h2, &mut resting_h2] {
        assert_eq!(client.get("http", "a.test", "/").await.text(), "ok");
    }
    let mut working = H2Client::cleartext(goes).await;
    let (answer, _) = working.open(request("GET", "http://a.test/slow"), true).await;
    up.wait_for_requests(5).await;
    proxy.wait_for_metric("tidegate_connections_open", &["listener=\"goes\""], 4.0).await;
    let line = format!("  goes: {{ address: \"127.0.0.1:0\", {patient} }}\n");
    edit(&proxy, &[(&line, "")]);
    assert_eq!(resting.end().await, crate::harness::wire::End::Fin);
    assert_eq!(resting_h2.closed().await.map_err(|e| e.to_string()), Ok(()));
    assert_eq!(connected.get("a.test", "/").await.get("connection"), Some("close"), "a first request is let in");
    go.notify_one();
    assert_eq!(collect(answer.await.unwrap()).await.text(), "ok");
    assert_eq!(working.closed().await.map_err(|e| e.to_string()), Ok(()));
    assert_eq!(staying.get("a.test", "/").await.get("connection"), None);
    assert_eq!(staying_h2.get("http", "a.test", "/").await.text(), "ok");
}

#[tokio::test]
async fn a_listener_that_cannot_be_opened_is_a_problem_until_it_can_be() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let proxy = routes(respond("one")).http("").start().await;
    let extra = format!("  extra: {{ address: \"{address}\" }}\n");
    edit(&proxy, &[("listeners:\n", &format!("listeners:\n{extra}"))]);
    let problem = wait_for_problem(&proxy, "extra").await;
    let named = ["another process listens on", &address.to_string(), "tidegate.yaml", "ss -ltnp"];
    assert!(named.iter().all(|part| problem.contains(part)), "{problem}");
    proxy.wait_for_metric("tidegate_config_problems", &["severity=\"error\""], 1.0).await;
    let shown = || async {
        let all = items(&proxy.api("listeners").await);
        all.into_iter().find(|listener| listener["name"] == "extra").map(|listener| listener["bound"].clone())
    };
    assert_eq!(shown().await, Some(serde_json::Value::Null), "it is wanted, and not open");
    assert_eq!(proxy.get("a.test", "/").await.text(), "one");
    drop(taken);
    assert_eq!(bound(&proxy, "extra").await, address);
    assert_eq!(Client::connect(address).await.get("a.test", "/").await.text(), "one");
    until("no problem", || async { items(&proxy.api("problems").await).is_empty().then_some(()) }).await;
    assert_eq!(proxy.metric("tidegate_config_problems", &["severity=\"error\""]).await, 0.0);
    let log = proxy.log();
    assert_eq!(log.matches("another process listens on").count(), 1, "it is told once, not at each attempt: {log}");
}

#[tokio::test]
async fn a_listener_that_cannot_move_serves_where_it_was_until_it_can() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let proxy = routes(respond("one")).http("").start().await;
    edit(&proxy, &[("listeners:\n", "listeners:\n  extra: { address: \"127.0.0.1:0\" }\n")]);
    let old = bound(&proxy, "extra").await;
    edit(&proxy, &[("extra: { address: \"127.0.0.1:0\"", &format!("extra: {{ address: \"{address}\""))]);
    let problem = wait_for_problem(&proxy, "extra").await;
    assert!(problem.contains(&format!("it stays at {old}")), "{problem}");
    assert_eq!(Client::connect(old).await.get("a.test", "/").await.text(), "one");
    drop(taken);
    until("it has moved", || async { (bound(&proxy, "extra").await == address).then_some(()) }).await;
    assert_eq!(Client::connect(address).await.get("a.test", "/").await.text(), "one");
}

#[tokio::test]
async fn a_listener_that_cannot_be_opened_is_forgotten_when_it_is_removed() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let extra = format!("  extra: {{ address: \"{}\" }}\n", taken.local_addr().unwrap());
    let proxy = routes(respond("one")).http("").start().await;
    edit(&proxy, &[("listeners:\n", &format!("listeners:\n{extra}"))]);
    wait_for_problem(&proxy, "extra").await;
    edit(&proxy, &[(&extra, "")]);
    until("no problem", || async { items(&proxy.api("problems").await).is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn a_listener_comes_with_a_certificate_and_authorities_that_are_as_new_and_both_may_be_renewed() {
    let (authority, clients) = (Authority::new("first"), Authority::new("clients"));
    let setup = routes(respond("one")).http("");
    let (pem, key) = ("new.pem", "new.key");
    let issued = authority.issue(&["a.test"]);
    let setup = setup.file(pem, &issued.chain).file(key, &issued.key).file("ca.pem", &clients.pem);
    let proxy = setup.start().await;
    let listener = "  https: { address: \"127.0.0.1:0\", protocol: https, \
                    tls: { certificates: [new], client_auth: { ca: ca.pem } } }\n";
    let certificates = format!("certificates: {{ new: {{ certificate: {pem}, key: {key} }} }}\nlisteners:\n");
    edit(&proxy, &[("listeners:\n", &format!("{certificates}{listener}"))]);
    let https = bound(&proxy, "https").await;
    let client = authority.client_as(&["http/1.1"], &clients.issue_client("one"));
    assert_eq!(Client::tls(https, &client, "a.test").await.get("a.test", "/").await.text(), "one");
    assert!(items(&proxy.api("problems").await).is_empty(), "nothing needs a restart");
    // Renewals of files that came while running are watched like those of the start.
    let (second, others) = (Authority::new("second"), Authority::new("others"));
    let issued = second.issue(&["a.test"]);
    proxy.write("ca.pem", &others.pem);
    proxy.write(key, &issued.key);
    proxy.write(pem, &issued.chain);
    let client = second.client_as(&["http/1.1"], &others.issue_client("two"));
    until("the renewal", || async {
        let mut stream = crate::harness::client::tls(https, &client, "a.test").await.ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.ok()?;
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.ok()?;
        (answer == *b"HTTP/1.1 200 OK").then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_needs_a_restart_is_told_and_listeners_change_all_the_same() {
    let proxy = routes(respond("one")).http("").start().await;
    let extra = "  http: { address: \"127.0.0.1:0\" }\n  extra: { address: \"127.0.0.1:0\" }\n";
    edit(&proxy, &[("  http: { address: \"127.0.0.1:0\" }\n", extra), ("workers: 2", "workers: 3")]);
    let warning = wait_for_problem(&proxy, "restart").await;
    assert!(warning.contains("workers") && warning.contains("warning"), "{warning}");
    let address = bound(&proxy, "extra").await;
    assert_eq!(Client::connect(address).await.get("a.test", "/").await.text(), "one");
    edit(&proxy, &[("workers: 3", "workers: 2")]);
    proxy.signal(Signal::HUP);
    until("no warning", || async { items(&proxy.api("problems").await).is_empty().then_some(()) }).await;
    edit(&proxy, &[("listeners:", "listenrs:")]);
    wait_for_problem(&proxy, "listenrs").await;
    assert_eq!(Client::connect(address).await.get("a.test", "/").await.text(), "one");
}

#[tokio::test]
async fn a_folder_of_routes_files_is_one_configuration() {
    let setup = routes("").section("sources", "{ routes: routes }");
    let folder = setup.folder_path().join("routes");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("a.yaml"), "a.test/: { respond: { body: a } }\n").unwrap();
    std::fs::write(folder.join("notes.txt"), "not: [routes").unwrap();
    let proxy = setup.start().await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "a");
    std::fs::write(folder.join("b.yaml"), "b.test/: { respond: { body: b } }\n").unwrap();
    until("b", || async { (proxy.get("b.test", "/").await.body == b"b").then_some(()) }).await;
    std::fs::remove_file(folder.join("a.yaml")).unwrap();
    until("no a", || async { (proxy.get("a.test", "/").await.status() == 404).then_some(()) }).await;
}

#[tokio::test]
async fn a_wrong_route_is_left_out_and_all_others_change() {
    let proxy = routes(respond("one")).start().await;
    let text = "hosts: [a.test]\nroutes:\n  - { path: /, respond: { body: two } }\n  - { path: /bad/, respond: { stauts: 200 } }\n";
    proxy.reload(text).await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "two");
    let problem = wait_for_problem(&proxy, "stauts").await;
    assert!(problem.contains("status") && problem.contains("routes.yaml"), "{problem}");
    assert!(proxy.log().contains("stauts"), "{}", proxy.log());
    assert_eq!(proxy.metric("tidegate_config_problems", &["severity=\"error\""]).await, 1.0);
    proxy.reload(respond("three")).await;
    assert_eq!(proxy.metric("tidegate_config_problems", &["severity=\"error\""]).await, 0.0);
}

#[tokio::test]
async fn a_route_that_goes_wrong_keeps_its_last_good_version() {
    let good =
        "hosts: [a.test]\nroutes:\n  - { path: /, respond: { body: one } }\n  - { path: /x/, respond: { body: x } }\n";
    let proxy = routes(good).start().await;
    let bad = "hosts: [a.test]\nroutes:\n  - { path: /, respond: { body: two } }\n  - { path: /x/, respond: { status: 9000 } }\n";
    proxy.reload(bad).await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "two");
    assert_eq!(proxy.get("a.test", "/x/").await.text(), "x");
    wait_for_problem(&proxy, "9000").await;
}

#[tokio::test]
async fn a_file_that_does_not_parse_keeps_its_last_good_content() {
    let proxy = routes(respond("one")).start().await;
    proxy.write("routes.yaml", "hosts: [a.test\nroutes: {{{\n");
    wait_for_problem(&proxy, "routes.yaml").await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "one");
    proxy.write("routes.yaml", respond("two"));
    until("two", || async { (proxy.get("a.test", "/").await.body == b"two").then_some(()) }).await;
    until("no problem", || async { items(&proxy.api("problems").await).is_empty().then_some(()) }).await;
}

#[tokio::test]
async fn a_file_that_is_removed_and_comes_back_is_read_again() {
    let proxy = routes(respond("one")).start().await;
    std::fs::remove_file(proxy.folder().join("routes.yaml")).unwrap();
    wait_for_problem(&proxy, "routes.yaml").await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "one");
    proxy.write("routes.yaml", respond("two"));
    until("two", || async { (proxy.get("a.test", "/").await.body == b"two").then_some(()) }).await;
}

#[tokio::test]
async fn the_same_content_again_is_no_change() {
    let proxy = routes(respond("one")).start().await;
    let before = proxy.generation().await;
    proxy.write("routes.yaml", format!("{}# a comment\n", respond("one")));
    proxy.signal(Signal::HUP);
    proxy.reload(respond("two")).await;
    assert_eq!(proxy.generation().await, before + 1);
}

#[tokio::test]
async fn a_request_in_flight_ends_by_the_routes_it_began_with() {
    let go = Arc::new(Notify::new());
    let told = go.clone();
    let up = Upstream::start(move |mut peer: Peer| {
        let told = told.clone();
        async move {
            while peer.request().await.is_some() {
                told.notified().await;
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold").await;
            }
        }
    })
    .await;
    let proxy = routes(everything_to(&[&up])).start().await;
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    up.wait_for_requests(1).await;
    proxy.reload("\"*/\": { respond: { body: new } }\n").await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "new");
    go.notify_one();
    assert_eq!(client.response().await.text(), "old");
    assert_eq!(client.get("a.test", "/").await.text(), "new");
}

#[tokio::test]
async fn no_request_is_lost_while_routes_change_again_and_again() {
    let (one, two) = (Upstream::text("one").await, Upstream::text("two").await);
    let proxy = routes(everything_to(&[&one])).start().await;
    let http = proxy.http().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for _ in 0..4 {
        let stop = stop.clone();
        clients.push(tokio::spawn(async move {
            let mut client = Client::connect(http).await;
            let mut done = 0;
            while !stop.load(Ordering::Relaxed) {
                let response = client.get("a.test", "/").await;
                assert_eq!(response.status(), 200, "{response:?}");
                done += 1;
            }
            done
        }));
    }
    for n in 0..20 {
        let up = if n % 2 == 0 { &two } else { &one };
        proxy.reload(everything_to(&[up])).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert!(client.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn upstream_connections_of_an_unchanged_cluster_outlive_a_change() {
    let up = Upstream::text("ok").await;
    let proxy = routes(everything_to(&[&up])).section("workers", "1").start().await;
    for n in 0..3 {
        assert_eq!(proxy.get("a.test", "/").await.text(), "ok");
        proxy.reload(format!("x{n}.test/: up\n---\n{}", everything_to(&[&up]))).await;
    }
    assert_eq!(proxy.get("a.test", "/").await.text(), "ok");
    assert_eq!(up.connections(), 1);
}

#[tokio::test]
async fn a_route_to_a_cluster_that_is_not_there_is_a_problem_and_no_crash() {
    let proxy = routes("a.test/: nowhere\n---\nb.test/: { respond: 200 }\n").start().await;
    wait_for_problem(&proxy, "nowhere").await;
    assert_eq!(proxy.get("b.test", "/").await.status(), 200);
    let status = proxy.get("a.test", "/").await.status();
    assert!([404, 500, 503].contains(&status), "{status}");
}

#[tokio::test]
async fn a_file_that_is_missing_at_the_start_is_a_problem_and_read_when_it_comes() {
    let proxy = routes(respond("one")).section("sources", "{ routes: [routes.yaml, later.yaml] }").start().await;
    wait_for_problem(&proxy, "later.yaml").await;
    assert_eq!(proxy.get("a.test", "/").await.text(), "one");
    proxy.write("later.yaml", "b.test/: { respond: { body: b } }\n");
    until("b", || async { (proxy.get("b.test", "/").await.body == b"b").then_some(()) }).await;
    assert!(items(&proxy.api("problems").await).is_empty());
}
