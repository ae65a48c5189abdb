//! Does Tidegate do its job in a real cluster? A control plane, nodes that are network namespaces, and a gate on them.
//!
//! A file with scenarios is a `mod` line and a line of [`SCENARIOS`].
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that fails should fail where it stands; the cluster to play with tells how"
)]
#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod harness;

mod audit;
mod conformance;
mod deploy;
mod endpoints;
mod external;
mod foundation;
mod install;
mod leader;
mod outages;
mod play;
mod protocols;
mod rbac;
mod routes;
mod secrets;
mod sources;
mod status;

use harness::suite::Scenarios;

const SCENARIOS: &[Scenarios] = &[
    ("audit", audit::CASES),
    ("conformance", conformance::CASES),
    ("deploy", deploy::CASES),
    ("endpoints", endpoints::CASES),
    ("external", external::CASES),
    ("foundation", foundation::CASES),
    ("install", install::CASES),
    ("leader", leader::CASES),
    ("outages", outages::CASES),
    ("play", play::CASES),
    ("protocols", protocols::CASES),
    ("rbac", rbac::CASES),
    ("routes", routes::CASES),
    ("secrets", secrets::CASES),
    ("sources", sources::CASES),
    ("status", status::CASES),
];

fn main() -> std::process::ExitCode {
    harness::main(SCENARIOS)
}
