//! What would serve, without serving it?

use super::ConfigArgs;
use crate::model::{Fragment, Problem};
use crate::snapshot::{Snapshot, compile};
use crate::source::{merge, read_files};
use crate::telemetry::metrics::Registry;
use std::process::ExitCode;
use std::sync::Arc;

/// Reads all files of a configuration and compiles them, as a start would. Problems are told on standard error; only what
/// keeps the install configuration itself from being read ends the command.
pub(super) fn snapshot(args: &ConfigArgs) -> Result<Snapshot, ExitCode> {
    let config = args.load(None, false).map_err(|problems| {
        super::tell(&problems);
        super::fail("the configuration is wrong")
    })?;
    let (mut fragment, problems) = read_files(config.routes, &config.certificates);
    fragment.listeners = config.listeners;
    fragment.tls.extend(config.tls);
    let (snapshot, problems) = compiled(fragment, problems);
    super::tell(&problems);
    Ok(snapshot)
}

fn compiled(fragment: Fragment, mut problems: Vec<Problem>) -> (Snapshot, Vec<Problem>) {
    let (model, conflicts) = merge(&[Arc::new(fragment.into())]);
    // Nothing is counted here: the overflow series of each family is enough.
    let (snapshot, refused) = compile(&model, &Snapshot::default(), &Registry::new(1, 0));
    problems.extend(conflicts);
    problems.extend(refused);
    problems.sort();
    problems.dedup();
    (snapshot, problems)
}
