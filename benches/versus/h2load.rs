//! Who speaks HTTP/2 to the proxies? `h2load` of nghttp2, which counts statuses.

use crate::load::Tally;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A run of h2load.
#[derive(Clone, Debug)]
pub struct H2 {
    /// The proxy's TLS port.
    pub target: SocketAddr,
    /// Host asked for, in SNI and `:authority`.
    pub host: String,
    /// Path asked for.
    pub path: &'static str,
    /// Connections.
    pub connections: usize,
    /// Streams at a time on each.
    pub streams: usize,
}

/// Its version; the error says what is missing.
pub fn version() -> Result<String, String> {
    let output = Command::new("h2load").arg("--version").output();
    let output = output.map_err(|error| format!("h2load is missing (apt-get install nghttp2-client): {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs it between two calls of `mark`. Opening the connections is inside: their handshakes are counted, and are few.
pub fn run<M>(plan: &H2, duration: Duration, mut mark: impl FnMut() -> M) -> Result<(M, M, Tally), String> {
    let mut command = Command::new("h2load");
    command
        .args(["--threads=1", &format!("--clients={}", plan.connections)])
        .arg(format!("--max-concurrent-streams={}", plan.streams))
        .arg(format!("--duration={}ms", duration.as_millis()))
        .arg(format!("--connect-to={}", plan.target))
        .arg(format!("https://{}:{}{}", plan.host, plan.target.port(), plan.path))
        .stdin(Stdio::null());
    let before = mark();
    let output = command.output().map_err(|error| format!("h2load: {error}"))?;
    let after = mark();
    let text = String::from_utf8_lossy(&output.stdout);
    let tally =
        tally(&text).ok_or_else(|| format!("h2load says: {text} {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((before, after, tally))
}

fn tally(text: &str) -> Option<Tally> {
    let numbers = |name: &str| -> Option<Vec<u64>> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split(',').map(|part| part.split_whitespace().next()?.parse().ok()).collect()
    };
    // status codes: 10 2xx, 0 3xx, 0 4xx, 0 5xx
    let statuses = numbers("status codes: ")?;
    // requests: 10 total, 10 started, 10 done, 10 succeeded, 0 failed, 0 errored, 0 timeout
    let requests = numbers("requests: ")?;
    let mut tally = Tally { ok: *statuses.first()?, broken: requests.get(4..7)?.iter().sum(), ..Tally::default() };
    for (&count, class) in statuses.iter().zip([200, 300, 400, 500]).skip(1).filter(|(count, _)| **count > 0) {
        tally.statuses.insert(class, count);
    }
    Some(tally)
}
