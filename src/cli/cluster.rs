//! Which flags say what cluster is looked at, and who this gate is in it?

use crate::config::kubernetes::{Settings, parse_addresses, parse_namespace};
use crate::config::{Config, values};
use crate::model::{Origin, Problem, ValueError};
use std::path::PathBuf;

/// Flags of a Kubernetes cluster. Those with a variable behind them are what a pod learns of itself by the downward API; a
/// variable that is empty counts as unset.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Kubernetes")]
pub struct ClusterArgs {
    /// Take routes from a cluster: ConfigMaps, Ingresses, Services; files then only when they are named
    ///
    /// With --config, what is looked at is said by `sources: { kubernetes: {} }` in that file. The flags below fill what the file
    /// leaves open.
    #[arg(long)]
    pub kubernetes: bool,
    /// Kubeconfig file; default: the pod's service account, or else KUBECONFIG and ~/.kube/config
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; default: its current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// The gate's own namespace: routes ConfigMaps, their certificates, leases
    #[arg(long, value_name = "NAME", env = "TIDEGATE_NAMESPACE", hide_env_values = true)]
    namespace: Option<String>,
    /// The node this gate runs on: endpoints on it are preferred
    #[arg(long, value_name = "NAME", env = "TIDEGATE_NODE", hide_env_values = true)]
    node: Option<String>,
    /// The zone of that node; default: learnt from the endpoints on it
    #[arg(long, value_name = "NAME", env = "TIDEGATE_ZONE", hide_env_values = true)]
    zone: Option<String>,
    /// Addresses clients reach this gate at, divided by commas: the status of Ingresses
    #[arg(long, value_name = "LIST", env = "TIDEGATE_ADDRESSES", hide_env_values = true)]
    addresses: Option<String>,
    /// The pod this gate runs in
    #[arg(long, value_name = "NAME", env = "TIDEGATE_POD", hide_env_values = true)]
    pod: Option<String>,
}

impl ClusterArgs {
    /// Fills what the configuration leaves open.
    pub fn fill(&self, config: &mut Config) -> Result<(), Vec<Problem>> {
        let Some(settings) = &mut config.kubernetes else {
            return self.unasked(config.path.is_some());
        };
        settings.certificates = config.certificates.iter().map(|certificate| certificate.name.clone()).collect();
        settings.kubeconfig = settings.kubeconfig.take().or_else(|| self.kubeconfig.clone());
        settings.context = settings.context.take().or_else(|| self.context.clone());
        let mut problems = Vec::new();
        self.fill_names(settings, &mut problems);
        if settings.addresses.is_empty() {
            let said = parse_addresses(self.addresses.as_deref().unwrap_or_default());
            settings.addresses = said.unwrap_or_else(|error| wrong("addresses", error, &mut problems));
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn fill_names(&self, settings: &mut Settings, problems: &mut Vec<Problem>) {
        let name = |what| move |text: &str| (values::name(what).parse)(text);
        let mut fill = |open: &mut Option<String>, flag, said: &Option<String>, parse: &dyn Fn(&str) -> Parsed| {
            if let (None, Some(text)) = (&open, said.as_deref().filter(|text| !text.is_empty())) {
                *open = parse(text).map_or_else(|error| wrong(flag, error, problems), Some);
            }
        };
        fill(&mut settings.namespace, "namespace", &self.namespace, &parse_namespace);
        fill(&mut settings.node, "node", &self.node, &name("the name of a node"));
        fill(&mut settings.zone, "zone", &self.zone, &name("the name of a zone"));
        fill(&mut settings.pod, "pod", &self.pod, &name("the name of a pod"));
    }

    /// Variables may be there for no cluster; flags were meant.
    fn unasked(&self, by_file: bool) -> Result<(), Vec<Problem>> {
        let flags = [
            ("--kubernetes", self.kubernetes),
            ("--kubeconfig", self.kubeconfig.is_some()),
            ("--context", self.context.is_some()),
        ];
        let hint = if by_file { "add sources: { kubernetes: {} } to the file of --config" } else { "add --kubernetes" };
        let wrong = |flag: &str| Problem::error(Origin::of(flag), "no cluster is looked at", hint);
        let problems: Vec<_> = flags.iter().filter(|(_, said)| *said).map(|(flag, _)| wrong(flag)).collect();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

type Parsed = Result<String, ValueError>;

fn wrong<T: Default>(flag: &str, error: ValueError, problems: &mut Vec<Problem>) -> T {
    problems.push(Problem::error(Origin::of(format!("--{flag}")), error.what, error.hint));
    T::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::run::RunArgs;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    /// As `tidegate run` with these flags; no test sets a variable, which all tests would share.
    fn load(flags: &[&str]) -> Result<Config, Vec<Problem>> {
        Line::try_parse_from([&["run"], flags].concat()).unwrap_or_else(|e| panic!("{flags:?}: {e}")).run.load()
    }

    fn file(sources: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!("listeners: {{ http: {{ address: :1 }} }}\nsources: {{ {sources} }}\n");
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_cluster_needs_one_flag_and_opens_both_listeners_and_no_file() {
        let config = load(&["--kubernetes"]).unwrap();
        let names: Vec<_> = config.listeners.iter().map(|l| (l.name.as_str(), l.address.port())).collect();
        assert!(names.contains(&("http", 8080)) && names.contains(&("https", 8443)), "{names:?}");
        assert!(config.routes.is_empty());
        assert_eq!(config.kubernetes, Some(Settings::default()));
        assert_eq!(load(&["--kubernetes", "--routes", "r.yaml"]).unwrap().routes, [PathBuf::from("r.yaml")]);
    }

    #[test]
    fn flags_say_which_cluster_and_who_this_gate_is() {
        let flags = "--kubernetes --kubeconfig k --context c --namespace edge --node n --zone z --pod p --addresses 192.0.2.1,::2";
        let settings = load(&flags.split(' ').collect::<Vec<_>>()).unwrap().kubernetes.unwrap();
        assert_eq!((settings.kubeconfig, settings.context.as_deref()), (Some("k".into()), Some("c")));
        assert_eq!((settings.namespace.as_deref(), settings.node.as_deref()), (Some("edge"), Some("n")));
        assert_eq!((settings.zone.as_deref(), settings.pod.as_deref()), (Some("z"), Some("p")));
        assert_eq!(settings.addresses.len(), 2);
    }

    #[test]
    fn with_a_file_flags_fill_what_it_leaves_open() {
        let file = file("kubernetes: { node: here }");
        let path = file.path().to_str().unwrap();
        let settings = load(&["--config", path, "--node", "there", "--zone", "z"]).unwrap().kubernetes.unwrap();
        assert_eq!((settings.node.as_deref(), settings.zone.as_deref()), (Some("here"), Some("z")));
    }

    #[test]
    fn a_flag_for_a_cluster_that_nobody_looks_at_is_a_mistake() {
        let file = file("routes: r.yaml");
        let told = load(&["--config", file.path().to_str().unwrap(), "--kubernetes"]).unwrap_err();
        assert!(told[0].to_string().contains("add sources: { kubernetes: {} }"), "{told:?}");
        assert!(load(&["--kubeconfig", "k"]).unwrap_err()[0].to_string().contains("add --kubernetes"));
        assert!(load(&["--node", "n"]).is_ok(), "its variable may be there for all pods of a node");
    }

    #[test]
    fn an_empty_value_counts_as_none() {
        let empty = ["--kubernetes", "--node", "", "--zone", "", "--addresses", "", "--pod", "", "--namespace", ""];
        assert_eq!(load(&empty).unwrap().kubernetes, Some(Settings::default()));
    }

    #[test]
    fn a_wrong_value_is_told_by_its_flag() {
        let told = load(&["--kubernetes", "--namespace", "A", "--addresses", "here"]).unwrap_err();
        let told: Vec<_> = told.iter().map(ToString::to_string).collect();
        assert!(told[0].starts_with("--namespace: error") && told[1].starts_with("--addresses: error"), "{told:?}");
    }
}
