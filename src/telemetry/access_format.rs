//! How is a record written as a line of the access log?
//!
//! A line is always one line: control characters, quotes and bytes that are not UTF-8 are escaped, so that no client can forge
//! a record or send escape sequences to a terminal. Both formats are read without knowing ours: JSON by any JSON reader,
//! combined by whatever reads nginx's and Apache's.

use super::access_record::Entry;
use crate::message::Text;
use std::net::SocketAddr;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line; what is not there has no key. Times of day are UTC, durations microseconds.
    #[default]
    Json,
    /// The combined format of Apache and nginx.
    Combined,
}

/// Formats records; remembers the text of the last second, since most lines share it.
#[derive(Debug)]
pub(super) struct Formatter {
    format: Format,
    second: Option<u64>,
    second_text: String,
}

impl Formatter {
    pub(super) fn new(format: Format) -> Self {
        Self { format, second: None, second_text: String::new() }
    }

    /// Appends the line of `entry`.
    pub(super) fn line(&mut self, out: &mut Vec<u8>, entry: &Entry<'_>) {
        let second = entry.time / 1_000_000;
        if self.second != Some(second) {
            let date = Date::of(second);
            self.second_text = if self.format == Format::Json { date.rfc3339() } else { date.common() };
            self.second = Some(second);
        }
        match self.format {
            Format::Json => self.json(out, entry),
            Format::Combined => self.combined(out, entry),
        }
        out.push(b'\n');
    }

    /// Keys are written with the punctuation around them: copies of known length are no calls.
    fn json(&self, out: &mut Vec<u8>, entry: &Entry<'_>) {
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(self.second_text.as_bytes());
        out.extend_from_slice(&format_micros(entry.time));
        let mut client = Text::<48>::default();
        client.address(entry.client);
        quoted(out, b"Z\",\"client\":\"", client.as_bytes());
        if entry.peer.ip() != entry.client {
            address(out, b",\"peer\":\"", entry.peer);
        }
        text(out, b",\"listener\":\"", entry.listener);
        text(out, b",\"method\":\"", entry.method);
        text(out, b",\"host\":\"", entry.host);
        text(out, b",\"path\":\"", entry.path);
        if let Some(query) = entry.query {
            out.extend_from_slice(b",\"query\":\"");
            json_text(out, query);
        }
        quoted(out, b",\"version\":\"", entry.version.as_str().as_bytes());
        text(out, b",\"tls\":\"", entry.tls);
        number(out, b",\"status\":", entry.status.into());
        text(out, b",\"reason\":\"", entry.reason);
        text(out, b",\"audited\":\"", entry.audited);
        text(out, b",\"route\":\"", entry.route);
        text(out, b",\"cluster\":\"", entry.cluster);
        if let Some(endpoint) = entry.endpoint {
            address(out, b",\"endpoint\":\"", endpoint);
        }
        number(out, b",\"attempts\":", entry.attempts.into());
        number(out, b",\"bytes_in\":", entry.bytes_in);
        number(out, b",\"bytes_out\":", entry.bytes_out);
        number(out, b",\"duration_us\":", entry.duration_us);
        if let Some(upstream) = entry.upstream_us {
            number(out, b",\"upstream_us\":", upstream);
        }
        text(out, b",\"request_id\":\"", entry.request_id);
        text(out, b",\"user_agent\":\"", entry.user_agent);
        text(out, b",\"referer\":\"", entry.referer);
        out.push(b'}');
    }

    fn combined(&self, out: &mut Vec<u8>, entry: &Entry<'_>) {
        let mut client = Text::<48>::default();
        client.address(entry.client);
        out.extend_from_slice(client.as_bytes());
        out.extend_from_slice(b" - - [");
        out.extend_from_slice(self.second_text.as_bytes());
        out.extend_from_slice(b"] \"");
        plain_text(out, entry.method);
        out.push(b' ');
        plain_text(out, entry.path);
        if let Some(query) = entry.query {
            out.push(b'?');
            plain_text(out, query);
        }
        out.push(b' ');
        out.extend_from_slice(entry.version.as_str().as_bytes());
        out.extend_from_slice(b"\" ");
        out.extend_from_slice(itoa::Buffer::new().format(entry.status).as_bytes());
        out.push(b' ');
        out.extend_from_slice(itoa::Buffer::new().format(entry.bytes_out).as_bytes());
        for field in [entry.referer, entry.user_agent] {
            out.extend_from_slice(b" \"");
            plain_text(out, if field.is_empty() { b"-" } else { field });
            out.push(b'"');
        }
    }
}

fn number<const N: usize>(out: &mut Vec<u8>, key: &[u8; N], value: u64) {
    out.extend_from_slice(key);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn address<const N: usize>(out: &mut Vec<u8>, key: &[u8; N], address: SocketAddr) {
    let mut text = Text::<64>::default();
    text.socket_address(address);
    quoted(out, key, text.as_bytes());
}

/// A value of our own, which needs no escape.
fn quoted<const N: usize>(out: &mut Vec<u8>, key: &[u8; N], value: &[u8]) {
    out.extend_from_slice(key);
    out.extend_from_slice(value);
    out.push(b'"');
}

fn text<const N: usize>(out: &mut Vec<u8>, key: &[u8; N], value: &[u8]) {
    if !value.is_empty() {
        out.extend_from_slice(key);
        json_text(out, value);
    }
}

/// The rest of a JSON string whose quote is open. Control characters, separators that some readers take for line ends, and marks that reorder what a reader sees are
/// written as `\u` escapes; a byte that is not UTF-8 becomes the four characters `\xHH`.
fn json_text(out: &mut Vec<u8>, mut rest: &[u8]) {
    loop {
        let (plain, special) = rest.split_at_checked(plain_bytes(rest)).unwrap_or((rest, b""));
        out.extend_from_slice(plain);
        if special.is_empty() {
            break;
        }
        rest = special.get(json_escape(out, special)..).unwrap_or_default();
    }
    out.push(b'"');
}

/// How many bytes at the front are printable ASCII and need no escape in JSON.
fn plain_bytes(text: &[u8]) -> usize {
    let (words, rest) = text.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let special = specials(u64::from_le_bytes(*word));
        if special != 0 {
            return at * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    // The last eight bytes, some of them for a second time.
    if text.last_chunk::<8>().is_some_and(|last| specials(u64::from_le_bytes(*last)) == 0) {
        return text.len();
    }
    let special = |byte: &u8| !(0x20..0x7f).contains(byte) || matches!(byte, b'"' | b'\\');
    words.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
}

/// Eight bytes at once: the high bit of the first one that is special is set, and none below it. (A subtraction borrows from the
/// bytes above a special one alone.)
fn specials(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let below = |word: u64, byte: u64| word.wrapping_sub(ONES * byte) & !word;
    let controls = below(word, 0x20);
    let (quote, backslash) = (below(word ^ (ONES * 0x22), 1), below(word ^ (ONES * 0x5c), 1));
    let above = ((word & !HIGH) + ONES) | word;
    (controls | quote | backslash | above) & HIGH
}

/// Writes the first character of `rest`, which is a special one; says how many bytes it took.
fn json_escape(out: &mut Vec<u8>, rest: &[u8]) -> usize {
    let Some(c) = first_char(rest) else {
        let byte = rest.first().copied().unwrap_or_default();
        out.extend_from_slice(b"\\\\x");
        hex(out, byte);
        return 1;
    };
    let reorders =
        matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{feff}');
    match c {
        '"' | '\\' => out.extend_from_slice(&[b'\\', c as u8]),
        c if c.is_control() || reorders => {
            let code = u16::try_from(u32::from(c)).unwrap_or_default();
            out.extend_from_slice(b"\\u");
            code.to_be_bytes().into_iter().for_each(|byte| hex(out, byte));
        }
        c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
    c.len_utf8()
}

/// The character that `bytes` begin with, where they begin with valid UTF-8.
fn first_char(bytes: &[u8]) -> Option<char> {
    let start = bytes.get(..bytes.len().min(4))?;
    start.utf8_chunks().next()?.valid().chars().next()
}

/// As nginx writes it: everything but printable ASCII, and quote and backslash, as `\xHH`.
fn plain_text(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        if (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\' {
            out.push(byte);
        } else {
            out.extend_from_slice(b"\\x");
            hex(out, byte);
        }
    }
}

fn hex(out: &mut Vec<u8>, byte: u8) {
    let digit = |n: u8| if n < 10 { b'0' + n } else { b'A' + n - 10 };
    out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
}

/// `.123456`
fn format_micros(time: u64) -> [u8; 7] {
    let mut left = time % 1_000_000;
    let mut text = *b".000000";
    for place in text.iter_mut().skip(1).rev() {
        *place = b'0' + (left % 10) as u8;
        left /= 10;
    }
    text
}

/// A second in the civil calendar, UTC.
#[derive(Debug, PartialEq, Eq)]
struct Date {
    year: u64,
    month: u64,
    day: u64,
    second: u64,
}

impl Date {
    /// Days to a date by counting years from March, after Howard Hinnant's `civil_from_days`.
    fn of(second: u64) -> Self {
        let days = second / 86_400 + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
            second: second % 86_400,
        }
    }

    fn clock(&self) -> String {
        format!("{:02}:{:02}:{:02}", self.second / 3600, self.second / 60 % 60, self.second % 60)
    }

    /// `2026-02-03T04:05:06`
    fn rfc3339(&self) -> String {
        format!("{:04}-{:02}-{:02}T{}", self.year, self.month, self.day, self.clock())
    }

    /// `03/Feb/2026:04:05:06 +0000`
    fn common(&self) -> String {
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let month = (self.month as usize).checked_sub(1).and_then(|at| MONTHS.get(at)).unwrap_or(&"");
        format!("{:02}/{month}/{:04}:{} +0000", self.day, self.year, self.clock())
    }
}

#[cfg(test)]
mod tests {
    use super::super::access_record::tests::{context, record};
    use super::super::access_record::{Entry, Record};
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn line(format: Format, record: &Record<'_>) -> Vec<u8> {
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        record.encode(&mut bytes);
        Formatter::new(format).line(&mut out, &Entry::decode(&mut bytes.as_slice()).unwrap());
        out
    }

    #[test]
    fn a_json_line_has_these_keys() {
        let read: Value = serde_json::from_slice(&line(Format::Json, &record(&context()))).unwrap();
        let expected = json!({
            "time": "2023-11-14T22:13:20.123456Z", "client": "2001:db8::1", "peer": "192.0.2.7:4321",
            "listener": "https", "method": "GET", "host": "shop.example.com", "path": "/a", "query": "x=1",
            "version": "HTTP/1.1", "tls": "TLSv1.3", "status": 200, "route": "shop", "cluster": "shop/web",
            "endpoint": "10.0.0.1:80", "attempts": 1, "bytes_in": 0, "bytes_out": 12, "duration_us": 1500,
            "upstream_us": 900, "request_id": "id-1", "user_agent": "curl/8",
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn a_combined_line_looks_like_nginx() {
        let expected = "2001:db8::1 - - [14/Nov/2023:22:13:20 +0000] \"GET /a?x=1 HTTP/1.1\" 200 12 \"-\" \"curl/8\"\n";
        assert_eq!(String::from_utf8(line(Format::Combined, &record(&context()))).unwrap(), expected);
    }

    #[test]
    fn nothing_that_a_client_sends_forges_a_json_field_or_a_line() {
        let context = context();
        let agent = b"\",\"status\":500}\r\n{\"forged\":\"\x1b[2J\xff\\\xe2\x80\xa8\xe2\x80\xae\xc2\x85";
        let bytes = line(Format::Json, &Record { user_agent: agent, path: b"/\n\"}", ..record(&context) });
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.trim_end().contains(|c: char| c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c)));
        let read: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read["status"], 200);
        assert_eq!(read["path"], "/\n\"}");
        let agent = "\",\"status\":500}\r\n{\"forged\":\"\u{1b}[2J\\xFF\\\u{2028}\u{202e}\u{85}";
        assert_eq!(read["user_agent"], agent);
    }

    #[test]
    fn nothing_that_a_client_sends_forges_a_combined_line() {
        let context = context();
        let forged = Record { user_agent: b"a\" \"b\n\\\xc3\xa9\x7f", path: b"/\r\nx", ..record(&context) };
        let text = String::from_utf8(line(Format::Combined, &forged)).unwrap();
        assert!(text.contains("\"GET /\\x0D\\x0Ax?x=1 HTTP/1.1\""), "{text}");
        assert!(text.ends_with("\"a\\x22 \\x22b\\x0A\\x5C\\xC3\\xA9\\x7F\"\n"), "{text}");
    }

    #[test]
    fn dates_are_right_around_leap_days() {
        for (second, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (1_798_761_599, "2026-12-31T23:59:59"),
        ] {
            assert_eq!(Date::of(second).rfc3339(), text);
        }
    }

    proptest! {
        #[test]
        fn special_bytes_are_found_by_words_as_one_by_one(text in proptest::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..40)) {
            let special = |byte: &u8| !(0x20..0x7f).contains(byte) || matches!(byte, b'"' | b'\\');
            prop_assert_eq!(plain_bytes(&text), text.iter().position(special).unwrap_or(text.len()));
        }

        #[test]
        fn any_bytes_give_one_valid_line(agent: Vec<u8>, path: String) {
            let context = context();
            for format in [Format::Json, Format::Combined] {
                let bytes = line(format, &Record { user_agent: &agent, path: path.as_bytes(), ..record(&context) });
                let text = String::from_utf8(bytes).unwrap();
                prop_assert!(text.ends_with('\n'));
                prop_assert!(!text.trim_end_matches('\n').chars().any(char::is_control));
                if format == Format::Json {
                    let read: Value = serde_json::from_str(&text).unwrap();
                    prop_assert_eq!(read["path"].as_str().unwrap_or_default(), path.as_str());
                }
            }
        }
    }
}
