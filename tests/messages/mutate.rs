//! How do new inputs come from known ones?
//!
//! By chance, as fuzzers do: bytes and words are put in, taken out, doubled and exchanged. proptest shrinks what fails.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;

/// What readers have disagreed on.
pub const WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    " ",
    "\t",
    "\0",
    "\x0b",
    "\x7f",
    ":",
    ": ",
    ";",
    ",",
    "\"",
    "\\",
    "/",
    "//",
    "..",
    "/../",
    "%2f",
    "%2e",
    "%00",
    "%",
    "#",
    "?",
    "*",
    "0",
    "00",
    "1",
    "5",
    "f",
    "0x",
    "+",
    "-",
    "_",
    "Host: b.test\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Connection: close\r\n",
    "Connection: content-length\r\n",
    "Expect: 100-continue\r\n",
    "Upgrade: h2c\r\n",
    "chunked",
    "identity",
    "HTTP/1.1",
    "HTTP/1.0",
    "GET ",
    "POST ",
    "HEAD ",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    ";a=b",
    "X: y\r\n",
    " folded\r\n",
    "http://b.test",
    "\u{e9}",
    "[::1]",
    "<",
    ">",
    "`",
    "{}",
    "|^",
    "?a=",
    "Host: a.test\r\n",
    "TE: trailers\r\n",
    "Connection: Upgrade\r\nUpgrade: websocket\r\n",
    "@",
    "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
];

#[derive(Clone, Debug)]
enum Edit {
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Replace(Index, u8),
    Flip(Index, u8),
    Double(Index, usize),
    Swap(Index, Index, usize),
    Truncate(Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let word = prop_oneof![
        4 => prop::sample::select(WORDS).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    let place = any::<Index>;
    prop_oneof![
        6 => (place(), word).prop_map(|(at, word)| Edit::Insert(at, word)),
        3 => (place(), 1usize..20).prop_map(|(at, n)| Edit::Remove(at, n)),
        2 => (place(), any::<u8>()).prop_map(|(at, byte)| Edit::Replace(at, byte)),
        2 => (place(), 0u8..8).prop_map(|(at, bit)| Edit::Flip(at, bit)),
        2 => (place(), 1usize..40).prop_map(|(at, n)| Edit::Double(at, n)),
        1 => (place(), place(), 1usize..20).prop_map(|(a, b, n)| Edit::Swap(a, b, n)),
        1 => place().prop_map(Edit::Truncate),
    ]
}

fn apply(bytes: &mut Vec<u8>, edit: &Edit) {
    let at = |index: &Index, bytes: &[u8]| index.index(bytes.len() + 1);
    match edit {
        Edit::Insert(place, word) => {
            let at = at(place, bytes);
            bytes.splice(at..at, word.iter().copied());
        }
        Edit::Remove(place, n) => {
            let at = at(place, bytes);
            bytes.drain(at..(at + n).min(bytes.len()));
        }
        Edit::Replace(place, byte) => {
            let at = at(place, bytes);
            if let Some(place) = bytes.get_mut(at) {
                *place = *byte;
            }
        }
        Edit::Flip(place, bit) => {
            let at = at(place, bytes);
            if let Some(place) = bytes.get_mut(at) {
                *place ^= 1 << bit;
            }
        }
        Edit::Double(place, n) => {
            let at = at(place, bytes);
            let part = bytes[at..(at + n).min(bytes.len())].to_vec();
            bytes.splice(at..at, part);
        }
        Edit::Swap(one, other, n) => {
            let at = at(one, bytes);
            let part: Vec<u8> = bytes.drain(at..(at + n).min(bytes.len())).collect();
            let to = other.index(bytes.len() + 1);
            bytes.splice(to..to, part);
        }
        Edit::Truncate(place) => bytes.truncate(at(place, bytes)),
    }
}

/// A seed as it is or after a few edits.
pub fn mutated(seeds: impl Into<Vec<Vec<u8>>>) -> impl Strategy<Value = Vec<u8>> {
    let edits = prop_oneof![3 => prop::collection::vec(edit(), 1..3), 1 => prop::collection::vec(edit(), 0..8)];
    (prop::sample::select(seeds.into()), edits).prop_map(|(mut bytes, edits)| {
        for edit in &edits {
            apply(&mut bytes, edit);
        }
        bytes
    })
}

/// How often each property is tried: a smoke test, the same each time, or by chance as often as `TIDEGATE_FUZZ_CASES` says.
pub fn tries() -> ProptestConfig {
    let cases = std::env::var("TIDEGATE_FUZZ_CASES").ok().and_then(|n| n.parse().ok());
    let rng_seed = cases.map_or(RngSeed::Fixed(9112), |_| RngSeed::Random);
    let cases = cases.unwrap_or(2000);
    ProptestConfig { cases, rng_seed, failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() }
}
