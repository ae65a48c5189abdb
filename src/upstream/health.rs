//! Which endpoints fail their active checks?
//!
//! One task for each cluster, which runs one for each endpoint. An endpoint is taken for healthy until so many checks in a row
//! failed: a proxy that has just started must not refuse everything until its first checks are through, and passive ejection
//! is there from the first request.

use super::check::{self, CheckError};
use super::cluster::Cluster;
use super::endpoint::{Endpoint, EndpointId};
use super::random;
use crate::model::HealthCheckSpec;
use crate::telemetry::families;
use crate::telemetry::metrics::Counter;
use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::task::{AbortHandle, JoinSet};

/// Checks all members of a cluster as they change, until the cluster is dropped; at once done where it has no checks. To be
/// run on the control thread.
pub async fn run(cluster: Weak<Cluster>) {
    let Some(mut changes) = cluster.upgrade().filter(|c| c.spec().health_check.is_some()).map(|c| c.changes()) else {
        return;
    };
    let mut tasks = JoinSet::new();
    let mut watched = HashMap::new();
    loop {
        match cluster.upgrade() {
            Some(strong) => follow(&strong, &mut tasks, &mut watched),
            None => return,
        }
        while tasks.try_join_next().is_some() {}
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Watches new members, and no longer those that left.
fn follow(cluster: &Arc<Cluster>, tasks: &mut JoinSet<()>, watched: &mut HashMap<EndpointId, AbortHandle>) {
    let Some(spec) = &cluster.spec().health_check else { return };
    let members = cluster.members();
    let stays: HashMap<EndpointId, &Arc<Endpoint>> = members.iter().map(|e| (e.id, e)).collect();
    watched.retain(|id, task| {
        let stay = stays.contains_key(id);
        if !stay {
            task.abort();
        }
        stay
    });
    for (id, endpoint) in stays {
        watched.entry(id).or_insert_with(|| {
            let watch = Watch::new(cluster, endpoint, HealthCheckSpec::clone(spec));
            tasks.spawn(watch.run())
        });
    }
}

/// The checks of one endpoint.
struct Watch {
    cluster: Weak<Cluster>,
    endpoint: Arc<Endpoint>,
    spec: HealthCheckSpec,
    /// Answers in a row that speak against the verdict as it is.
    against: u32,
    successes: Counter,
    failures: Counter,
}

impl Watch {
    fn new(cluster: &Arc<Cluster>, endpoint: &Arc<Endpoint>, spec: HealthCheckSpec) -> Self {
        let counter = |result| cluster.ward.meters.rare(&families::HEALTH_CHECKS, Some(("result", result)));
        Self {
            cluster: Arc::downgrade(cluster),
            endpoint: Arc::clone(endpoint),
            spec,
            against: 0,
            successes: counter("success"),
            failures: counter("failure"),
        }
    }

    async fn run(mut self) {
        // The first soon, but not all endpoints of all clusters at the same time.
        tokio::time::sleep(share(self.spec.interval, 0, 10)).await;
        while let Some(cluster) = self.cluster.upgrade() {
            let asked = tokio::time::timeout(self.spec.timeout, check::ask(&cluster, &self.endpoint, &self.spec.check));
            let answer = asked.await;
            self.hear(&cluster, answer);
            drop(cluster);
            tokio::time::sleep(share(self.spec.interval, 90, 110)).await;
        }
    }

    fn hear(&mut self, cluster: &Cluster, answer: Result<Result<(), CheckError>, tokio::time::error::Elapsed>) {
        let healthy = matches!(answer, Ok(Ok(())));
        let (counter, threshold) = match healthy {
            true => (&self.successes, self.spec.healthy),
            false => (&self.failures, self.spec.unhealthy),
        };
        counter.add(1);
        if healthy == self.endpoint.is_healthy() {
            self.against = 0;
            return;
        }
        self.against += 1;
        if self.against < threshold || !cluster.ward.judge(&self.endpoint, healthy) {
            return;
        }
        self.against = 0;
        let (endpoint, cluster_name) = (self.endpoint.address(), &*cluster.spec().name);
        if healthy {
            if !cluster.spec().slow_start.is_zero() {
                self.endpoint.warm_up();
            }
            tracing::info!(%endpoint, cluster = cluster_name, "endpoint healthy");
        } else {
            tracing::warn!(%endpoint, cluster = cluster_name, reason = reason(&answer), "endpoint unhealthy");
        }
    }
}

/// A random share of a time, in percent.
fn share(time: Duration, from: u32, to: u32) -> Duration {
    let percent = from + u32::try_from(random::below(u64::from(to - from) + 1)).unwrap_or(0);
    time.saturating_mul(percent) / 100
}

/// The error and all its sources in one line.
fn reason(answer: &Result<Result<(), CheckError>, tokio::time::error::Elapsed>) -> String {
    let error = match answer {
        Ok(Ok(())) => return String::new(),
        Ok(Err(error)) => error,
        Err(_) => return "no answer in time".into(),
    };
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ClusterSpec, EndpointSpec, HealthCheck, UpstreamProtocol};
    use crate::upstream::io::{Beside, Io};
    use crate::upstream::testing::{at, cluster, members};
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Response};
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use std::convert::Infallible;
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
    use tokio::net::{TcpListener, TcpStream};

    fn checked(address: SocketAddr, check: HealthCheck) -> ClusterSpec {
        let (interval, timeout) = (Duration::from_millis(5), Duration::from_secs(5));
        let check = HealthCheckSpec { check, interval, timeout, healthy: 2, unhealthy: 3 };
        ClusterSpec { health_check: Some(check.into()), ..at(address) }
    }

    async fn until(condition: impl Fn() -> bool) {
        let poll = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), poll).await.expect("it became true");
    }

    /// Checks made so far, successes and failures.
    fn checks(cluster: &Cluster) -> u64 {
        ["success", "failure"]
            .map(|result| cluster.ward.meters.rare(&families::HEALTH_CHECKS, Some(("result", result))).get())
            .iter()
            .sum()
    }

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// Answers everything with the status that is set, on HTTP/1 or HTTP/2.
    async fn answer(listener: TcpListener, status: Arc<AtomicU16>, http2: bool) {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let status = Arc::clone(&status);
            connections.spawn(async move {
                let service = service_fn(move |request: hyper::Request<Incoming>| {
                    let response = respond(&request, status.load(SeqCst));
                    async { Ok::<_, Infallible>(response) }
                });
                if http2 {
                    serve_http2(stream, service).await;
                } else {
                    _ = hyper::server::conn::http1::Builder::new().serve_connection(Io(stream), service).await;
                }
            });
        }
    }

    async fn serve_http2<S, B>(stream: TcpStream, service: S)
    where
        S: hyper::service::Service<hyper::Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Error + Send + Sync,
    {
        let builder = hyper::server::conn::http2::Builder::new(Beside::default());
        _ = builder.serve_connection(Io(stream), service).await;
    }

    /// A plain response; for a gRPC path a health answer whose serving status is the status.
    fn respond(
        request: &hyper::Request<Incoming>,
        status: u16,
    ) -> Response<impl http_body::Body<Data = Bytes, Error = Infallible> + use<>> {
        let grpc = request.uri().path() == "/grpc.health.v1.Health/Check";
        let message = [0, 0, 0, 0, 2, 0x08, u8::try_from(status).unwrap_or(0)];
        let body = if grpc { Full::from(message.to_vec()) } else { Full::default() };
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
        let response = Response::builder().status(if grpc { 200 } else { status });
        response.body(body.with_trailers(async move { grpc.then_some(Ok(trailers)) })).unwrap()
    }

    async fn follows_the_answers(spec: ClusterSpec, listener: TcpListener, good: u16, bad: u16) {
        let status = Arc::new(AtomicU16::new(bad));
        let http2 = spec.protocol == UpstreamProtocol::Http2;
        let answers = tokio::spawn(answer(listener, Arc::clone(&status), http2));
        let cluster = cluster(&spec);
        let endpoint = members(&cluster).remove(0);
        assert!(endpoint.is_healthy(), "until it is found otherwise");
        let checks = tokio::spawn(run(Arc::downgrade(&cluster)));
        until(|| !endpoint.is_healthy()).await;
        status.store(good, SeqCst);
        until(|| endpoint.is_healthy()).await;
        drop(cluster);
        checks.await.unwrap();
        answers.abort();
    }

    #[tokio::test]
    async fn http_checks_follow_the_status() {
        let (listener, address) = listener().await;
        let check = HealthCheck::Http { path: "/health".into(), host: None, status: None };
        follows_the_answers(checked(address, check), listener, 204, 500).await;
    }

    #[tokio::test]
    async fn http_checks_may_want_one_status() {
        let (listener, address) = listener().await;
        let check = HealthCheck::Http { path: "/".into(), host: Some("a.test".into()), status: Some(418) };
        follows_the_answers(checked(address, check), listener, 418, 200).await;
    }

    #[tokio::test]
    async fn http_checks_speak_the_protocol_of_the_cluster() {
        let (listener, address) = listener().await;
        let check = HealthCheck::Http { path: "/".into(), host: None, status: None };
        let spec = ClusterSpec { protocol: UpstreamProtocol::Http2, ..checked(address, check) };
        follows_the_answers(spec, listener, 200, 503).await;
    }

    #[tokio::test]
    async fn grpc_checks_follow_the_serving_status() {
        let (listener, address) = listener().await;
        let check = HealthCheck::Grpc { service: "shop.Cart".into() };
        let spec = ClusterSpec { protocol: UpstreamProtocol::Http2, ..checked(address, check) };
        follows_the_answers(spec, listener, 1, 2).await;
    }

    #[tokio::test]
    async fn tcp_checks_follow_the_port_and_the_members() {
        let (listener, address) = listener().await;
        let (other, elsewhere) = self::listener().await;
        drop(other);
        let cluster = cluster(&checked(address, HealthCheck::Tcp));
        let checks_run = tokio::spawn(run(Arc::downgrade(&cluster)));
        until(|| checks(&cluster) >= 4).await;
        assert!(members(&cluster)[0].is_healthy());
        let both = [address, elsewhere].map(|address| EndpointSpec::new(address, 1));
        cluster.set_members(&both);
        let new = members(&cluster).into_iter().find(|e| e.address() == elsewhere).unwrap();
        until(|| !new.is_healthy()).await;
        cluster.set_members(&both[..1]);
        let seen = Arc::downgrade(&new);
        drop(new);
        until(|| seen.strong_count() == 0).await;
        drop((cluster, listener));
        checks_run.await.unwrap();
    }

    #[tokio::test]
    async fn a_cluster_without_checks_is_not_watched() {
        let cluster = cluster(&at("127.0.0.1:1".parse().unwrap()));
        run(Arc::downgrade(&cluster)).await;
    }

    #[test]
    fn verdicts_need_answers_in_a_row() {
        let cluster = cluster(&checked("127.0.0.1:1".parse().unwrap(), HealthCheck::Tcp));
        let endpoint = members(&cluster).remove(0);
        let mut watch = Watch::new(&cluster, &endpoint, *cluster.spec().health_check.clone().unwrap());
        let mut hear = |answers: &str| {
            for answer in answers.chars() {
                let answer = if answer == '+' { Ok(()) } else { Err(CheckError::NotServing) };
                watch.hear(&cluster, Ok(answer));
            }
            endpoint.is_healthy()
        };
        assert!(hear("--+--"));
        assert!(!hear("-"));
        assert!(!hear("+-+-"));
        assert!(hear("++"));
    }

    #[test]
    fn the_pause_is_jittered() {
        let pauses: Vec<_> = (0..100).map(|_| share(Duration::from_secs(1), 90, 110)).collect();
        assert!(pauses.iter().all(|p| (900..=1100).contains(&p.as_millis())));
        assert!(pauses.iter().any(|p| p.as_millis() < 950) && pauses.iter().any(|p| p.as_millis() > 1050));
    }
}
