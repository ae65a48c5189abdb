//! Which hosts are there, and which of them cover a request's host, the most specific first?

use super::path::Paths;
use crate::model::{HostPattern, WildcardDepth};
use hashbrown::HashMap;

/// Hosts of a listener. Looked up by borrowed text: nothing is allocated.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    exact: HashMap<Box<str>, Paths>,
    wildcard: HashMap<Box<str>, Wildcard>,
    any: Option<Paths>,
}

/// Both depths of `*.suffix`.
#[derive(Debug, Default)]
struct Wildcard {
    one: Option<Paths>,
    many: Option<Paths>,
}

impl Hosts {
    /// The paths of a host, new or as they are.
    pub(super) fn entry(&mut self, host: &HostPattern) -> &mut Paths {
        match host {
            HostPattern::Any => self.any.get_or_insert_default(),
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
            HostPattern::Wildcard(suffix, depth) => {
                let wildcard = self.wildcard.entry(suffix.clone()).or_default();
                match depth {
                    WildcardDepth::One => wildcard.one.get_or_insert_default(),
                    WildcardDepth::Many => wildcard.many.get_or_insert_default(),
                }
            }
        }
    }

    /// Gives back what growing took in advance.
    pub(super) fn shrink(&mut self) {
        let wildcards = self.wildcard.values_mut().flat_map(|w| w.one.iter_mut().chain(&mut w.many));
        self.exact.values_mut().chain(wildcards).for_each(Paths::shrink);
    }

    /// Paths of every host that covers this one, the most specific first. `host` is in lower case.
    pub(super) fn covering<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Paths> {
        let wildcards = self.suffixes(host).flat_map(|(first, suffix)| {
            let found = self.wildcard.get(suffix);
            let one = found.filter(|_| first).and_then(|w| w.one.as_ref());
            one.into_iter().chain(found.and_then(|w| w.many.as_ref()))
        });
        self.exact.get(host).into_iter().chain(wildcards).chain(self.any.as_ref())
    }

    /// What remains of a host after one label, two labels and so on; whether it was the first. Nothing where there are no
    /// wildcards, and nothing of an IP literal, whose parts are not labels.
    fn suffixes<'a>(&self, host: &'a str) -> impl Iterator<Item = (bool, &'a str)> {
        let host = if self.wildcard.is_empty() || host.starts_with('[') { "" } else { host };
        let mut rest = host.split_once('.').map(|(_, rest)| rest);
        let mut first = true;
        std::iter::from_fn(move || {
            let suffix = rest?;
            rest = suffix.split_once('.').map(|(_, rest)| rest);
            Some((std::mem::take(&mut first), suffix))
        })
    }
}

/// Whether a pattern covers a host; what [`Hosts`] is tested against, and what `explain` uses.
pub(super) fn covers(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Any => true,
        HostPattern::Exact(name) => &**name == host,
        HostPattern::Wildcard(suffix, depth) => {
            let Some(labels) = host.strip_suffix(&**suffix).and_then(|rest| rest.strip_suffix('.')) else {
                return false;
            };
            !labels.is_empty() && !host.starts_with('[') && (*depth == WildcardDepth::Many || !labels.contains('.'))
        }
    }
}

/// Order of precedence among hosts: what comes first is less.
pub(super) fn precedence(pattern: &HostPattern) -> (u8, std::cmp::Reverse<usize>, WildcardDepthOrder, &str) {
    use std::cmp::Reverse;
    match pattern {
        HostPattern::Exact(name) => (0, Reverse(0), 0, name),
        HostPattern::Wildcard(suffix, WildcardDepth::One) => (1, Reverse(suffix.len()), 0, suffix),
        HostPattern::Wildcard(suffix, WildcardDepth::Many) => (1, Reverse(suffix.len()), 1, suffix),
        HostPattern::Any => (2, Reverse(0), 0, ""),
    }
}

type WildcardDepthOrder = u8;

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        let (text, depth) = match text.strip_prefix("1:") {
            Some(rest) => (rest, WildcardDepth::One),
            None => (text, WildcardDepth::Many),
        };
        HostPattern::parse(text, depth).unwrap()
    }

    /// The patterns that cover a host, told apart by an exact path that carries the pattern's place.
    fn covering(patterns: &[&str], host: &str) -> Vec<u32> {
        let mut hosts = Hosts::default();
        for (at, text) in patterns.iter().enumerate() {
            hosts.entry(&pattern(text)).add_prefix("/", u32::try_from(at).unwrap());
        }
        let first = |paths: &Paths| paths.find("/", |_| true, |_| false).map(|(route, _)| route);
        hosts.covering(host).filter_map(first).collect()
    }

    #[test]
    fn the_most_specific_host_comes_first() {
        let patterns = ["*", "*.test", "*.a.test", "1:*.a.test", "x.a.test"];
        assert_eq!(covering(&patterns, "x.a.test"), [4, 3, 2, 1, 0]);
        assert_eq!(covering(&patterns, "y.x.a.test"), [2, 1, 0], "one label is one label");
        assert_eq!(covering(&patterns, "a.test"), [1, 0], "a wildcard does not cover its own suffix");
        assert_eq!(covering(&patterns, "other"), [0]);
        assert_eq!(covering(&patterns, ""), [0]);
    }

    #[test]
    fn an_ip_literal_has_no_labels() {
        assert_eq!(covering(&["*.2]", "[::ffff:192.0.2.2]"].map(|_| "*.x"), "[::ffff:1.x]"), [0u32; 0]);
        assert_eq!(covering(&["[::1]", "*"], "[::1]"), [0, 1]);
    }

    #[test]
    fn the_index_and_the_plain_rule_agree() {
        let patterns = ["*", "*.test", "*.a.test", "1:*.a.test", "x.a.test", "a.test", "1:*.test"];
        for host in ["x.a.test", "y.x.a.test", "a.test", "test", "b.test", "", "xa.test", "x..test"] {
            let mut found = covering(&patterns, host);
            found.sort_unstable();
            let plain = |at: &u32| covers(&pattern(patterns[*at as usize]), host);
            assert_eq!(found, (0..7).filter(plain).collect::<Vec<_>>(), "{host:?}");
        }
    }
}
