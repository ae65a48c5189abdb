//! Which inputs reach what no seed reaches? libFuzzer looks for them by coverage; `make fuzz` builds and runs this.
//!
//! The targets and what must hold are those of the tests. `TIDEGATE_FUZZ_TARGET` names one, `TIDEGATE_FUZZ_SEEDS` a folder that its
//! seeds and its words are written to, `TIDEGATE_FUZZ_SHOW` a file that is shown as a line of `found`.
#![no_main]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what fails should fail where it stands"
)]
#![allow(unused, unreachable_pub, reason = "the tests among these files are no part of it")]

mod cases;
mod gate;
mod guardian;
mod http2;
mod memory;
mod mutate;
mod parsers;
mod readers;
mod requests;
mod responses;
mod script;
mod targets;
mod texts;

use std::collections::BTreeSet;
use std::env::var;
use std::path::PathBuf;
use std::sync::LazyLock;
use targets::{ALL, Target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let wanted = var("TIDEGATE_FUZZ_TARGET").unwrap_or_default();
    ALL.iter().find(|target| target.name == wanted).unwrap_or_else(|| {
        let known: Vec<_> = ALL.iter().map(|target| target.name).collect();
        eprintln!("there is no target {wanted:?}; there are {}", known.join(", "));
        std::process::exit(2)
    })
});

fn begin() {
    if let Ok(path) = var("TIDEGATE_FUZZ_SHOW") {
        println!("{}", std::fs::read(path).unwrap().escape_ascii());
        std::process::exit(0);
    }
    let Ok(folder) = var("TIDEGATE_FUZZ_SEEDS").map(PathBuf::from) else { return };
    let seeds = (TARGET.seeds)();
    for (number, seed) in seeds.iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number}")), seed).unwrap();
    }
    std::fs::write(folder.with_extension("words"), words(&seeds)).unwrap();
}

/// What is put in as a whole: what readers have disagreed on, and every word of the seeds. A dictionary of libFuzzer.
fn words(seeds: &[Vec<u8>]) -> String {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let of_seeds = seeds.iter().flat_map(|seed| seed.split(|byte| !is_part(byte)));
    let of_seeds = of_seeds.filter(|word| (3..40).contains(&word.len()));
    let all: BTreeSet<&[u8]> = mutate::WORDS.iter().map(|word| word.as_bytes()).chain(of_seeds).take(4000).collect();
    let line = |word: &&[u8]| word.iter().fold(String::new(), |line, byte| line + &format!("\\x{byte:02x}"));
    all.iter().map(|word| format!("\"{}\"\n", line(word))).collect()
}

libfuzzer_sys::fuzz_target!(init: begin(), |bytes: &[u8]| (TARGET.holds)(bytes));
