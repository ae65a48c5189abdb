//! Which single values are there, and how is each written?

use super::kind::Scalar;
use crate::model::{FieldName, HostPattern, ValueError, WildcardDepth};
use ipnet::IpNet;
use serde_json::json;
use std::borrow::Cow;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Compiled expressions may take so much memory; more is refused when the configuration is read.
pub const REGEX_BYTES: usize = 1 << 20;
/// Longest duration taken anywhere: what is longer is a mistake of units.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

fn scalar<T: 'static>(
    expects: &'static str,
    parse: impl Fn(&str) -> Result<T, ValueError> + 'static,
    schema: fn() -> serde_json::Value,
    show: fn(&T) -> serde_json::Value,
) -> Scalar<T> {
    Scalar { expects: Cow::Borrowed(expects), parse: Box::new(parse), schema: Box::new(schema), show: Box::new(show) }
}

fn string_schema() -> serde_json::Value {
    // Numbers too: `set: { x-version: 2 }` means the text 2.
    json!({ "type": ["string", "number", "boolean"] })
}

/// Any text without control characters other than line ends and tabs.
pub fn text(expects: &'static str) -> Scalar<String> {
    scalar(expects, |t| Ok(t.to_owned()), string_schema, |t| json!(t))
}

/// A name: not empty, no blanks and no control characters.
pub fn name(expects: &'static str) -> Scalar<String> {
    let parse = move |t: &str| {
        if t.is_empty() || t.len() > 253 || t.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(ValueError::new(format!("{t:?} is not a name"), format!("write {expects}, without blanks")));
        }
        Ok(t.to_owned())
    };
    scalar(expects, parse, || json!({ "type": ["string", "number"] }), |t| json!(t))
}

/// `true` or `false`.
pub fn flag() -> Scalar<bool> {
    let parse = |t: &str| match t {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(ValueError::new(format!("{t:?} is neither true nor false"), "write true or false")),
    };
    scalar("true or false", parse, || json!({ "type": "boolean" }), |b| json!(b))
}

/// A whole number in a range, both ends included.
pub fn number<T>(what: &'static str, from: T, to: T) -> Scalar<T>
where
    T: TryFrom<u64> + Into<u64> + Copy + 'static,
{
    let (low, high): (u64, u64) = (from.into(), to.into());
    let expects = if high >= u64::from(u32::MAX) {
        format!("{what}, {low} or more")
    } else {
        format!("{what} from {low} to {high}")
    };
    let hint = expects.clone();
    Scalar {
        expects: Cow::Owned(expects),
        parse: Box::new(move |t| {
            let number = t.parse::<u64>().ok().filter(|n| (low..=high).contains(n));
            let number = number.and_then(|n| T::try_from(n).ok());
            number.ok_or_else(|| ValueError::new(format!("{t:?} is out of place here"), format!("write {hint}")))
        }),
        schema: Box::new(move || json!({ "type": "integer", "minimum": low, "maximum": high })),
        show: Box::new(|n| json!((*n).into())),
    }
}

/// One of a few words.
pub fn choice<T: Clone + PartialEq>(what: &'static str, words: &'static [(&'static str, T)]) -> Scalar<T> {
    let list = || words.iter().map(|(word, _)| *word).collect::<Vec<_>>();
    Scalar {
        expects: Cow::Owned(format!("{what}: {}", list().join(" or "))),
        parse: Box::new(move |t| {
            let found = words.iter().find(|(word, _)| *word == t).map(|(_, value)| value.clone());
            let wrong = || ValueError::new(format!("{t:?} is not {what}"), super::decode::suggest(t, &list()));
            found.ok_or_else(wrong)
        }),
        schema: Box::new(move || json!({ "enum": list() })),
        show: Box::new(move |value| json!(words.iter().find(|(_, v)| v == value).map(|(word, _)| *word))),
    }
}

/// A length of time: `250ms`, `10s`, `1m`, `2h`, also `1m30s`.
pub fn duration() -> Scalar<Duration> {
    let schema =
        || json!({ "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$|^0$", "examples": ["250ms", "10s", "1m"] });
    scalar("a duration such as 250ms, 10s or 1m", parse_duration, schema, |d| json!(show_duration(*d)))
}

/// A length of time that is not zero.
pub fn positive_duration() -> Scalar<Duration> {
    let any = duration();
    let parse = move |t: &str| match (any.parse)(t)? {
        Duration::ZERO => Err(ValueError::new("no time at all is too short", "write a duration such as 10s")),
        some => Ok(some),
    };
    Scalar { parse: Box::new(parse), ..duration() }
}

/// Reads `1m30s`; a number alone is refused, because its unit would be a guess.
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    let wrong = |what: String| ValueError::new(what, "write a number and its unit, such as 250ms, 10s, 1m or 2h");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong(format!("{text:?} has no unit")));
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let number: u64 = number.parse().map_err(|_| wrong(format!("{text:?} is not a duration")))?;
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong(format!("{text:?} is not a duration"))),
        };
        total = total.saturating_add(Duration::from_millis(number.saturating_mul(milliseconds)));
        rest = tail;
    }
    match total {
        _ if text.is_empty() => Err(wrong("an empty text is not a duration".into())),
        total if total > LONGEST => Err(ValueError::new(format!("{text:?} is longer than 7d"), "is the unit right?")),
        total => Ok(total),
    }
}

/// The shortest spelling of a duration that [`parse_duration`] reads.
pub fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0 => "0s".into(),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

/// A number of bytes: `65536`, `64KiB`, `1MiB`, `1GiB`, up to `max`.
pub fn bytes(max: u64) -> Scalar<u64> {
    let parse = move |t: &str| {
        let value = parse_bytes(t)?;
        if value > max {
            return Err(ValueError::new(format!("{t:?} is more than {}", show_bytes(max)), "write a smaller size"));
        }
        Ok(value)
    };
    let schema = || {
        json!({ "anyOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": "^[0-9]+ ?(B|[KMG]i?B)?$", "examples": ["64KiB", "1MiB"] },
        ] })
    };
    scalar("a size such as 64KiB or 1MiB", parse, schema, |b| json!(show_bytes(*b)))
}

/// Reads `64KiB`; decimal units (`kB`) are taken too.
pub fn parse_bytes(text: &str) -> Result<u64, ValueError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: Option<u64> = match unit.trim() {
        "" | "B" => Some(1),
        "KiB" | "Ki" => Some(1 << 10),
        "MiB" | "Mi" => Some(1 << 20),
        "GiB" | "Gi" => Some(1 << 30),
        "kB" | "KB" => Some(1000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        _ => None,
    };
    let value = factor.and_then(|f| number.parse::<u64>().ok()?.checked_mul(f));
    value.ok_or_else(|| {
        ValueError::new(format!("{text:?} is not a size"), "write a number of bytes, or 64KiB, 1MiB, 1GiB")
    })
}

/// The shortest spelling of a size that [`parse_bytes`] reads.
pub fn show_bytes(bytes: u64) -> String {
    match bytes {
        0 => "0".into(),
        _ if bytes.is_multiple_of(1 << 30) => format!("{}GiB", bytes >> 30),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
        _ => bytes.to_string(),
    }
}

/// A network: `10.0.0.0/8`, or one address.
pub fn network() -> Scalar<IpNet> {
    let parse = |t: &str| {
        let wrong = || ValueError::new(format!("{t:?} is not a network"), "such as 10.0.0.0/8, fd00::/8 or 192.0.2.1");
        match t.parse::<IpNet>() {
            Ok(net) if net.trunc() != net => Err(ValueError::new(
                format!("{t:?} has bits beyond its mask"),
                format!("did you mean {}?", net.trunc()),
            )),
            Ok(net) => Ok(net),
            Err(_) => t.parse::<IpAddr>().map(IpNet::from).map_err(|_| wrong()),
        }
    };
    scalar("a network such as 10.0.0.0/8", parse, || json!({ "type": "string" }), |n| json!(n.to_string()))
}

/// Where to listen: `:8080` (every address of the machine), `0.0.0.0:80`, `[::]:443` (IPv6 alone), `127.0.0.1:0`.
pub fn listen_address() -> Scalar<Vec<SocketAddr>> {
    scalar(
        "an address such as :8080, 0.0.0.0:80 or [::]:443",
        parse_listen_address,
        || json!({ "type": ["string", "integer"], "examples": [":8080", "0.0.0.0:80", "[::]:443"] }),
        |a| json!(a.first().map(ToString::to_string)),
    )
}

/// Reads where to listen. A port alone is every address of the machine: IPv4, and IPv6 where the machine has it.
pub fn parse_listen_address(text: &str) -> Result<Vec<SocketAddr>, ValueError> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        let every = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let count = if has_ipv6() { 2 } else { 1 };
        return Ok(every.into_iter().take(count).map(|ip| SocketAddr::new(ip, port)).collect());
    }
    text.parse().map(|address| vec![address]).map_err(|_| {
        let hint = if text.parse::<IpAddr>().is_ok() {
            "add the port: 127.0.0.1:8080, [::1]:8080"
        } else if text.starts_with('*') {
            "every address of the machine is written :8080"
        } else {
            "write an IP address and a port, such as :8080, 127.0.0.1:8080 or [::1]:8080"
        };
        ValueError::new(format!("{text:?} is not an address to listen on"), hint)
    })
}

/// Kernels without IPv6 refuse to bind `[::]`; a configuration for every machine should start there too.
fn has_ipv6() -> bool {
    std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// An endpoint: an IP address and a port.
pub fn endpoint_address() -> Scalar<SocketAddr> {
    let parse = |t: &str| {
        t.parse::<SocketAddr>().ok().filter(|a| a.port() != 0).ok_or_else(|| {
            let hint = "write an IP address and a port, such as 127.0.0.1:9001 or [::1]:9001; names are not looked up";
            ValueError::new(format!("{t:?} is not an endpoint"), hint)
        })
    };
    let schema = || json!({ "type": "string", "examples": ["127.0.0.1:9001", "[::1]:9001"] });
    scalar("an endpoint such as 127.0.0.1:9001", parse, schema, |a| json!(a.to_string()))
}

/// A host: exact, `*.example.com` or `*`.
pub fn host() -> Scalar<HostPattern> {
    let schema = || json!({ "type": "string", "examples": ["shop.example.com", "*.example.com", "*"] });
    let parse = |t: &str| HostPattern::parse(t, WildcardDepth::Many);
    scalar("a host such as shop.example.com", parse, schema, |h| json!(h.to_string()))
}

/// A host name without wildcard, as it is put into a Host header, a URL or a TLS handshake; a port may be allowed.
pub fn plain_host(with_port: bool) -> Scalar<String> {
    let parse = move |t: &str| {
        let (name, port) = match t.rsplit_once(':') {
            Some((name, port)) if with_port && !t.ends_with(']') => (name, Some(port)),
            _ => (t, None),
        };
        match (HostPattern::parse(name, WildcardDepth::Many)?, port.map(str::parse::<u16>)) {
            (HostPattern::Exact(_), None | Some(Ok(_))) => Ok(t.to_ascii_lowercase()),
            _ => Err(ValueError::new(format!("{t:?} is not a host name"), "such as shop.example.com")),
        }
    };
    scalar("a host name", parse, || json!({ "type": "string" }), |t| json!(t))
}

/// A header name.
pub fn field_name() -> Scalar<FieldName> {
    let schema = || json!({ "type": "string", "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$" });
    scalar("a header name", FieldName::parse, schema, |n| json!(n.as_str()))
}

/// A header value: visible characters and blanks inside of it, so that nothing can end the line early.
pub fn field_value() -> Scalar<String> {
    let parse = |t: &str| {
        let odd = t.chars().find(|c| c.is_control() && *c != '\t');
        if let Some(odd) = odd {
            let what = format!("{t:?} has the control character {odd:?}");
            return Err(ValueError::new(what, "a header value is one line of visible characters"));
        }
        if t.trim() != t {
            return Err(ValueError::new(format!("{t:?} begins or ends with a blank"), "leave the blanks out"));
        }
        Ok(t.to_owned())
    };
    scalar("a header value", parse, string_schema, |t| json!(t))
}

/// A regular expression that can be compiled.
pub fn regex() -> Scalar<String> {
    let schema = || json!({ "type": ["string", "number"], "format": "regex" });
    scalar("a regular expression", |t| check_regex(t).map(|()| t.to_owned()), schema, |t| json!(t))
}

/// Whether an expression compiles within [`REGEX_BYTES`].
pub fn check_regex(pattern: &str) -> Result<(), ValueError> {
    let compiled = regex::RegexBuilder::new(pattern).size_limit(REGEX_BYTES).build();
    compiled.map(|_| ()).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            ValueError::new(format!("the expression {pattern:?} grows too large"), "use smaller repetitions")
        }
        error => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            let hint = "expressions have the syntax of Rust's regex crate: no look-around, no back-references";
            ValueError::new(format!("{pattern:?} is not a regular expression: {last}"), hint)
        }
    })
}

/// An HTTP method.
pub fn method() -> Scalar<http::Method> {
    let parse = |t: &str| {
        let hint = "methods are written in capitals, such as GET or POST";
        let method = t.parse::<http::Method>().map_err(|_| ValueError::new(format!("{t:?} is not a method"), hint))?;
        if t.chars().any(|c| c.is_ascii_lowercase()) {
            let hint = format!("did you mean {}?", t.to_ascii_uppercase());
            return Err(ValueError::new(format!("{t:?} is not a method: they are case-sensitive"), hint));
        }
        Ok(method)
    };
    let schema = || json!({ "type": "string", "pattern": "^[A-Z][A-Z0-9_-]*$", "examples": ["GET", "POST"] });
    scalar("a method such as GET", parse, schema, |m| json!(m.as_str()))
}

/// One of a few numbers, such as the statuses of a redirect.
pub fn one_of(what: &'static str, numbers: &'static [u16]) -> Scalar<u16> {
    let list = join(numbers.iter());
    let hint = format!("write {list}");
    Scalar {
        expects: Cow::Owned(format!("{what}: {list}")),
        parse: Box::new(move |t| {
            let number = t.parse().ok().filter(|n| numbers.contains(n));
            number.ok_or_else(|| ValueError::new(format!("{t:?} is not {what}"), hint.clone()))
        }),
        schema: Box::new(move || json!({ "enum": numbers })),
        show: Box::new(|n| json!(n)),
    }
}

fn join(items: impl Iterator<Item = impl Display>) -> String {
    items.map(|i| i.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_its_unit() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert!(parse_duration("10").is_err_and(|e| e.what.contains("no unit")));
        for wrong in ["", "s", "10 s", "-1s", "1.5s", "10sec", "99999999999999999999s", "8d", "1s2"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_duration_is_shown_as_it_would_be_written() {
        for text in ["0s", "250ms", "10s", "1m", "90s", "2h"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn a_size_has_binary_or_decimal_units() {
        assert_eq!(parse_bytes("64KiB"), Ok(65536));
        assert_eq!(parse_bytes("1 MiB"), Ok(1 << 20));
        assert_eq!(parse_bytes("2kB"), Ok(2000));
        assert_eq!(parse_bytes("77"), Ok(77));
        for wrong in ["", "KiB", "1.5MiB", "-1", "1TB!", "99999999999GiB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(show_bytes(65536), "64KiB");
    }

    #[test]
    fn a_bare_address_is_a_network_of_one() {
        let parse = network().parse;
        assert_eq!(parse("192.0.2.1").unwrap().to_string(), "192.0.2.1/32");
        assert_eq!(parse("::1").unwrap().to_string(), "::1/128");
        assert!(parse("10.1.2.3/8").is_err_and(|e| e.hint.contains("10.0.0.0/8")));
        assert!(parse("10.0.0.0/33").is_err());
    }

    #[test]
    fn a_port_alone_means_every_address() {
        for text in [":8080", "8080"] {
            let all = parse_listen_address(text).unwrap();
            assert_eq!(all[0], "0.0.0.0:8080".parse().unwrap());
            assert!(all.len() == 1 || all[1] == "[::]:8080".parse().unwrap());
        }
        assert_eq!(parse_listen_address("0.0.0.0:80"), Ok(vec!["0.0.0.0:80".parse().unwrap()]));
        assert_eq!(parse_listen_address("[::]:0"), Ok(vec!["[::]:0".parse().unwrap()]));
        for wrong in ["", ":", ":70000", "localhost:80", "*:80", "127.0.0.1"] {
            assert!(parse_listen_address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_value_cannot_end_its_line() {
        let parse = field_value().parse;
        assert!(parse("a b; q=1").is_ok());
        for wrong in ["a\r\nx: y", "a\n", "\0", " a", "\u{7f}"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_expression_is_compiled_when_it_is_read() {
        assert!(check_regex("^/item/[0-9]+$").is_ok());
        assert!(check_regex("(").is_err());
        assert!(check_regex("(?=a)").is_err_and(|e| e.hint.contains("look-around")));
        assert!(check_regex("((a{100}){100}){100}").is_err_and(|e| e.what.contains("large")));
    }

    #[test]
    fn a_method_is_written_in_capitals() {
        assert!((method().parse)("get").is_err_and(|e| e.hint.contains("GET")));
        assert!((method().parse)("PURGE").is_ok());
    }
}
