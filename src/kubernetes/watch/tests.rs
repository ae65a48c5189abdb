//! Is whatever an API server may do survived? Played by a service in this process, because a real one cannot be made to do it.

use super::*;
use crate::kubernetes::objects::RoutesConfigMap;
use crate::telemetry::{Registry, families};
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::LocalSet;
use tokio::time::Instant;

/// What the API server does with a call.
enum Answer {
    /// Answers at once.
    Json(u16, Value),
    /// Sends these events, and then ends.
    Events(Vec<Value>),
    /// Sends these events, and then nothing, not even an end.
    Silence(Vec<Value>),
}

use Answer::{Events, Json, Silence};

#[derive(Clone)]
struct Calls(Arc<Mutex<Vec<(String, Instant)>>>);

impl Calls {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(query, _)| query.clone()).collect()
    }

    /// Between a call and the one after it.
    fn pause(&self, call: usize) -> Duration {
        let calls = self.0.lock().unwrap();
        calls[call + 1].1 - calls[call].1
    }
}

/// A client of an API server that answers like this, and with silence after that.
fn played(answers: Vec<Answer>) -> (Client, Calls) {
    let calls = Calls(Arc::default());
    let (answers, seen) = (Arc::new(Mutex::new(VecDeque::from(answers))), calls.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let call = (request.uri().query().unwrap_or_default().to_owned(), Instant::now());
        seen.0.lock().unwrap().push(call);
        let answer = answers.lock().unwrap().pop_front().unwrap_or(Silence(vec![]));
        async move { Ok::<_, Infallible>(answer.response()) }
    });
    (Client::new(service, "edge"), calls)
}

impl Answer {
    fn response(self) -> Response<http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>> {
        let (status, chunks, ends) = match self {
            Json(status, value) => (status, vec![value.to_string()], true),
            Events(events) => (200, events.iter().map(|event| format!("{event}\n")).collect(), true),
            Silence(events) => (200, events.iter().map(|event| format!("{event}\n")).collect(), false),
        };
        let chunks = stream::iter(chunks.into_iter().map(|text| Ok(Frame::data(Bytes::from(text)))));
        let body = if ends {
            StreamBody::new(chunks).boxed_unsync()
        } else {
            StreamBody::new(chunks.chain(stream::pending())).boxed_unsync()
        };
        Response::builder().status(status).body(body).unwrap()
    }
}

fn map(name: &str, version: u32) -> Value {
    json!({ "metadata": { "namespace": "edge", "name": name, "resourceVersion": version.to_string() } })
}

fn added(name: &str, version: u32) -> Value {
    json!({ "type": "ADDED", "object": map(name, version) })
}

fn listed(version: u32) -> Value {
    let meta =
        json!({ "resourceVersion": version.to_string(), "annotations": { "k8s.io/initial-events-end": "true" } });
    json!({ "type": "BOOKMARK", "object": { "kind": "ConfigMap", "apiVersion": "v1", "metadata": meta } })
}

fn failure(code: u16, reason: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": format!("says {reason}"),
            "reason": reason, "code": code })
}

/// Writes news down.
#[derive(Clone, Default)]
struct Page(Rc<RefCell<Vec<String>>>);

impl Sink<ConfigMap> for Page {
    type Object = RoutesConfigMap;

    fn read(&mut self, object: ConfigMap) -> RoutesConfigMap {
        object.into()
    }

    fn take(&mut self, news: News<RoutesConfigMap>) {
        let name = |map: &RoutesConfigMap| format!("{}@{}", map.meta.key.name, map.meta.version);
        let line = match news {
            News::Listed { all, unreadable } => {
                let unreadable = unreadable.iter().map(|(key, _)| format!("?{}", key.name));
                format!("all {}", all.iter().map(name).chain(unreadable).collect::<Vec<_>>().join(" "))
            }
            News::Put(map) => format!("put {}", name(&map)),
            News::Gone(key) => format!("gone {key}"),
            News::Unreadable(key, _) => format!("unreadable {key}"),
            News::Refused(words) => format!("refused: {words}"),
            News::Pause => return,
        };
        self.0.borrow_mut().push(line);
    }
}

/// Follows for a time; gives the news and the calls.
async fn followed(answers: Vec<Answer>, time: Duration) -> (Vec<String>, Calls) {
    let (client, calls) = played(answers);
    let page = Page::default();
    let registry = Registry::new(1, 100);
    let watch = Watch {
        resource: "configmaps",
        api: Box::new(|client| Api::namespaced(client, "edge")),
        labels: Some("tidegate.io/routes".into()),
        fields: None,
        restarts: registry.counter(&families::KUBERNETES_WATCH_RESTARTS, &[("kind", "ConfigMap")]),
    };
    let shared = Rc::new(Shared::new(Rc::new(Connection::of(client, &registry))));
    let follow = follow::<ConfigMap, _>(watch, shared, page.clone());
    let _ = LocalSet::new().run_until(tokio::time::timeout(time, follow)).await;
    let news = page.0.borrow().clone();
    (news, calls)
}

const SHORT: Duration = Duration::from_secs(25);

#[tokio::test(start_paused = true)]
async fn a_list_is_streamed_and_then_followed() {
    let gone = json!({ "type": "DELETED", "object": map("a", 8) });
    let answers = vec![Silence(vec![added("a", 1), added("b", 2), listed(5), added("c", 7), gone])];
    let (news, calls) = followed(answers, SHORT).await;
    assert_eq!(news, ["all a@1 b@2", "put c@7", "gone edge/a"]);
    let calls = calls.all();
    assert_eq!(calls.len(), 1);
    for part in
        ["sendInitialEvents=true", "labelSelector=tidegate.io%2Froutes", "timeoutSeconds=", "allowWatchBookmarks=true"]
    {
        assert!(calls[0].contains(part), "{part}: {}", calls[0]);
    }
}

fn page(names: &[&str], more: &str) -> Answer {
    let items: Vec<Value> = names.iter().map(|name| map(name, 1)).collect();
    let meta = json!({ "resourceVersion": "5", "continue": more });
    Json(200, json!({ "apiVersion": "v1", "kind": "ConfigMapList", "items": items, "metadata": meta }))
}

fn gone() -> Value {
    json!({ "type": "ERROR", "object": failure(410, "Expired") })
}

#[tokio::test(start_paused = true)]
async fn lists_are_read_by_pages_where_they_are_not_streamed() {
    let answers = vec![
        Json(422, failure(422, "Invalid")),
        page(&["a", "b"], "more"),
        page(&["c"], ""),
        Silence(vec![added("d", 6)]),
    ];
    let (news, calls) = followed(answers, SHORT).await;
    assert_eq!(news, ["all a@1 b@1 c@1", "put d@6"]);
    assert!(calls.all()[1].contains("limit=500") && calls.all()[3].contains("resourceVersion=5"), "{:?}", calls.all());
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_list_never_ends_is_given_up_for_pages() {
    let (_, calls) = followed(vec![Events(vec![added("a", 1)]), Events(vec![added("a", 1)])], SHORT).await;
    assert!(calls.all()[2].contains("limit=500"), "{:?}", calls.all());
}

#[tokio::test(start_paused = true)]
async fn lists_are_streamed_again_after_a_stream_was_cut_and_a_list_by_pages_is_complete() {
    let cut = || Events(vec![added("a", 1)]);
    let answers = vec![
        cut(),
        cut(),
        Json(500, failure(500, "InternalError")),
        page(&["a"], ""),
        Events(vec![gone()]),
        Silence(vec![added("b", 2), listed(90)]),
    ];
    let (news, calls) = followed(answers, SHORT).await;
    assert_eq!(news, ["all a@1", "all b@2"]);
    let calls = calls.all();
    assert!(calls[2].contains("limit=500") && calls[3].contains("limit=500"), "{calls:?}");
    assert!(calls[4].contains("resourceVersion=5") && calls[5].contains("sendInitialEvents=true"), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn where_lists_are_not_streamed_that_is_asked_once() {
    let answers = vec![Json(400, failure(400, "BadRequest")), page(&["a"], ""), Events(vec![gone()]), page(&["b"], "")];
    let (news, calls) = followed(answers, SHORT).await;
    assert_eq!(news, ["all a@1", "all b@1"]);
    assert!(calls.all()[3].contains("limit=500"), "{:?}", calls.all());
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_listed_again_and_nothing_is_said_to_be_gone_before_that() {
    let answers = vec![
        Events(vec![added("a", 1), added("b", 2), listed(5)]),
        Events(vec![gone()]),
        Silence(vec![added("b", 2), listed(90)]),
    ];
    let (news, calls) = followed(answers, SHORT).await;
    assert_eq!(news, ["all a@1 b@2", "all b@2"]);
    assert!(
        calls.all()[1].contains("resourceVersion=5") && !calls.all()[1].contains("sendInitialEvents"),
        "{:?}",
        calls.all()
    );
    assert!(calls.pause(1) < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_answered_with_gone_is_not_made_again_and_again() {
    let answers =
        vec![Events(vec![listed(5)]), Json(410, failure(410, "Gone")), Silence(vec![added("a", 9), listed(9)])];
    let (news, _) = followed(answers, SHORT).await;
    assert_eq!(news, ["all ", "all a@9"]);
}

#[tokio::test(start_paused = true)]
async fn a_half_open_connection_is_noticed_within_a_minute_and_the_watch_goes_on_where_it_was() {
    let answers = vec![Silence(vec![added("a", 1), listed(5)]), Silence(vec![added("b", 6)])];
    let (news, calls) = followed(answers, Duration::from_secs(90)).await;
    assert_eq!(news[..2], ["all a@1", "put b@6"]);
    assert!(calls.pause(0) <= Duration::from_secs(58), "{:?}", calls.pause(0));
    assert!(calls.all()[1].contains("resourceVersion=5"));
}

#[tokio::test(start_paused = true)]
async fn an_object_that_does_not_decode_does_not_end_the_watch() {
    let wrong = |kind: &str, version: u32| {
        let mut object = map("odd", version);
        object["data"] = json!(["no", "map"]);
        json!({ "type": kind, "object": object })
    };
    let answers = vec![Silence(vec![added("a", 1), wrong("ADDED", 2), listed(5), wrong("MODIFIED", 6), added("b", 7)])];
    let (news, calls) = followed(answers, SHORT).await;
    assert_eq!(news, ["all a@1 ?odd", "unreadable edge/odd", "put b@7"]);
    assert_eq!(calls.all().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_and_asked_about_again_with_patience() {
    let answers =
        vec![Json(403, failure(403, "Forbidden")), Json(403, failure(403, "Forbidden")), Silence(vec![listed(5)])];
    let (news, calls) = followed(answers, SHORT).await;
    assert_eq!(news, ["refused: says Forbidden", "refused: says Forbidden", "all "]);
    assert!(calls.pause(0) >= Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_fails_is_asked_less_and_less_often() {
    let answers = (0..40).map(|_| Json(500, failure(500, "InternalError"))).collect();
    let (news, calls) = followed(answers, Duration::from_secs(120)).await;
    assert!(news.is_empty());
    assert!((8..20).contains(&calls.all().len()), "{}", calls.all().len());
    assert!(calls.pause(0) < Duration::from_millis(200) && calls.pause(8) > Duration::from_secs(8));
}

#[tokio::test(start_paused = true)]
async fn who_we_are_is_read_again_when_the_api_server_does_not_know_us() {
    let answers =
        vec![Events(vec![listed(5)]), Json(401, failure(401, "Unauthorized")), Silence(vec![added("a", 6), listed(6)])];
    let (news, calls) = followed(answers, SHORT).await;
    assert_eq!(news, ["all ", "all a@6"]);
    assert!(calls.all()[2].contains("sendInitialEvents=true"));
}
