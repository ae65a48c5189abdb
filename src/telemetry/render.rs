//! How is a scrape written (Prometheus text exposition format 0.0.4)?

use super::families::Family;
use std::fmt::{Display, Write};

/// Content type of a scrape.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A scrape that is being written. Writing to a `String` cannot fail, so results are dropped.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// The two comment lines of a family.
    pub(super) fn family(&mut self, family: &Family) {
        let _ = write!(self.0, "# HELP {} ", family.name);
        escape(&mut self.0, family.help, false);
        let _ = write!(self.0, "\n# TYPE {} {}\n", family.name, family.kind.as_str());
    }

    /// One line; `le` is the bound of a bucket.
    pub(super) fn sample<'a>(
        &mut self,
        family: &Family,
        suffix: &str,
        values: impl Iterator<Item = &'a str>,
        le: Option<&str>,
        value: impl Display,
    ) {
        self.0.push_str(family.name);
        self.0.push_str(suffix);
        let mut before = '{';
        for (label, text) in family.labels.iter().copied().zip(values) {
            self.pair(&mut before, label, text);
        }
        if let Some(le) = le {
            self.pair(&mut before, "le", le);
        }
        if before == ',' {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn pair(&mut self, before: &mut char, label: &str, text: &str) {
        self.0.push(std::mem::replace(before, ','));
        self.0.push_str(label);
        self.0.push_str("=\"");
        escape(&mut self.0, text, true);
        self.0.push('"');
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

fn escape(out: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

/// Nanoseconds as seconds, exactly and without trailing zeros.
pub(super) fn seconds(nanos: u64) -> String {
    let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::telemetry::families::{self, ALL, Kind};
    use crate::telemetry::metrics::Registry;
    use std::collections::{BTreeMap, HashSet};

    /// A strict reader of the format: panics on anything that a scraper might refuse. Samples by name and labels as written.
    pub(crate) fn parse(text: &str) -> BTreeMap<String, f64> {
        assert!(text.ends_with('\n'), "the last line must end");
        let (mut samples, mut families, mut current) =
            (BTreeMap::new(), HashSet::new(), (String::new(), String::new()));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                assert!(!help.is_empty() && families.insert(name.to_owned()), "{name} twice or without help");
                current = (name.to_owned(), String::new());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert_eq!(name, current.0, "TYPE follows its HELP");
                current.1 = kind.to_owned();
            } else {
                let (name, labels, value) = sample(line);
                let base = match current.1.as_str() {
                    "histogram" => ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s)),
                    _ => Some(name),
                };
                assert_eq!(base, Some(current.0.as_str()), "samples stand under their family: {line}");
                assert!(samples.insert(format!("{name}{labels}"), value).is_none(), "twice: {line}");
            }
        }
        samples
    }

    fn sample(line: &str) -> (&str, &str, f64) {
        let end = line.find(['{', ' ']).expect("a name");
        let name = &line[..end];
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{line}");
        let labels = match line[end..].starts_with('{') {
            true => &line[end..=end + labels_end(&line[end..])],
            false => "",
        };
        let value = line[end + labels.len()..].strip_prefix(' ').expect("one space");
        (name, labels, value.parse().expect("a number"))
    }

    /// Place of the closing brace, checking names, quotes, escapes and commas on the way.
    fn labels_end(text: &str) -> usize {
        let bytes = text.as_bytes();
        let mut at = 1;
        loop {
            let name = at;
            while bytes[at] != b'=' {
                assert!(bytes[at].is_ascii_lowercase() || bytes[at] == b'_', "label name in {text}");
                at += 1;
            }
            assert!(at > name && bytes[at + 1] == b'"', "{text}");
            at += 2;
            while bytes[at] != b'"' {
                if bytes[at] == b'\\' {
                    at += 1;
                    assert!(b"\\n\"".contains(&bytes[at]), "escape in {text}");
                }
                at += 1;
            }
            match bytes[at + 1] {
                b',' => at += 2,
                b'}' => return at + 1,
                other => panic!("{other} in {text}"),
            }
        }
    }

    #[test]
    fn label_values_are_escaped() {
        let registry = Registry::new(1, 100);
        let odd = "a\"b\\c\nd é}";
        let counter = registry.counter(&families::CONNECTIONS, &[("listener", odd)]);
        counter.add(2);
        let samples = parse(&registry.render());
        assert_eq!(samples[r#"tidegate_connections_total{listener="a\"b\\c\nd é}"}"#], 2.0);
    }

    #[test]
    fn a_scrape_of_every_family_is_well_formed() {
        let registry = Registry::new(2, 10_000);
        let mut held: Vec<Box<dyn std::any::Any>> = Vec::new();
        for family in ALL.iter().copied().filter(|f| f.name.starts_with("tidegate_")) {
            let labels: Vec<_> = family.labels.iter().map(|l| (*l, "x")).collect();
            match family.kind {
                Kind::Counter => held.push(Box::new(registry.counter(family, &labels))),
                Kind::Gauge => held.push(Box::new(registry.gauge(family, &labels))),
                Kind::Histogram => held.push(Box::new(registry.histogram(family, &labels))),
            }
        }
        let text = registry.render();
        parse(&text);
        for family in ALL {
            assert!(text.contains(&format!("# TYPE {} {}\n", family.name, family.kind.as_str())), "{}", family.name);
        }
    }

    #[test]
    fn seconds_are_exact_and_short() {
        for (nanos, text) in [(0, "0"), (100_000, "0.0001"), (1_500_000_000, "1.5"), (52_428_800_000, "52.4288")] {
            assert_eq!(seconds(nanos), text);
        }
    }
}
