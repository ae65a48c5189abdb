//! How do changes of EndpointSlices come to their clusters?

use super::Read;
use crate::kubernetes::desk::{Desk, count};
use crate::kubernetes::objects::Key;
use crate::kubernetes::watch::{News, Sink, keys};
use crate::telemetry::{Gauge, Registry, families};
use k8s_openapi::api::discovery::v1 as discovery;
use std::collections::BTreeSet;

/// Keeps EndpointSlices, and says at once who belongs to a cluster.
pub(in crate::kubernetes) struct SliceKeeper {
    pub(in crate::kubernetes) desk: Desk,
    pub(in crate::kubernetes) endpoints: Gauge,
    touched: BTreeSet<Key>,
    zone: Option<String>,
}

impl SliceKeeper {
    pub(in crate::kubernetes) fn new(desk: Desk, registry: &Registry) -> Self {
        let endpoints = registry.gauge(&families::KUBERNETES_ENDPOINTS, &[]);
        Self { desk, endpoints, touched: BTreeSet::new(), zone: None }
    }

    /// Says what has changed since the last pause.
    fn say(&mut self) {
        let store = &self.desk.store;
        let slices = store.slices.borrow();
        if slices.zone() != self.zone.as_deref() {
            self.zone = slices.zone().map(str::to_owned);
            store.road.borrow().all(&slices);
        } else if !self.touched.is_empty() {
            store.road.borrow().touched(&self.touched, &slices);
        }
        self.touched.clear();
        self.endpoints.set(count(slices.endpoints()));
        self.desk.gauge.set(count(slices.len()));
    }
}

impl Sink<discovery::EndpointSlice> for SliceKeeper {
    type Object = Read;

    fn read(&mut self, object: discovery::EndpointSlice) -> Read {
        self.desk.store.slices.borrow_mut().read(object)
    }

    fn take(&mut self, news: News<Read>) {
        let slices = &self.desk.store.slices;
        match news {
            News::Listed { all, unreadable } => {
                let namespace = self.desk.namespace.as_deref();
                self.touched.extend(slices.borrow_mut().replace(namespace, all, &keys(&unreadable)));
                self.say();
                self.desk.listed(&unreadable);
            }
            News::Put(read) => {
                self.desk.readable(&read.key);
                self.touched.extend(slices.borrow_mut().put(read));
            }
            News::Gone(key) => {
                self.desk.readable(&key);
                self.touched.extend(slices.borrow_mut().remove(&key));
            }
            News::Unreadable(key, why) => self.desk.unreadable(&key, &why),
            News::Refused(words) => self.desk.refused(&words),
            News::Pause => self.say(),
        }
    }
}
