//! Which routes, filters and server names has each listener, and which of them are those that served before?

use super::{Compiler, Routes};
use crate::filter::Chain;
use crate::model::{ListenerProtocol, ListenerSpec, Problem};
use crate::route::{Route, Table};
use crate::snapshot::{ListenerSnapshot, TlsInputs};
use crate::tls::ServerNames;
use std::sync::Arc;

impl Compiler<'_> {
    pub(super) fn tls_inputs(&self) -> Arc<TlsInputs> {
        let (bindings, certificates) = (Arc::clone(&self.wanted.tls), self.wanted.certificates.clone());
        let new = TlsInputs { bindings, certificates };
        if new == *self.previous.tls { Arc::clone(&self.previous.tls) } else { Arc::new(new) }
    }

    pub(super) fn listeners(&mut self, routes: &Routes, tls: &Arc<TlsInputs>) -> Vec<Arc<ListenerSnapshot>> {
        let (gone, come) = self.previous.routes.diff(routes).into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
        let (gone, come) = (gone.into_iter().flatten().collect(), come.into_iter().flatten().collect());
        let mut tables = Tables { routes, gone, come, made: Vec::new() };
        let wanted = self.wanted;
        let mut listeners: Vec<_> = wanted.listeners.iter().map(|spec| self.listener(spec, tls, &mut tables)).collect();
        listeners.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        self.shadows(&listeners);
        listeners
    }

    fn listener(
        &mut self,
        spec: &ListenerSpec,
        tls: &Arc<TlsInputs>,
        tables: &mut Tables<'_>,
    ) -> Arc<ListenerSnapshot> {
        let previous = self.previous.listener(&spec.name);
        let table = tables.table(spec, previous.map(|p| &p.table));
        let previous = previous.filter(|p| *p.spec == *spec);
        let chain = match previous.filter(|p| !p.chain.is_closed()) {
            Some(previous) => Arc::clone(&previous.chain),
            None => Arc::new(self.chain(spec)),
        };
        let (tls, tls_problems) = self.server_names(spec, previous, tls);
        self.problems.extend(tls_problems.iter().cloned());
        if let Some(p) = previous
            && Arc::ptr_eq(&p.table, &table)
            && Arc::ptr_eq(&p.chain, &chain)
            && p.tls.as_ref().map(Arc::as_ptr) == tls.as_ref().map(Arc::as_ptr)
        {
            return Arc::clone(p);
        }
        let spec = previous.map_or_else(|| Arc::new(spec.clone()), |p| Arc::clone(&p.spec));
        Arc::new(ListenerSnapshot { spec, table, chain, tls, tls_problems })
    }

    fn chain(&mut self, spec: &ListenerSpec) -> Chain {
        let policies: Vec<_> = spec.policies.iter().collect();
        Chain::compile(&policies).unwrap_or_else(|errors| {
            for error in &errors {
                let hint = format!("{}; the listener answers 500", error.hint);
                self.error(&spec.origin, error.what.clone(), hint);
            }
            Chain::closed("a filter of the listener cannot be compiled")
        })
    }

    fn server_names(
        &self,
        spec: &ListenerSpec,
        unchanged: Option<&Arc<ListenerSnapshot>>,
        inputs: &Arc<TlsInputs>,
    ) -> (Option<Arc<ServerNames>>, Arc<[Problem]>) {
        if let Some(previous) = unchanged
            && Arc::ptr_eq(inputs, &self.previous.tls)
        {
            return (previous.tls.clone(), Arc::clone(&previous.tls_problems));
        }
        if let Some(previous) = unchanged
            && let Some(names) = self.renewed(previous, inputs)
        {
            return (Some(Arc::new(names)), Arc::clone(&previous.tls_problems));
        }
        if !matches!(spec.protocol, ListenerProtocol::Https(_)) {
            return (None, Arc::default());
        }
        let before = self.previous.listener(&spec.name).and_then(|p| p.tls.as_deref());
        let certificates = inputs.certificates.iter().map(|certificate| &**certificate);
        let (names, problems) = ServerNames::compile(spec, &inputs.bindings, certificates, before);
        (Some(Arc::new(names)), problems.into())
    }

    /// The server names of before with other certificates, where nothing else is different.
    fn renewed(&self, previous: &ListenerSnapshot, inputs: &TlsInputs) -> Option<ServerNames> {
        let before = &self.previous.tls;
        if before.bindings != inputs.bindings {
            return None;
        }
        let renewed = before.certificates.diff(&inputs.certificates).into_iter();
        let renewed: Option<Vec<_>> = renewed.map(|(old, new)| old.and(new).map(|new| &**new)).collect();
        previous.tls.as_ref()?.renewed(renewed?)
    }

    /// Warns of routes that no request reaches.
    fn shadows(&mut self, listeners: &[Arc<ListenerSnapshot>]) {
        for (at, listener) in listeners.iter().enumerate() {
            let seen = listeners.iter().take(at).any(|other| Arc::ptr_eq(&other.table, &listener.table));
            for shadowed in if seen { &[] } else { listener.table.shadowed() } {
                let by: Vec<String> = shadowed.by.iter().map(|r| format!("{:?}", r.spec.name)).collect();
                let what = format!("no request reaches the route {:?}", shadowed.route.spec.name);
                let hint = format!("{} takes all of them first", by.join(" and "));
                self.problems.push(Problem::warning(shadowed.route.spec.origin.clone(), what, hint));
            }
        }
    }
}

/// Makes the tables of listeners. Those of the same routes are one, and one whose routes stayed is the one of before.
struct Tables<'a> {
    routes: &'a Routes,
    /// Routes that are not there any more, and those that are new.
    gone: Vec<&'a Arc<Route>>,
    come: Vec<&'a Arc<Route>>,
    made: Vec<Made>,
}

struct Made {
    /// The table of before, and what is different.
    from: Option<Arc<Table>>,
    gone: Vec<Arc<Route>>,
    come: Vec<Arc<Route>>,
    table: Arc<Table>,
}

impl Tables<'_> {
    fn table(&mut self, spec: &ListenerSpec, from: Option<&Arc<Table>>) -> Arc<Table> {
        let serves = |route: &&Arc<Route>| {
            route.spec.listeners.is_empty() || route.spec.listeners.iter().any(|name| spec.is_called(name))
        };
        let those = |all: &[&Arc<Route>]| all.iter().copied().filter(serves).cloned().collect::<Vec<_>>();
        let (gone, come) = match from {
            Some(_) => (those(&self.gone), those(&self.come)),
            None => (Vec::new(), self.routes.iter().filter(serves).cloned().collect()),
        };
        if let Some(made) = self.made.iter().find(|made| made.is_of(from, &gone, &come)) {
            return Arc::clone(&made.table);
        }
        let table = match from {
            Some(from) if gone.is_empty() && come.is_empty() => Arc::clone(from),
            Some(from) => Arc::new(from.changed(&gone, &come)),
            None => Arc::new(Table::build(come.clone())),
        };
        let same = self.made.iter().find(|made| made.table.is_same(&table));
        let table = same.map_or(table, |made| Arc::clone(&made.table));
        self.made.push(Made { from: from.cloned(), gone, come, table: Arc::clone(&table) });
        table
    }
}

impl Made {
    fn is_of(&self, from: Option<&Arc<Table>>, gone: &[Arc<Route>], come: &[Arc<Route>]) -> bool {
        let same = |a: &[Arc<Route>], b: &[Arc<Route>]| a.iter().map(Arc::as_ptr).eq(b.iter().map(Arc::as_ptr));
        self.from.as_ref().map(Arc::as_ptr) == from.map(Arc::as_ptr) && same(&self.gone, gone) && same(&self.come, come)
    }
}
