//! What does work on header fields cost: names, look-ups, edits, what is forwarded about the client?
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros make undocumented functions; a bench may fail where it stands"
)]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::Method;
use std::hint::black_box;
use tidegate::message::{FieldId, Fields, Name, RequestContext, RequestHead, Scheme, forwarded};
use tidegate::model::{EncodedSlash, Limits, ListenerProtocol, ListenerSpec, Origin, ProxyHeaders, TimeoutSpec};

/// Names that a browser sends; more than half are none of ours.
const NAMES: [&[u8]; 14] = [
    b"Host",
    b"Connection",
    b"sec-ch-ua",
    b"sec-ch-ua-mobile",
    b"Upgrade-Insecure-Requests",
    b"User-Agent",
    b"Accept",
    b"Sec-Fetch-Site",
    b"Sec-Fetch-Mode",
    b"Referer",
    b"Accept-Encoding",
    b"Accept-Language",
    b"Cookie",
    b"X-Requested-With",
];

fn names(criterion: &mut Criterion) {
    criterion.bench_function("ids of 14 names", |bencher| {
        bencher.iter(|| NAMES.iter().filter(|name| FieldId::of(black_box(name)) == FieldId::Other).count());
    });
}

fn fields() -> Fields {
    let mut fields = Fields::default();
    for name in NAMES {
        fields.push(name, b"a value of usual length");
    }
    fields
}

fn look_ups(criterion: &mut Criterion) {
    let fields = fields();
    let other = Name::new("x-requested-with");
    let none = Name::new("x-none");
    criterion.bench_function("get a known field", |b| b.iter(|| black_box(&fields).get(FieldId::Cookie).is_some()));
    criterion.bench_function("find another field", |b| b.iter(|| black_box(&fields).find(&other).is_some()));
    criterion.bench_function("find none", |b| b.iter(|| black_box(&fields).find(&none).is_some()));
}

fn edits(criterion: &mut Criterion) {
    let mut fields = fields();
    let name = Name::new("x-edited");
    criterion.bench_function("set and remove a field", |bencher| {
        bencher.iter_batched_ref(
            || fields.clone(),
            |fields| {
                fields.set_name(&name, b"value");
                fields.remove(FieldId::Cookie)
            },
            BatchSize::SmallInput,
        );
    });
    fields.clear();
}

fn about_the_client(criterion: &mut Criterion) {
    let listener = ListenerSpec {
        name: "http".into(),
        origin: Origin::default(),
        address: "127.0.0.1:80".parse().unwrap(),
        protocol: ListenerProtocol::Http,
        proxy_protocol_from: vec![],
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        https_redirect: None,
        encoded_slash: EncodedSlash::default(),
        policies: vec![],
        headers: ProxyHeaders::default(),
        limits: Limits::default(),
        timeouts: TimeoutSpec::default(),
    };
    let mut head = RequestHead::sample(Method::GET, "shop.example.com", "/item/1");
    let now = tokio::time::Instant::now();
    // The list is filled anew each time, as for each request: what that alone costs is the first line.
    for (name, peer, said) in [
        ("fill 14 fields", None::<&str>, None),
        ("fill and forward, plain client", Some("192.0.2.1:4000"), None),
        ("fill and forward, trusted proxy", Some("10.0.0.1:4000"), Some("198.51.100.7, 10.0.0.2")),
    ] {
        let peer = peer.map(|peer| peer.parse().unwrap());
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                head.fields.clear();
                NAMES.iter().for_each(|name| head.fields.push(name, b"a value of usual length"));
                if let Some(said) = said {
                    head.fields.push(b"X-Forwarded-For", said.as_bytes());
                }
                if let Some(peer) = peer {
                    let mut ctx = RequestContext::new(now, peer, listener.address, Scheme::Http, None);
                    forwarded::resolve(&mut head, &mut ctx, &listener);
                    forwarded::write(&mut head, &ctx, &listener);
                }
                head.fields.len()
            });
        });
    }
}

criterion_group!(benches, names, look_ups, edits, about_the_client);
criterion_main!(benches);
