//! Which listeners and certificates does the install configuration want, at the start and when its file, or one that it names,
//! changes?
//!
//! They come together, so that a listener is never there without its certificates. Everything else of the file holds since the
//! start; where it has changed, a warning names the key.

use super::certificates::Certificates;
use super::folder_watch::Interest;
use super::recording::Recording;
use super::reread::{Reader, Reading, deliver};
use super::{Feed, Source};
use crate::config::Config;
use crate::model::{Fragment, Origin, Problem};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tokio::sync::{mpsc, watch};

/// The install configuration, watched where it is a file, and the files of its certificates.
pub struct InstallSource {
    install: Install,
    reloads: mpsc::Receiver<()>,
}

impl InstallSource {
    /// What runs; a message by `reloads` has all files read again.
    pub fn new(config: Config, reloads: mpsc::Receiver<()>) -> Self {
        let (names, _) = watch::channel(names(&config));
        let certificates = Certificates::of(&config.certificates);
        Self { install: Install { now: config, named: BTreeSet::new(), certificates, names }, reloads }
    }

    /// The names of its certificates, as they are at any time.
    pub fn certificate_names(&self) -> watch::Receiver<BTreeSet<String>> {
        self.install.names.subscribe()
    }
}

impl Source for InstallSource {
    async fn run(self, feed: Feed) {
        deliver(self.install, feed, self.reloads).await;
    }
}

/// The configuration as it was last right.
struct Install {
    now: Config,
    /// Files that it names beside those of certificates: authorities.
    named: BTreeSet<PathBuf>,
    certificates: Certificates,
    names: watch::Sender<BTreeSet<String>>,
}

impl Reader for Install {
    fn read(&mut self, _: bool) -> Reading {
        let mut problems = self.read_again();
        let (certificates, unread) = self.certificates.read();
        problems.extend(unread);
        let Config { listeners, tls, .. } = &self.now;
        let (listeners, tls) = (listeners.clone(), tls.clone());
        Reading { fragment: Fragment { listeners, tls, certificates, ..Fragment::default() }, problems, doubt: false }
    }

    fn interest(&self) -> Interest {
        let mut interest = Interest::default();
        interest.files.extend(self.now.path.iter().chain(&self.named).cloned());
        self.certificates.interest(&mut interest);
        interest
    }
}

impl Install {
    /// A file that is wrong changes nothing, and says so. From flags there is nothing that could change.
    fn read_again(&mut self) -> Vec<Problem> {
        let Some((path, started)) = self.now.path.clone().zip(self.now.written.clone()) else { return Vec::new() };
        let files = Recording::beside(&path);
        let read = Config::load_with(&path, &files);
        let named = files.read().into_iter().map(|(path, _)| path);
        match read {
            Ok(now) => {
                self.named = named.collect();
                self.certificates.follow(&now.certificates);
                self.names.send_if_modified(|last| replace(last, names(&now)));
                let warnings = warnings(&path, &started, &now);
                // What was written at the start stays, to be compared with.
                self.now = Config { written: Some(started), ..now };
                warnings
            }
            Err(problems) => {
                self.named.extend(named);
                problems
            }
        }
    }
}

fn names(config: &Config) -> BTreeSet<String> {
    config.certificates.iter().map(|files| files.name.clone()).collect()
}

fn replace(last: &mut BTreeSet<String>, now: BTreeSet<String>) -> bool {
    let changed = *last != now;
    *last = now;
    changed
}

fn warnings(path: &Path, started: &Config, now: &Config) -> Vec<Problem> {
    let place = Origin::of(path.display().to_string());
    let warning = |key: &str| {
        let what = format!("{key} has changed, and what it was at the start still holds");
        Problem::warning(
            place.at(key.to_owned(), None),
            what,
            "restart the proxy; listeners and certificates alone change while it runs",
        )
    };
    changed(started, now).into_iter().map(warning).collect()
}

/// The keys beside `listeners` and `certificates` that say something else. Taken apart, so that no key is forgotten.
fn changed(started: &Config, now: &Config) -> Vec<&'static str> {
    let Config { path: _, written: _, listeners: _, tls: _, certificates: _, routes, kubernetes, workers, .. } =
        started;
    let Config { limits, admin, share_ports, telemetry, drain, .. } = started;
    let same = [
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Severity;
    use crate::source::{Delivery, Slot, slot};
    use std::fs;
    use std::time::Duration;

    const LISTENERS: &str = "listeners: { http: { address: 127.0.0.1:0 } }\n";

    fn config(more: &str) -> Config {
        Config::parse("gate.yaml", &format!("{LISTENERS}{more}"), Path::new("/etc/gate")).unwrap()
    }

    #[test]
    fn every_key_beside_listeners_and_certificates_is_told_when_it_changes() {
        for (text, key) in [
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
    fn listeners_and_certificates_may_change() {
        let certificate = "certificates: { a: { certificate: a, key: b } }";
        assert_eq!(changed(&config(""), &config(certificate)), [""; 0]);
        let listener =
            Config::parse("gate.yaml", "listeners: { http: { address: 127.0.0.1:1 } }", Path::new("/etc/gate"));
        assert_eq!(changed(&config(""), &listener.unwrap()), [""; 0]);
    }

    /// Runs a source of this file beside a test of what it delivers.
    async fn beside<F: Future<Output = ()>>(path: &Path, test: impl FnOnce(Deliveries) -> F) {
        let (feed, slot) = slot("install", true);
        let (reload, reloads) = mpsc::channel(1);
        let source = InstallSource::new(Config::load(path).unwrap(), reloads);
        let names = source.certificate_names();
        tokio::select! {
            () = source.run(feed) => panic!("a source does not end"),
            () = test(Deliveries { slot, reload, names }) => {}
        }
    }

    struct Deliveries {
        slot: Slot,
        reload: mpsc::Sender<()>,
        names: watch::Receiver<BTreeSet<String>>,
    }

    impl Deliveries {
        async fn until(&mut self, holds: impl Fn(&Delivery) -> bool) -> Delivery {
            let found = async {
                loop {
                    assert!(self.slot.changed().await);
                    let delivery = self.slot.take().unwrap();
                    if holds(&delivery) {
                        return delivery;
                    }
                }
            };
            tokio::time::timeout(Duration::from_secs(15), found).await.expect("a change is seen")
        }
    }

    fn pem(text: &str) -> String {
        format!("-----BEGIN X-----\n{text}\n")
    }

    fn shown(delivery: &Delivery, name: &str) -> Option<Vec<u8>> {
        let found = delivery.fragment.certificates.iter().find(|certificate| certificate.name == name);
        found.map(|certificate| certificate.pairs[0].0.0.to_vec())
    }

    #[tokio::test]
    async fn a_file_that_is_wrong_keeps_the_listeners_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.yaml");
        fs::write(&path, LISTENERS).unwrap();
        beside(&path, |mut told| async move {
            assert_eq!(told.until(|_| true).await.fragment.listeners.len(), 1);
            fs::write(folder.path().join("gate.yaml"), "listeners: { http: { adress: 127.0.0.1:0 } }\n").unwrap();
            told.reload.send(()).await.unwrap();
            let wrong = told.until(|_| true).await;
            assert_eq!((wrong.fragment.listeners.len(), wrong.problems[0].severity), (1, Severity::Error));
            fs::write(folder.path().join("gate.yaml"), format!("{LISTENERS}workers: 2\n")).unwrap();
            let warned = |d: &Delivery| d.problems.iter().all(|problem| problem.severity == Severity::Warning);
            let warning = told.until(warned).await.problems[0].to_string();
            assert!(warning.contains("gate.yaml: workers: warning: workers has changed"), "{warning}");
        })
        .await;
    }

    #[tokio::test]
    async fn a_certificate_is_read_again_and_kept_when_it_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("gate.yaml"), format!("{LISTENERS}certificates: {{ c: {{ certificate: c.pem, key: c.key }} }}\n"))
            .unwrap();
        fs::write(at("c.pem"), pem("1")).unwrap();
        fs::write(at("c.key"), pem("key")).unwrap();
        beside(&at("gate.yaml"), |mut told| async move {
            let first = told.until(|_| true).await;
            assert_eq!(shown(&first, "c").unwrap(), pem("1").as_bytes());
            fs::write(at("c.pem"), pem("2")).unwrap();
            told.until(|d| shown(d, "c").is_some_and(|shown| shown == pem("2").as_bytes())).await;
            // The listeners are wrong, and a renewal is taken all the same.
            fs::write(at("gate.yaml"), "listeners: {}\n").unwrap();
            fs::write(at("c.pem"), pem("3")).unwrap();
            let third = told.until(|d| shown(d, "c").is_some_and(|shown| shown == pem("3").as_bytes())).await;
            assert_eq!(third.fragment.listeners.len(), 1);
            fs::remove_file(at("c.key")).unwrap();
            let kept = told.until(|d| d.problems.iter().any(|problem| problem.hint.contains("stays"))).await;
            assert_eq!(shown(&kept, "c").unwrap(), pem("3").as_bytes());
        })
        .await;
    }

    #[tokio::test]
    async fn a_certificate_comes_with_the_listener_that_names_it_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("gate.yaml"), LISTENERS).unwrap();
        fs::create_dir(at("tls")).unwrap();
        fs::write(at("tls/c.pem"), pem("1")).unwrap();
        fs::write(at("tls/c.key"), pem("key")).unwrap();
        beside(&at("gate.yaml"), |mut told| async move {
            told.until(|_| true).await;
            let both = "listeners: { https: { address: 127.0.0.1:0, tls: { certificates: [c] } } }\n\
                        certificates: { c: { certificate: tls/c.pem, key: tls/c.key } }\n";
            fs::write(at("gate.yaml"), both).unwrap();
            let come = told.until(|delivery| delivery.fragment.listeners[0].name == "https").await;
            assert_eq!((shown(&come, "c").unwrap(), come.problems.len()), (pem("1").into_bytes(), 0));
            assert!(told.names.borrow().contains("c"));
            fs::write(at("tls/c.pem"), pem("2")).unwrap();
            told.until(|d| shown(d, "c").is_some_and(|shown| shown == pem("2").as_bytes())).await;
            fs::write(at("gate.yaml"), LISTENERS).unwrap();
            let gone = told.until(|delivery| delivery.fragment.listeners[0].name == "http").await;
            assert_eq!((shown(&gone, "c"), told.names.borrow().len()), (None, 0));
        })
        .await;
    }

    #[tokio::test]
    async fn the_authorities_of_a_listener_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let ca = |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n");
        let text = "listeners: { https: { address: 127.0.0.1:0, tls: { client_auth: { ca: ca.pem } } } }\n";
        fs::write(at("gate.yaml"), text).unwrap();
        fs::write(at("ca.pem"), ca("1")).unwrap();
        beside(&at("gate.yaml"), |mut told| async move {
            let first = told.until(|_| true).await.fragment.listeners.clone();
            fs::write(at("ca.pem"), ca("2")).unwrap();
            let second = told.until(|delivery| delivery.fragment.listeners != first).await;
            assert_eq!(*second.problems, []);
            fs::remove_file(at("ca.pem")).unwrap();
            let kept = told.until(|delivery| !delivery.problems.is_empty()).await;
            assert_eq!(kept.fragment.listeners, second.fragment.listeners);
            fs::write(at("ca.pem"), ca("3")).unwrap();
            told.until(|d| d.problems.is_empty() && d.fragment.listeners != second.fragment.listeners).await;
        })
        .await;
    }
}
