//! What does the work on a request's head cost: parse, normalize, strip, add what is forwarded, write?
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros make undocumented functions; a bench may fail where it stands"
)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tidegate::http1::head::{HeadLimits, parse_request};
use tidegate::message::{FieldId, RequestHead, hop, normalize};
use tidegate::model::EncodedSlash;

const LIMITS: HeadLimits = HeadLimits { bytes: 32 * 1024, target: 8 * 1024, fields: 100 };

/// What `curl` sends.
const SMALL: &[u8] =
    b"GET /item/1?page=2 HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";

/// What a browser sends.
const BROWSER: &[u8] = b"GET /assets/app-3f1c9a.js?v=20260101 HTTP/1.1\r\nHost: shop.example.com\r\nConnection: keep-alive\r\n\
sec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\n\
Upgrade-Insecure-Requests: 1\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\nSec-Fetch-Site: same-origin\r\n\
Sec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\nReferer: https://shop.example.com/\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";

fn work(criterion: &mut Criterion) {
    for (name, bytes) in [("curl", SMALL), ("browser", BROWSER)] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut head = RequestHead::default();
        group.bench_function("parse", |bencher| bencher.iter(|| parse(black_box(bytes), &mut head)));
        group.bench_function("parse and normalize", |bencher| {
            bencher.iter(|| {
                parse(black_box(bytes), &mut head);
                normalize::normalize(&mut head, EncodedSlash::Refuse).unwrap();
            });
        });
        let mut out = Vec::new();
        group.bench_function("all, to the bytes sent upstream", |bencher| {
            bencher.iter(|| {
                parse(black_box(bytes), &mut head);
                normalize::normalize(&mut head, EncodedSlash::Refuse).unwrap();
                let options = hop::connection_options(&head.fields);
                hop::strip(&mut head.fields, options);
                head.fields.set(FieldId::XForwardedFor, b"192.0.2.1");
                head.fields.set(FieldId::XForwardedProto, b"https");
                out.clear();
                head.fields.write_to(&mut out);
                black_box(out.len())
            });
        });
        group.finish();
    }
}

fn parse(bytes: &[u8], head: &mut RequestHead) {
    let length = parse_request(bytes, &mut 0, &LIMITS, head).unwrap();
    assert_eq!(length, Some(bytes.len()));
}

criterion_group!(benches, work);
criterion_main!(benches);
