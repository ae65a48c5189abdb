//! What does more of something cost, for the same proxy: routes, workers?

use crate::net;
use crate::peer::{Ground, Peer, Work};
use crate::rounds::{self, Effort, Entrant};
use crate::run::{common, drive, started, unlogged};
use crate::scenario::{ROUTES, Scenario};
use crate::table::{Cell, Report};

/// For the last of 1, 10 000 and 100 000 hosts.
pub fn routes(scenario: &Scenario, peers: &[Peer], ground: &Ground<'_>, effort: Effort) -> Result<Report, String> {
    let mut notes = Vec::new();
    let works = ROUTES.map(|hosts| (hosts, Work { hosts, ..scenario.work }));
    let mut entrants = entrants(scenario, &works, peers, ground, &mut notes);
    let memory: Vec<u64> = entrants.iter().map(|entrant| entrant.running.tree.rss_bytes()).collect();
    let results = rounds::run(&mut entrants, effort)?;
    let rows = entrants.iter().enumerate().map(|(index, entrant)| {
        let ratio = single(&entrants, index).and_then(|only| results.ratio(index, only));
        let mut row = common(&results, index, &entrant.running);
        row.insert(2, Cell::Count(entrant.varied.unwrap_or(0) as u64));
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

/// For one and two workers. Requests a second are compared where two have a CPU each; the CPU time of a request everywhere.
pub fn workers(scenario: &Scenario, peers: &[Peer], ground: &Ground<'_>, effort: Effort) -> Result<Report, String> {
    let mut notes = Vec::new();
    let works = [1, 2].map(|workers| (workers, Work { workers, ..scenario.work }));
    let mut entrants = entrants(scenario, &works, peers, ground, &mut notes);
    let results = rounds::run(&mut entrants, effort)?;
    let room = net::cpus() > 3;
    let rows = entrants.iter().enumerate().map(|(index, entrant)| {
        let one = single(&entrants, index);
        let cost = one.and_then(|one| results.ratio(index, one));
        let gain = one.filter(|_| room).and_then(|one| results.ratio_each_second(index, one));
        let mut row = common(&results, index, &entrant.running);
        row.insert(2, Cell::Count(entrant.varied.unwrap_or(0) as u64));
        row.push(cost.map_or(Cell::Nothing, Cell::Ratio));
        row.push(Cell::Number(results.each_second(index), 0));
        row.push(gain.map_or(Cell::Nothing, Cell::Ratio));
        row.push(Cell::Number(results.cores(index), 2));
        row.push(Cell::Count(results.failures[index]));
        row
    });
    let rows = rows.collect();
    if !room {
        notes.push(format!(
            "there are {} CPUs and four are needed to show what two workers answer a second: one of theirs is the generator's and \
             the upstream's too. What is shown is whether a request of two workers at once costs more than one of a single worker",
            net::cpus()
        ));
    }
    notes.extend(unlogged(scenario.work, &entrants, &results));
    notes.extend(results.notes);
    let columns = vec![
        "proxy",
        "version",
        "workers",
        "CPU us/request, median [least]",
        "CPU to one worker (95 %)",
        "requests/s",
        "requests/s to one worker (95 %)",
        "cores in use",
        "failures",
    ];
    Ok(Report { scenario: scenario.name, what: scenario.what, columns, rows, notes })
}

/// Every peer once for each of the works, its own next to each other.
fn entrants(
    scenario: &Scenario,
    works: &[(usize, Work)],
    peers: &[Peer],
    ground: &Ground<'_>,
    notes: &mut Vec<String>,
) -> Vec<Entrant> {
    let mut all = Vec::new();
    for &(varied, work) in works {
        all.extend(started(peers, work, ground, notes).into_iter().map(|running| Entrant {
            varied: Some(varied),
            drive: drive(scenario, work, &running, ground),
            running,
        }));
    }
    all.sort_by_key(|entrant| entrant.running.peer.kind);
    all
}

/// The same proxy with one only, where this is another.
fn single(entrants: &[Entrant], index: usize) -> Option<usize> {
    let kind = entrants[index].running.peer.kind;
    let one = entrants.iter().position(|other| other.running.peer.kind == kind && other.varied == Some(1));
    one.filter(|&one| one != index)
}
