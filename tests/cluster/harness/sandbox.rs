//! How does everything vanish, however a run ends?
//!
//! The tests run as process 1 of a process namespace, with mounts and a network of their own. The kernel ends every process of
//! it with process 1, and takes the namespaces away with the last process. `setpriv` and `unshare` hand the end of this process
//! on: whoever kills it, even by SIGKILL, ends it all.

use super::control_plane;
use super::process::run;
use super::{ROLE, network};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// A folder of the sandbox alone, in memory: certificates, data and logs of the cluster.
pub const FOLDER: &str = "/run/tidegate";

/// What is missing on this machine, and what brings it.
pub fn missing() -> Result<(), String> {
    let programs = ["setpriv", "unshare", "nsenter", "ip", "mount"];
    let search = network::search();
    let there = |program: &&str| std::env::split_paths(&search).any(|folder| folder.join(program).is_file());
    if let Some(program) = programs.iter().find(|program| !there(program)) {
        return Err(format!("{program} is missing; `make prerequisites` installs it or says how"));
    }
    control_plane::programs().map(drop)
}

/// Runs this program once more in a sandbox, in another role, and waits for its end.
pub fn enter(role: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match runtime.block_on(supervise(command(role))) {
        Ok(Some(status)) => {
            status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Ok(None) => {
            eprintln!("\ncluster: stopped, everything is removed");
            ExitCode::from(130)
        }
        Err(why) => {
            eprintln!("cluster: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The command that starts it.
pub fn command(role: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]);
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(std::env::current_exe().unwrap()).args(std::env::args_os().skip(1));
    command.env(ROLE, role).env("PATH", network::search());
    command
}

/// Waits for the end of a sandbox, or ends it on a signal: then there is no exit status.
pub async fn supervise(command: Command) -> Result<Option<ExitStatus>, String> {
    let mut child =
        tokio::process::Command::from(command).spawn().map_err(|e| format!("setpriv does not start: {e}"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let mut hangup = signal(SignalKind::hangup()).map_err(|e| e.to_string())?;
    tokio::select! {
        ended = child.wait() => return ended.map(Some).map_err(|e| e.to_string()),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    let first = child.id().and_then(only_child);
    child.kill().await.map_err(|e| e.to_string())?;
    if let Some(first) = first {
        gone(first).await;
    }
    Ok(None)
}

/// The one child of a process: process 1 of the sandbox, by its number outside.
fn only_child(pid: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// Waits until the kernel has ended all processes of a sandbox: its process 1 stays until the last is gone.
async fn gone(first: u32) {
    let start = Instant::now();
    while !ended(first) && start.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether a process is no more, or a zombie that nobody has asked after.
pub fn ended(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with(['Z', 'X']))
}

/// Inside: a `/run` of its own. Namespaces by name, service accounts and all that is written stand there.
pub fn furnish() -> Result<PathBuf, String> {
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "mode=755", "tidegate", "/run"]), "")?;
    let folder = Path::new(FOLDER);
    for path in [folder, Path::new("/run/netns"), Path::new("/run/secrets/kubernetes.io/serviceaccount")] {
        std::fs::create_dir_all(path).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(folder.into())
}

/// A sandbox with a network and a control plane that runs no test; for the test of its end.
pub fn idle() -> ExitCode {
    let started = super::cluster::Cluster::start();
    match started {
        Ok(_cluster) => {
            println!("started");
            loop {
                std::thread::park();
            }
        }
        Err(why) => {
            println!("failed: {why}");
            ExitCode::FAILURE
        }
    }
}
