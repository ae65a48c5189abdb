//! What does it cost to find the route of a request among one, ten thousand, a hundred thousand?
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros make undocumented functions; a bench may fail where it stands"
)]

use criterion::{Criterion, criterion_group, criterion_main};
use http::Method;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tidegate::message::RequestHead;
use tidegate::model::{self, HostPattern, Match, Origin, PathMatch, RespondSpec, RetrySpec, RouteSpec, WildcardDepth};
use tidegate::route::{Route, Table};
use tidegate::telemetry::metrics::Registry;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const COUNTS: [usize; 3] = [1, 10_000, 100_000];

fn find(criterion: &mut Criterion) {
    for count in COUNTS {
        let last = count - 1;
        let hosts = Table::build((0..count).map(|number| route(&format!("host-{number}.bench.test"), "/")).collect());
        let mut ask = |name: &str, table: &Table, host: String, path: String| {
            let head = RequestHead::sample(Method::GET, &host, &path);
            criterion.bench_function(&format!("{name}/{count}"), |bencher| {
                bencher.iter(|| black_box(table.find(black_box(&head), CLIENT).is_ok()));
            });
        };
        ask("last host", &hosts, format!("host-{last}.bench.test"), "/item/1".into());
        ask("unknown host", &hosts, "none.bench.test".into(), "/item/1".into());
        drop(hosts);
        let wild = Table::build((0..count).map(|number| route(&format!("*.host-{number}.bench.test"), "/")).collect());
        ask("last wildcard", &wild, format!("shop.host-{last}.bench.test"), "/item/1".into());
        drop(wild);
        let paths = Table::build((0..count).map(|number| route("bench.test", &format!("/api/v1/{number}/"))).collect());
        ask("last prefix of one host", &paths, "bench.test".into(), format!("/api/v1/{last}/item/1"));
    }
}

fn route(host: &str, prefix: &str) -> Arc<Route> {
    let spec = RouteSpec {
        name: format!("{host}{prefix}"),
        origin: Origin::default(),
        listeners: vec![],
        hosts: vec![HostPattern::parse(host, WildcardDepth::Many).unwrap()],
        matches: Match { path: PathMatch::Prefix(prefix.into()), ..Match::default() },
        policies: vec![],
        action: model::Action::Respond(RespondSpec { status: 200, headers: vec![], body: String::new() }.into()),
        request_timeout: None,
        try_timeout: None,
        idle_timeout: Duration::from_secs(60),
        retry: RetrySpec::default(),
    };
    // A registry each: what series cost is not the question.
    Arc::new(Route::compile(&Arc::new(spec), |_| None, &Registry::new(1, 10)).unwrap())
}

criterion_group!(benches, find);
criterion_main!(benches);
