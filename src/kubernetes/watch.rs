//! How is one kind followed, whatever the API server does?
//!
//! A watch ends after half a minute to fifty seconds, each kind after a time of its own, and goes on where it was; so a connection that
//! is half open is noticed within a minute. Lists are streamed where the API server does that, and read by pages elsewhere. Nothing
//! that was learnt is dropped before a new list is complete.

use super::backoff::Backoff;
use super::client::{Connection, chain};
use super::objects::Key;
use crate::message::random;
use crate::telemetry::Counter;
use futures_util::{FutureExt, Stream, StreamExt};
use kube::api::{Api, Resource};
use kube::core::{DeserializeGuard, Status};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, Error};
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::pin::Pin;
use std::rc::Rc;
use tokio::sync::Semaphore;

/// Seconds after which a watch ends, at the least and at the most.
const TIMEOUT: (u32, u32) = (30, 50);
/// Objects in a page of a list that is not streamed.
const PAGE: u32 = 500;
/// First lists that are read at once: a gate must not be what an API server is busy with.
const AT_ONCE: usize = 16;
/// Failures in a row after which the configuration of the client is read again.
const HOPELESS: u32 = 8;

/// What is watched.
pub(super) struct Watch<K> {
    /// The kind as permissions name it: `endpointslices.discovery.k8s.io`.
    pub(super) resource: &'static str,
    /// Makes the calls of this kind, in its namespace or in all.
    pub(super) api: Box<dyn Fn(Client) -> Api<DeserializeGuard<K>>>,
    /// Label selector.
    pub(super) labels: Option<String>,
    /// Field selector.
    pub(super) fields: Option<String>,
    /// Counts what was begun again.
    pub(super) restarts: Counter,
}

/// What all watches share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The way to the API server.
    pub(super) connection: Rc<Connection>,
    lists: Semaphore,
}

impl Shared {
    pub(super) fn new(connection: Rc<Connection>) -> Self {
        Self { connection, lists: Semaphore::new(AT_ONCE) }
    }
}

/// Where news of a watch goes.
pub(super) trait Sink<K> {
    /// What is kept of an object.
    type Object;
    /// Makes an object small, as soon as it has arrived.
    fn read(&mut self, object: K) -> Self::Object;
    /// Takes news.
    fn take(&mut self, news: News<Self::Object>);
}

/// What a watch says.
#[derive(Debug, PartialEq)]
pub(super) enum News<O> {
    /// These are all objects there are, but those that cannot be read.
    Listed { all: Vec<O>, unreadable: Vec<(Key, String)> },
    /// An object is there, or is another now.
    Put(O),
    /// An object is gone.
    Gone(Key),
    /// An object is there that does not decode, and why.
    Unreadable(Key, String),
    /// The API server does not allow it; its words.
    Refused(String),
    /// Nothing more has arrived for now.
    Pause,
}

/// Why a watch is begun anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// With a new list.
    List,
    /// The same by pages, because the stream of a list was cut.
    Cut,
    /// The same by pages, because lists are not streamed.
    Unstreamed,
    /// The same, with a client that has read again who we are.
    Renewed,
}

/// How lists are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lists {
    Streamed,
    /// By pages until one is complete: a cut may have been an accident, and pages of a large kind are dear to an API server.
    PagesOnce,
    /// By pages for good.
    Pages,
}

/// What became of a failure.
enum Verdict {
    /// It goes on where it was, after a pause.
    GoOn,
    Again(Again),
    Refused(String),
}

/// Follows a kind for as long as it is polled.
pub(super) async fn follow<K, S>(watch: Watch<K>, shared: Rc<Shared>, mut sink: S)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
    S: Sink<K>,
{
    let mut backoff = Backoff::new();
    let mut lists = Lists::Streamed;
    let spread = random::below(u64::from(TIMEOUT.1 - TIMEOUT.0 + 1));
    let timeout = TIMEOUT.0 + u32::try_from(spread).unwrap_or_default();
    loop {
        let mut config = watcher::Config::default().timeout(timeout).page_size(PAGE);
        config.label_selector.clone_from(&watch.labels);
        config.field_selector.clone_from(&watch.fields);
        let streaming = lists == Lists::Streamed;
        if streaming {
            config = config.streaming_lists();
        }
        let stream = Box::pin(watcher((watch.api)(shared.connection.client()), config));
        let run =
            Run { watch: &watch, shared: &shared, backoff: &mut backoff, streaming, lists: &mut lists, failures: 0 };
        match run.until_again(stream, &mut sink).await {
            Again::List => {}
            Again::Cut => lists = Lists::PagesOnce,
            Again::Unstreamed => lists = Lists::Pages,
            Again::Renewed => shared.connection.renew().await,
        }
        watch.restarts.add(1);
    }
}

/// One stream of events.
struct Run<'a, K> {
    watch: &'a Watch<K>,
    shared: &'a Shared,
    backoff: &'a mut Backoff,
    /// How it was begun.
    streaming: bool,
    /// How the next is begun.
    lists: &'a mut Lists,
    failures: u32,
}

/// A list that is not complete.
struct Listing<O> {
    all: Vec<O>,
    unreadable: Vec<(Key, String)>,
}

type Events<K> = watcher::Result<Event<DeserializeGuard<K>>>;

impl<K: Resource<DynamicType = ()>> Run<'_, K> {
    async fn until_again<S: Sink<K>>(
        mut self,
        mut stream: Pin<Box<impl Stream<Item = Events<K>>>>,
        sink: &mut S,
    ) -> Again {
        let mut permit = self.shared.lists.acquire().await.ok();
        let mut listing: Option<Listing<S::Object>> = None;
        loop {
            let ready = stream.next().now_or_never();
            let event = match ready {
                Some(event) => event,
                None => {
                    sink.take(News::Pause);
                    stream.next().await
                }
            };
            match event {
                Some(Ok(Event::Init)) => match self.otherwise(listing.is_some()) {
                    Some(again) => return again,
                    None => listing = Some(Listing { all: Vec::new(), unreadable: Vec::new() }),
                },
                Some(Ok(Event::InitApply(DeserializeGuard(object)))) => {
                    let listing = listing.get_or_insert_with(|| Listing { all: Vec::new(), unreadable: Vec::new() });
                    match object {
                        Ok(object) => listing.all.push(sink.read(object)),
                        Err(wrong) => listing.unreadable.push((key(&wrong.metadata), wrong.error)),
                    }
                }
                Some(Ok(Event::InitDone)) => {
                    self.worked();
                    self.list_is_complete();
                    permit = None;
                    if let Some(Listing { all, unreadable }) = listing.take() {
                        sink.take(News::Listed { all, unreadable });
                    }
                }
                Some(Ok(Event::Apply(DeserializeGuard(object)))) => {
                    self.worked();
                    let news = match object {
                        Ok(object) => News::Put(sink.read(object)),
                        Err(wrong) => News::Unreadable(key(&wrong.metadata), wrong.error),
                    };
                    sink.take(news);
                }
                Some(Ok(Event::Delete(object))) => {
                    self.worked();
                    sink.take(News::Gone(key(object.meta())));
                }
                Some(Err(error)) => {
                    drop(permit.take());
                    if let Some(again) = self.failed(&error, sink).await {
                        return again;
                    }
                }
                None => return Again::List,
            }
        }
    }

    /// Whether a list that begins is to be read in another way than this stream reads lists.
    fn otherwise(&self, incomplete: bool) -> Option<Again> {
        // Two beginnings and no end: the stream of the list was cut, or its end is never marked.
        if incomplete && self.streaming {
            return Some(Again::Cut);
        }
        (!self.streaming && *self.lists == Lists::Streamed).then_some(Again::List)
    }

    fn list_is_complete(&mut self) {
        if *self.lists == Lists::PagesOnce {
            *self.lists = Lists::Streamed;
        }
    }

    fn worked(&mut self) {
        self.failures = 0;
        self.backoff.reset();
    }

    /// Waits after a failure; says where to begin after that, unless the stream goes on by itself.
    async fn failed<S: Sink<K>>(&mut self, error: &watcher::Error, sink: &mut S) -> Option<Again> {
        self.failures += 1;
        tracing::debug!(resource = self.watch.resource, error = chain(error), "a watch failed");
        if status(error).is_none() {
            self.shared.connection.unanswered(error);
        }
        sink.take(News::Pause);
        match verdict(error, self.streaming) {
            Verdict::Refused(words) => {
                sink.take(News::Refused(words));
                self.backoff.wait_refused().await;
                Some(Again::List)
            }
            Verdict::Again(again) => {
                self.backoff.wait().await;
                Some(again)
            }
            Verdict::GoOn => {
                self.watch.restarts.add(1);
                self.backoff.wait().await;
                (self.failures >= HOPELESS).then_some(Again::Renewed)
            }
        }
    }
}

fn verdict(error: &watcher::Error, streaming: bool) -> Verdict {
    let Some(status) = status(error) else { return Verdict::GoOn };
    match status.code {
        401 => Verdict::Again(Again::Renewed),
        403 => Verdict::Refused(status.message.clone()),
        // The event of this name has the stream itself begin anew; as an answer to a call it would come again and again.
        410 if !matches!(error, watcher::Error::WatchError(_)) => Verdict::Again(Again::List),
        // `sendInitialEvents` is not known, or switched off.
        400 | 422 if streaming => Verdict::Again(Again::Unstreamed),
        _ => Verdict::GoOn,
    }
}

/// What the API server said, where it said something.
fn status(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(Error::Api(status))
        | watcher::Error::WatchStartFailed(Error::Api(status))
        | watcher::Error::WatchFailed(Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

fn key(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Key {
    Key::new(meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// The keys of objects that cannot be read.
pub(super) fn keys(unreadable: &[(Key, String)]) -> BTreeSet<Key> {
    unreadable.iter().map(|(key, _)| key.clone()).collect()
}

#[cfg(test)]
mod tests;
