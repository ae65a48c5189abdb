//! How is told whether node ports and the gate answer the same?

use super::super::{FAILED, fail};
use super::{AuditFormat, yaml};
use crate::kubernetes::audit::verify::{Compared, Comparison, NotCompared, Sameness, Seen};
use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

/// Where the gate is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Its address.
    pub address: SocketAddr,
    /// Whether by TLS.
    pub tls: bool,
}

/// Prints what came of comparisons; the exit status says whether all that would be closed was compared and is the same.
pub(super) fn print(compared: &Compared, format: AuditFormat, out: &mut dyn Write) -> io::Result<ExitCode> {
    let text = match format {
        AuditFormat::Json => format!("{:#}\n", serde_json::json!(compared)),
        AuditFormat::Yaml => yaml::document(&serde_json::json!(compared)),
        _ => format!("{}{}", table(compared), left_out(&compared.not_compared)),
    };
    out.write_all(text.as_bytes())?;
    if compared.comparisons.iter().any(|c| c.verdict != Sameness::Same) {
        return Ok(ExitCode::from(FAILED));
    }
    Ok(missing(compared).map_or(ExitCode::SUCCESS, |why| fail(&why)))
}

/// What keeps an answer from being one about everything. Ports that nothing replaces do not: no route is meant to answer for
/// them, and the patches leave them open. Where they are all there is, nothing was compared.
fn missing(compared: &Compared) -> Option<String> {
    let replaced = compared.not_compared.iter().filter(|port| port.replace).count();
    match (compared.comparisons.is_empty(), replaced) {
        (true, _) if compared.not_compared.is_empty() => None,
        (true, _) => Some("nothing was compared".into()),
        (false, 0) => None,
        (false, 1) => Some("not everything was compared: one port that Tidegate replaces was not".into()),
        (false, n) => Some(format!("not everything was compared: {n} ports that Tidegate replaces were not")),
    }
}

fn left_out(ports: &[NotCompared]) -> String {
    let mut text = String::new();
    for (title, replace) in [("Not compared, but replaced", true), ("Not compared, because not replaced", false)] {
        let mut title = Some(title);
        for port in ports.iter().filter(|port| port.replace == replace) {
            if let Some(title) = title.take() {
                let _ = writeln!(text, "\n{title}");
            }
            let _ = writeln!(text, "  {} {}/{}: {}", port.service, port.node_port, port.protocol, port.why);
        }
    }
    text
}

fn table(compared: &Compared) -> String {
    let Compared { comparisons, not_compared } = compared;
    if comparisons.is_empty() {
        let nothing = not_compared.is_empty();
        let text = if nothing {
            "Nothing opens node ports: there is nothing to compare.\n"
        } else {
            "Nothing was compared.\n"
        };
        return text.into();
    }
    let mut text = lines(comparisons);
    let said = comparisons.iter().flat_map(|c| c.why.iter().map(move |why| (c, why)));
    for (at, (comparison, why)) in said.enumerate() {
        let lead = if at == 0 { "\n" } else { "" };
        let _ = writeln!(text, "{lead}{} {}{}: {why}", comparison.service, comparison.host, comparison.path);
    }
    text
}

fn lines(compared: &[Comparison]) -> String {
    let head = ["SERVICE", "ASKED FOR", "NODE PORT", "GATE", "CLIENT IP", "VERDICT"].map(str::to_owned);
    let mut rows = vec![head];
    for comparison in compared {
        let asked = format!("{}{}", comparison.host, comparison.path);
        let node = format!("{} {}", comparison.node_port, shown(comparison.node.as_ref()));
        let gate = shown(comparison.gate.as_ref());
        rows.push([
            comparison.service.clone(),
            asked,
            node,
            gate,
            client(comparison),
            verdict(comparison.verdict).into(),
        ]);
    }
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..6).map(|column| width(column).unwrap_or_default()).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

fn shown(seen: Option<&Seen>) -> String {
    seen.map_or_else(|| "-".into(), |seen| format!("{}, {} bytes", seen.status, seen.length))
}

/// Whether the service saw the client's address, by either way.
fn client(comparison: &Comparison) -> String {
    let word = |seen: Option<&Seen>| match seen.and_then(|seen| seen.client_address_kept) {
        Some(true) => "kept",
        Some(false) => "lost",
        None => "?",
    };
    match (word(comparison.node.as_ref()), word(comparison.gate.as_ref())) {
        ("?", "?") => "not told".into(),
        (node, gate) => format!("{node} > {gate}"),
    }
}

fn verdict(sameness: Sameness) -> &'static str {
    match sameness {
        Sameness::Same => "same",
        Sameness::Differs => "differs",
        Sameness::Unreachable => "unreachable",
    }
}

/// `10.0.0.11`, `[fd00::1]:8080`, `gate.test`, each also with http:// or https://.
pub(super) fn gate(text: &str) -> Result<Gate, String> {
    let (tls, rest) = match text.split_once("://") {
        None | Some(("http", _)) => (false, text.strip_prefix("http://").unwrap_or(text)),
        Some(("https", rest)) => (true, rest),
        Some(_) => return Err("write http:// or https://, or an address alone".into()),
    };
    let rest = rest.trim_end_matches('/');
    let port = if tls { 443 } else { 80 };
    let alone = rest.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if let Ok(address) = alone {
        return Ok(Gate { address: (address, port).into(), tls });
    }
    let named = if rest.contains(':') { rest.to_socket_addrs() } else { (rest, port).to_socket_addrs() };
    let found = named.ok().and_then(|mut all| all.next());
    let address =
        found.ok_or_else(|| "write an address such as 10.0.0.11, 10.0.0.11:8080 or https://10.0.0.11".to_owned())?;
    Ok(Gate { address, tls })
}

/// A path as a request has it.
pub(super) fn path(text: &str) -> Result<String, String> {
    let fine = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if fine { Ok(text.into()) } else { Err("write a path such as /healthz".into()) }
}

/// A wait of 1 ms to 5 minutes.
pub(super) fn patience(text: &str) -> Result<Duration, String> {
    let kind = crate::config::values::positive_duration();
    match (kind.parse)(text) {
        Ok(wait) if wait <= Duration::from_secs(300) => Ok(wait),
        Ok(_) => Err("at most 5m".into()),
        Err(error) => Err(format!("{}; {}", error.what, error.hint)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_an_address_with_or_without_port_and_scheme() {
        let read = |text: &str| gate(text).map(|gate| (gate.address.to_string(), gate.tls));
        for (text, address, tls) in [
            ("10.0.0.1", "10.0.0.1:80", false),
            ("10.0.0.1:8080", "10.0.0.1:8080", false),
            ("https://10.0.0.1/", "10.0.0.1:443", true),
            ("fd00::1", "[fd00::1]:80", false),
            ("https://[fd00::1]:8443", "[fd00::1]:8443", true),
        ] {
            assert_eq!(read(text), Ok((address.into(), tls)), "{text}");
        }
        assert!(read("ftp://10.0.0.1").is_err() && read("").is_err() && read("10.0.0.1:x").is_err());
    }

    #[test]
    fn only_what_a_request_can_ask_for_is_a_path() {
        assert_eq!(path("/a?b=c"), Ok("/a?b=c".into()));
        assert!(path("a").is_err() && path("/a b").is_err() && path("/a\r\nx: y").is_err());
        assert_eq!(patience("250ms"), Ok(Duration::from_millis(250)));
        assert!(patience("0s").is_err() && patience("10m").is_err() && patience("3").is_err());
    }

    fn seen(status: u16, client_address_kept: Option<bool>) -> Seen {
        let (at, content_type) = (([10, 0, 0, 1], 80).into(), "text/plain".into());
        Seen { at, status, content_type, length: 4, digest: "0".repeat(16), client_address_kept }
    }

    fn same() -> Comparison {
        Comparison {
            service: "shop/web".into(),
            node_port: 30080,
            host: "shop.test".into(),
            path: "/".into(),
            verdict: Sameness::Same,
            why: Vec::new(),
            node: Some(seen(200, Some(false))),
            gate: Some(seen(200, Some(true))),
        }
    }

    fn left(node_port: u16, replace: bool) -> NotCompared {
        let (service, protocol, why) = ("shop/x".into(), "TCP".into(), "a reason".into());
        NotCompared { service, node_port, protocol, replace, why }
    }

    fn run(comparisons: &[Comparison], not_compared: &[NotCompared], format: AuditFormat) -> (String, ExitCode) {
        let compared = Compared { comparisons: comparisons.to_vec(), not_compared: not_compared.to_vec() };
        let mut out = Vec::new();
        let code = print(&compared, format, &mut out).unwrap();
        (String::from_utf8(out).unwrap(), code)
    }

    #[test]
    fn verdicts_are_told_with_what_differs_and_as_exit_status() {
        let why = vec!["the gate: no answer in time".to_owned()];
        let dead = Comparison { verdict: Sameness::Unreachable, why, gate: None, path: "/x".into(), ..same() };
        let (text, code) = run(&[same(), dead], &[], AuditFormat::Table);
        assert_eq!(
            text,
            "SERVICE   ASKED FOR    NODE PORT           GATE          CLIENT IP    VERDICT\n\
             shop/web  shop.test/   30080 200, 4 bytes  200, 4 bytes  lost > kept  same\n\
             shop/web  shop.test/x  30080 200, 4 bytes  -             lost > ?     unreachable\n\
             \nshop/web shop.test/x: the gate: no answer in time\n"
        );
        assert_eq!(code, ExitCode::from(FAILED));
        let (text, code) = run(&[same()], &[], AuditFormat::Json);
        assert_eq!(code, ExitCode::SUCCESS);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["comparisons"][0]["verdict"], "same");
        assert_eq!(json["not_compared"], serde_json::json!([]));
    }

    #[test]
    fn what_would_be_closed_without_a_comparison_is_no_success() {
        let broken = ExitCode::from(super::super::super::BROKEN);
        let code = |all: &[Comparison], left: &[NotCompared]| run(all, left, AuditFormat::Table).1;
        assert_eq!(code(&[], &[]), ExitCode::SUCCESS, "nothing is open");
        assert_eq!(code(&[], &[left(1, false)]), broken, "nothing was compared");
        assert_eq!(code(&[], &[left(1, true)]), broken);
        assert_eq!(code(&[same()], &[left(1, true)]), broken);
        assert_eq!(code(&[same()], &[left(1, false)]), ExitCode::SUCCESS, "it stays open");
        let differs = Comparison { verdict: Sameness::Differs, ..same() };
        assert_eq!(code(&[same(), differs], &[left(1, true)]), ExitCode::from(FAILED), "the worse news goes first");
        let (text, _) = run(&[same()], &[left(1, false), left(2, true)], AuditFormat::Table);
        let told = "\nNot compared, but replaced\n  shop/x 2/TCP: a reason\n\
                    \nNot compared, because not replaced\n  shop/x 1/TCP: a reason\n";
        assert!(text.ends_with(told), "{text}");
        let (yaml, _) = run(&[], &[left(2, true)], AuditFormat::Yaml);
        let (text, _) = run(&[], &[left(2, true)], AuditFormat::Json);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_saphyr::from_str::<serde_json::Value>(&yaml).unwrap(), json);
        assert_eq!(
            (&json["not_compared"][0]["node_port"], &json["not_compared"][0]["replace"]),
            (&2.into(), &true.into())
        );
    }
}
