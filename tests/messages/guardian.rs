//! Are the requests that http_desync_guardian calls severe refused, and those that it calls compliant taken?
//!
//! Its cases are read from its package, where they are data (YAML): nothing of them is copied here.

use crate::gate::{self, Outcome};
use crate::script::cuts;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One of its cases as bytes.
pub struct Case {
    pub name: String,
    pub tier: String,
    pub bytes: Vec<u8>,
}

/// Cases that are compliant to it and refused here, and why.
const STRICTER: &[(&str, &str)] = &[
    (
        "Valid custom header with tchar in name and obs-text",
        "names are letters, digits and hyphens: whatever else is `_` to CGI, and so is `-`",
    ),
    ("Valid custom header with underscore in name", "the same"),
    ("Valid custom header with dot in name", "the same"),
    ("Different Transfer-Encoding headers", "one Transfer-Encoding alone: CVE-2026-2835 lived on the second"),
    (
        "Different Transfer-Encoding headers combined",
        "codings other than chunked are not taken (RFC 9112 section 6.1: 501)",
    ),
    ("Transfer-Encoding with a param: chunked;custom_param", "chunked has no parameters (RFC 9112 section 7.1)"),
    ("Compliant URL", "it holds a fragment, which no request target has (RFC 9112 section 3.2), and a backslash"),
    ("International in URI", "a URI is ASCII (RFC 3986 section 2): other characters are escaped"),
    ("Empty URI", "a request target is not empty (RFC 9112 section 3.2)"),
    ("Correct TE OK", "codings other than chunked are not taken"),
    ("Transfer-Encoding: identity and chunked OK", "the same, and identity is gone since RFC 7230"),
    ("Multiple transfer encoding headers in a single request OK", "one Transfer-Encoding alone"),
    ("TE with custom parameters OK", "chunked has no parameters"),
];

#[test]
fn what_the_guardian_calls_severe_is_refused_however_it_is_cut() {
    let severe: Vec<Case> = cases().into_iter().filter(|case| case.tier == "Severe").collect();
    assert_eq!(severe.len(), 58, "the cases of the pinned version");
    for case in severe {
        assert_refused(&case);
    }
}

#[test]
fn what_the_guardian_calls_ambiguous_is_refused_but_for_bodies_of_get() {
    let mut passed = Vec::new();
    for case in cases().into_iter().filter(|case| case.tier == "Ambiguous") {
        match gate::request(&[&case.bytes]).0 {
            Outcome::Refused(..) => assert_refused(&case),
            // RFC 9110 section 9.3.1: not forbidden, and framed like any other.
            Outcome::Passed { sent, .. } => {
                assert!(
                    sent.starts_with(b"GET ") || sent.starts_with(b"HEAD "),
                    "{}: {}",
                    case.name,
                    sent.escape_ascii()
                );
                passed.push(case.name);
            }
            Outcome::Cut => panic!("{}: not even refused", case.name),
        }
    }
    assert!(passed.len() < 10, "{passed:#?}");
}

#[test]
fn what_the_guardian_calls_compliant_is_taken_but_for_what_is_written_down() {
    let compliant: Vec<Case> = cases().into_iter().filter(|case| case.tier == "Compliant").collect();
    assert_eq!(compliant.len(), 28, "the cases of the pinned version");
    for (name, why) in STRICTER {
        assert!(!why.is_empty() && compliant.iter().any(|case| case.name == *name), "{name}: no such case");
    }
    for case in compliant {
        let stricter = STRICTER.iter().any(|(name, _)| *name == case.name);
        match gate::request(&[&case.bytes]).0 {
            Outcome::Passed { rest, .. } if !stricter => assert!(rest.is_empty(), "{}", case.name),
            Outcome::Refused(..) if stricter => {}
            other => panic!("{} (an exception: {stricter}): {other:?}\n{}", case.name, case.bytes.escape_ascii()),
        }
    }
}

fn assert_refused(case: &Case) {
    let whole = gate::request(&[&case.bytes]).0;
    assert!(matches!(whole, Outcome::Refused(400..=599, _)), "{}: {whole:?}\n{}", case.name, case.bytes.escape_ascii());
    for pieces in cuts(&case.bytes) {
        // An early end is as good a place to refuse as a late one, and the reason may be another.
        let cut = gate::request(&pieces).0;
        assert!(matches!(cut, Outcome::Refused(..)), "{}: {cut:?} when cut", case.name);
    }
}

/// Every case of the package, each name once.
pub fn cases() -> Vec<Case> {
    let folder = package().join("tests");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut cases: Vec<Case> = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "yaml")) {
        let text = std::fs::read_to_string(file).unwrap();
        let list: Vec<Value> = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        cases.extend(list.iter().map(case));
    }
    cases
}

fn package() -> PathBuf {
    let output = Command::new(env!("CARGO"))
        // Of other platforms' packages nothing was downloaded.
        .args(["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform", "host-tuple"])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo describes this package");
    let found = metadata["packages"].as_array().unwrap().iter().find(|p| p["name"] == "http_desync_guardian");
    let manifest = found.expect("the guardian is a dependency")["manifest_path"].as_str().unwrap();
    Path::new(manifest).parent().unwrap().to_owned()
}

/// A case as the bytes that it stands for. A Host is added where it has none, and the body that its framing announces.
fn case(value: &Value) -> Case {
    let text = |value: &Value| match value {
        Value::String(text) => bytes(text),
        Value::Null => vec![],
        other => other.to_string().into_bytes(),
    };
    let mut raw = [text(&value["method"]), b" ".to_vec(), text(&value["uri"])].concat();
    let version = text(&value["version"]);
    if !version.is_empty() {
        raw.push(b' ');
        raw.extend(version);
    }
    raw.extend_from_slice(b"\r\n");
    let (mut host, mut length) = (false, None);
    for header in value["headers"].as_array().into_iter().flatten() {
        let (name, value) = (text(&header["name"]), text(&header["value"]));
        host |= name.eq_ignore_ascii_case(b"host");
        if name.eq_ignore_ascii_case(b"content-length") {
            length = std::str::from_utf8(&value).ok().and_then(|text| text.trim().parse::<usize>().ok());
        }
        raw.extend([name, b": ".to_vec(), value, b"\r\n".to_vec()].concat());
    }
    if !host {
        raw.extend_from_slice(b"Host: a.test\r\n");
    }
    raw.extend_from_slice(b"\r\n");
    match length {
        Some(length) if length < 10_000_000 => raw.resize(raw.len() + length, b'x'),
        _ if raw.to_ascii_lowercase().windows(8).any(|part| part == b"encoding") => raw.extend_from_slice(b"0\r\n\r\n"),
        _ => {}
    }
    let name = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Case { name: name(&value["name"]), tier: name(&value["expected"]["tier"]), bytes: raw }
}

/// `\xa0` in YAML is a character; where it stands for a byte, no character is beyond one.
fn bytes(text: &str) -> Vec<u8> {
    let narrow: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    narrow.unwrap_or_else(|| text.as_bytes().to_vec())
}
