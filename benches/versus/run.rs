//! How does a scenario become a report?

use crate::h2load::{self, H2};
use crate::load::{self, Ask, Plan};
use crate::peer::{self, Ground, Kind, Peer, Running, Work};
use crate::rounds::{self, Drive, Effort, Entrant, Results};
use crate::scenario::{Measure, Scenario};
use crate::stats;
use crate::table::{Cell, Report};
use crate::varied;
use std::time::Duration;

/// Idle memory is measured on so many fresh processes of each peer.
const FRESH: usize = 3;
/// Time for buffers to be given back.
const SETTLE: Duration = Duration::from_secs(3);
/// Of a core: what is used less waited for others.
const WHOLE: f64 = 0.97;

/// Runs a scenario with the peers that there are. A peer that does not start is named in the notes.
pub fn run(scenario: &Scenario, peers: &[Peer], ground: &Ground<'_>, effort: Effort) -> Result<Report, String> {
    let proxies: Vec<Peer> = peers.iter().filter(|peer| peer.kind.is_proxy()).cloned().collect();
    // The relay keeps no connections to the upstream, so it is the floor only where clients keep theirs.
    let without_floor: Vec<Peer> = peers.iter().filter(|peer| peer.kind != Kind::Floor).cloned().collect();
    match scenario.measure {
        // The relay would pass TLS on to an upstream that does not speak it.
        Measure::Requests { .. } if scenario.work.tls => rates(scenario, &proxies, ground, effort),
        Measure::Requests { reuse: false, .. } => rates(scenario, &without_floor, ground, effort),
        Measure::Requests { .. } => rates(scenario, peers, ground, effort),
        Measure::Streams { .. } => h2load::version().and_then(|_| rates(scenario, &proxies, ground, effort)),
        Measure::Core { .. } => core(scenario, &proxies, ground, effort),
        Measure::Routes => varied::routes(scenario, &proxies, ground, effort),
        Measure::Workers { .. } => varied::workers(scenario, &proxies, ground, effort),
        Measure::Idle { connections } => Ok(idle(scenario, connections, &proxies, ground)),
        Measure::Start => Ok(start(scenario, peers, ground)),
    }
}

fn rates(scenario: &Scenario, peers: &[Peer], ground: &Ground<'_>, effort: Effort) -> Result<Report, String> {
    let mut notes = Vec::new();
    let mut entrants = entrants(scenario, peers, ground, &mut notes);
    let results = rounds::run(&mut entrants, effort)?;
    let place = |kind| entrants.iter().position(|entrant| entrant.running.peer.kind == kind);
    let best = best(&entrants, |index| results.cpu_us(index).0);
    let rows = entrants.iter().enumerate().map(|(index, entrant)| {
        let kind = entrant.running.peer.kind;
        let ratio = |to: Option<usize>| {
            let to = to.filter(|&to| to != index && kind != Kind::Direct);
            to.and_then(|to| results.ratio(index, to)).map_or(Cell::Nothing, Cell::Ratio)
        };
        let mut row = common(&results, index, &entrant.running);
        row.extend([ratio(place(Kind::Haproxy)), ratio(place(Kind::Nginx)), ratio(best)]);
        row.extend([Cell::Number(results.each_second(index), 0), Cell::Count(results.failures[index])]);
        row
    });
    let rows = rows.collect();
    notes.extend(best.map(|best| format!("the best peer of this run is {}", entrants[best].running.peer.kind)));
    notes.extend(unlogged(scenario.work, &entrants, &results));
    notes.extend(results.notes);
    let columns = vec![
        "proxy",
        "version",
        "CPU us/request, median [least]",
        "to HAProxy (95 %)",
        "to nginx (95 %)",
        "to the best peer (95 %)",
        "requests/s",
        "failures",
    ];
    Ok(Report { scenario: scenario.name, what: scenario.what, columns, rows, notes })
}

/// Requests a second, and whether it was the proxy that could give no more.
fn core(scenario: &Scenario, peers: &[Peer], ground: &Ground<'_>, effort: Effort) -> Result<Report, String> {
    let mut notes = Vec::new();
    let mut entrants = entrants(scenario, peers, ground, &mut notes);
    let results = rounds::run(&mut entrants, effort)?;
    let best = best(&entrants, |index| -results.each_second(index));
    let rows = entrants.iter().enumerate().map(|(index, entrant)| {
        let ratio = best.filter(|&best| best != index).and_then(|best| results.ratio_each_second(index, best));
        let rate = Cell::Number(results.each_second(index), 0);
        let (cores, full) = (results.cores(index), 1e6 / results.cpu_us(index).0);
        let ratio = ratio.map_or(Cell::Nothing, Cell::Ratio);
        let failures = Cell::Count(results.failures[index]);
        let mut row = vec![name(&entrant.running.peer), version(&entrant.running.peer), rate, ratio];
        row.extend([Cell::Number(cores, 2), Cell::Number(full, 0), failures]);
        row
    });
    let rows = rows.collect();
    notes.extend(best.map(|best| format!("the best peer of this run is {}", entrants[best].running.peer.kind)));
    let waiting = entrants.iter().enumerate().filter(|(index, _)| results.cores(*index) < WHOLE);
    let waiting: Vec<_> = waiting.map(|(_, entrant)| entrant.running.peer.kind.to_string()).collect();
    if !waiting.is_empty() {
        notes.push(format!("not a whole core in use, so more is in them than is shown: {}", waiting.join(", ")));
    }
    notes.extend(unlogged(scenario.work, &entrants, &results));
    notes.extend(results.notes);
    let columns =
        vec!["proxy", "version", "requests/s", "to the best peer (95 %)", "cores in use", "requests/CPU s", "failures"];
    Ok(Report { scenario: scenario.name, what: scenario.what, columns, rows, notes })
}

/// The peer for which something is least; neither ours nor a control.
fn best(entrants: &[Entrant], value: impl Fn(usize) -> f64) -> Option<usize> {
    let peers = (0..entrants.len()).filter(|&index| entrants[index].running.peer.kind.is_peer());
    peers.min_by(|&one, &other| value(one).total_cmp(&value(other)))
}

fn idle(scenario: &Scenario, connections: usize, peers: &[Peer], ground: &Ground<'_>) -> Report {
    let mut notes = Vec::new();
    let mut rows = Vec::new();
    for peer in peers {
        let measured: Result<Vec<(f64, f64)>, String> =
            (0..FRESH).map(|_| idle_once(scenario.work, connections, peer, ground)).collect();
        match measured {
            Ok(pairs) => {
                let (each, total): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
                let each = Cell::Number(stats::median(&each), 0);
                rows.push(vec![name(peer), version(peer), each, Cell::Number(stats::median(&total) / 1e6, 1)]);
            }
            Err(what) => notes.push(format!("{} not measured: {what}", peer.kind)),
        }
    }
    notes.extend(least(peers, &rows, "bytes/connection"));
    notes.push(format!("median of {FRESH} fresh processes; {SETTLE:?} after the last request"));
    let columns = vec!["proxy", "version", "bytes/connection", "RSS with all open, MB"];
    Report { scenario: scenario.name, what: scenario.what, columns, rows, notes }
}

/// Bytes that one connection adds, and resident bytes with all of them open.
fn idle_once(work: Work, connections: usize, peer: &Peer, ground: &Ground<'_>) -> Result<(f64, f64), String> {
    let running = Running::start(peer, work, ground)?;
    let plan = plan(Ask::Small, connections, true, work, &running, ground);
    let rss = || running.tree.rss_bytes() as f64;
    // What the first connections make a process allocate once is not theirs.
    let few = load::hold(&Plan { connections: 32, ..plan.clone() }, SETTLE, rss)?;
    let many = load::hold(&plan, SETTLE, rss)?;
    Ok(((many - few) / (connections - 32) as f64, many))
}

fn start(scenario: &Scenario, peers: &[Peer], ground: &Ground<'_>) -> Report {
    let mut notes = vec!["processes of a proxy are added up; one request before".to_owned()];
    let peers: Vec<Peer> = peers.iter().filter(|peer| peer.kind != Kind::Direct).cloned().collect();
    let running = started(&peers, scenario.work, ground, &mut notes);
    std::thread::sleep(SETTLE);
    let row = |running: &Running| {
        let rss = Cell::Number(running.tree.rss_bytes() as f64 / 1e6, 1);
        vec![name(&running.peer), version(&running.peer), rss, Cell::Number(running.start.as_secs_f64(), 3)]
    };
    let rows: Vec<_> = running.iter().map(row).collect();
    notes.extend(least(&peers, &rows, "RSS MB"));
    let columns = vec!["proxy", "version", "RSS MB", "start to first 200, s"];
    Report { scenario: scenario.name, what: scenario.what, columns, rows, notes }
}

/// Ours relative to the least that a peer has in the third column.
fn least(peers: &[Peer], rows: &[Vec<Cell>], unit: &str) -> Option<String> {
    let value = |peer: &Peer| {
        let row =
            rows.iter().find(|row| matches!(row.first(), Some(Cell::Text(name)) if *name == peer.kind.to_string()))?;
        if let Some(Cell::Number(number, _)) = row.get(2) { Some(*number) } else { None }
    };
    let ours = value(peers.iter().find(|peer| peer.kind == Kind::Tidegate)?)?;
    let valued = peers.iter().filter(|peer| peer.kind.is_peer()).filter_map(|peer| Some((peer.kind, value(peer)?)));
    let (best, theirs) = valued.min_by(|one, other| one.1.total_cmp(&other.1))?;
    Some(format!("{unit} to the best peer of this run, {best}: {:.2}", ours / theirs))
}

fn entrants(scenario: &Scenario, peers: &[Peer], ground: &Ground<'_>, notes: &mut Vec<String>) -> Vec<Entrant> {
    started(peers, scenario.work, ground, notes)
        .into_iter()
        .map(|running| Entrant { varied: None, drive: drive(scenario, scenario.work, &running, ground), running })
        .collect()
}

/// Starts the peers; who does not is named in the notes.
pub fn started(peers: &[Peer], work: Work, ground: &Ground<'_>, notes: &mut Vec<String>) -> Vec<Running> {
    let mut all = Vec::new();
    for peer in peers {
        match Running::start(peer, work, ground) {
            Ok(running) => all.push(running),
            Err(what) => notes.push(format!("{} not measured: {what}", peer.kind)),
        }
    }
    all
}

/// The load of a scenario.
pub fn drive(scenario: &Scenario, work: Work, running: &Running, ground: &Ground<'_>) -> Drive {
    match scenario.measure {
        Measure::Requests { ask, connections, reuse } => {
            Drive::Own(plan(ask, connections, reuse, work, running, ground))
        }
        Measure::Core { connections } | Measure::Workers { connections } => {
            Drive::Own(plan(Ask::Small, connections, true, work, running, ground))
        }
        Measure::Streams { connections, streams } => Drive::H2(H2 {
            target: running.https,
            host: peer::host(work.hosts - 1),
            path: Ask::Small.path(),
            connections,
            streams,
        }),
        Measure::Routes | Measure::Idle { .. } | Measure::Start => {
            let last = vec![peer::host(work.hosts - 1)];
            Drive::Own(Plan { hosts: last, ..plan(Ask::Small, 32, true, work, running, ground) })
        }
    }
}

/// Each connection asks for another host, spread over all there are.
fn plan(ask: Ask, connections: usize, reuse: bool, work: Work, running: &Running, ground: &Ground<'_>) -> Plan {
    let hosts = (0..64).map(|number| peer::host(number * 7919 % work.hosts)).collect();
    let target = if work.tls { running.https } else { running.http };
    Plan { target, tls: work.tls.then(|| ground.identity.connector()), hosts, ask, connections, reuse }
}

/// The first cells of a row.
pub fn common(results: &Results, index: usize, running: &Running) -> Vec<Cell> {
    let (median, least) = results.cpu_us(index);
    vec![name(&running.peer), version(&running.peer), Cell::MedianLeast(median, least)]
}

fn name(peer: &Peer) -> Cell {
    Cell::Text(peer.kind.to_string())
}

fn version(peer: &Peer) -> Cell {
    if peer.version.is_empty() { Cell::Nothing } else { Cell::Text(peer.version.clone()) }
}

/// A proxy that logs less than it serves does less than the others.
pub fn unlogged(work: Work, entrants: &[Entrant], results: &Results) -> Vec<String> {
    let all = entrants.iter().enumerate().filter(|(_, entrant)| work.full && entrant.running.peer.kind.is_proxy());
    all.filter(|&(index, _)| results.log_lines[index] < results.answered[index])
        .map(|(index, entrant)| {
            let (lines, answered) = (results.log_lines[index], results.answered[index]);
            format!("{} logged {lines} of {answered} requests", entrant.running.peer.kind)
        })
        .collect()
}
