//! How is the proxy run, for good or as a demonstration?

use super::ConfigArgs;
use crate::config::Config;
use crate::model::Problem;
use std::path::PathBuf;
use std::process::ExitCode;

/// Flags of `run`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate run                                    routes.yaml on :8080
  tidegate run --routes routes/ --http 127.0.0.1:80
  tidegate run --certificate shop=shop.pem,shop.key --https :443
  tidegate run --config /etc/tidegate/gate.yaml

SIGHUP reads routes and certificates again, SIGTERM and Ctrl-C drain.")]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Admin port: an address, or off; default: 127.0.0.1:9901 or what the configuration says
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
}

impl RunArgs {
    /// The configuration to run.
    pub fn load(&self) -> Result<Config, Vec<Problem>> {
        self.config.load(self.admin.as_deref())
    }
}

/// Flags of `demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Folder for the demonstration's files; default: a temporary one, removed at the end
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

/// Runs until a signal ends it.
pub(super) fn run(args: RunArgs) -> ExitCode {
    match args.load() {
        Err(problems) => {
            super::tell(&problems);
            super::fail("the configuration is wrong, nothing was started")
        }
        Ok(_) => super::fail("this version cannot run yet"),
    }
}

/// Runs the demonstration until a signal ends it.
pub(super) fn demo(_: DemoArgs) -> ExitCode {
    super::fail("this version cannot run yet")
}
