//! Is whatever nginx refuses refused here, too, and how much is refused here alone?

use crate::cases;
use crate::gate::{self, Outcome};
use crate::mutate::mutated;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(15);

/// nginx with its defaults as a reverse proxy before a server of its own, which answers 200.
struct Nginx {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Nginx {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().display().to_string();
        loop {
            // nginx cannot be given port 0. Where another process takes the port in between, the next one is tried.
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let config = format!(
                "daemon off; master_process off; pid {root}/pid; error_log {root}/error.log;\n\
                 events {{ worker_connections 64; }}\n\
                 http {{ access_log off; proxy_ignore_client_abort on; client_body_temp_path {root}; proxy_temp_path {root}; fastcgi_temp_path {root};\n\
                 uwsgi_temp_path {root}; scgi_temp_path {root};\n\
                 server {{ listen unix:{root}/up; location / {{ return 200 ok; }} }}\n\
                 server {{ listen {address}; location / {{ proxy_pass http://unix:{root}/up:; }} }} }}\n"
            );
            std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
            let mut child = run(folder.path());
            let deadline = Instant::now() + LONG;
            while Instant::now() < deadline {
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                if TcpStream::connect(address).is_ok() {
                    return Self { child, address, _folder: folder };
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
            let log = std::fs::read_to_string(folder.path().join("error.log")).unwrap_or_default();
            assert!(log.contains("Address already in use"), "nginx: {log}");
        }
    }

    /// The status of the first answer; `None` where the connection ends without one.
    fn status(&self, bytes: &[u8]) -> Option<u16> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        // It may answer and close before it has read everything.
        let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("reading from nginx: {error}"),
        }
        // What is no version to it is answered as HTTP/0.9: by the page alone.
        let text = String::from_utf8_lossy(&answer);
        let at = text.strip_prefix("HTTP/1.1 ").or_else(|| text.strip_prefix("<html>\r\n<head><title>"))?;
        at.get(..3)?.parse().ok()
    }
}

fn run(folder: &Path) -> Child {
    let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "nginx"].into_iter().find(|p| Path::new(p).exists());
    Command::new(program.unwrap_or("nginx"))
        .args(["-p", folder.to_str().unwrap(), "-c", "nginx.conf", "-e", "stderr"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nginx is installed")
}

/// The seeds, and the same few hundred inputs made of them in each run.
fn inputs() -> Vec<Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    let strategy = mutated(cases::requests());
    let made = (0..600).map(|_| strategy.new_tree(&mut runner).unwrap().current());
    cases::requests().iter().cloned().chain(made).collect()
}

/// What nginx refuses for a reason that is its own: a method of other letters than `A` to `Z`, `_` and `-`, which HTTP allows.
fn is_its_own_rule(bytes: &[u8]) -> bool {
    let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let method = line.split(|b| *b == b' ').next().unwrap_or_default();
    !method.iter().all(|b| b.is_ascii_uppercase() || matches!(b, b'_' | b'-'))
}

#[test]
fn what_nginx_refuses_is_refused_and_far_more() {
    let nginx = Nginx::start();
    let (mut both, mut stricter, mut passed) = (0, 0, 0);
    for bytes in inputs() {
        let ours = gate::request(&[&bytes]).0;
        let theirs = nginx.status(&bytes);
        let shown = bytes.escape_ascii();
        match (&ours, theirs) {
            (Outcome::Passed { .. }, Some(400..=599)) => assert!(is_its_own_rule(&bytes), "{theirs:?}: {shown}"),
            (Outcome::Refused(..), Some(400..=599)) => both += 1,
            (Outcome::Refused(..), Some(200)) => stricter += 1,
            (Outcome::Passed { .. }, Some(200)) => passed += 1,
            _ => {}
        }
    }
    assert!(
        both > 100 && stricter > 50 && passed > 40,
        "refused by both {both}, here alone {stricter}, by neither {passed}"
    );
}
