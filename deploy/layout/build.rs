//! Which functions lie side by side in a release?
//!
//! Those that a start and requests run, by the names in `start.txt`; `record.sh` made it. The kernel maps a program in pieces of 64 KiB
//! around what is touched, so that functions strewn over 16 MB of code cost several times their size of resident memory. A name
//! that is no function any more costs nothing, and one that is missing lies with the rest, as everywhere without this.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

const NAMES: &str = "deploy/layout/start.txt";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=deploy/layout");
    if !applies() {
        return Ok(());
    }
    let script = Path::new(&env::var("OUT_DIR").unwrap_or_default()).join("layout.ld");
    fs::write(&script, linker_script(&fs::read_to_string(NAMES)?))?;
    println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
    Ok(())
}

/// Only where it is known to work: optimized, for Linux and glibc, by the linker that rustc brings or the system's own. What
/// else someone chose may read no linker scripts.
fn applies() -> bool {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let chosen = env::var_os("RUSTC_LINKER").is_some() || ["linker", "fuse-ld"].iter().any(|flag| flags.contains(flag));
    is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") && !chosen
}

/// An addition to the linker's own script. Each function has a section of its own, one that is seldom run under another name.
fn linker_script(names: &str) -> String {
    let mut script = String::from("SECTIONS\n{\n  .text.start : {\n");
    for name in names.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let _ = writeln!(script, "    *(.text.{name} .text.unlikely.{name})");
    }
    script + "  }\n}\nINSERT BEFORE .text;\n"
}
