//! Does `make cluster` show a newcomer what it prints, and does Ctrl-C remove all of it?

use super::foundation::processes;
use crate::alone;
use crate::harness::suite::Case;
use crate::harness::test::Test;
use crate::harness::{AGES, LONG, ROLE, eventually, holds, sandbox};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

pub const CASES: &[Case] = &[alone!(every_line_that_make_cluster_prints_works_and_ctrl_c_leaves_nothing_behind)];

/// What the recipe runs; its first line builds the control plane, without which no test is here.
const RECIPE: &str = "TIDEGATE_CLUSTER_ROLE=stay cargo test --locked --test cluster";

async fn every_line_that_make_cluster_prints_works_and_ctrl_c_leaves_nothing_behind(_test: Test) {
    assert!(include_str!("../../Makefile").contains(RECIPE), "make cluster is something else");
    let before = processes();
    let mut cluster = Playground::start();
    assert!(cluster.folder.join("kubeconfig").is_file(), "{}", cluster.folder.display());
    let started: BTreeSet<u32> = processes().difference(&before).copied().collect();
    assert!(started.len() > 10, "a control plane and three gates: {started:?}");

    let curl = cluster.line("curl -H 'Host: shop.example.com'");
    assert!(cluster.run(&curl).contains("\"address\":\"10.244."), "a pod answers");
    let edit = cluster.line("kubectl edit configmap");
    for line in cluster.lines.iter().filter(|line| **line != edit && !line.starts_with("export ")) {
        assert!(!cluster.run(line).is_empty(), "{line} says nothing");
    }
    cluster.run(&edit);
    // `kubectl edit` is back before the gate has heard of it.
    let edited = curl.replacen("/  ", "/edited  ", 1);
    assert_ne!(edited, curl);
    eventually(LONG, || async { cluster.try_run(&edited) }).await;
    eventually(LONG, || async { holds(cluster.try_run(&curl).is_err(), || "its old path is still served".into()) })
        .await;
    cluster.interrupt().await;
    assert!(!cluster.folder.exists(), "{} is left", cluster.folder.display());
    eventually(LONG, || async {
        let left: Vec<_> = started.iter().filter(|pid| !sandbox::ended(**pid)).collect();
        holds(left.is_empty(), || format!("still there: {left:?}"))
    })
    .await;
    let port = curl.rsplit("127.0.0.1:").next().and_then(|rest| rest.split('/').next()?.parse().ok()).unwrap();
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err(), "somebody still listens on {port}");
}

/// `make cluster`, as it stands on somebody's screen.
struct Playground {
    child: Child,
    /// The lines to type.
    lines: Vec<String>,
    folder: PathBuf,
}

impl Playground {
    /// Starts it and reads until it waits for Ctrl-C.
    fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        // Of a group of its own, as a shell would start it: Ctrl-C reaches all of the group.
        command.env(ROLE, "stay").stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let (say, said) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
        let (mut all, start) = (Vec::new(), Instant::now());
        while all.last().is_none_or(|line| line != "Ctrl-C removes everything.") {
            let rest = AGES.saturating_sub(start.elapsed());
            all.push(said.recv_timeout(rest).unwrap_or_else(|why| panic!("{why} after {}", all.join("\n"))));
        }
        assert!(!all.iter().any(|line| line.contains("failed") || line.contains("not ready")), "{}", all.join("\n"));
        let typed = |line: &String| line.starts_with("  ") && !line.contains(" ... ");
        let lines: Vec<String> = all.iter().filter(|line| typed(line)).map(|line| line.trim().to_owned()).collect();
        let kubeconfig = lines.iter().find_map(|line| line.strip_prefix("export KUBECONFIG=")).unwrap();
        let folder = Path::new(kubeconfig).parent().unwrap().into();
        Self { child, lines, folder }
    }

    /// The line that begins so.
    fn line(&self, begin: &str) -> String {
        let found = self.lines.iter().find(|line| line.starts_with(begin));
        found.unwrap_or_else(|| panic!("no line {begin:?}: {:#?}", self.lines)).clone()
    }

    /// What a line prints that is typed into a shell, after those that set it up.
    fn run(&self, line: &str) -> String {
        self.try_run(line).unwrap_or_else(|why| panic!("{line}: {why}"))
    }

    /// The same; what is no success is the error.
    fn try_run(&self, line: &str) -> Result<String, String> {
        let exports: Vec<&str> = self.lines.iter().map(String::as_str).filter(|l| l.starts_with("export ")).collect();
        let line = line.replacen("curl ", "curl --fail ", 1);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(format!("{}\n{line}", exports.join("\n"))).stdin(Stdio::null());
        // Stands in for a person in `kubectl edit`, who changes the path.
        shell.env("KUBE_EDITOR", "sed -i 's|- path: /$|- path: /edited|'");
        shell.env("KUBECACHEDIR", self.folder.join("kubectl-cache"));
        let output = shell.output().map_err(|error| error.to_string())?;
        // The audit finds something in this cluster, which is what there is to see.
        let found = line.ends_with("tidegate audit") && output.status.code() == Some(1);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() || found {
            Ok(said)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Ctrl-C, and the end of it.
    async fn interrupt(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).unwrap();
        kill_process_group(group, Signal::INT).unwrap();
        let child = &mut self.child;
        let start = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(start.elapsed() < LONG, "it still runs"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        };
        assert!(status.success(), "{status}");
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        // Where a test failed before its end; everything of it ends with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
