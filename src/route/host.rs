//! Which hosts are there, and which of them cover a request's host, the most specific first?

use super::paths::Paths;
use super::shards::Shards;
use crate::model::{HostPattern, WildcardDepth};

/// Hosts of a listener. Looked up by borrowed text: nothing is allocated. A copy shares what is not changed in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    exact: Shards<Paths>,
    wildcard: Shards<Wildcard>,
    any: Option<Paths>,
}

/// Both depths of `*.suffix`.
#[derive(Clone, Debug, Default)]
struct Wildcard {
    one: Option<Paths>,
    many: Option<Paths>,
}

impl Hosts {
    /// The paths of a host.
    pub(super) fn get(&self, host: &HostPattern) -> Option<&Paths> {
        match host {
            HostPattern::Any => self.any.as_ref(),
            HostPattern::Exact(name) => self.exact.get(name),
            HostPattern::Wildcard(suffix, WildcardDepth::One) => self.wildcard.get(suffix)?.one.as_ref(),
            HostPattern::Wildcard(suffix, WildcardDepth::Many) => self.wildcard.get(suffix)?.many.as_ref(),
        }
    }

    /// Sets the paths of a host; `None`: it has none.
    pub(super) fn set(&mut self, host: &HostPattern, paths: Option<Paths>) {
        match host {
            HostPattern::Any => self.any = paths,
            HostPattern::Exact(name) => self.exact.set(name, paths),
            HostPattern::Wildcard(suffix, depth) => {
                let mut wildcard = self.wildcard.get(suffix).cloned().unwrap_or_default();
                match depth {
                    WildcardDepth::One => wildcard.one = paths,
                    WildcardDepth::Many => wildcard.many = paths,
                }
                let empty = wildcard.one.is_none() && wildcard.many.is_none();
                self.wildcard.set(suffix, (!empty).then_some(wildcard));
            }
        }
    }

    /// Gets ready for so many more hosts without a wildcard.
    pub(super) fn reserve(&mut self, more: usize) {
        self.exact.reserve(more);
    }

    /// The paths of every host, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Paths> {
        let wildcards = self.wildcard.iter().flat_map(|(_, w)| w.one.iter().chain(&w.many));
        self.exact.iter().map(|(_, paths)| paths).chain(wildcards).chain(&self.any)
    }

    /// Paths of every host that covers this one, the most specific first. `host` is in lower case.
    pub(super) fn covering<'a>(&'a self, host: &str) -> impl Iterator<Item = &'a Paths> {
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
    use super::super::table::tests::{route, spec};
    use super::*;

    fn pattern(text: &str) -> HostPattern {
        let (text, depth) = match text.strip_prefix("1:") {
            Some(rest) => (rest, WildcardDepth::One),
            None => (text, WildcardDepth::Many),
        };
        HostPattern::parse(text, depth).unwrap()
    }

    /// The patterns that cover a host, told apart by the names of their routes, the patterns' places.
    fn covering(patterns: &[&str], host: &str) -> Vec<u32> {
        let mut hosts = Hosts::default();
        for (at, text) in patterns.iter().enumerate() {
            hosts.set(&pattern(text), Paths::of(vec![route(spec(&at.to_string(), &[], "/"))]));
        }
        let first = |paths: &Paths| paths.find("/", |_| true)?.0.spec.name.parse().ok();
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
