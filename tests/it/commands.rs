//! What do the commands say, and with which exit code?

use crate::harness::certs::Authority;
use crate::harness::client::Client;
use crate::harness::proxy::{routes, run, tidegate};
use crate::harness::{until, within};
use serde_json::Value;
use std::process::Stdio;
use tempfile::TempDir;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn check_is_silent_about_what_is_right() {
    let folder = folder(&[("routes.yaml", "a.test/: web\n---\nclusters:\n  web: { endpoints: [\"127.0.0.1:1\"] }\n")]);
    let (code, out, err) = run(folder.path(), &["check", "routes.yaml"]);
    assert_eq!(code, 0, "{out}{err}");
}

/// Every class of mistake: the text, where it is, and what the message says of it.
const MISTAKES: &[(&str, &str, &[&str])] = &[
    ("hosts: [a.test\n", "", &["routes.yaml:"]),
    ("a.test/: web\nclustres: {}\n", "2:1", &["clustres", "clusters"]),
    ("hosts: [a.test]\nrouts: []\n", "2:1", &["routs", "did you mean", "routes"]),
    ("hosts: [\"a b\"]\nroutes: [{ path: /, respond: 200 }]\n", "1:9", &["a b", "host"]),
    ("hosts: [\"a.test:80\"]\nroutes: [{ path: /, respond: 200 }]\n", "1:9", &["port"]),
    ("hosts: [a.test]\nroutes: [{ path: api, respond: 200 }]\n", "2:18", &["api", "path"]),
    ("hosts: [a.test]\nroutes: [{ path: \"~[\", respond: 200 }]\n", "2:18", &["["]),
    ("hosts: [a.test]\nroutes: [{ path: / }]\n", "2:10", &["to"]),
    ("hosts: [a.test]\nroutes: [{ path: /, respond: 200, to: x }]\n", "2", &["exclude each other"]),
    ("hosts: [a.test]\nroutes: [{ path: /, respond: 99 }]\n", "2:30", &["99"]),
    ("hosts: [a.test]\nroutes: [{ path: /, respond: 200, timeout: 10 }]\n", "2:44", &["10", "10s"]),
    ("hosts: [a.test]\nroutes: [{ path: /, respond: 200, timeout: soon }]\n", "2:44", &["soon"]),
    ("hosts: [a.test]\nroutes: [{ path: /, method: [GE T], respond: 200 }]\n", "2", &["GE T"]),
    ("hosts: [a.test]\nheaders: { require: { \"x y\": a } }\nroutes: []\n", "2", &["x y", "header name"]),
    ("hosts: [a.test]\nheaders: { status: 200, forbid: [x] }\nroutes: []\n", "2:20", &["200", "400"]),
    ("hosts: [a.test]\naccess: { allow: [10.0.0.0/33] }\nroutes: []\n", "2:19", &["10.0.0.0/33"]),
    (
        "hosts: [a.test]\nroutes:\n  - { path: /, respond: 200 }\n  - { path: /, respond: 201 }\n",
        "4:5",
        &["there already"],
    ),
    ("hosts: [a.test]\nhosts: [b.test]\nroutes: []\n", "2:1", &["repeated"]),
    ("clusters:\n  web: { endpoints: [localhost:80] }\n", "2:22", &["localhost:80"]),
    ("clusters:\n  web: { endpoints: [\"127.0.0.1\"] }\n", "2:22", &["127.0.0.1", "port"]),
    ("clusters:\n  web: { endpoints: [\"127.0.0.1:1\"], balance: fastest }\n", "2:47", &["fastest", "least_request"]),
    ("clusters:\n  web: { endpoints: [\"127.0.0.1:1\"], tls: { ca: none.pem, server_name: a } }\n", "2", &["none.pem"]),
    ("clusters:\n  web: { endpoints: [\"127.0.0.1:1\"], tls: {} }\n", "2", &["\"ca\" is missing"]),
    ("hosts: [a.test]\nrequest_headers: { set: { content-length: \"1\" } }\nroutes: []\n", "2", &["content-length"]),
    ("hosts: [a.test]\nroutes: 7\n", "2:9", &["\"7\"", "a map"]),
    ("- a\n- b\n", "1:1", &["map"]),
];

#[test]
fn check_names_every_class_of_mistake_with_its_place_and_what_would_be_right() {
    for (text, place, words) in MISTAKES {
        let folder = folder(&[("routes.yaml", text)]);
        let (code, out, err) = run(folder.path(), &["check", "routes.yaml"]);
        let all = format!("{out}{err}");
        assert_eq!(code, 1, "{text}: {all}");
        assert!(all.contains(&format!("routes.yaml:{place}")), "{text}: no {place}: {all}");
        for word in *words {
            assert!(all.contains(word), "{text}: no {word:?}: {all}");
        }
    }
}

#[test]
fn check_tells_all_mistakes_at_once() {
    let text = "hosts: [a.test, \"b c\"]\nroutes:\n  - { path: x, respond: 200 }\n  - { path: /, respond: 1 }\n  - { paht: / }\n";
    let folder = folder(&[("routes.yaml", text)]);
    let (code, out, err) = run(folder.path(), &["check", "routes.yaml"]);
    let all = format!("{out}{err}");
    assert_eq!(code, 1);
    for line in ["routes.yaml:1:", "routes.yaml:3:", "routes.yaml:4:", "routes.yaml:5:"] {
        assert!(all.contains(line), "{line}: {all}");
    }
}

#[test]
fn check_speaks_json() {
    let folder = folder(&[("routes.yaml", "hosts: [a.test]\nrouts: []\n")]);
    let (code, out, _) = run(folder.path(), &["check", "--format", "json", "routes.yaml"]);
    assert_eq!(code, 1);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert!(found.to_string().contains("\"line\":2"), "{found}");
}

#[test]
fn check_reads_install_configurations_with_what_they_refer_to() {
    let good = "listeners: { http: { address: \":8080\" } }\nsources: { routes: routes.yaml }\n";
    let folder = folder(&[("tidegate.yaml", good), ("routes.yaml", "a.test/: { respond: 200 }\n")]);
    let (code, out, err) = run(folder.path(), &["check", "tidegate.yaml"]);
    assert_eq!(code, 0, "{out}{err}");
    for (text, words) in [
        ("listeners: { http: { adress: \":8080\" } }\n", &["adress", "address"][..]),
        ("listeners: { http: { address: nowhere } }\n", &["nowhere"]),
        ("listeners: {}\n", &["no listener"]),
        ("workers: many\nlisteners: { http: { address: \":8080\" } }\n", &["many", "1024"]),
        ("listeners: { s: { address: \":1\", protocol: https, tls: { certificates: [x] } } }\n", &["\"x\""]),
        ("listeners: { s: { address: \":1\", protocol: http, tls: {} } }\n", &["http listener has no TLS"]),
    ] {
        std::fs::write(folder.path().join("tidegate.yaml"), text).unwrap();
        let (code, out, err) = run(folder.path(), &["check", "tidegate.yaml"]);
        let all = format!("{out}{err}");
        assert_eq!(code, 1, "{text}: {all}");
        assert!(words.iter().all(|w| all.contains(w)), "{text}: {all}");
    }
}

#[test]
fn a_wrong_install_configuration_does_not_start() {
    let folder = folder(&[("tidegate.yaml", "listenrs: {}\n")]);
    let (code, _, log) = run(folder.path(), &["run", "--config", "tidegate.yaml"]);
    assert_ne!(code, 0);
    assert!(log.contains("listenrs") && log.contains("listeners"), "{log}");
}

const SHOP: &str = "shop.test/: web\nshop.test/api/: { to: api, headers: { require: [x-key] } }\n---\nclusters:\n  \
                    web: { endpoints: [\"127.0.0.1:9001\"] }\n  api: { endpoints: [\"127.0.0.1:9002\"] }\n";

#[test]
fn explain_says_which_route_takes_a_request_and_why_others_do_not() {
    let folder = folder(&[
        ("tidegate.yaml", "listeners: { http: { address: \":8080\" } }\nsources: { routes: routes.yaml }\n"),
        ("routes.yaml", SHOP),
    ]);
    let explain = |arguments: &[&str]| {
        let mut all = vec!["explain", "--config", "tidegate.yaml"];
        all.extend(arguments);
        let (_, out, err) = run(folder.path(), &all);
        format!("{out}{err}")
    };
    let passed = explain(&["GET", "http://shop.test:8080/api/x", "-H", "X-Key: 1"]);
    for word in ["shop.test/api/", "api", "127.0.0.1:9002", "header_check"] {
        assert!(passed.contains(word), "{word}: {passed}");
    }
    let refused = explain(&["GET", "http://shop.test:8080/api/x"]);
    assert!(refused.contains("x-key") && refused.contains("403"), "{refused}");
    let missed = explain(&["GET", "http://nobody.test:8080/"]);
    assert!(missed.contains("404") || missed.contains("no route"), "{missed}");
}

#[test]
fn routes_are_listed_by_precedence_and_unreachable_ones_flagged() {
    let text = "hosts: [a.test]\nroutes:\n  - { path: /, respond: 200, name: all }\n  - { path: =/x, respond: 200 }\n  \
                - { path: \"~^/x$\", respond: 201, name: hidden }\n  - { path: \"~/y[0-9]\", respond: 202, name: seen }\n  \
                - { path: /y/, method: GET, respond: 202 }\n";
    let folder = folder(&[("routes.yaml", text)]);
    let (code, out, err) = run(folder.path(), &["routes", "--routes", "routes.yaml"]);
    assert_eq!(code, 0, "{err}");
    let lines: Vec<&str> = out.lines().filter(|line| line.contains("a.test") || line.contains("unreachable")).collect();
    let parts = ["a.test =/x", "a.test ~/y[0-9]", "a.test ~^/x$", "unreachable: a.test=/x", "a.test /y/", "a.test / "];
    assert!(lines.len() == parts.len() && lines.iter().zip(parts).all(|(line, part)| line.contains(part)), "{out}");
}

#[test]
fn the_schemas_that_are_printed_are_the_committed_ones() {
    let folder = folder(&[]);
    let committed = |kind: &str| {
        std::fs::read_to_string(format!("{}/config/{kind}.schema.json", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let mut both = serde_json::Map::new();
    for kind in ["install", "routes"] {
        let (code, out, err) = run(folder.path(), &["schema", kind]);
        assert_eq!((code, err.as_str()), (0, ""), "{kind}");
        assert!(out == committed(kind), "{kind}: not what stands in config/");
        both.insert(kind.to_owned(), serde_json::from_str(&out).unwrap());
    }
    let (code, out, _) = run(folder.path(), &["schema"]);
    assert_eq!((code, serde_json::from_str::<Value>(&out).unwrap()), (0, Value::Object(both)));
    assert_eq!(run(folder.path(), &["schema", "nonsense"]).0, 2);
}

#[test]
fn version_help_completions_and_man_page_are_there() {
    let folder = folder(&[]);
    let (code, out, _) = run(folder.path(), &["version"]);
    assert!(code == 0 && out.contains(env!("CARGO_PKG_VERSION")), "{out}");
    let (code, help, _) = run(folder.path(), &["--help"]);
    assert_eq!(code, 0);
    for command in ["run", "demo", "check", "explain", "routes", "schema", "version"] {
        assert!(help.contains(command), "{command}: {help}");
    }
    assert_eq!(run(folder.path(), &["nonsense"]).0, 2);
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, _) = run(folder.path(), &["completions", shell]);
        assert!(code == 0 && out.contains("tidegate") && out.contains("explain"), "{shell}");
    }
    let (code, page, _) = run(folder.path(), &["man"]);
    assert!(code == 0 && page.contains(".TH") && page.contains("explain"), "{page}");
}

#[tokio::test]
async fn one_routes_file_is_enough_for_a_first_use() {
    let folder = folder(&[("routes.yaml", "\"*/\": { respond: { body: first } }\n")]);
    let log = folder.path().join("log");
    let mut child = tokio::process::Command::from(tidegate())
        .args(["run", "--routes", "routes.yaml", "--http", "127.0.0.1:0", "--https", "127.0.0.1:0"])
        .args(["--admin", "127.0.0.1:0", "--workers", "1"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let answered = until("a first answer", || async {
        let text = std::fs::read_to_string(&log).unwrap();
        for address in text.split(|c: char| !c.is_ascii_digit() && c != '.' && c != ':') {
            if let Ok(address) = address.parse::<std::net::SocketAddr>()
                && address.port() != 0
            {
                let response = crate::harness::client::Client::connect(address).await.get("localhost", "/").await;
                if response.body == b"first" {
                    return Some(());
                }
            }
        }
        None
    });
    answered.await;
    child.kill().await.unwrap();
}

#[tokio::test]
async fn flags_alone_give_https_with_the_certificates_they_name() {
    let authority = Authority::new("tests");
    let (shop, desk) = (authority.issue(&["shop.test"]), authority.issue(&["desk.test"]));
    let setup = routes("\"*/\": { respond: { body: secure } }\n");
    let files = [("s.pem", &shop.chain), ("s.key", &shop.key), ("d.pem", &desk.chain), ("d.key", &desk.key)];
    let setup = files.into_iter().fold(setup, |setup, (name, text)| setup.file(name, text));
    let flags = ["--certificate", "shop=s.pem,s.key", "--certificate", "desk=d.pem,d.key"];
    let proxy = setup.spawn_by_flags(&flags).await;
    let https = until("the listeners", || async {
        (proxy.admin_get("/readyz").await.status() == 200).then_some(())?;
        Some(proxy.https().await)
    })
    .await;
    for host in ["shop.test", "desk.test"] {
        let mut client = Client::tls(https, &authority.client(&["http/1.1"]), host).await;
        assert_eq!(client.get(host, "/").await.text(), "secure", "{host}");
    }
}

#[tokio::test]
async fn the_demonstration_does_what_it_prints() {
    let folder = folder(&[]);
    let log = folder.path().join("log");
    let demo = folder.path().join("demo");
    let mut child = tokio::process::Command::from(tidegate())
        .args(["demo", "--folder", demo.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let text = until("the commands to try", || async {
        Some(std::fs::read_to_string(&log).unwrap()).filter(|text| text.contains("Ctrl-C"))
    })
    .await;
    let commands: Vec<&str> =
        text.lines().map(str::trim).filter(|l| l.starts_with("curl") || l.starts_with("for ")).collect();
    assert_eq!(commands.len(), 5, "{text}");
    let mut answers = Vec::new();
    for command in &commands {
        let output = tokio::process::Command::new("sh").args(["-c", command]).kill_on_drop(true).output();
        let output = within(command, output).await.unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        answers.push(String::from_utf8(output.stdout).unwrap());
    }
    for (answer, part) in answers.iter().zip(["v1", "v2", " 403 ", "v1", "v1"]) {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    let routes = std::fs::read_to_string(demo.join("routes.yaml")).unwrap();
    std::fs::write(demo.join("routes.yaml"), routes.replacen("shop/v1 ", "shop/v2 ", 1)).unwrap();
    until("the edit to serve", || async {
        let output = tokio::process::Command::new("sh").args(["-c", commands[0]]).kill_on_drop(true).output();
        String::from_utf8(output.await.unwrap().stdout).unwrap().contains("v2").then_some(())
    })
    .await;
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(within("the end", child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn a_running_proxy_is_asked_by_its_admin_address() {
    let proxy = crate::harness::proxy::routes(SHOP).start().await;
    let admin = proxy.admin.to_string();
    let ask = async |arguments: &[&str]| {
        let output = tokio::process::Command::from(tidegate()).args(arguments).output();
        let output = within("the command", output).await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let url = format!("http://shop.test:{}/api/x", proxy.http().await.port());
    let explained = ask(&["explain", "--admin", &admin, "GET", &url, "-H", "X-Key: 1"]).await;
    assert!(explained.contains("shop.test/api/") && explained.contains("127.0.0.1:9002"), "{explained}");
    let listed = ask(&["routes", "--admin", &admin]).await;
    assert!(listed.contains("shop.test/api/") && listed.contains("web"), "{listed}");
}
