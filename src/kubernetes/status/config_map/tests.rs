//! Is each edit told once, with its own version, and nothing that is no edit?

use super::*;
use crate::kubernetes::objects::Meta;
use crate::model::Position;
use std::time::Duration;

/// One ConfigMap at an API server, as the watch and the translation see it.
struct World {
    objects: Objects,
    translation: Translation,
    report: Report,
    annotator: Annotator,
    version: u32,
    now: Instant,
}

impl World {
    fn new(text: &str) -> Self {
        let mut world = Self {
            objects: Objects::default(),
            translation: Translation::default(),
            report: Report::default(),
            annotator: Annotator::default(),
            version: 0,
            now: Instant::now(),
        };
        world.edit(text);
        world.translate();
        world
    }

    fn change(&mut self, change: impl FnOnce(&mut RoutesConfigMap)) {
        self.version += 1;
        let meta = Meta { key: key(), uid: "u".into(), ..Meta::default() };
        let map = self.objects.config_maps.entry(key()).or_default();
        let map = Arc::make_mut(map);
        let version = self.version.to_string().into();
        map.meta = Meta { version, ..meta }.into();
        change(map);
    }

    fn edit(&mut self, text: &str) {
        self.change(|map| drop(map.data.insert("shop.yaml".into(), text.to_owned())));
    }

    fn translate(&mut self) {
        let version = self.objects.config_maps[&key()].meta.version.clone();
        let outcome = Outcome { uid: "u".into(), version, accepted: 3, refused: 0 };
        self.translation.config_maps.insert(key(), outcome);
    }

    fn plan(&mut self) -> Vec<Change> {
        self.annotator.plan((&self.objects, &self.translation), &self.report, self.now)
    }

    /// Writes what is planned as the API server would, and shows it to the watch; what was written.
    fn settle(&mut self) -> Vec<Value> {
        let mut written = Vec::new();
        for change in self.plan() {
            let body = change.body();
            assert_eq!(
                *self.objects.config_maps[&key()].meta.version,
                *change.version,
                "made on the version that is there"
            );
            assert_eq!(self.plan(), [], "not again before the watch shows it");
            let patch = body["metadata"]["annotations"].as_object().unwrap().clone();
            self.change(|map| {
                for (name, value) in patch {
                    match value.as_str() {
                        Some(text) => drop(map.annotations.insert(name, text.to_owned())),
                        None => drop(map.annotations.remove(&name)),
                    }
                }
            });
            let version = self.version.to_string();
            self.annotator.written(&change, &version);
            written.push(body["metadata"]["annotations"].clone());
        }
        written
    }

    fn problem(&mut self, key: &str, what: &str) {
        let origin =
            Origin::of("ConfigMap/tidegate/routes/shop.yaml").at(key.to_owned(), Some(Position { line: 4, column: 7 }));
        let problem = Problem::error(origin, what, "did you mean \"headers\"?");
        self.report.problems = self.report.problems.iter().cloned().chain([problem]).collect();
    }
}

fn key() -> Key {
    Key::new("tidegate", "routes")
}

#[test]
fn an_edit_is_told_with_its_version_and_our_patch_causes_no_further_one() {
    let mut world = World::new("a");
    let written = world.settle();
    assert_eq!(written.len(), 1);
    assert_eq!(
        (&written[0][LIVE], &written[0][ACCEPTED], &written[0][REFUSED]),
        (&json!("1"), &json!("3"), &json!("0"))
    );
    assert_eq!(written[0][PROBLEMS], Value::Null);
    // Whether the translation is made anew or not.
    assert_eq!(world.settle(), [] as [Value; 0]);
    world.translate();
    assert_eq!(world.settle(), [] as [Value; 0]);
    world.edit("b");
    world.translate();
    assert_eq!(world.settle()[0][LIVE], "3");
}

#[test]
fn an_edit_that_is_not_translated_yet_is_not_told() {
    let mut world = World::new("a");
    world.settle();
    world.edit("b");
    assert_eq!(world.plan(), []);
    world.translate();
    assert!(world.plan()[0].edited);
}

#[test]
fn another_outcome_of_the_same_data_is_written_and_is_no_edit() {
    let mut world = World::new("a");
    world.settle();
    world.problem("routes[2].header", "unknown key \"heders\"");
    let changes = world.plan();
    assert!(!changes[0].edited);
    let written = world.settle();
    assert_eq!(written.len(), 0, "the plan above counts as written");
    world.now += Duration::from_secs(10);
    let written = world.settle();
    assert_eq!(written[0].get(LIVE), None, "the edit that is live is still the same");
    assert_eq!((&written[0][ACCEPTED], &written[0][REFUSED]), (&json!("2"), &json!("1")));
    let text = written[0][PROBLEMS].as_str().unwrap();
    assert_eq!(text, "shop.yaml:4:7: routes[2].header: unknown key \"heders\"; did you mean \"headers\"?");
    world.report = Report::default();
    assert_eq!(world.settle()[0][PROBLEMS], Value::Null);
}

#[test]
fn a_write_of_labels_alone_is_told_too() {
    let mut world = World::new("a");
    world.settle();
    world.change(|_| ());
    world.translate();
    world.now += Duration::from_secs(10);
    assert_eq!(world.settle()[0][LIVE], "3");
    world.translate();
    assert_eq!(world.settle(), [] as [Value; 0]);
}

#[test]
fn the_next_leader_does_not_repeat_what_the_last_one_wrote() {
    let mut world = World::new("a");
    world.settle();
    world.annotator = Annotator::default();
    world.translate();
    assert_eq!(world.settle(), [] as [Value; 0]);
    world.edit("b");
    world.translate();
    assert_eq!(world.settle()[0][LIVE], "3");
}

#[test]
fn annotations_that_somebody_takes_away_come_back_ever_slower() {
    let mut world = World::new("a");
    let mut writes = 0;
    for _ in 0..600 {
        writes += world.settle().len();
        world.change(|map| map.annotations.clear());
        world.translate();
        world.now += Duration::from_secs(1);
    }
    assert!((5..12).contains(&writes), "{writes} in ten minutes");
}

#[test]
fn an_object_made_anew_under_the_name_waits_for_its_own_translation() {
    let mut world = World::new("a");
    world.settle();
    world.change(|map| {
        (map.meta, map.annotations) = (Meta { uid: "v".into(), ..Meta::clone(&map.meta) }.into(), BTreeMap::new())
    });
    assert_eq!(world.plan(), []);
}

#[test]
fn a_route_counts_once_and_what_translation_knew_not_again() {
    let mut world = World::new("a");
    world.problem("routes[1].path", "no path");
    world.problem("routes[1].to", "no cluster");
    world.problem("routes[2]", "there is already a route \"x\"");
    world.problem("policies.x", "unknown");
    world.translation.problems = vec![world.report.problems[2].clone()].into();
    assert_eq!(world.plan()[0].counts, (2, 1));
}

#[test]
fn of_many_problems_the_first_are_written() {
    let mut world = World::new("a");
    (0..50).for_each(|n| world.problem(&format!("routes[{n}]"), &"long ".repeat(500)));
    let written = world.settle();
    let text = written[0][PROBLEMS].as_str().unwrap();
    assert_eq!(text.lines().count(), PROBLEM_LINES + 1);
    assert!(text.ends_with("and 40 more") && text.len() < PROBLEM_BYTES + 100);
}

#[test]
fn texts_that_are_divided_otherwise_have_another_digest() {
    let map = |data: &[(&str, &str)]| {
        let data = data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        digest(&RoutesConfigMap { data, ..RoutesConfigMap::default() })
    };
    assert_ne!(map(&[("a", "bc")]), map(&[("ab", "c")]));
    assert_ne!(map(&[("a", "")]), map(&[]));
    assert_eq!(&*map(&[("a", "b")]), &*map(&[("a", "b")]));
}
