//! What of a text's last good version stays, when a new version of it is wrong in parts?

use super::{Parsed, Refused};
use crate::model::{Fragment, Origin, Problem};

/// Puts the last good version of what was refused in its place. What never was good, or is gone from the text, stays out.
pub fn keep_last_good(place: &str, parsed: Parsed, last: &Fragment) -> (Fragment, Vec<Problem>) {
    let Parsed { mut fragment, mut problems, refused } = parsed;
    if refused.text {
        if *last != Fragment::default() {
            let what = "its last good content stays";
            problems.push(Problem::warning(Origin::of(place), what, "correct the text, then it is taken"));
        }
        return (last.clone(), problems);
    }
    for route in last.routes.iter().filter(|r| refused.routes.contains(&r.name)) {
        fragment.routes.push(route.clone());
        problems.push(kept(place, &format!("route {}", route.name)));
    }
    for cluster in last.clusters.iter().filter(|c| refused.clusters.iter().any(|name| **name == *c.name)) {
        fragment.clusters.push(cluster.clone());
        problems.push(kept(place, &format!("cluster {}", cluster.name)));
    }
    keep_bindings(&refused, &mut fragment, last);
    (fragment, problems)
}

/// Without its certificate a host would answer a TLS alert, although its routes stay.
fn keep_bindings(refused: &Refused, fragment: &mut Fragment, last: &Fragment) {
    let lost = last.tls.iter().filter(|binding| refused.bindings.contains(&binding.hosts));
    fragment.tls.extend(lost.cloned());
}

fn kept(place: &str, what: &str) -> Problem {
    Problem::warning(Origin::of(place), format!("the last good version of the {what} stays"), "")
}
