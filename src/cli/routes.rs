//! Which routes are there, in the order in which they are tried?

use super::{ConfigArgs, Format};
use std::io::{self, Write};
use std::process::ExitCode;

/// Flags of `routes`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate routes
  tidegate routes --config gate.yaml --format json
  tidegate routes --admin 127.0.0.1:9901    what the running proxy serves")]
pub struct RoutesArgs {
    /// Configuration to read
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Ask the running proxy at this admin address instead of reading files
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    pub admin: Option<String>,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Prints the list.
pub(super) fn routes(_: &RoutesArgs, _: &mut dyn Write) -> io::Result<ExitCode> {
    Ok(super::fail("this version cannot list routes yet"))
}
