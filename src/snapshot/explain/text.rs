//! How does an explanation read on a terminal?

use super::{ActionView, Explanation, Share};
use crate::filter::Verdict;
use crate::route::{Reason, Tried};
use std::fmt::{self, Display, Formatter};

/// Routes that do not take the request are listed up to here.
const SHOWN: usize = 20;

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.outcome)?;
        let listener = self.listener.as_deref().unwrap_or("none");
        writeln!(f, "\nlistener  {listener}: {}", self.listener_because)?;
        writeln!(f, "client    {}", self.client)?;
        if let Some(tls) = &self.tls {
            writeln!(f, "tls       {tls}")?;
        }
        verdicts(f, &self.listener_filters)?;
        if let Some(routes) = &self.routes {
            writeln!(f, "host      {}", routes.host.as_deref().unwrap_or("none matched"))?;
            writeln!(f, "route     {}", routes.route.as_deref().unwrap_or("none"))?;
            verdicts(f, &self.filters)?;
            if let Some(action) = &self.action {
                does(f, action)?;
            }
            others(f, &routes.tried, routes.other_hosts)?;
        }
        Ok(())
    }
}

fn verdicts(f: &mut Formatter<'_>, verdicts: &[Verdict]) -> fmt::Result {
    for verdict in verdicts {
        let mark = if verdict.passed { "passes" } else { "refuses" };
        writeln!(f, "  filter  {} {mark}: {}", verdict.filter, verdict.detail)?;
    }
    Ok(())
}

fn does(f: &mut Formatter<'_>, action: &ActionView) -> fmt::Result {
    match action {
        ActionView::Forward { host, path, clusters } => {
            writeln!(f, "upstream  {host}{path}")?;
            clusters.iter().try_for_each(|share| cluster(f, share))
        }
        ActionView::Redirect { status, location } => writeln!(f, "redirect  {status} {location}"),
        ActionView::Respond { status } => writeln!(f, "respond   {status}"),
        ActionView::Broken { reason } => writeln!(f, "broken    500: {reason}"),
    }
}

fn cluster(f: &mut Formatter<'_>, share: &Share) -> fmt::Result {
    write!(f, "cluster   {}", share.cluster)?;
    if share.of != u64::from(share.weight) {
        write!(f, " ({} of {})", share.weight, share.of)?;
    }
    writeln!(f, "{}", if share.endpoints.is_empty() { ": no endpoints" } else { "" })?;
    for endpoint in &share.endpoints {
        let state = match (endpoint.healthy, endpoint.ejected) {
            (false, _) => "unhealthy",
            (true, true) => "ejected",
            (true, false) => "healthy",
        };
        let near = endpoint.near.map(|near| format!(", same {near}")).unwrap_or_default();
        writeln!(f, "  endpoint {} {state}{near}", endpoint.address)?;
    }
    Ok(())
}

fn others(f: &mut Formatter<'_>, tried: &[Tried], other_hosts: usize) -> fmt::Result {
    let others = || tried.iter().filter(|t| t.reason != Reason::Taken);
    if others().next().is_some() {
        writeln!(f, "\nnot taken, in the order of precedence:")?;
    }
    for tried in others().take(SHOWN) {
        let why = match &tried.reason {
            Reason::Taken => "",
            Reason::Later(why) | Reason::Path(why) | Reason::Condition(why) => why,
        };
        writeln!(f, "  {} ({} {}): {why}", tried.route, tried.host, tried.path)?;
        writeln!(f, "    at {}", tried.origin)?;
    }
    let more = others().count().saturating_sub(SHOWN);
    if more > 0 {
        writeln!(f, "  and {more} more")?;
    }
    if other_hosts > 0 {
        writeln!(f, "  and {other_hosts} of other hosts")?;
    }
    Ok(())
}
