//! What is the one form of a path that is matched and forwarded, and which paths have none?
//!
//! RFC 3986 sections 3.3, 5.2.4 and 6.2.2. Dot segments are removed, escapes written in upper case, unreserved characters decoded.
//! What servers are known to read in two ways is refused: an escaped or reversed slash, NUL, overlong UTF-8, `..;`.

use super::ByteSet;
use super::normalize::Refused;
use crate::model::EncodedSlash;
use std::fmt::Write;

/// Characters that may stand in a path as they are (RFC 3986 section 3.3), and some that everybody sends unescaped. Not `"`, `<`,
/// `>` and the grave accent: no client that follows any standard sends them, and logs and pages take them for their own.
static PCHAR: ByteSet = ByteSet::alphanumeric_and(b"/-._~!$&'()*+,;=:@|[]^{}");

/// An escaped slash in its canonical form.
const SLASH: &str = "%2F";

/// The canonical form of a path into `path`.
pub fn canonical_path(raw: &[u8], slash: EncodedSlash, path: &mut String) -> Result<(), Refused> {
    path.clear();
    if raw.first() != Some(&b'/') {
        return Err(Refused::TargetMalformed);
    }
    if is_plain(raw) {
        path.push_str(std::str::from_utf8(raw).map_err(|_| Refused::TargetMalformed)?);
        return Ok(());
    }
    decode(raw, slash, path)?;
    // `/a%2F..%2Fb`: who decodes first climbs.
    if slash == EncodedSlash::Keep && path.contains(SLASH) && path.split('/').any(hides_climbing) {
        return Err(Refused::PathAmbiguous);
    }
    remove_dot_segments(path)
}

fn hides_climbing(segment: &str) -> bool {
    segment.contains(SLASH) && segment.split(SLASH).any(|part| matches!(part, "." | "..") || hides_dots(part))
}

/// The common case: nothing to decode, no segment that begins with a dot.
fn is_plain(raw: &[u8]) -> bool {
    let mut last = 0;
    raw.iter().all(|byte| {
        let dots = *byte == b'.' && last == b'/';
        last = *byte;
        PCHAR.has(*byte) && !dots
    })
}

fn decode(raw: &[u8], slash: EncodedSlash, path: &mut String) -> Result<(), Refused> {
    let mut bytes = raw.iter().copied();
    let mut before = None;
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            if !PCHAR.has(byte) {
                return Err(if byte == b'\\' { Refused::PathAmbiguous } else { Refused::TargetMalformed });
            }
            path.push(byte as char);
            before = None;
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| (b as char).to_digit(16)).ok_or(Refused::TargetMalformed);
        let value = (digit()? * 16 + digit()?) as u8;
        match value {
            b'/' if slash == EncodedSlash::Keep => path.push_str(SLASH),
            b'/' | b'\\' | 0 => return Err(Refused::PathAmbiguous),
            _ if before.is_some_and(|lead| is_overlong(lead, value)) => return Err(Refused::PathAmbiguous),
            _ if value.is_ascii_alphanumeric() || b"-._~".contains(&value) => path.push(value as char),
            _ => write!(path, "%{value:02X}").map_err(|_| Refused::TargetMalformed)?,
        }
        before = Some(value);
    }
    Ok(())
}

/// Whether two bytes begin a longer form of UTF-8 than their character needs (RFC 3629 section 3): `%c0%af` is `/` to a careless
/// decoder. A single `%C0` is a letter of Latin-1 and stays.
fn is_overlong(lead: u8, next: u8) -> bool {
    match lead {
        0xc0 | 0xc1 => (0x80..=0xbf).contains(&next),
        0xe0 => (0x80..=0x9f).contains(&next),
        0xf0 => (0x80..=0x8f).contains(&next),
        0xf8 => (0x80..=0x87).contains(&next),
        0xfc => (0x80..=0x83).contains(&next),
        _ => false,
    }
}

/// RFC 3986 section 5.2.4, in place. By it `/a//../b` is `/a/b`; to a reader that merges slashes first it is `/b`.
fn remove_dot_segments(path: &mut String) -> Result<(), Refused> {
    if path.split('/').any(hides_dots) {
        return Err(Refused::PathAmbiguous);
    }
    if !path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Ok(());
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if last => kept.push(""),
            "." => {}
            ".." => {
                // To whoever decodes first, the segment before is another one.
                if kept.pop().is_some_and(|before| before.is_empty() || before.contains(SLASH)) {
                    return Err(Refused::PathAmbiguous);
                }
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(segment),
        }
    }
    let mut canonical = String::with_capacity(path.len());
    for segment in kept {
        canonical.push('/');
        canonical.push_str(segment);
    }
    if canonical.is_empty() {
        canonical.push('/');
    }
    *path = canonical;
    Ok(())
}

/// `..;x`: servlet containers cut parameters off a segment, and then it is `..`.
fn hides_dots(segment: &str) -> bool {
    let rest = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.'));
    rest.is_some_and(|rest| rest.starts_with(';') || rest.starts_with("%3B"))
}

/// A canonical path as servers read it that decode slashes, merge them (nginx) and cut parameters off segments (servlet containers),
/// where that is another path. `from` bytes at its front, and a slash after them, are taken as they are.
pub fn loosely(path: &str, from: usize) -> Option<String> {
    let mut last = 0;
    let first = path.bytes().enumerate().position(|(at, byte)| {
        let before = std::mem::replace(&mut last, byte);
        match byte {
            b';' => true,
            b'/' => before == b'/',
            b'%' => path.get(at..).is_some_and(|rest| rest.starts_with(SLASH)),
            _ => false,
        }
    })?;
    if first <= from {
        return None;
    }
    let decoded = path.replace(SLASH, "/");
    let mut loose = String::with_capacity(path.len());
    for segment in decoded.split('/').skip(1) {
        let name = segment.split(';').next().unwrap_or_default();
        if !name.is_empty() {
            loose.push('/');
            loose.push_str(name);
        }
    }
    if loose.is_empty() || decoded.ends_with('/') {
        loose.push('/');
    }
    Some(loose)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(raw: &str) -> Result<String, Refused> {
        path_with(EncodedSlash::Refuse, raw)
    }

    fn path_with(slash: EncodedSlash, raw: &str) -> Result<String, Refused> {
        let mut out = String::new();
        canonical_path(raw.as_bytes(), slash, &mut out).map(|()| out)
    }

    const POLICIES: [EncodedSlash; 2] = [EncodedSlash::Refuse, EncodedSlash::Keep];

    #[test]
    fn a_path_has_one_canonical_form() {
        for (raw, canonical) in [
            ("/", "/"),
            ("/a/b/", "/a/b/"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/../../x", "/x"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/%7euser/%41", "/~user/A"),
            ("/a%2e%2e/b", "/a../b"),
            ("/%2e%2e/b", "/b"),
            ("/%c3%a4", "/%C3%A4"),
            ("/%c0bc/%e0", "/%C0bc/%E0"),
            ("/a//b", "/a//b"),
            ("/a;x=1/b", "/a;x=1/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/..a;x/...", "/..a;x/..."),
        ] {
            assert_eq!(path(raw).as_deref(), Ok(canonical), "{raw}");
        }
    }

    #[test]
    fn a_path_that_readers_take_differently_is_refused() {
        for raw in ["/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "/a%00", "/a//../b", "/a//%2e%2e", "/a//./../b"] {
            assert_eq!(path(raw), Err(Refused::PathAmbiguous), "{raw}");
        }
        for raw in ["", "a", "/%", "/%1", "/%zz", "/%u002f", "/a b", "/a#b", "/ä", "/\u{7f}"] {
            assert_eq!(path(raw), Err(Refused::TargetMalformed), "{raw}");
        }
    }

    #[test]
    fn parameters_do_not_hide_dot_segments() {
        for raw in ["/a/..;/b", "/..;x=y/b", "/a/.;/b", "/a/..%3b/b", "/%2e%2e;/b", "/a/..;", "/a/%2E;x"] {
            assert_eq!(path(raw), Err(Refused::PathAmbiguous), "{raw}");
        }
    }

    #[test]
    fn overlong_utf8_is_refused() {
        for raw in [
            "/%c0%ae%c0%ae/x",
            "/%c0%af",
            "/%c1%9c",
            "/%e0%80%af",
            "/%f0%80%80%af",
            "/%f8%80%80%80%af",
            "/a%C0%2E%C0%AE",
        ] {
            assert_eq!(path(raw), Err(Refused::PathAmbiguous), "{raw}");
        }
    }

    #[test]
    fn an_escaped_slash_that_is_kept_parts_nothing_and_hides_no_way_up() {
        let kept = |raw| path_with(EncodedSlash::Keep, raw);
        for (raw, canonical) in [
            ("/@scope%2fpkg", "/@scope%2Fpkg"),
            ("/api/queues/%2F/name", "/api/queues/%2F/name"),
            ("/a%2Fb/./c", "/a%2Fb/c"),
            ("/a%2Fb/c/../d", "/a%2Fb/d"),
            ("/a%252Fb", "/a%252Fb"),
            ("/a%2F..b", "/a%2F..b"),
        ] {
            assert_eq!(kept(raw).as_deref(), Ok(canonical), "{raw}");
        }
        for raw in [
            "/a%2F..%2Fb",
            "/..%2Fb",
            "/a/%2e%2e%2fb",
            "/a%2F.",
            "/a%2F./b",
            "/a%2F..;x/b",
            "/a%2Fb/../c",
            "/a/%2F/../c",
            "/a%5Cb",
            "/a%00",
            "/%c0%af",
        ] {
            assert_eq!(kept(raw), Err(Refused::PathAmbiguous), "{raw}");
        }
        for (canonical, loose) in [("/a%2Fb", "/a/b"), ("/x/%2F/y", "/x/y"), ("/%2Fadmin", "/admin"), ("/a%2F", "/a/")]
        {
            assert_eq!(loosely(canonical, 0).as_deref(), Some(loose), "{canonical}");
        }
        assert_eq!(loosely("/a%252Fb", 0), None);
    }

    #[test]
    fn characters_of_no_uri_are_refused() {
        for raw in ["/<", "/a>b", "/a\"b", "/a`b", "/%41\"", "/\t", "/\r"] {
            assert_eq!(path(raw), Err(Refused::TargetMalformed), "{raw:?}");
        }
        assert_eq!(path("/%3c%3E%22%60").as_deref(), Ok("/%3C%3E%22%60"));
    }

    #[test]
    fn a_loose_reader_merges_slashes_and_cuts_parameters() {
        for (canonical, loose) in [
            ("//admin", "/admin"),
            ("/a//b/", "/a/b/"),
            ("/admin;x=1", "/admin"),
            ("/;x/admin", "/admin"),
            ("/a;x/b;y/", "/a/b/"),
            ("//", "/"),
        ] {
            assert_eq!(loosely(canonical, 0).as_deref(), Some(loose), "{canonical}");
        }
        for same in ["/", "/a/b", "/a/b/", "/a%3Bb"] {
            assert_eq!(loosely(same, 0), None, "{same}");
        }
        assert_eq!(loosely("/a;x/b", 4), None, "the route itself names it");
        assert_eq!(loosely("/a//b", 2).as_deref(), Some("/a/b"));
        assert_eq!(loosely("/a//b", 3), None, "the route itself names the empty segment");
    }

    proptest! {
        #[test]
        fn canonical_paths_stay_as_they_are(raw in "/[a-c./;%2-9e]{0,20}") {
            for slash in POLICIES {
                if let Ok(once) = path_with(slash, &raw) {
                    prop_assert_eq!(path_with(slash, &once), Ok(once.clone()));
                    let climbs = |s: &str| s == "." || s == ".." || s.starts_with("..;");
                    prop_assert!(!once.replace(SLASH, "/").split('/').any(climbs));
                }
            }
        }

        #[test]
        fn a_loose_reading_is_canonical_and_final(raw in "/[a-c./;%2-9e]{0,20}") {
            for slash in POLICIES {
                if let Ok(once) = path_with(slash, &raw)
                    && let Some(loose) = loosely(&once, 0)
                {
                    prop_assert_eq!(path(&loose), Ok(loose.clone()));
                    prop_assert_eq!(loosely(&loose, 0), None);
                }
            }
        }
    }
}
