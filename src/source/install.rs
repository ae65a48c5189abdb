//! Which listeners does the install configuration want, at the start and when its file changes?
//!
//! Listeners, and which certificates they serve, change while running. Everything else of the file holds since the start; where it
//! has changed, a warning names the key.

use super::folder_watch::{Interest, Watch};
use super::{Feed, Source};
use crate::config::{CertificateFiles, Config};
use crate::model::{Fragment, Origin, Problem, Wanted};
use std::path::Path;
use tokio::sync::mpsc;

/// The install configuration, watched where it is a file.
pub struct InstallSource {
    config: Config,
    reloads: mpsc::Receiver<()>,
}

impl InstallSource {
    /// What runs; a message by `reloads` has its file read again.
    pub fn new(config: Config, reloads: mpsc::Receiver<()>) -> Self {
        Self { config, reloads }
    }
}

impl Source for InstallSource {
    async fn run(self, feed: Feed) {
        let Self { config, mut reloads } = self;
        feed.deliver(wanted(&config), Vec::new());
        let Some((path, started)) = config.path.as_ref().zip(config.written.as_deref()) else {
            // From flags: there is nothing that could change, and a source does not end.
            return std::future::pending().await;
        };
        let interest = Interest { files: [path.clone()].into(), ..Interest::default() };
        let mut watch = Watch::new();
        loop {
            watch.follow(&interest);
            read_again(path, started, &feed);
            tokio::select! {
                () = watch.changed() => {}
                Some(()) = reloads.recv() => {}
            }
        }
    }
}

/// A file that is wrong changes nothing, and says so.
fn read_again(path: &Path, started: &Config, feed: &Feed) {
    match Config::load(path) {
        Ok(now) => feed.deliver(wanted(&now), warnings(path, started, &now)),
        Err(problems) => {
            let last = feed.last().map(|delivery| Wanted::clone(&delivery.fragment));
            feed.deliver(last.unwrap_or_default(), problems)
        }
    };
}

fn wanted(config: &Config) -> Fragment {
    Fragment { listeners: config.listeners.clone(), tls: config.tls.clone(), ..Fragment::default() }
}

fn warnings(path: &Path, started: &Config, now: &Config) -> Vec<Problem> {
    let place = Origin::of(path.display().to_string());
    let warning = |key: &str| {
        let what = format!("{key} has changed, and what it was at the start still holds");
        Problem::warning(
            place.at(key.to_owned(), None),
            what,
            "restart the proxy; listeners alone change while it runs",
        )
    };
    changed(started, now).into_iter().map(warning).collect()
}

/// The keys beside `listeners` that say something else. Taken apart, so that no key is forgotten.
fn changed(started: &Config, now: &Config) -> Vec<&'static str> {
    let Config { path: _, written: _, listeners: _, tls: _, certificates, routes, kubernetes, workers, .. } = started;
    let Config { limits, admin, share_ports, telemetry, drain, .. } = started;
    let same = [
        ("certificates", same_files(certificates, &now.certificates)),
        ("sources.routes", *routes == now.routes),
        ("sources.kubernetes", *kubernetes == now.kubernetes),
        ("workers", *workers == now.workers),
        ("limits", *limits == now.limits),
        ("admin", *admin == now.admin),
        ("share_ports", *share_ports == now.share_ports),
        ("telemetry", *telemetry == now.telemetry),
        ("drain", *drain == now.drain),
    ];
    same.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
}

/// Wherever in the file they stand.
fn same_files(one: &[CertificateFiles], other: &[CertificateFiles]) -> bool {
    one.iter().map(|c| (&c.name, &c.pairs)).eq(other.iter().map(|c| (&c.name, &c.pairs)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Severity;
    use crate::source::slot;
    use std::time::Duration;

    const LISTENERS: &str = "listeners: { http: { address: 127.0.0.1:0 } }\n";

    fn config(more: &str) -> Config {
        Config::parse("gate.yaml", &format!("{LISTENERS}{more}"), Path::new("/etc/gate")).unwrap()
    }

    #[test]
    fn every_key_beside_listeners_is_told_when_it_changes() {
        for (text, key) in [
            ("certificates: { a: { certificate: a, key: b } }", "certificates"),
            ("sources: { routes: other.yaml }", "sources.routes"),
            ("workers: 3", "workers"),
            ("limits: { connections: 7 }", "limits"),
            ("admin: { api: false }", "admin"),
            ("share_ports: true", "share_ports"),
            ("telemetry: { access_log: off }", "telemetry"),
            ("drain: { delay: 1s }", "drain"),
        ] {
            assert_eq!(changed(&config(""), &config(text)), [key]);
            assert_eq!(changed(&config(text), &config(text)), [""; 0]);
        }
        let kubernetes = "sources: { routes: routes.yaml, kubernetes: {} }";
        assert_eq!(changed(&config(""), &config(kubernetes)), ["sources.kubernetes"]);
    }

    #[test]
    fn what_only_moves_within_the_file_has_not_changed() {
        let certificate = "certificates: { a: { certificate: a, key: b } }";
        assert_eq!(changed(&config(certificate), &config(&format!("# a comment\n\n{certificate}"))), [""; 0]);
        let listener =
            Config::parse("gate.yaml", "listeners: { http: { address: 127.0.0.1:1 } }", Path::new("/etc/gate"));
        assert_eq!(changed(&config(""), &listener.unwrap()), [""; 0]);
    }

    #[tokio::test]
    async fn a_file_that_is_wrong_keeps_the_listeners_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.yaml");
        std::fs::write(&path, LISTENERS).unwrap();
        let (feed, mut slot) = slot("install", true);
        let (reload, reloads) = mpsc::channel(1);
        let source = InstallSource::new(Config::load(&path).unwrap(), reloads);
        let told = async {
            assert!(slot.changed().await);
            assert_eq!(slot.take().unwrap().fragment.listeners.len(), 1);
            std::fs::write(&path, "listeners: { http: { adress: 127.0.0.1:0 } }\n").unwrap();
            reload.send(()).await.unwrap();
            assert!(slot.changed().await);
            let wrong = slot.take().unwrap();
            assert_eq!((wrong.fragment.listeners.len(), wrong.problems[0].severity), (1, Severity::Error));
            std::fs::write(&path, format!("{LISTENERS}workers: 2\n")).unwrap();
            let warned = async {
                loop {
                    assert!(slot.changed().await);
                    let delivery = slot.take().unwrap();
                    if delivery.problems.iter().all(|problem| problem.severity == Severity::Warning) {
                        break delivery.problems[0].to_string();
                    }
                }
            };
            let warning = tokio::time::timeout(Duration::from_secs(15), warned).await.unwrap();
            assert!(warning.contains("gate.yaml: workers: warning: workers has changed"), "{warning}");
        };
        tokio::select! {
            () = source.run(feed) => panic!("a source does not end"),
            () = told => {}
        }
    }
}
