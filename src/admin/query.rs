//! What does the query of an API request ask for?

use serde::Serialize;

/// Names and values, decoded.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

/// One page of a list.
#[derive(Debug, Serialize)]
pub(super) struct Page<T> {
    /// How many there are in all (those that match `q`).
    pub(super) total: usize,
    /// How many were left out before the first.
    pub(super) offset: usize,
    /// The items.
    pub(super) items: Vec<T>,
}

const LIMIT: usize = 1000;

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(name), decode(value))
        };
        Self(text.split('&').filter(|part| !part.is_empty()).map(pair).collect())
    }

    /// First value of a name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|pair| pair.0 == name).map(|pair| pair.1.as_str())
    }

    /// All values of a name.
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|pair| pair.0 == name).map(|pair| pair.1.as_str()).collect()
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.get(name)?.parse().ok()
    }

    /// The page that `offset` and `limit` ask for, of the items whose text holds `q`. `text` is asked only where there is a `q`,
    /// and `view` only for what is shown: a list may have a hundred thousand items.
    pub(super) fn page<I, T>(
        &self,
        items: impl Iterator<Item = I>,
        text: impl Fn(&I) -> String,
        view: impl Fn(I) -> T,
    ) -> Page<T> {
        let (offset, limit) = (self.number("offset").unwrap_or(0), self.number("limit").unwrap_or(LIMIT));
        let wanted = self.get("q").filter(|q| !q.is_empty()).map(str::to_lowercase);
        let (mut total, mut shown) = (0, Vec::new());
        for item in items {
            if wanted.as_ref().is_some_and(|q| !text(&item).to_lowercase().contains(q)) {
                continue;
            }
            if total >= offset && shown.len() < limit {
                shown.push(view(item));
            }
            total += 1;
        }
        Page { total, offset, items: shown }
    }
}

/// Percent-escapes and `+`, as forms write them; what is no escape stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escape = after.get(..2).filter(|_| first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        rest = after;
        match escape.filter(|d| !d.starts_with('+')).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => bytes.push(if first == b'+' { b' ' } else { first }),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_decoded() {
        let query = Query::parse("a=1&b=x%20y+z&a=%C3%A9&&c&d=%zz%+1%");
        assert_eq!((query.get("a"), query.all("a")), (Some("1"), vec!["1", "é"]));
        assert_eq!((query.get("b"), query.get("c"), query.get("e")), (Some("x y z"), Some(""), None));
        assert_eq!(query.get("d"), Some("%zz% 1%"));
    }

    #[test]
    fn a_page_is_cut_out_of_what_matches() {
        let list = |query: &str| {
            let page = Query::parse(query).page(0..100, |n| format!("N{n}"), |n| n);
            (page.total, page.items)
        };
        assert_eq!(list("limit=2&offset=5"), (100, vec![5, 6]));
        assert_eq!(list("q=n9&limit=3"), (11, vec![9, 90, 91]));
        assert_eq!(list("offset=1000"), (100, vec![]));
        assert_eq!(list("limit=x").1.len(), 100);
    }
}
