//! Which routes has one host?
//!
//! Nearly every host has one route, or a few: those are looked at one after the other, which is as fast as any index and takes no
//! memory. More have an index of their own.

use super::Route;
use super::path::{PathRule, Tree};
use std::sync::Arc;

/// The routes of one host, in the order of precedence.
#[derive(Clone, Debug)]
pub(super) enum Paths {
    One(Arc<Route>),
    Few(Arc<[Arc<Route>]>),
    Many(Arc<(Box<[Arc<Route>]>, Tree)>),
}

/// More routes than these have an index.
const FEW: usize = 8;

impl Paths {
    /// Those of these routes, in whichever order; `None` of none.
    pub(super) fn of(mut routes: Vec<Arc<Route>>) -> Option<Self> {
        routes.sort_by(|a, b| a.precedence(b));
        if routes.len() > FEW {
            let rules = routes.iter().map(|route| &route.path);
            let tree = Tree::of(rules);
            return Some(Self::Many(Arc::new((routes.into(), tree))));
        }
        match <[_; 1]>::try_from(routes) {
            Ok([only]) => Some(Self::One(only)),
            Err(few) if few.is_empty() => None,
            Err(few) => Some(Self::Few(few.into())),
        }
    }

    /// All of them, in the order of precedence.
    pub(super) fn routes(&self) -> &[Arc<Route>] {
        match self {
            Self::One(route) => std::slice::from_ref(route),
            Self::Few(routes) => routes,
            Self::Many(many) => &many.0,
        }
    }

    /// The first route whose path matches and that `fits`, and how many bytes of the path its prefix matched: all of them for an
    /// exact path, none for an expression.
    pub(super) fn find<'a>(&'a self, path: &str, fits: impl Fn(&Route) -> bool) -> Option<(&'a Arc<Route>, usize)> {
        if let Self::Many(many) = self {
            let (routes, tree) = &**many;
            let route = |number: u32| routes.get(number as usize);
            let (number, prefix) = tree.find(
                path,
                |number| route(number).is_some_and(|route| fits(route)),
                |number| route(number).is_some_and(|route| route.path.matches(path)),
            )?;
            return Some((route(number)?, prefix));
        }
        let route = self.routes().iter().find(|route| route.path.matches(path) && fits(route))?;
        let prefix = match &route.path {
            PathRule::Exact(path) | PathRule::Prefix(path) => path.len(),
            PathRule::Regex { .. } => 0,
        };
        Some((route, prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::{route, spec};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_few_routes_are_found_as_they_would_be_in_an_index(
            paths in prop::collection::vec(prop::sample::select(vec![
                "/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "=/a", "=/a/", "=/", "~/a.*", "~/a/[a-c]", "~.*", "/a//b",
            ]), 0..=FEW),
            asked in prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/a/b/c/d", "/ab", "/a/c", "/x", "/a//b/c", "*", ""]),
            not in 0usize..9,
        ) {
            let name = |at: usize| format!("r{at}");
            let routes: Vec<_> = paths.iter().enumerate().map(|(at, path)| route(spec(&name(at), &[], path))).collect();
            let Some(few) = Paths::of(routes) else { return Ok(()) };
            let tree = Tree::of(few.routes().iter().map(|route| &route.path));
            let many = Paths::Many(Arc::new((few.routes().into(), tree)));
            let find = |paths: &Paths| {
                paths.find(asked, |route| route.spec.name != name(not)).map(|(route, prefix)| (route.spec.name.clone(), prefix))
            };
            prop_assert_eq!(find(&few), find(&many));
        }
    }
}
