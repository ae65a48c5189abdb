//! How is a cluster written?

use super::health::{health_check, outlier};
use crate::config::decode::{Fields, Kind};
use crate::config::kind::{List, Mapped, Section, Shapes};
use crate::config::tls::{Authorities, certificate_name};
use crate::config::values;
use crate::model::{
    BalancePolicy, ClusterSpec, EndpointSpec, HashKey, Origin, ProxyHeader, UpstreamProtocol, UpstreamTlsSpec,
};
use std::sync::Arc;

/// Heaviest endpoint: weights of a cluster must add up without overflow.
const MAX_WEIGHT: u32 = 1_000_000;

/// The long form, or the endpoints alone. The name is the key it stands under.
pub(super) fn cluster() -> impl Kind<Out = ClusterSpec> {
    let endpoints = || Mapped(endpoints(), |endpoints| ClusterSpec::new("", Origin::default(), endpoints));
    let long =
        Section { name: "cluster", doc: "A named upstream service: its endpoints and how it is spoken to.", fields };
    Shapes::new().text(endpoints()).list(endpoints()).map(long)
}

fn fields(f: &mut Fields<'_, '_>) -> Option<ClusterSpec> {
    let usual = ClusterSpec::new("", Origin::default(), Vec::new());
    let doc = "Its addresses: IP:port, or { address, weight }. Required in files; in a ConfigMap a cluster is a Service, which has them.";
    let endpoints = if f.services() {
        Some(f.or_default("endpoints", doc, endpoints()))
    } else {
        f.required("endpoints", doc, endpoints())
    };
    let protocols =
        &[("http1", UpstreamProtocol::Http1), ("http2", UpstreamProtocol::Http2), ("h2", UpstreamProtocol::Http2)];
    let doc = "How it is spoken to: http1, or http2 (also written h2) by ALPN over TLS, with prior knowledge in cleartext; gRPC needs it.";
    let protocol = f.or("protocol", doc, values::choice("a protocol", protocols), usual.protocol);
    let tls = f.optional("tls", "TLS towards it. Default: cleartext.", tls());
    let versions = values::choice("a PROXY header", &[("v1", ProxyHeader::V1), ("v2", ProxyHeader::V2)]);
    let proxy_header =
        f.optional("proxy_protocol", "PROXY header sent first on each connection. Default: none.", versions);
    let balance =
        f.optional("balance", "Who is picked among the healthy endpoints.", balance()).unwrap_or(usual.balance);
    let doc = "Active checks of every endpoint: a path to GET, `tcp`, or the long form. Default: none.";
    let health_check = f.optional("health_check", doc, health_check());
    let doc = "Endpoints that fail real requests are put aside for a while: { failures, ejection }, or `off`.";
    let outlier = f.optional("outlier", doc, outlier()).unwrap_or(usual.outlier);
    let doc = "A new endpoint's share grows from a tenth to all of it in this time.";
    let slow_start = f.or("slow_start", doc, values::duration(), usual.slow_start);
    let doc = "To establish a connection, TLS included.";
    let connect_timeout = f.or("connect_timeout", doc, values::positive_duration(), usual.connect_timeout);
    let doc = "Idle pooled connections are closed after this; keep it below the keep-alive of the service.";
    let idle_timeout = f.or("idle_timeout", doc, values::positive_duration(), usual.idle_timeout);
    let count = || values::number("a number", 0_u32, u32::MAX);
    let max_idle = f.or("max_idle", "Idle connections kept for each endpoint and worker.", count(), usual.max_idle);
    let doc = "Requests in flight to one endpoint, over all workers; 0: no limit.";
    let max_in_flight = f.or("max_in_flight", doc, count(), usual.max_in_flight);
    let doc = "Requests that may wait for a place, over all workers.";
    let max_queue = f.or("max_queue", doc, count(), usual.max_queue);
    let doc = "How long a request may wait for a place; then 503.";
    let queue_timeout = f.or("queue_timeout", doc, values::duration(), usual.queue_timeout);
    let doc = "Retries at the most, as a percentage of the requests; three a second are always allowed.";
    let percent = values::number("a percentage", 0_u32, 100);
    let retry_budget = f.or("retry_budget", doc, percent, usual.retry_budget);
    Some(ClusterSpec {
        name: Arc::default(),
        origin: Origin::default(),
        endpoints: endpoints?,
        followed: false,
        protocol,
        tls: tls.map(Box::new),
        proxy_header,
        balance,
        health_check: health_check.map(Box::new),
        outlier,
        slow_start,
        connect_timeout,
        idle_timeout,
        max_idle,
        max_in_flight,
        max_queue,
        queue_timeout,
        retry_budget,
    })
}

fn endpoints() -> impl Kind<Out = Vec<EndpointSpec>> {
    let alone = |address| EndpointSpec::new(address, 1);
    let weighted = Section {
        name: "endpoint",
        doc: "One address of a cluster and its share.",
        fields: |f| {
            let address = f.required("address", "IP:port.", values::endpoint_address());
            let weight = values::number("a weight", 0_u32, MAX_WEIGHT);
            let weight = f.or("weight", "Share among endpoints; 0 takes no new requests.", weight, 1);
            Some(EndpointSpec::new(address?, weight))
        },
    };
    List(Shapes::new().text(Mapped(values::endpoint_address(), alone)).map(weighted))
}

fn tls() -> Section<UpstreamTlsSpec> {
    Section {
        name: "upstream_tls",
        doc: "TLS towards a cluster. Its certificate is always verified.",
        fields: |f| {
            let doc = "Certificate authorities that are trusted: a PEM file, or PEM text in place; in a routes ConfigMap also the name of a Secret with them in ca.crt.";
            let ca = f.required("ca", doc, Authorities);
            let doc = "Server name that is asked for and verified.";
            let server_name = f.required("server_name", doc, values::plain_host(false));
            let doc = "Client certificate, by the name of a certificate of the install configuration; in a ConfigMap also of a Secret.";
            let client_certificate = f.optional("client_certificate", doc, certificate_name());
            Some(UpstreamTlsSpec { ca: ca?, server_name: server_name?, client_certificate })
        },
    }
}

fn balance() -> impl Kind<Out = BalancePolicy> {
    let words = &[
        ("least_request", BalancePolicy::LeastRequest),
        ("round_robin", BalancePolicy::RoundRobin),
        ("random", BalancePolicy::Random),
    ];
    let hash = Section {
        name: "balance_hash",
        doc: "The same endpoint for the same key, on every instance.",
        fields: |f| {
            let doc = "The key: `source` (the client's address), { header: NAME } or { cookie: NAME }.";
            f.required("hash", doc, hash_key()).map(BalancePolicy::Hash)
        },
    };
    Shapes::new().text(values::choice("a balance policy", words)).map(hash)
}

fn hash_key() -> impl Kind<Out = HashKey> {
    let named = Section {
        name: "hash_key",
        doc: "What is hashed.",
        fields: |f| {
            let header = f.optional("header", "A request header's first value.", values::field_name());
            let cookie = f.optional("cookie", "A cookie's value.", values::name("the name of a cookie"));
            if f.has("header") == f.has("cookie") {
                f.error("", "there must be exactly one of header and cookie", "");
            }
            header.map(HashKey::Header).or(cookie.map(HashKey::Cookie))
        },
    };
    Shapes::new().text(values::choice("a key to hash", &[("source", HashKey::Source)])).map(named)
}
