//! How does a scenario become a report?

use crate::h2load::{self, H2};
use crate::load::{self, Ask, Plan};
use crate::peer::{self, Ground, Kind, Peer, Running, Work};
use crate::rounds::{self, Drive, Effort, Entrant, Results};
use crate::scenario::{Measure, ROUTES, Scenario};
use crate::stats;
use crate::table::{Cell, Report};
use std::time::Duration;

/// Idle memory is measured on so many fresh processes of each peer.
const FRESH: usize = 3;
/// Time for buffers to be given back.
const SETTLE: Duration = Duration::from_secs(3);

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
        Measure::Routes => routes(scenario, &proxies, ground, effort),
        Measure::Idle { connections } => Ok(idle(scenario, connections, &proxies, ground)),
        Measure::Start => Ok(start(scenario, peers, ground)),
    }
}

fn rates(scenario: &Scenario, peers: &[Peer], ground: &Ground<'_>, effort: Effort) -> Result<Report, String> {
    let mut notes = Vec::new();
    let mut entrants: Vec<Entrant> = started(peers, scenario.work, ground, &mut notes)
        .into_iter()
        .map(|running| Entrant { routes: None, drive: drive(scenario, scenario.work, &running, ground), running })
        .collect();
    let results = rounds::run(&mut entrants, effort)?;
    let place = |kind| entrants.iter().position(|entrant| entrant.running.peer.kind == kind);
    let rows = entrants.iter().enumerate().map(|(index, entrant)| {
        let kind = entrant.running.peer.kind;
        let ratio = |to: Kind| {
            let to = place(to).filter(|&to| to != index && kind != Kind::Direct);
            to.and_then(|to| results.ratio(index, to)).map_or(Cell::Nothing, Cell::Ratio)
        };
        let mut row = common(&results, index, &entrant.running);
        row.extend([ratio(Kind::Haproxy), ratio(Kind::Nginx)]);
        row.extend([Cell::Number(results.each_second(index), 0), Cell::Count(results.failures[index])]);
        row
    });
    let rows = rows.collect();
    notes.extend(unlogged(scenario.work, &entrants, &results));
    notes.extend(results.notes);
    let columns = vec![
        "proxy",
        "version",
        "CPU us/request, median [least]",
        "to HAProxy (95 %)",
        "to nginx (95 %)",
        "requests/s",
        "failures",
    ];
    Ok(Report { scenario: scenario.name, what: scenario.what, columns, rows, notes })
}

fn routes(scenario: &Scenario, peers: &[Peer], ground: &Ground<'_>, effort: Effort) -> Result<Report, String> {
    let mut notes = Vec::new();
    let mut entrants = Vec::new();
    for count in ROUTES {
        let work = Work { hosts: count, ..scenario.work };
        entrants.extend(started(peers, work, ground, &mut notes).into_iter().map(|running| Entrant {
            routes: Some(count),
            drive: drive(scenario, work, &running, ground),
            running,
        }));
    }
    entrants.sort_by_key(|entrant| entrant.running.peer.kind);
    let memory: Vec<u64> = entrants.iter().map(|entrant| entrant.running.tree.rss_bytes()).collect();
    let results = rounds::run(&mut entrants, effort)?;
    let rows = entrants.iter().enumerate().map(|(index, entrant)| {
        let kind = entrant.running.peer.kind;
        let only = entrants.iter().position(|other| other.running.peer.kind == kind && other.routes == Some(1));
        let ratio = only.filter(|&only| only != index).and_then(|only| results.ratio(index, only));
        let mut row = common(&results, index, &entrant.running);
        row.insert(2, Cell::Count(entrant.routes.unwrap_or(0) as u64));
        row.push(ratio.map_or(Cell::Nothing, Cell::Ratio));
        row.push(Cell::Number(entrant.running.start.as_secs_f64(), 2));
        row.push(Cell::Number(memory[index] as f64 / 1e6, 1));
        row.push(Cell::Count(results.failures[index]));
        row
    });
    let rows = rows.collect();
    notes.extend(unlogged(scenario.work, &entrants, &results));
    notes.extend(results.notes);
    let columns = vec![
        "proxy",
        "version",
        "routes",
        "CPU us/request, median [least]",
        "to one route (95 %)",
        "start s",
        "RSS MB",
        "failures",
    ];
    Ok(Report { scenario: scenario.name, what: scenario.what, columns, rows, notes })
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
    let rows = running.iter().map(row).collect();
    let columns = vec!["proxy", "version", "RSS MB", "start to first 200, s"];
    Report { scenario: scenario.name, what: scenario.what, columns, rows, notes }
}

fn started(peers: &[Peer], work: Work, ground: &Ground<'_>, notes: &mut Vec<String>) -> Vec<Running> {
    let mut all = Vec::new();
    for peer in peers {
        match Running::start(peer, work, ground) {
            Ok(running) => all.push(running),
            Err(what) => notes.push(format!("{} not measured: {what}", peer.kind)),
        }
    }
    all
}

fn drive(scenario: &Scenario, work: Work, running: &Running, ground: &Ground<'_>) -> Drive {
    match scenario.measure {
        Measure::Requests { ask, connections, reuse } => {
            Drive::Own(plan(ask, connections, reuse, work, running, ground))
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

fn common(results: &Results, index: usize, running: &Running) -> Vec<Cell> {
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
fn unlogged(work: Work, entrants: &[Entrant], results: &Results) -> Vec<String> {
    let all = entrants.iter().enumerate().filter(|(_, entrant)| work.full && entrant.running.peer.kind.is_proxy());
    all.filter(|&(index, _)| results.log_lines[index] < results.answered[index])
        .map(|(index, entrant)| {
            let (lines, answered) = (results.log_lines[index], results.answered[index]);
            format!("{} logged {lines} of {answered} requests", entrant.running.peer.kind)
        })
        .collect()
}
