//! What do scenarios stand on?
//!
//! ```text
//! main ─► sandbox: unshare (network, mounts, processes) ─► suite: all tests, in threads ─► Test ─► gate, pods, kubectl ...
//!                                                             └─► Cluster: network, control plane, nodes; started once
//! ```
//!
//! Everything that is started lives and dies with the process that `unshare` runs: however a run ends, no process, no
//! namespace and no file of it is left. [`stay`] is the same cluster without tests, for a person: [`wire`] leads out of it.
#![allow(dead_code, reason = "scenarios take from it what they need")]

pub mod audit;
pub mod cluster;
pub mod control_plane;
pub mod dns;
pub mod echo;
pub mod gate;
pub mod http;
pub mod network;
pub mod objects;
pub mod pki;
pub mod process;
pub mod sandbox;
pub mod speak;
pub mod stay;
pub mod suite;
pub mod test;
pub mod traffic;
pub mod wire;

use std::future::Future;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What this process is to be, set by the one that started it.
pub const ROLE: &str = "TIDEGATE_CLUSTER_ROLE";

/// The test binary, whichever of its roles it was started in.
pub fn main(scenarios: &[suite::Scenarios]) -> ExitCode {
    // Fails when it was done already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match std::env::var(ROLE).as_deref() {
        Ok("suite") => suite::run(scenarios),
        Ok("idle") => sandbox::idle(),
        Ok("stay") => stay::outside(),
        Ok(stay::INSIDE) => stay::inside(),
        _ => suite::outside(scenarios),
    }
}

/// Asks until the answer is `Ok`; a failed test after `limit`, with the last reason why not.
#[track_caller]
pub fn eventually<T, F>(limit: Duration, mut ask: impl FnMut() -> F) -> impl Future<Output = T>
where
    F: Future<Output = Result<T, String>>,
{
    let place = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        loop {
            match tokio::time::timeout(limit, ask()).await {
                Ok(Ok(found)) => return found,
                Ok(Err(why)) if start.elapsed() > limit => panic!("not within {limit:?} ({place}): {why}"),
                Ok(Err(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                Err(_) => panic!("not within {limit:?} ({place}): no answer at all"),
            }
        }
    }
}

/// `Ok` when this holds; a text for [`eventually`] otherwise.
pub fn holds(condition: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(why()) }
}

/// For what takes milliseconds.
pub const SOON: Duration = Duration::from_secs(5);
/// For what other programs do at their own pace.
pub const LONG: Duration = Duration::from_secs(30);
/// For what the cluster's own programs do: they may first have to find an API server again, which they try every half minute.
pub const AGES: Duration = Duration::from_secs(120);
