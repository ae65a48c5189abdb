//! Which Events are written, so that whoever describes an object reads what is wrong with it?
//!
//! One Event for one problem: its name is made of what it says, so that a leader that follows another finds the Event there instead
//! of writing a second one. A problem that stays is written again before the API server forgets it; a problem that is gone is
//! forgotten here and left to the API server there.

use super::place::{Place, cut, within};
use crate::config::kubernetes::CONTROLLER;
use crate::kubernetes::calls::{Refusal, timestamp};
use crate::kubernetes::objects::Objects;
use crate::model::{Problem, Severity};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// So many problems have Events; the others are in the log, in the API of the gate and counted.
const MOST: usize = 1_000;
/// How long a problem must be there: what a rollout passes through deserves no Event.
const PATIENCE: Duration = Duration::from_secs(1);
/// When an Event of a problem that stays is written again; the API server forgets Events after an hour.
const AGAIN: Duration = Duration::from_secs(30 * 60);
/// After a failure.
const RETRY: Duration = Duration::from_secs(30);
/// The API refuses longer notes.
const NOTE: usize = 1_024;
/// Names of objects have 253 characters at the most, and ours adds 17.
const NAME: usize = 230;

/// Problems and what was written of them.
#[derive(Debug, Default)]
pub(super) struct Telling {
    known: BTreeMap<Problem, Told>,
}

#[derive(Debug)]
struct Told {
    /// When it is written next.
    due: Instant,
    /// How often it was seen; 0: never written.
    count: u32,
}

/// An Event to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    place: Place,
    uid: Arc<str>,
    warning: bool,
    reason: &'static str,
    action: &'static str,
    note: String,
}

/// What is to be done with an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Saying {
    problem: Problem,
    pub(super) event: Event,
    /// How often it was seen before; 0: it is to be made.
    pub(super) before: u32,
}

impl Telling {
    /// Takes in the problems there are now.
    pub(super) fn see(&mut self, problems: &[Problem], now: Instant) {
        let ours = || problems.iter().filter(|problem| Place::of(&problem.origin).is_some());
        let current: std::collections::BTreeSet<&Problem> = ours().collect();
        self.known.retain(|problem, _| current.contains(problem));
        for problem in ours() {
            if self.known.len() >= MOST {
                return;
            }
            if !self.known.contains_key(problem) {
                self.known.insert(problem.clone(), Told { due: now + PATIENCE, count: 0 });
            }
        }
    }

    /// What there is to write now, `most` of it.
    pub(super) fn plan(&mut self, objects: &Objects, now: Instant, most: usize) -> Vec<Saying> {
        let mut found = Vec::new();
        for (problem, told) in self.known.iter_mut().filter(|(_, told)| told.due <= now) {
            if found.len() >= most {
                break;
            }
            let Some(event) = Event::of(problem, objects) else {
                // The object is not there, or not any more.
                told.due = now + RETRY;
                continue;
            };
            found.push(Saying { problem: problem.clone(), event, before: told.count });
        }
        found
    }

    /// When there is something to write.
    pub(super) fn due(&self) -> Option<Instant> {
        self.known.values().map(|told| told.due).min()
    }

    /// Takes in what became of it.
    pub(super) fn heard(&mut self, saying: &Saying, answer: Result<(), Refusal>, now: Instant) {
        let Some(told) = self.known.get_mut(&saying.problem) else { return };
        match answer {
            Ok(()) => (told.count, told.due) = (saying.before + 1, now + AGAIN),
            // It is there, by a leader before, or from before the problem was solved and came back.
            Err(Refusal::Conflict) if saying.before == 0 => (told.count, told.due) = (1, now),
            // The API server has forgotten it.
            Err(Refusal::Absent) if saying.before > 0 => (told.count, told.due) = (0, now),
            Err(_) => told.due = now + RETRY,
        }
    }
}

impl Event {
    /// What is said of a problem; `None`: nobody knows the object.
    fn of(problem: &Problem, objects: &Objects) -> Option<Self> {
        let place = Place::of(&problem.origin)?;
        let uid = place.uid(objects)?;
        let hint = if problem.hint.is_empty() { String::new() } else { format!("; {}", problem.hint) };
        let within = within(&problem.origin);
        let within = if within.is_empty() { within } else { format!("{within}: ") };
        let note = format!("{within}{}{hint}", problem.what);
        Some(Self {
            warning: true,
            reason: reason(problem, &place),
            action: "Translate",
            note: cut(note, NOTE),
            place,
            uid,
        })
    }

    /// An edit went live.
    pub(super) fn live(change: &super::config_map::Change) -> Self {
        let (accepted, refused) = change.counts;
        let refused = if refused == 0 { String::new() } else { format!(", {refused} refused") };
        Self {
            place: Place { kind: super::place::Kind::ConfigMap, key: change.key.clone() },
            uid: change.uid.clone(),
            warning: false,
            reason: "RoutesLive",
            action: "Publish",
            note: format!("resourceVersion {} is live: {accepted} routes serve{refused}", change.version),
        }
    }

    /// Path of all Events of the object's namespace.
    pub(super) fn collection(&self) -> String {
        format!("/apis/events.k8s.io/v1/namespaces/{}/events", self.place.key.namespace)
    }

    /// The same for the same object and the same words, by whichever gate.
    pub(super) fn name(&self) -> String {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in [&*self.uid, self.reason, &self.note].iter().flat_map(|part| part.bytes().chain([0])) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let name: String = self.place.key.name.chars().take(NAME).collect();
        format!("{}.{hash:016x}", name.trim_end_matches(['-', '.']))
    }

    /// The Event as it is made, by a gate of this name.
    pub(super) fn body(&self, me: &str) -> Value {
        let Place { kind, key } = &self.place;
        json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": self.name(), "namespace": &*key.namespace},
            "eventTime": timestamp(),
            "reportingController": CONTROLLER,
            "reportingInstance": me.chars().take(128).collect::<String>(),
            "type": if self.warning { "Warning" } else { "Normal" },
            "reason": self.reason,
            "action": self.action,
            "note": self.note,
            "regarding": {
                "apiVersion": kind.api_version(),
                "kind": kind.as_str(),
                "namespace": &*key.namespace,
                "name": &*key.name,
                "uid": &*self.uid,
            },
        })
    }

    /// The patch that says: still so, or again.
    pub(super) fn again(before: u32) -> Value {
        json!({"series": {"count": before + 1, "lastObservedTime": timestamp()}})
    }
}

/// One word for a class of problems, by what it is about; a reader filters by it. The words of a problem are for people, so that
/// one that is put in another way falls to the class of its object, and no further.
fn reason(problem: &Problem, place: &Place) -> &'static str {
    use super::place::Kind;
    let what = problem.what.as_str();
    let says = |words: &[&str]| words.iter().any(|word| what.contains(word));
    match place.kind {
        Kind::Secret => "SecretUnusable",
        _ if says(&["Secret", "certificate"]) => "SecretUnusable",
        _ if says(&["is taken already"]) => "HostTaken",
        _ if says(&["there is already a"]) => "NameTaken",
        _ if what.starts_with("there is no Service ") || what.starts_with("Service ") => "ServiceUnusable",
        _ if problem.severity == Severity::Warning => "RouteDoubtful",
        Kind::Service => "ExposeRefused",
        Kind::ConfigMap | Kind::Ingress => "RouteRefused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::objects::{Key, Meta, RoutesConfigMap};
    use crate::model::{Origin, Position};

    fn objects() -> Objects {
        let meta = Meta { key: Key::new("tidegate", "routes"), uid: "u1".into(), ..Meta::default() };
        let map = RoutesConfigMap { meta: meta.into(), ..RoutesConfigMap::default() };
        Objects { config_maps: [(map.meta.key.clone(), Arc::new(map))].into(), ..Objects::default() }
    }

    fn problem(what: &str) -> Problem {
        let at = Some(Position { line: 3, column: 5 });
        Problem::error(Origin::of("ConfigMap/tidegate/routes/shop.yaml").at("routes[0]", at), what, "write it out")
    }

    #[test]
    fn a_problem_that_stays_a_second_is_one_event_with_its_line_and_column() {
        let (mut telling, start) = (Telling::default(), Instant::now());
        telling.see(&[problem("unknown key")], start);
        assert_eq!(telling.plan(&objects(), start, 10), []);
        let now = telling.due().unwrap();
        assert_eq!(now - start, PATIENCE);
        let sayings = telling.plan(&objects(), now, 10);
        let event = &sayings[0].event;
        let body = event.body("gate-1");
        assert_eq!(body["note"], "shop.yaml:3:5: routes[0]: unknown key; write it out");
        assert_eq!((&body["type"], &body["reason"]), (&json!("Warning"), &json!("RouteRefused")));
        assert_eq!(body["regarding"]["uid"], "u1");
        assert_eq!(event.collection(), "/apis/events.k8s.io/v1/namespaces/tidegate/events");
        telling.heard(&sayings[0], Ok(()), now);
        telling.see(&[problem("unknown key")], now);
        assert_eq!(telling.plan(&objects(), now + AGAIN / 2, 10), []);
        assert_eq!(telling.plan(&objects(), now + AGAIN, 10)[0].before, 1);
    }

    #[test]
    fn two_leaders_give_the_same_event_the_same_name() {
        let event = |what: &str| Event::of(&problem(what), &objects()).unwrap().name();
        assert_eq!(event("a"), event("a"));
        assert_ne!(event("a"), event("b"));
        assert!(event("a").starts_with("routes."));
    }

    #[test]
    fn an_event_that_is_there_is_counted_on_and_one_that_was_forgotten_is_made_again() {
        let (mut telling, start) = (Telling::default(), Instant::now());
        telling.see(&[problem("x")], start);
        let mut now = start + PATIENCE;
        let mut next = |answer, now: &mut Instant| {
            let saying = telling.plan(&objects(), *now, 10).remove(0);
            telling.heard(&saying, answer, *now);
            *now = telling.due().unwrap();
            saying.before
        };
        assert_eq!(next(Err(Refusal::Conflict), &mut now), 0);
        assert_eq!(next(Ok(()), &mut now), 1);
        assert_eq!(next(Err(Refusal::Absent), &mut now), 2);
        assert_eq!(next(Err(Refusal::Failed), &mut now), 0);
        assert_eq!(next(Ok(()), &mut now), 0);
        assert_eq!(now - start, PATIENCE + AGAIN + RETRY + AGAIN);
    }

    #[test]
    fn a_problem_that_is_gone_is_forgotten_and_files_have_no_events() {
        let (mut telling, now) = (Telling::default(), Instant::now());
        telling.see(&[problem("x"), Problem::error(Origin::of("routes.yaml"), "y", "")], now);
        assert_eq!(telling.known.len(), 1);
        telling.see(&[], now);
        assert_eq!((telling.known.len(), telling.due()), (0, None));
    }

    #[test]
    fn an_object_that_is_not_there_has_no_events() {
        let (mut telling, now) = (Telling::default(), Instant::now());
        telling.see(&[problem("x")], now);
        assert_eq!(telling.plan(&Objects::default(), now + PATIENCE, 10), []);
        assert_eq!(telling.due(), Some(now + PATIENCE + RETRY));
    }

    #[test]
    fn there_is_a_bound_of_problems_and_of_words() {
        let (mut telling, now) = (Telling::default(), Instant::now());
        let many: Vec<Problem> = (0..5_000).map(|n| problem(&format!("{n} {}", "ä".repeat(2_000)))).collect();
        telling.see(&many, now);
        assert_eq!(telling.known.len(), MOST);
        let sayings = telling.plan(&objects(), now + PATIENCE, 20);
        assert_eq!(sayings.len(), 20);
        assert!(sayings.iter().all(|saying| saying.event.note.len() <= NOTE));
    }

    #[test]
    fn a_reason_says_what_a_problem_is_about() {
        let reason = |problem: Problem| Event::of(&problem, &objects()).unwrap().reason;
        assert_eq!(reason(problem("unknown key \"port\"")), "RouteRefused");
        assert_eq!(reason(problem("shop.test/ is taken already, by Ingress shop/web")), "HostTaken");
        assert_eq!(reason(problem("there is no Service shop/web")), "ServiceUnusable");
        assert_eq!(reason(problem("there is no Secret shop/cert")), "SecretUnusable");
        let doubtful = Problem::warning(Origin::of("ConfigMap/tidegate/routes"), "hidden", "");
        assert_eq!(reason(doubtful), "RouteDoubtful");
    }

    #[test]
    fn a_long_name_is_cut_to_a_name() {
        let mut event = Event::of(&problem("x"), &objects()).unwrap();
        event.place.key = Key::new("tidegate", format!("{}-{}", "a".repeat(NAME - 1), "b".repeat(23)));
        assert!(event.name().len() <= 253 && event.name().starts_with(&format!("{}.", "a".repeat(NAME - 1))));
    }
}
