//! Do the rooms keep to the house rules: arrows point down, rare things stand where they are listed, files stay short?
//!
//! Sources are read as tokens, without comments, texts and test modules, so that `use crate::{a, b::{c}}`, an inline
//! `crate::a::b` and a `super::super::a` are all seen as what they are.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that fails should fail where it stands"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms by level; a room imports from lower levels only.
const LEVELS: &[&[&str]] = &[
    &["model", "message", "lifecycle"],
    &["config", "telemetry", "tls", "http1"],
    &["upstream", "source"],
    &["filter", "kubernetes"],
    &["route"],
    &["snapshot"],
    &["proxy", "admin"],
    &["listener"],
    &["app", "cli"],
];

/// Imports within one level: from, to, why.
const SIDEWAYS: &[(&str, &str, &str)] = &[
    ("cli", "app", "the command line calls the composition root"),
    ("message", "model", "forwarded headers follow the listener's settings, which are plain data"),
];

/// Imports that the levels would allow and the design does not: from, to, why.
const NEVER: &[(&str, &str, &str)] = &[
    ("admin", "kubernetes", "it shows what serves and what was reported, whatever the source"),
    ("snapshot", "kubernetes", "control and data plane meet in the model alone"),
    ("proxy", "kubernetes", "the data plane knows the snapshot, not where it came from"),
    ("listener", "kubernetes", "the data plane knows the snapshot, not where it came from"),
    ("proxy", "source", "the data plane knows the snapshot, not where it came from"),
    ("proxy", "config", "what was read once reaches it through the snapshot"),
    ("listener", "source", "the data plane knows the snapshot, not where it came from"),
    ("filter", "source", "a filter is compiled from the model alone"),
    ("route", "source", "a route is compiled from the model alone"),
];

/// A file and why it is an exception.
type Listed = (&'static str, &'static str);

/// Things that may stand only where they are listed: a path (any part of it that begins there), the files, why.
const RARE: &[(&[&str], &[Listed])] = &[
    (&["tokio", "spawn"], &[("src/lifecycle/tasks.rs", "the one place that starts tasks, so that none is forgotten")]),
    (
        &["spawn_local"],
        &[
            ("src/lifecycle/tasks.rs", "the same for tasks that stay on their thread"),
            ("src/listener/accept.rs", "a connection is a task of its worker; its guard is what a drain waits for"),
            ("src/listener/mod.rs", "the accept loops of a listener are ended with it"),
            ("src/listener/resting.rs", "a connection that has rested is a task of its worker again"),
            ("src/app/sources.rs", "it starts the control thread's tasks, by the task group"),
            ("src/kubernetes/kinds.rs", "each watch is a task of the group, and ends with its source"),
            ("src/kubernetes/secrets.rs", "the same for the watch of each Secret, which ends when nothing asks for it"),
            ("src/kubernetes/source.rs", "the same for names that are resolved"),
            ("src/app/admin.rs", "the same for the admin port and its socket"),
            ("src/app/worker.rs", "a worker's sweep and accept loops end with its thread"),
            ("src/proxy/h2/line.rs", "an HTTP/2 connection is driven beside the requests that share it"),
        ],
    ),
    (&["std", "env"], &[]),
    (&["unsafe"], &[]),
    (
        &["kube"],
        &[
            ("src/kubernetes/audit/read.rs", "an audit reads a cluster once, with the kubeconfig of a person"),
            ("src/kubernetes/client.rs", "it makes the client"),
            ("src/kubernetes/watch.rs", "it follows a kind, whichever"),
            ("src/kubernetes/kinds.rs", "it says which kinds there are, and where"),
            ("src/kubernetes/secrets.rs", "each Secret is a watch of its own"),
            ("src/kubernetes/calls.rs", "the one place that writes to the API server"),
        ],
    ),
    (
        &["k8s_openapi"],
        &[
            ("src/kubernetes/convert.rs", "objects of the API become our own, compact ones here, and nowhere else"),
            ("src/kubernetes/audit/objects.rs", "an audit asks for other things of objects than what serves"),
            ("src/kubernetes/audit/read.rs", "an audit names the kinds that it lists"),
            ("src/kubernetes/endpoints.rs", "the same for EndpointSlices, whose zones are held once for all"),
            ("src/kubernetes/endpoints/keep.rs", "it names the kind that it keeps"),
            ("src/kubernetes/kinds.rs", "it says which kinds there are"),
            ("src/kubernetes/secrets.rs", "it names the kind that it keeps"),
            ("src/kubernetes/watch.rs", "an object that does not decode has its metadata alone"),
            ("src/kubernetes/calls.rs", "the time as the API writes it, by the library that reads it"),
        ],
    ),
    (&["std", "time", "Instant"], &[]),
];

/// Files longer than [`LONGEST`] lines before their tests: file, why.
const LONG: &[Listed] = &[];

const LONGEST: usize = 400;

#[test]
fn arrows_between_rooms_point_down_only() {
    let wrong: Vec<String> =
        sources().iter().flat_map(|s| arrows(s).into_iter().filter_map(|to| forbidden(s, &to))).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_room_has_a_level_and_every_level_has_its_rooms() {
    let listed: BTreeSet<&str> = LEVELS.iter().flat_map(|l| l.iter().copied()).collect();
    let there: BTreeSet<String> =
        sources().iter().filter(|s| s.room != "lib" && s.room != "main").map(|s| s.room.clone()).collect();
    assert_eq!(there, listed.iter().map(|r| (*r).to_owned()).collect());
}

#[test]
fn rare_things_stand_only_where_they_are_listed() {
    let mut wrong = Vec::new();
    for source in sources() {
        let there = paths(&source.tokens);
        for (what, places) in RARE {
            let listed = places.iter().any(|(file, _)| *file == source.file);
            let found = there.iter().any(|path| holds(path, what));
            if found && !listed {
                wrong.push(format!("{}: {} is not listed for this file", source.file, what.join("::")));
            }
            if listed && !found {
                wrong.push(format!("{}: {} is listed but no longer there", source.file, what.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn lists_of_exceptions_name_files_that_exist() {
    let listed = RARE.iter().flat_map(|(_, places)| places.iter()).chain(LONG);
    for (file, reason) in listed {
        assert!(root().join(file).is_file(), "{file} is listed and does not exist");
        assert!(!reason.is_empty(), "{file} is listed without a reason");
    }
}

#[test]
fn no_file_is_long_before_its_tests() {
    let length = |s: &Source| {
        s.text.lines().take_while(|l| !l.starts_with("mod tests") && *l != "pub(crate) mod tests {").count()
    };
    let listed = |s: &Source| LONG.iter().any(|(file, _)| *file == s.file);
    let long: Vec<String> = sources()
        .iter()
        .filter(|s| length(s) > LONGEST && !listed(s))
        .map(|s| format!("{}: {} lines, {LONGEST} at the most", s.file, length(s)))
        .collect();
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

#[test]
fn every_file_begins_with_the_question_it_answers() {
    let without: Vec<String> =
        every_source().into_iter().filter(|s| !s.text.starts_with("//! ")).map(|s| s.file).collect();
    assert!(without.is_empty(), "the first line is not a //! line: {without:?}");
}

#[test]
fn a_forbidden_import_is_found_however_it_is_written() {
    let ways = [
        ("src/route/table.rs", "use crate::{model::Match, source::Slot};"),
        ("src/route/table.rs", "use crate::{\n    model::{Match, Action},\n    source::{self, Slot},\n};"),
        ("src/route/table.rs", "fn f() -> crate::source::Slot { g() }"),
        ("src/route/table.rs", "use super::super::source::Slot;"),
        ("src/route/mod.rs", "use super::source::Slot;"),
        ("src/route/mod.rs", "use super::{model::Match, source::Slot};"),
        ("src/route/mod.rs", "pub(crate) use crate::source;"),
        ("src/route/mod.rs", "use crate::source::*;"),
        ("src/route/mod.rs", "mod inner { use crate::source::Slot; }"),
    ];
    for (file, text) in ways {
        let source = Source::new(file, text);
        let found: Vec<String> = arrows(&source).into_iter().filter_map(|to| forbidden(&source, &to)).collect();
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains("source"), "{found:?}");
    }
}

#[test]
fn what_stands_in_comments_texts_and_test_modules_is_no_import() {
    let text = r##"
        //! use crate::source::Slot;
        /* crate::source::Slot /* nested */ crate::source */
        const A: &str = "crate::source::Slot \" crate::source";
        const B: &str = r#"crate::source::Slot " "#;
        const C: char = '"'; // crate::source
        fn f<'a>(x: &'a str) -> &'a str { x }
        pub(crate) fn g() { super::h(); self::source::k(); source::k() }
        #[cfg(test)]
        mod tests { use crate::source::Slot; fn x() { if true { } } }
    "##;
    assert_eq!(arrows(&Source::new("src/route/table.rs", text)), BTreeSet::new());
}

#[test]
fn a_rare_thing_is_found_however_it_is_written() {
    let spawn: &[&str] = &["tokio", "spawn"];
    let found = |text: &str, what: &[&str]| paths(&tokens(text)).iter().any(|p| holds(p, what));
    assert!(found("use tokio::{net::TcpStream, spawn};", spawn));
    assert!(found("fn f() { tokio::spawn(async {}) }", spawn));
    assert!(found("fn f() { tokio::task::spawn_local(async {}) }", &["spawn_local"]));
    assert!(found("fn f(set: LocalSet) { set.spawn_local(async {}) }", &["spawn_local"]));
    assert!(found("use std::{env, fmt};", &["std", "env"]));
    assert!(found("fn f() { unsafe { g() } }", &["unsafe"]));
    assert!(!found("fn f() { tokio::task::spawner() }", spawn));
    assert!(!found("#![deny(unsafe_code)]", &["unsafe"]));
}

/// A file of `src`, read as tokens.
struct Source {
    file: String,
    /// Names of the modules that lead to this file: `["route", "table"]`.
    module: Vec<String>,
    room: String,
    text: String,
    tokens: Vec<Token>,
    /// Modules that are compiled for tests only: `#[cfg(test)] mod testing;`.
    test_modules: Vec<Vec<String>>,
}

impl Source {
    fn new(file: &str, text: &str) -> Self {
        let inner = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        let module: Vec<String> = inner.split('/').map(str::to_owned).collect();
        let room = module[0].clone();
        let (tokens, left_out) = without_tests(tokens(text));
        let named = |part: &Vec<Token>| match part.as_slice() {
            [.., Token::Name(word), Token::Name(name), Token::Sign(';')] if word == "mod" => {
                Some([module.as_slice(), std::slice::from_ref(name)].concat())
            }
            _ => None,
        };
        let test_modules = left_out.iter().filter_map(named).collect();
        Self { file: file.to_owned(), module, room, text: text.to_owned(), tokens, test_modules }
    }
}

/// The rooms that a source imports from, its own left out.
fn arrows(source: &Source) -> BTreeSet<String> {
    let rooms: BTreeSet<&str> = LEVELS.iter().flat_map(|l| l.iter().copied()).collect();
    paths(&source.tokens)
        .iter()
        .filter_map(|path| {
            let up = path.iter().take_while(|p| *p == "super").count();
            let from_root = match path.first().map(String::as_str) {
                Some("crate") => path.get(1),
                Some("super") if up >= source.module.len() => path.get(up),
                _ => None,
            };
            from_root.filter(|r| rooms.contains(r.as_str()) && **r != source.room).cloned()
        })
        .collect()
}

fn forbidden(source: &Source, to: &str) -> Option<String> {
    let from = source.room.as_str();
    if from == "lib" || from == "main" {
        return None;
    }
    if let Some((_, _, why)) = NEVER.iter().find(|(f, t, _)| *f == from && *t == to) {
        return Some(format!("{}: {from} must not import {to}: {why}", source.file));
    }
    let (here, there) = (level(from), level(to));
    let sideways = SIDEWAYS.iter().any(|(f, t, _)| *f == from && *t == to);
    let fine = there < here || sideways;
    (!fine).then(|| format!("{}: {from} (level {here}) imports {to} (level {there})", source.file))
}

fn level(room: &str) -> usize {
    LEVELS.iter().position(|rooms| rooms.contains(&room)).unwrap_or_else(|| panic!("{room} has no level"))
}

/// Whether `what` stands in `path` without a gap.
fn holds(path: &[String], what: &[&str]) -> bool {
    path.windows(what.len()).any(|part| part.iter().zip(what).all(|(a, b)| a == b))
}

/// Every path of a token list, groups written out: `a::{b, c::{self, d}}` is `a::b`, `a::c::self`, `a::c::d`.
fn paths(tokens: &[Token]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            Token::Name(_) => at = path(tokens, at, Vec::new(), &mut found),
            Token::Sign(_) => at += 1,
        }
    }
    found
}

/// Reads one path that begins at `at`, after `before`; gives the place behind it.
fn path(tokens: &[Token], mut at: usize, mut before: Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    loop {
        match tokens.get(at) {
            Some(Token::Name(name)) => before.push(name.clone()),
            Some(Token::Sign('*')) => before.push("*".into()),
            Some(Token::Sign('{')) => return group(tokens, at + 1, &before, found),
            _ => {
                found.push(before);
                return at;
            }
        }
        at += 1;
        if tokens.get(at..at + 2) != Some(&[Token::Sign(':'), Token::Sign(':')]) {
            found.push(before);
            return at;
        }
        at += 2;
    }
}

fn group(tokens: &[Token], mut at: usize, before: &[String], found: &mut Vec<Vec<String>>) -> usize {
    loop {
        match tokens.get(at) {
            None => return at,
            Some(Token::Sign('}')) => return at + 1,
            Some(Token::Name(_) | Token::Sign('{' | '*')) => at = path(tokens, at, before.to_vec(), found),
            Some(Token::Sign(_)) => at += 1,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Sign(char),
}

/// Names and signs of a Rust text; comments, texts, characters and lifetimes are left out.
fn tokens(text: &str) -> Vec<Token> {
    let text: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let next = text.get(at + 1).copied().unwrap_or(' ');
        match text[at] {
            '/' if next == '/' => at = text[at..].iter().position(|c| *c == '\n').map_or(text.len(), |n| at + n),
            '/' if next == '*' => at = comment_end(&text, at + 2),
            '"' => at = text_end(&text, at + 1),
            'r' if next == '"' || next == '#' => at = raw_end(&text, at, &mut found),
            'b' | 'c' if next == '"' || next == '\'' => at += 1,
            '\'' => at = character_end(&text, at),
            c if c.is_alphanumeric() || c == '_' => {
                let end = (at..text.len()).find(|i| !text[*i].is_alphanumeric() && text[*i] != '_');
                let end = end.unwrap_or(text.len());
                found.push(Token::Name(text[at..end].iter().collect()));
                at = end;
            }
            c if c.is_whitespace() => at += 1,
            c => {
                found.push(Token::Sign(c));
                at += 1;
            }
        }
    }
    found
}

fn comment_end(text: &[char], mut at: usize) -> usize {
    let mut depth = 1;
    while at < text.len() && depth > 0 {
        match text.get(at..at + 2) {
            Some(['/', '*']) => (depth, at) = (depth + 1, at + 2),
            Some(['*', '/']) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    at
}

fn text_end(text: &[char], mut at: usize) -> usize {
    while at < text.len() && text[at] != '"' {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// `r"..."`, `r#"..."#`, or a raw name such as `r#type`.
fn raw_end(text: &[char], at: usize, found: &mut Vec<Token>) -> usize {
    let hashes = text[at + 1..].iter().take_while(|c| **c == '#').count();
    let open = at + 1 + hashes;
    if text.get(open) != Some(&'"') {
        found.push(Token::Sign('#'));
        return open;
    }
    let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let end = (open + 1..text.len()).find(|i| text[*i..].starts_with(&close));
    end.map_or(text.len(), |i| i + close.len())
}

/// A character such as `'a'` or `'\''`, or a lifetime such as `'a`.
fn character_end(text: &[char], at: usize) -> usize {
    match text.get(at + 1) {
        Some('\\') => (at + 3..text.len()).find(|i| text[*i] == '\'').map_or(text.len(), |i| i + 1),
        Some(_) if text.get(at + 2) == Some(&'\'') => at + 3,
        _ => (at + 1..text.len()).find(|i| !text[*i].is_alphanumeric() && text[*i] != '_').unwrap_or(text.len()),
    }
}

/// The tokens without each part that a `#[cfg(test)]` stands before, up to its closing brace or semicolon; and those parts.
fn without_tests(tokens: Vec<Token>) -> (Vec<Token>, Vec<Vec<Token>>) {
    let mark = self::tokens("#[cfg(test)]");
    let (mut kept, mut left_out) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        if !tokens[at..].starts_with(&mark) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let (mut depth, start) = (0, at);
        at += mark.len();
        while at < tokens.len() {
            match tokens[at] {
                Token::Sign('{') => depth += 1,
                Token::Sign('}') => depth -= 1,
                _ => {}
            }
            at += 1;
            if depth == 0 && matches!(tokens[at - 1], Token::Sign('}' | ';')) {
                break;
            }
        }
        left_out.push(tokens[start..at].to_vec());
    }
    (kept, left_out)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of `src` but those of test modules.
fn sources() -> Vec<Source> {
    let all = every_source();
    let tests: Vec<Vec<String>> = all.iter().flat_map(|s| s.test_modules.clone()).collect();
    all.into_iter().filter(|s| !tests.iter().any(|t| s.module.starts_with(t))).collect()
}

fn every_source() -> Vec<Source> {
    let mut files = Vec::new();
    walk(&root().join("src"), &mut files);
    assert!(files.len() > 20, "the sources were not found");
    files.sort();
    let read = |path: &PathBuf| {
        let file = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
        Source::new(&file, &fs::read_to_string(path).unwrap())
    };
    files.iter().map(read).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}
