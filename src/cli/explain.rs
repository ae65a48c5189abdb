//! What would become of a request?

use super::{ConfigArgs, Format};
use std::io::{self, Write};
use std::process::ExitCode;

/// Flags of `explain`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate explain GET http://shop.example.com/api/
  tidegate explain --config gate.yaml POST https://desk.example.com/api/ -H 'x-api-key: 0123'
  tidegate explain --admin 127.0.0.1:9901 GET http://shop.example.com/   as the running proxy sees it")]
pub struct ExplainArgs {
    /// Configuration to read
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Ask the running proxy at this admin address instead of reading files
    #[arg(long, value_name = "ADDR", conflicts_with = "config")]
    pub admin: Option<String>,
    /// Method of the request
    pub method: String,
    /// URL of the request
    pub url: String,
    /// A header of the request; may be repeated
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    pub headers: Vec<String>,
    /// Address that the request comes from; default: 127.0.0.1
    #[arg(long, value_name = "IP")]
    pub source: Option<String>,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Prints the answer.
pub(super) fn explain(_: &ExplainArgs, _: &mut dyn Write) -> io::Result<ExitCode> {
    Ok(super::fail("this version cannot explain yet"))
}
