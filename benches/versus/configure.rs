//! How is each peer configured for the same work?
//!
//! The configurations are the templates in `peers/`; what grows with the number of hosts is made here.

use crate::net;
use crate::peer::{Kind, Peer, Work, host};
use crate::tls::Identity;
use std::fs::{self, File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is put into a template.
pub struct Places<'a> {
    /// Folder of this peer alone.
    pub dir: &'a Path,
    /// Its access log.
    pub log: &'a Path,
    /// Cleartext.
    pub http: SocketAddr,
    /// TLS.
    pub https: SocketAddr,
    /// Metrics.
    pub admin: SocketAddr,
    /// The upstream.
    pub upstream: SocketAddr,
}

impl Places<'_> {
    fn write(&self, name: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.dir.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display())).map(|()| path)
    }
}

/// Writes a peer's configuration, and says how it is run.
pub fn command(peer: &Peer, work: Work, identity: &Identity, at: &Places<'_>) -> Result<Command, String> {
    if work.tls {
        at.write("chain.pem", &identity.chain)?;
        at.write("key.pem", &identity.key)?;
        at.write("all.pem", &format!("{}{}", identity.chain, identity.key))?;
    }
    let mut command = net::command(&peer.program);
    command.current_dir(at.dir).stderr(create(&at.dir.join("stderr"))?).stdout(Stdio::null());
    // What Go calls the number of its workers.
    command.env("GOMAXPROCS", work.workers.to_string());
    match peer.kind {
        Kind::Direct | Kind::Floor => {
            command.args(["--role", "relay", "--listen", &at.http.to_string(), "--to", &at.upstream.to_string()]);
        }
        Kind::Tidegate => tidegate(&mut command, work, at)?,
        Kind::Haproxy => {
            at.write("hosts.map", &hosts(work, |host| format!("{host} app\n")))?;
            let config = at.write("haproxy.cfg", &fill(include_str!("peers/haproxy.cfg"), work, at))?;
            command.arg("-db").arg("-f").arg(config).stdout(create(at.log)?);
        }
        Kind::Nginx => {
            at.write("names.conf", &hosts(work, |host| format!("server_name {host};\n")))?;
            let config = at.write("nginx.conf", &fill(include_str!("peers/nginx.conf"), work, at))?;
            command.arg("-p").arg(at.dir).arg("-c").arg(config);
        }
        Kind::Envoy => envoy(&mut command, work, at)?,
        Kind::Traefik => traefik(&mut command, work, at)?,
        Kind::Caddy => {
            at.write("hosts.caddy", &format!("@known host{}\n", hosts(work, |host| format!(" {host}"))))?;
            let config = at.write("Caddyfile", &fill(include_str!("peers/Caddyfile"), work, at))?;
            // Else it keeps things in the home of whoever runs this.
            command.env("HOME", at.dir).env("XDG_DATA_HOME", at.dir).env("XDG_CONFIG_HOME", at.dir);
            command.args(["run", "--adapter", "caddyfile", "--config"]).arg(config);
        }
    }
    Ok(command)
}

fn tidegate(command: &mut Command, work: Work, at: &Places<'_>) -> Result<(), String> {
    let every = "\"*/\": app\n".to_owned();
    let routes = if work.full { hosts(work, |host| format!("{host}/: app\n")) } else { every };
    let clusters = format!("---\nclusters:\n  app: {{ endpoints: [\"{}\"] }}\n", at.upstream);
    at.write("routes.yaml", &(routes + &clusters))?;
    let config = at.write("tidegate.yaml", &fill(include_str!("peers/tidegate.yaml"), work, at))?;
    command.arg("run").arg("--config").arg(config);
    Ok(())
}

/// A virtual host for each host.
fn envoy(command: &mut Command, work: Work, at: &Places<'_>) -> Result<(), String> {
    let to_app = "routes: [{ match: { prefix: / }, route: { cluster: app, timeout: 0s } }]";
    let one = |name: &str| format!("  - {{ name: \"{name}\", domains: [\"{name}\"], {to_app} }}\n");
    let all = if work.full { hosts(work, |host| one(&host)) } else { one("*") };
    at.write("routes.yaml", &(fill(include_str!("peers/envoy-routes.yaml"), work, at) + &all))?;
    let config = at.write("envoy.yaml", &fill(include_str!("peers/envoy.yaml"), work, at))?;
    command.arg("-c").arg(config).args(["--disable-hot-restart", "-l", "error"]);
    command.args(["--concurrency", &work.workers.to_string()]);
    Ok(())
}

/// A router for each host, as its providers make one for each Ingress and each label.
fn traefik(command: &mut Command, work: Work, at: &Places<'_>) -> Result<(), String> {
    let one = |name: &str, rule: &str, more: &str| format!("    {name}: {{ rule: \"{rule}\", service: app{more} }}\n");
    let router = |host: String| {
        let (name, rule) = (host.replace('.', "-"), format!("Host(`{host}`)"));
        let secure = if work.tls {
            one(&format!("{name}-tls"), &rule, ", entryPoints: [https], tls: {}")
        } else {
            String::new()
        };
        one(&name, &rule, ", entryPoints: [http]") + &secure
    };
    let all = if work.full { hosts(work, router) } else { one("all", "PathPrefix(`/`)", "") };
    let text = fill(include_str!("peers/traefik-routes.yaml"), work, at);
    at.write("routes.yaml", &text.replace("{{routers}}", &all))?;
    let config = at.write("traefik.yaml", &fill(include_str!("peers/traefik.yaml"), work, at))?;
    command.arg(format!("--configFile={}", config.display()));
    Ok(())
}

fn hosts(work: Work, line: impl Fn(String) -> String) -> String {
    (0..work.hosts).map(|number| line(host(number))).collect()
}

fn create(path: &Path) -> Result<File, String> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|error| format!("{}: {error}", path.display()))
}

/// Keeps the lines that this work asks for and puts the places in.
fn fill(template: &str, work: Work, at: &Places<'_>) -> String {
    let wanted = |word: &str| match word {
        "@full" => work.full,
        "@bare" => !work.full,
        "@tls" => work.tls,
        "@bulk" => work.bulk,
        "@lean" => !work.bulk,
        other => panic!("a template asks for {other}"),
    };
    let keep = |mut line| {
        while let Some((word, rest)) = str::split_once(line, ' ').filter(|(word, _)| word.starts_with('@')) {
            line = wanted(word).then_some(rest)?;
        }
        Some(line)
    };
    let text: Vec<_> = template.lines().filter_map(keep).collect();
    text.join("\n")
        .replace("{{dir}}", &at.dir.display().to_string())
        .replace("{{log}}", &at.log.display().to_string())
        .replace("{{http}}", &at.http.to_string())
        .replace("{{https}}", &at.https.to_string())
        .replace("{{admin}}", &at.admin.to_string())
        .replace("{{upstream}}", &at.upstream.to_string())
        .replace("{{workers}}", &work.workers.to_string())
        .replace("{{http_port}}", &at.http.port().to_string())
        .replace("{{https_port}}", &at.https.port().to_string())
        .replace("{{admin_port}}", &at.admin.port().to_string())
        .replace("{{upstream_port}}", &at.upstream.port().to_string())
        + "\n"
}
