//! Is every way in which files change seen, and is what was good kept?

use super::*;
use crate::lifecycle::{Ending, Task, Tasks};
use crate::model::Severity;
use crate::source::{Delivery, Slot, slot};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::LocalSet;

const A: &str = "a.test/: x\n";
const B: &str = "b.test/: x\n";

/// A running source.
struct Running {
    slot: Slot,
    reload: mpsc::Sender<()>,
    _task: Task,
    _ending: Ending,
}

impl Running {
    async fn start(routes: &[&Path]) -> (Self, Delivery) {
        let (reload, reloads) = mpsc::channel(1);
        let (feed, slot) = slot("files", true);
        let source = FileSource::new(routes.iter().map(|p| p.to_path_buf()).collect(), reloads);
        let (tasks, ending) = Tasks::new();
        let task = tasks.spawn_local("file source", source.run(feed));
        let mut running = Self { slot, reload, _task: task, _ending: ending };
        let first = running.next().await;
        (running, first)
    }

    async fn next(&mut self) -> Delivery {
        let changed = tokio::time::timeout(Duration::from_secs(20), self.slot.changed());
        assert!(changed.await.expect("a change is seen"));
        self.slot.take().unwrap()
    }
}

fn names(delivery: &Delivery) -> Vec<&str> {
    let mut names: Vec<_> = delivery.fragment.routes.iter().map(|r| r.name.as_str()).collect();
    names.sort_unstable();
    names
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn local<F: Future>(test: F) -> F::Output {
    LocalSet::new().run_until(test).await
}

#[tokio::test]
async fn a_changed_file_is_read_again() {
    local(async {
        let top = folder();
        let file = top.path().join("routes.yaml");
        fs::write(&file, A).unwrap();
        let (mut running, first) = Running::start(&[&file]).await;
        assert_eq!(names(&first), ["a.test/"]);
        fs::write(&file, B).unwrap();
        assert_eq!(names(&running.next().await), ["b.test/"]);
    })
    .await;
}

#[tokio::test]
async fn a_file_replaced_by_rename_is_read_again_and_again() {
    local(async {
        let top = folder();
        let file = top.path().join("routes.yaml");
        fs::write(&file, A).unwrap();
        let (mut running, _) = Running::start(&[&file]).await;
        for (text, name) in [(B, "b.test/"), (A, "a.test/"), (B, "b.test/")] {
            fs::write(top.path().join("new"), text).unwrap();
            fs::rename(top.path().join("new"), &file).unwrap();
            assert_eq!(names(&running.next().await), [name]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_swapped_symlink_of_a_volume_is_seen() {
    local(async {
        let top = folder();
        let at = |name: &str| top.path().join(name);
        for (version, text) in [("..1", A), ("..2", B)] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("routes.yaml"), text).unwrap();
        }
        std::os::unix::fs::symlink("..1", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/routes.yaml", at("routes.yaml")).unwrap();
        let (mut running, first) = Running::start(&[top.path()]).await;
        assert_eq!(names(&first), ["a.test/"]);
        std::os::unix::fs::symlink("..2", at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
        assert_eq!(names(&running.next().await), ["b.test/"]);
    })
    .await;
}

#[tokio::test]
async fn a_deleted_file_keeps_its_routes_until_it_is_there_again() {
    local(async {
        let top = folder();
        let file = top.path().join("deep/routes.yaml");
        fs::create_dir(top.path().join("deep")).unwrap();
        fs::write(&file, A).unwrap();
        let (mut running, _) = Running::start(&[&file]).await;
        fs::remove_dir_all(top.path().join("deep")).unwrap();
        let gone = running.next().await;
        assert_eq!(names(&gone), ["a.test/"]);
        assert!(gone.problems.iter().any(|p| p.what.contains("no such file")), "{:?}", gone.problems);
        fs::create_dir(top.path().join("deep")).unwrap();
        fs::write(&file, B).unwrap();
        while names(&running.next().await) != ["b.test/"] {}
    })
    .await;
}

#[tokio::test]
async fn files_come_to_a_folder_and_go_from_it() {
    local(async {
        let top = folder();
        let (mut running, first) = Running::start(&[top.path()]).await;
        assert_eq!(*first.problems, []);
        fs::write(top.path().join("b.yml"), B).unwrap();
        assert_eq!(names(&running.next().await), ["b.test/"]);
        fs::write(top.path().join("a.yaml"), A).unwrap();
        assert_eq!(names(&running.next().await), ["a.test/", "b.test/"]);
        fs::remove_file(top.path().join("b.yml")).unwrap();
        assert_eq!(names(&running.next().await), ["a.test/"]);
    })
    .await;
}

#[tokio::test]
async fn a_file_that_does_not_parse_keeps_its_last_good_content() {
    local(async {
        let top = folder();
        let file = top.path().join("routes.yaml");
        fs::write(&file, A).unwrap();
        let (mut running, _) = Running::start(&[&file]).await;
        fs::write(&file, "a.test/: [").unwrap();
        let wrong = running.next().await;
        assert_eq!(names(&wrong), ["a.test/"]);
        assert_eq!(wrong.problems.iter().filter(|p| p.severity == Severity::Error).count(), 1);
        fs::write(&file, B).unwrap();
        let right = running.next().await;
        assert_eq!((names(&right), right.problems.len()), (vec!["b.test/"], 0));
    })
    .await;
}

#[tokio::test]
async fn a_named_authority_is_watched_too() {
    local(async {
        let top = folder();
        let file = top.path().join("routes.yaml");
        let text = "clusters: { x: { endpoints: 127.0.0.1:1, tls: { ca: ca.pem, server_name: x.test } } }\n";
        fs::write(&file, text).unwrap();
        let (mut running, first) = Running::start(&[&file]).await;
        assert!(first.fragment.clusters.is_empty() && first.problems.len() == 1);
        fs::write(top.path().join("ca.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
        let then = running.next().await;
        assert_eq!((then.fragment.clusters.len(), then.problems.len()), (1, 0));
    })
    .await;
}

#[tokio::test]
async fn a_reload_reads_again() {
    local(async {
        let top = folder();
        let file = top.path().join("routes.yaml");
        fs::write(&file, A).unwrap();
        let (mut running, _) = Running::start(&[&file]).await;
        fs::write(&file, B).unwrap();
        running.reload.send(()).await.unwrap();
        assert_eq!(names(&running.next().await), ["b.test/"]);
    })
    .await;
}

#[test]
fn an_empty_file_is_believed_only_at_the_second_look() {
    let top = folder();
    let file = top.path().join("routes.yaml");
    fs::write(&file, A).unwrap();
    let mut routes = RoutesFiles::new(vec![file.clone()]);
    assert_eq!(routes.read(false).fragment.routes.len(), 1);
    fs::write(&file, "").unwrap();
    let reading = routes.read(false);
    assert!(reading.doubt && reading.fragment.routes.len() == 1);
    let reading = routes.read(true);
    assert!(!reading.doubt && reading.fragment.routes.is_empty());
}
