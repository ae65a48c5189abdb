//! Is a response that goes on one response with one body, to whoever reads it next?

use crate::cases;
use crate::gate::{self, Outcome};
use crate::memory::peak;
use crate::mutate::{mutated, tries};
use crate::readers::{one_response_by_httparse, response_by_hyper};
use crate::script::{cuts, some_cuts};
use http::Method;
use proptest::prelude::*;

fn check(bytes: &[u8], method: &Method) -> Outcome {
    let (outcome, memory) = peak(|| gate::response(&[bytes], method));
    assert!(memory < 50 * bytes.len() + 100_000, "{memory} bytes held for {}", bytes.escape_ascii());
    let Outcome::Passed { sent, body, rest } = &outcome else { return outcome };
    let shown = || format!("{method} {}\n-> {}", bytes.escape_ascii(), sent.escape_ascii());
    assert!(bytes.ends_with(rest));
    let status = &sent[9..12];
    let bodyless = *method == Method::HEAD || status == b"204" || status == b"304";
    let read = one_response_by_httparse(sent, bodyless);
    assert_eq!(&read.body, body, "{}", shown());
    let theirs = response_by_hyper(sent, method).unwrap_or_else(|| panic!("hyper does not take it: {}", shown()));
    assert_eq!((&theirs.first, &theirs.body), (&read.first, &read.body), "{}", shown());
    assert_eq!((&theirs.fields, &theirs.trailers), (&read.fields, &read.trailers), "{}", shown());
    let own = &bytes[..bytes.len() - rest.len()];
    let before = response_by_hyper(own, method).unwrap_or_else(|| panic!("hyper does not take what came: {}", shown()));
    assert_eq!((&before.first, &before.body), (&read.first, body), "{}", shown());
    outcome
}

/// All that holds for whatever bytes.
pub fn holds(bytes: &[u8]) {
    for method in [Method::GET, Method::HEAD] {
        let whole = check(bytes, &method);
        for pieces in some_cuts(bytes) {
            assert_same(bytes, &whole, &gate::response(&pieces, &method));
        }
    }
}

fn assert_same(bytes: &[u8], whole: &Outcome, cut: &Outcome) {
    match (whole, cut) {
        // Chunks are as the pieces were; what is in them is the same.
        (Outcome::Passed { body: a, rest: b, .. }, Outcome::Passed { body: c, rest: d, .. }) => {
            assert_eq!((a, b), (c, d), "{}", bytes.escape_ascii());
        }
        (whole, cut) => assert_eq!(whole, cut, "{}", bytes.escape_ascii()),
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    cases::with_found("responses", cases::responses())
}

#[test]
fn every_response_is_the_same_however_it_is_cut() {
    for text in cases::RESPONSES {
        for method in [Method::GET, Method::HEAD] {
            let whole = check(text.as_bytes(), &method);
            for pieces in cuts(text.as_bytes()) {
                assert_same(text.as_bytes(), &whole, &gate::response(&pieces, &method));
            }
        }
    }
}

proptest! {
    #![proptest_config(tries())]

    #[test]
    fn a_response_goes_on_as_one_or_not_at_all_however_it_is_cut(bytes in mutated(seeds())) {
        holds(&bytes);
    }
}
