//! Which commands are there, and who answers each?

mod ask;
pub mod audit;
pub mod check;
pub mod cluster;
pub mod demo;
mod echo;
pub mod explain;
mod manifest;
mod offline;
mod ready;
pub mod routes;
pub mod run;

use crate::config::kubernetes::Settings;
use crate::config::schema::Schema;
use crate::config::{Config, install};
use crate::model::Problem;
use crate::source::grammar;
use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use std::io::{self, Write};
use std::process::ExitCode;

/// Something was wrong with what was looked at.
pub const FAILED: u8 = 1;
/// The command could not do its work; what is wrong is on standard error.
pub const BROKEN: u8 = 2;

const TEACH: &str = "\
A first use needs one routes file:
  printf '/: web\\nclusters: { web: 127.0.0.1:3000 }\\n' > routes.yaml
  tidegate run                              listens on :8080, reads routes.yaml and watches it
  curl http://127.0.0.1:8080/

Then:
  tidegate check routes.yaml                every mistake with line, column and what would be right
  kubectl get cm routes -o yaml | tidegate check -    the same for routes in a ConfigMap
  tidegate explain GET http://shop.example.com/api/   which route takes a request, and why not the others
  tidegate run --config gate.yaml           listeners, certificates, limits: an install configuration
  tidegate run --kubernetes                 routes from the cluster of your kubeconfig, or of the pod it runs in
  tidegate schema routes > routes.schema.json         for editors that complete and validate
  tidegate audit                            which node ports a Kubernetes cluster opens, and what replaces them
  tidegate demo                             everything at once, in a temporary folder";

/// The front door of a bare-metal Kubernetes cluster, and a reverse proxy for anything else.
///
/// Takes HTTP and HTTPS on the machine's own ports, checks headers, routes by host and path, and balances over endpoints.
/// Routes are read from files or from the cluster and changed while running; what serves is never replaced by something that
/// does not compile.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = TEACH, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy
    Run(run::RunArgs),
    /// Show what it does: echo upstreams, certificates, a routes file to edit, and requests to try
    Demo(demo::DemoArgs),
    /// Say what is wrong with configuration files
    Check(check::CheckArgs),
    /// Say what would become of a request
    Explain(explain::ExplainArgs),
    /// List the routes in the order in which they are tried
    Routes(routes::RoutesArgs),
    /// Ask a running proxy whether it is ready, or just alive: the probe of its container
    Ready(ready::ReadyArgs),
    /// List what opens node ports in a Kubernetes cluster, and what replaces each
    Audit(audit::AuditArgs),
    /// Print the JSON Schema of a kind of file
    #[command(after_help = "Editors with the YAML language server take it from a first line such as\n  \
                            # yaml-language-server: $schema=routes.schema.json")]
    Schema {
        /// Which kind of file; default: both, as one object
        kind: Option<SchemaKind>,
    },
    /// Print the version
    Version,
    /// Print completions for a shell
    #[command(after_help = "For example: tidegate completions bash > /etc/bash_completion.d/tidegate")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_help = "For example: tidegate man | man -l -")]
    Man,
}

/// The kinds of file.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SchemaKind {
    /// Listeners, certificates, limits, telemetry: the first two are read again when they change
    Install,
    /// Routes and clusters: read again when they change
    Routes,
}

impl SchemaKind {
    /// The schema.
    pub fn schema(self) -> serde_json::Value {
        match self {
            Self::Install => {
                let doc = "The install configuration of Tidegate: listeners, certificates, limits, telemetry. Listeners and certificates are read again when it changes, all else needs a restart.";
                Schema::of("Tidegate install configuration", doc, &install::root())
            }
            Self::Routes => grammar::schema(),
        }
    }

    /// The schema as it is committed under `config/`.
    pub fn text(self) -> String {
        format!("{:#}\n", self.schema())
    }
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Text,
    /// For programs
    Json,
}

/// What the process was called with, and what became of it.
pub fn main() -> ExitCode {
    answer(Cli::parse())
}

fn answer(cli: Cli) -> ExitCode {
    let mut out = io::stdout().lock();
    let outcome = match cli.command {
        // These two run for long: they must not hold standard output, which the access log may write to.
        Command::Run(args) => {
            drop(out);
            return run::run(args);
        }
        Command::Demo(args) => {
            drop(out);
            return demo::demo(args);
        }
        Command::Check(args) => check::check(&args, &mut out),
        Command::Explain(args) => explain::explain(&args, &mut out),
        Command::Routes(args) => routes::routes(&args, &mut out),
        Command::Ready(args) => ready::ready(&args, &mut out),
        Command::Audit(args) => audit::audit(&args, &mut out),
        Command::Schema { kind } => schema(kind, &mut out),
        Command::Version => version(&mut out),
        Command::Completions { shell } => completions(shell, &mut out),
        Command::Man => manual(&mut out),
    };
    outcome.unwrap_or_else(|error| match error.kind() {
        // `tidegate man | head` is no failure.
        io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        _ => fail(&format!("standard output cannot be written: {error}")),
    })
}

/// Says on standard error why a command could not do its work.
fn fail(why: &str) -> ExitCode {
    // Nothing is left to be told where even standard error is closed.
    let _ = writeln!(io::stderr(), "tidegate: {why}");
    ExitCode::from(BROKEN)
}

/// Prints problems, one a line, on standard error.
fn tell(problems: &[Problem]) {
    let mut out = io::stderr().lock();
    for problem in problems {
        let _ = writeln!(out, "{problem}");
    }
}

/// Prints an answer; whoever could not give one has told why.
fn print(answer: Result<String, ExitCode>, out: &mut dyn Write) -> io::Result<ExitCode> {
    match answer {
        Ok(text) => writeln!(out, "{}", text.trim_end()).map(|()| ExitCode::SUCCESS),
        Err(code) => Ok(code),
    }
}

fn schema(kind: Option<SchemaKind>, out: &mut dyn Write) -> io::Result<ExitCode> {
    match kind {
        Some(kind) => out.write_all(kind.text().as_bytes())?,
        None => {
            let both =
                serde_json::json!({ "install": SchemaKind::Install.schema(), "routes": SchemaKind::Routes.schema() });
            writeln!(out, "{both:#}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn version(out: &mut dyn Write) -> io::Result<ExitCode> {
    writeln!(out, "tidegate {}", env!("CARGO_PKG_VERSION"))?;
    Ok(ExitCode::SUCCESS)
}

/// Rendered first, because the generators panic when a pipe is closed.
fn completions(shell: clap_complete::Shell, out: &mut dyn Write) -> io::Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidegate", &mut text);
    out.write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The page of the command itself, then a section for each subcommand with its options.
fn manual(out: &mut dyn Write) -> io::Result<ExitCode> {
    let mut command = Cli::command();
    command.build();
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let man = clap_mangen::Man::new(sub.clone().display_name(format!("tidegate {}", sub.get_name())));
        writeln!(text, ".SH \"TIDEGATE {}\"", sub.get_name().to_uppercase())?;
        man.render_description_section(&mut text)?;
        man.render_options_section(&mut text)?;
    }
    out.write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Where a command takes its configuration from: one file, or flags.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArgs {
    /// Install configuration; the other flags are for runs without one
    #[arg(long, short, value_name = "FILE", conflicts_with_all = ["routes", "http", "https", "workers", "certificate"])]
    pub config: Option<std::path::PathBuf>,
    /// Routes file, or folder of *.yaml files; may be repeated; default: routes.yaml
    #[arg(long, value_name = "FILE_OR_FOLDER")]
    pub routes: Vec<std::path::PathBuf>,
    /// Where to listen for http: :8080, 127.0.0.1:8080, or off
    #[arg(long, value_name = "ADDR", default_value = crate::config::flags::HTTP)]
    pub http: String,
    /// Where to listen for https, when there is a certificate or a cluster
    #[arg(long, value_name = "ADDR", default_value = crate::config::flags::HTTPS)]
    pub https: String,
    /// Worker threads; default: one for each core
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(crate::config::process::MAX_WORKERS)))]
    pub workers: Option<u32>,
    /// A certificate that routes may name; may be repeated
    #[arg(long, value_name = "NAME=CERTIFICATE_FILE,KEY_FILE")]
    pub certificate: Vec<crate::config::CertificateFlag>,
}

impl ConfigArgs {
    /// The configuration; `admin` is what a flag says of the admin port, `None` when it says nothing; with `kubernetes`, flags
    /// alone look at a cluster.
    pub fn load(&self, admin: Option<&str>, kubernetes: bool) -> Result<Config, Vec<Problem>> {
        use crate::config::{Admin, Flags, flags::parse_addresses};
        let wrong = |flag: &str, error: crate::model::ValueError| {
            vec![Problem::error(crate::model::Origin::of(format!("--{flag}")), error.what, error.hint)]
        };
        let address = |flag: &str, text: &str| parse_addresses(text).map_err(|error| wrong(flag, error));
        let admin = admin.map(|text| address("admin", text)).transpose()?;
        if let Some(path) = &self.config {
            let mut config = Config::load(path)?;
            if let Some(admin) = admin {
                config.admin.address = admin.first().copied();
            }
            return Ok(config);
        }
        let routes = match self.routes.as_slice() {
            [] if !kubernetes => vec![crate::config::ROUTES.into()],
            routes => routes.to_vec(),
        };
        Ok(Config::from_flags(Flags {
            routes,
            http: address("http", &self.http)?,
            https: address("https", &self.https)?,
            admin: admin.map_or(Admin::default().address, |all| all.first().copied()),
            workers: self.workers,
            certificates: self.certificate.clone(),
            kubernetes: kubernetes.then(Settings::default),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Command {
        Cli::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}")).command
    }

    /// What a command that looks at files prints.
    pub(super) fn printed(line: &str) -> String {
        let mut out = Vec::new();
        match parse(&format!("tidegate {line}")) {
            Command::Explain(args) => explain::explain(&args, &mut out).map(drop),
            Command::Routes(args) => routes::routes(&args, &mut out).map(drop),
            other => panic!("{other:?}"),
        }
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_definitions_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_run_needs_no_flag() {
        let Command::Run(args) = parse("tidegate run") else { panic!() };
        let config = args.load().unwrap();
        assert_eq!(config.routes, [std::path::PathBuf::from("routes.yaml")]);
        assert_eq!(config.listeners[0].address.port(), 8080);
        assert_eq!(config.admin.address.unwrap().port(), 9901);
    }

    #[test]
    fn flags_of_a_run_say_where_and_what() {
        let line = "tidegate run --routes a --routes b --http off --https 127.0.0.1:1 --admin off --workers 2 --certificate x=a,b";
        let Command::Run(args) = parse(line) else { panic!() };
        let config = args.load().unwrap();
        assert_eq!((config.routes.len(), config.listeners.len(), config.workers), (2, 1, Some(2)));
        assert_eq!((config.listeners[0].name.as_str(), config.admin.address), ("https", None));
    }

    #[test]
    fn a_wrong_address_is_told_by_its_flag() {
        let Command::Run(args) = parse("tidegate run --http localhost") else { panic!() };
        assert!(args.load().unwrap_err()[0].to_string().starts_with("--http: error"));
    }

    #[test]
    fn a_configuration_file_excludes_the_flags_that_it_replaces() {
        for flags in ["--http :1", "--routes a", "--workers 1"] {
            assert!(Cli::try_parse_from(format!("tidegate run --config f {flags}").split(' ')).is_err(), "{flags}");
        }
        assert!(Cli::try_parse_from("tidegate run --config f --admin off".split(' ')).is_ok());
    }

    #[test]
    fn every_command_is_in_the_manual_and_in_the_completions() {
        let mut page = Vec::new();
        manual(&mut page).unwrap();
        let page = String::from_utf8(page).unwrap();
        let mut script = Vec::new();
        completions(clap_complete::Shell::Bash, &mut script).unwrap();
        let script = String::from_utf8(script).unwrap();
        for name in
            ["run", "demo", "check", "explain", "routes", "ready", "audit", "schema", "version", "completions", "man"]
        {
            assert!(page.contains(&format!("TIDEGATE {}", name.to_uppercase())), "{name}");
            assert!(script.contains(name), "{name}");
        }
    }
}
