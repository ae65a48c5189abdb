//! Which objects are others than in the last translation?
//!
//! Objects are shared with those who watch them, so that of thousands which stayed nothing is looked at but where they stand in memory.

use super::super::objects::Key;
use super::piece::Owned;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// Objects of a kind as they were seen last, in the order of their keys, with the piece of each that asks for something.
#[derive(Debug)]
pub(super) struct Seen<T>(Vec<(Arc<T>, Option<Rc<Owned>>)>);

/// What is different now.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Objects that appeared, went or are not what they were.
    pub(super) changed: Vec<Key>,
    pub(super) gone: Vec<Rc<Owned>>,
    pub(super) come: Vec<Rc<Owned>>,
}

/// What a kind asks for.
pub(super) struct Asks<'a, T> {
    pub(super) key: fn(&T) -> &Key,
    /// Whether an object asks for what another asked for.
    pub(super) alike: fn(&T, &T) -> bool,
    /// Whether the object asks for anything; `anew`: for other reasons than before.
    pub(super) wanted: &'a dyn Fn(&T) -> bool,
    pub(super) anew: bool,
    /// What it asks for, after what its version before asked for.
    pub(super) make: &'a dyn Fn(&T, Option<&Owned>) -> Rc<Owned>,
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Seen<T> {
    /// Looks at what there is now.
    pub(super) fn follow(&mut self, objects: &BTreeMap<Key, Arc<T>>, asks: &Asks<'_, T>, news: &mut News) {
        let mut old = std::mem::take(&mut self.0).into_iter().peekable();
        self.0.reserve_exact(objects.len());
        for (key, object) in objects {
            let before = |old: &(Arc<T>, Option<Rc<Owned>>)| !Arc::ptr_eq(&old.0, object) && (asks.key)(&old.0) < key;
            while let Some((gone, owned)) = old.next_if(before) {
                news.changed.push((asks.key)(&gone).clone());
                news.gone.extend(owned);
            }
            let same = |old: &(Arc<T>, Option<Rc<Owned>>)| Arc::ptr_eq(&old.0, object) || (asks.alike)(object, &old.0);
            let owned = match old.next_if(same) {
                Some((_, owned)) if !asks.anew => owned,
                Some((_, owned)) => match ((asks.wanted)(object), owned) {
                    (true, Some(owned)) => Some(owned),
                    (_, owned) => asks.change(object, owned, news),
                },
                None => {
                    news.changed.push(key.clone());
                    let before = old.next_if(|old| (asks.key)(&old.0) == key).and_then(|(_, owned)| owned);
                    asks.change(object, before, news)
                }
            };
            self.0.push((Arc::clone(object), owned));
        }
        for (gone, owned) in old {
            news.changed.push((asks.key)(&gone).clone());
            news.gone.extend(owned);
        }
    }
}

impl<T> Asks<'_, T> {
    fn change(&self, object: &T, before: Option<Rc<Owned>>, news: &mut News) -> Option<Rc<Owned>> {
        let owned = (self.wanted)(object).then(|| (self.make)(object, before.as_deref()));
        news.gone.extend(before);
        news.come.extend(owned.clone());
        owned
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::objects::Ingress;
    use super::super::piece::{Owner, Piece};
    use super::*;
    use std::cell::Cell;

    #[test]
    fn an_ingress_whose_status_was_written_is_not_read_again() {
        let made = Cell::new(0);
        let make = |ingress: &Ingress, _: Option<&Owned>| {
            made.set(made.get() + 1);
            Owned::new(Owner::Ingress, &ingress.meta, "", Piece::default())
        };
        let key: fn(&Ingress) -> &Key = |ingress| &ingress.meta.key;
        let asks = Asks { key, alike: Ingress::asks_as, wanted: &|_| true, anew: false, make: &make };
        let (mut seen, mut objects) =
            (Seen::default(), BTreeMap::from([(Key::default(), Arc::new(Ingress::default()))]));
        let mut follow = |ingress: Ingress, wanted: (usize, usize, usize)| {
            let mut news = News::default();
            objects.insert(Key::default(), Arc::new(ingress));
            seen.follow(&objects, &asks, &mut news);
            assert_eq!((news.changed.len(), news.come.len(), made.get()), wanted);
        };
        follow(Ingress::default(), (1, 1, 1));
        let written = Ingress { addresses: Arc::new(["192.0.2.1".into()]), ..Ingress::default() };
        follow(written.clone(), (0, 0, 1));
        follow(Ingress { class: Some("other".into()), ..written }, (1, 1, 2));
    }
}
