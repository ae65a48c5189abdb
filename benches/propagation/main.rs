//! How long from a change at the API server to the first answer that shows it, and how much memory does a large cluster take?
//!
//! Everything is real: etcd and an API server, a gate on a node of its own, requests over the wire. Runs in a sandbox of its own
//! network and processes; nothing is left behind. `cargo bench --bench propagation [-- --quick] [PART...]`
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark that cannot go on says where"
)]
#![allow(unreachable_pub, dead_code, reason = "the cluster of the tests is used in parts")]

#[path = "../../tests/cluster/harness/mod.rs"]
mod harness;

mod change;
mod scale;
mod watcher;

use harness::cluster::Cluster;
use harness::test::Test;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    /// Changes of each kind.
    pub changes: usize,
    /// Of routes, of Ingresses with a Service each.
    pub objects: usize,
    /// EndpointSlices of a hundred endpoints.
    pub slices: usize,
}

const FULL: Effort = Effort { changes: 300, objects: 5000, slices: 1000 };
const QUICK: Effort = Effort { changes: 20, objects: 200, slices: 20 };

const PARTS: [&str; 5] = ["change", "routes", "ingresses", "endpoints", "routed"];

fn main() -> ExitCode {
    // Fails when it was done already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let quick = words.iter().any(|word| word == "--quick");
    let asked: Vec<&str> = words.iter().map(String::as_str).filter(|word| *word != "--quick").collect();
    if let Some(unknown) = asked.iter().find(|word| !PARTS.contains(word)) {
        eprintln!("propagation: no part {unknown:?}; there are {}", PARTS.join(", "));
        return ExitCode::FAILURE;
    }
    let parts: Vec<&str> = PARTS.into_iter().filter(|part| asked.is_empty() || asked.contains(part)).collect();
    let &[part] = parts.as_slice() else { return each_alone(&parts, quick) };
    if std::env::var("TIDEGATE_CLUSTER_ROLE").is_err() {
        if let Err(why) = harness::sandbox::missing() {
            eprintln!("propagation: {why}");
            return ExitCode::FAILURE;
        }
        return harness::sandbox::enter("suite");
    }
    let cluster = match Cluster::start() {
        Ok(cluster) => Arc::new(cluster),
        Err(why) => {
            eprintln!("propagation: the cluster does not start: {why}");
            return ExitCode::FAILURE;
        }
    };
    eprintln!("{part} ...");
    run(part, &cluster, if quick { QUICK } else { FULL });
    ExitCode::SUCCESS
}

/// Each part has a cluster of its own: an API server that still deletes the objects of the part before is slow, and a gate that knew them
/// keeps their memory.
fn each_alone(parts: &[&str], quick: bool) -> ExitCode {
    for part in parts {
        let mut alone = Command::new(std::env::current_exe().unwrap());
        alone.arg(part).args(quick.then_some("--quick"));
        if !alone.status().unwrap().success() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn run(part: &str, cluster: &Arc<Cluster>, effort: Effort) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let test = Test::new(part, Arc::clone(cluster)).await.unwrap();
        match part {
            "change" => change::measure(&test, effort).await,
            "routes" => scale::routes(&test, effort).await,
            "ingresses" => scale::ingresses(&test, effort).await,
            "endpoints" => scale::endpoints(&test, effort).await,
            _ => scale::routed(&test, effort).await,
        }
        test.clean().await;
    });
}

/// Median and 99th percentile in milliseconds, as cells of a table.
pub fn cells(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_secs_f64() * 1e3;
    format!("{:.1} | {:.1}", at(0.5), at(0.99))
}
