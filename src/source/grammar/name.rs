//! What is a route called, so that its name is unique and stays the same while it matches the same?

use super::path::{show_path, suffix};
use crate::model::{HostPattern, Match};

/// Names of routes are metric labels and log fields: longer ones are cut and end in a hash of the whole.
const LONGEST: usize = 160;
/// A route of more hosts is called by the first ones and a hash of them all.
const HOSTS: usize = 3;

/// Host, path and what else is matched: `shop.example.com/api/[GET]`. Never the position among other routes.
pub(super) fn route_name(hosts: &[HostPattern], matches: &Match, listeners: &[String]) -> String {
    let mut name = hosts_name(hosts);
    name += &show_path(&matches.path);
    name += &suffix(matches);
    if !listeners.is_empty() {
        name += &format!("@{}", listeners.join(","));
    }
    shorten(name)
}

fn hosts_name(hosts: &[HostPattern]) -> String {
    let mut names: Vec<String> = hosts.iter().map(HostPattern::label).collect();
    names.sort();
    match names.as_slice() {
        [] => "*".into(),
        names if names.len() <= HOSTS => names.join(","),
        [first, rest @ ..] => format!("{first},+{}~{:06x}", rest.len(), hash(&names.join(",")) & 0xff_ffff),
    }
}

/// A name that is short enough for a metric label, and still another one for another text.
pub fn shorten(name: String) -> String {
    let odd = name.chars().any(char::is_control);
    if name.len() <= LONGEST && !odd {
        return name;
    }
    let clean: String = name.chars().filter(|c| !c.is_control()).take(LONGEST - 20).collect();
    format!("{clean}~{:016x}", hash(&name))
}

/// FNV-1a: the same on every instance and in every version, which the standard library's hash is not.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PathMatch, WildcardDepth};

    fn hosts(names: &[&str]) -> Vec<HostPattern> {
        names.iter().map(|n| HostPattern::parse(n, WildcardDepth::Many).unwrap()).collect()
    }

    #[test]
    fn a_name_tells_host_path_and_conditions() {
        let mut matches = Match { path: PathMatch::Prefix("/api/".into()), ..Match::default() };
        assert_eq!(route_name(&hosts(&["a.test"]), &matches, &[]), "a.test/api/");
        matches.methods = vec![http::Method::GET, http::Method::POST];
        assert_eq!(route_name(&hosts(&["a.test"]), &matches, &["https".into()]), "a.test/api/[GET,POST]@https");
        assert_eq!(route_name(&[], &Match::default(), &[]), "*/");
    }

    #[test]
    fn the_order_of_hosts_does_not_matter() {
        let name = |names: &[&str]| route_name(&hosts(names), &Match::default(), &[]);
        assert_eq!(name(&["b.test", "a.test"]), name(&["a.test", "b.test"]));
        assert_eq!(name(&["a", "b", "c", "d"]), name(&["d", "c", "b", "a"]));
        assert_ne!(name(&["a", "b", "c", "d"]), name(&["a", "b", "c", "e"]));
    }

    #[test]
    fn a_wildcard_of_one_label_has_a_name_of_its_own() {
        let one: Vec<_> = hosts(&["*.a.test"]).into_iter().map(|host| host.with_depth(WildcardDepth::One)).collect();
        assert_eq!(route_name(&one, &Match::default(), &[]), "*.a.test(one)/");
    }

    #[test]
    fn a_long_name_is_cut_and_stays_unique() {
        let name = |end: &str| {
            let path = PathMatch::Prefix(format!("/{}{end}", "x".repeat(300)));
            route_name(&[], &Match { path, ..Match::default() }, &[])
        };
        assert!(name("1").len() <= LONGEST);
        assert_ne!(name("1"), name("2"));
    }
}
