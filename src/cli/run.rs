//! How is the proxy run, and what does its end say?

use super::ConfigArgs;
use super::cluster::ClusterArgs;
use crate::app::{self, Ended};
use crate::config::Config;
use crate::model::Problem;
use std::process::ExitCode;

/// Flags of `run`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  tidegate run                                    routes.yaml on :8080
  tidegate run --routes routes/ --http 127.0.0.1:80
  tidegate run --certificate shop=shop.pem,shop.key --https :443
  tidegate run --config /etc/tidegate/gate.yaml
  tidegate run --kubernetes                       routes, Services and certificates of the current kubeconfig
  tidegate run --kubernetes --http :80 --https :443 --namespace edge --node $(hostname)

SIGHUP reads routes, certificates and listeners again, SIGTERM and Ctrl-C drain.")]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Admin port: an address, or off; default: 127.0.0.1:9901 or what the configuration says
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl RunArgs {
    /// The configuration to run.
    pub fn load(&self) -> Result<Config, Vec<Problem>> {
        let mut config = self.config.load(self.admin.as_deref(), self.cluster.kubernetes)?;
        self.cluster.fill(&mut config)?;
        Ok(config)
    }
}

/// Runs until a signal ends it.
pub(super) fn run(args: RunArgs) -> ExitCode {
    match args.load() {
        Err(problems) => {
            super::tell(&problems);
            super::fail("the configuration is wrong, nothing was started")
        }
        Ok(config) => report(app::run(config, |_| {})),
    }
}

/// 0: everything in flight was finished; 1: something was cut; 2: it did not start, or did not run on.
pub(super) fn report(outcome: Result<Ended, app::Error>) -> ExitCode {
    match outcome {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::Cut(_)) => ExitCode::from(super::FAILED),
        Err(error) => {
            let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
            super::fail(&format!("{error}{cause}"))
        }
    }
}
