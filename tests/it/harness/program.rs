//! How does a test run programs of others: to their end, or as servers that must be told their port?

use super::{until, within};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tokio::net::TcpStream;

/// Runs a program to its end: exit code, and what it wrote.
pub async fn output_of(name: &str, arguments: &[&str]) -> (i32, String) {
    let output = tokio::process::Command::new(name).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = within(name, output).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code().unwrap_or(-1), text)
}

/// A server with a folder of its own, on a port that it was given.
pub struct Program {
    child: Child,
    pub address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// `prepare` writes the configuration for a folder and an address, and gives the arguments.
    pub async fn start(name: &str, prepare: impl Fn(&Path, &str) -> Vec<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("output");
        loop {
            // It cannot be given port 0. Another process may take the port in between: then the next one is tried.
            let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
            let arguments = prepare(folder.path(), &address);
            let (out, error) = (File::create(&log).unwrap(), File::options().append(true).open(&log).unwrap());
            let child =
                Command::new(place(name)).args(arguments).stdin(Stdio::null()).stdout(out).stderr(error).spawn();
            let mut child = child.unwrap_or_else(|e| panic!("{name} is not installed: {e}"));
            let ended = until(name, || {
                let ended = child.try_wait().unwrap().is_some();
                let address = address.clone();
                async move { (ended || TcpStream::connect(address).await.is_ok()).then_some(ended) }
            })
            .await;
            if !ended {
                return Self { child, address, _folder: folder };
            }
            let said =
                [log.clone(), folder.path().join("error.log")].map(|p| std::fs::read_to_string(p).unwrap_or_default());
            let taken = ["Address already in use", "cannot bind socket"];
            assert!(taken.iter().any(|words| said.concat().contains(words)), "{name}: {}", said.concat());
        }
    }
}

/// Servers often stand where only root looks.
fn place(name: &str) -> PathBuf {
    let folders = ["/usr/sbin", "/usr/local/sbin"].into_iter().map(|folder| Path::new(folder).join(name));
    folders.into_iter().find(|path| path.exists()).unwrap_or_else(|| name.into())
}
