//! Is the proxy that runs ready, or at least alive?
//!
//! An image made from nothing has no shell and no curl, and a probe by port cannot tell two gates on one machine apart.

use super::ask::ask_whether;
use crate::config::process::ADMIN_ADDRESS;
use std::io::{self, Write};
use std::process::ExitCode;

/// Flags of `ready`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Exit code: 0 yes, 1 no, 2 no answer.

Examples:
  tidegate ready
  tidegate ready --admin unix:/run/tidegate/admin.sock
  tidegate ready --alive")]
pub(super) struct ReadyArgs {
    /// Admin address of the proxy, or unix:PATH of its admin socket
    #[arg(long, value_name = "ADDR", default_value = ADMIN_ADDRESS)]
    admin: String,
    /// Ask only whether it answers: a proxy that waits for its configuration is alive
    #[arg(long)]
    alive: bool,
}

/// Prints the answer.
pub(super) fn ready(args: &ReadyArgs, out: &mut dyn Write) -> io::Result<ExitCode> {
    let page = if args.alive { "/healthz" } else { "/readyz" };
    let (answer, code) = match ask_whether(&args.admin, page) {
        Ok(Ok(yes)) => (yes, ExitCode::SUCCESS),
        Ok(Err(reasons)) => (format!("not ready: {}", reasons.replace('\n', ", ")), ExitCode::from(super::FAILED)),
        Err(code) => return Ok(code),
    };
    writeln!(out, "{}", answer.trim_end()).map(|()| code)
}
