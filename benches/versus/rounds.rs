//! How are several proxies compared on a machine that is never quiet?
//!
//! Interleaved: each round measures every entrant once, in an order that rotates, and only ratios within one round count.
//! A round in which somebody else used the proxy's CPU, or in which the floor relay was not itself, is left out.

use crate::cpu::CpuUse;
use crate::load::{self, Plan, Tally};
use crate::net::PROXY_CPU;
use crate::peer::{Kind, Running};
use crate::stats::{self, Estimate};
use crate::{h2load, h2load::H2};
use std::time::{Duration, Instant};

/// Share of a CPU that others may take in a round that counts.
const FOREIGN_LIMIT: f64 = 0.10;
/// How far the floor relay may be from its median in a round that counts.
const DRIFT_LIMIT: f64 = 0.20;

/// Who drives the load.
pub enum Drive {
    /// Our generator.
    Own(Plan),
    /// h2load.
    H2(H2),
}

/// One column of the rounds.
pub struct Entrant {
    /// What is varied in this scenario, routes or workers.
    pub varied: Option<usize>,
    /// The proxy.
    pub running: Running,
    /// Its load.
    pub drive: Drive,
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
struct Sample {
    cpu_ns_each: f64,
    each_second: f64,
    cores: f64,
    foreign: f64,
}

/// How long and how often.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds.
    pub rounds: usize,
    /// Of one measurement.
    pub duration: Duration,
    /// Before it.
    pub warm: Duration,
}

/// All that was measured of all entrants.
pub struct Results {
    samples: Vec<Vec<Sample>>,
    quiet: Vec<usize>,
    /// Requests that were answered well in and outside of the measured windows, per entrant.
    pub answered: Vec<u64>,
    /// Answers that were not right, per entrant.
    pub failures: Vec<u64>,
    /// Lines in the access log, per entrant.
    pub log_lines: Vec<u64>,
    /// What a reader must know.
    pub notes: Vec<String>,
}

/// Runs all rounds.
pub fn run(entrants: &mut [Entrant], effort: Effort) -> Result<Results, String> {
    let none = vec![0; entrants.len()];
    let mut results = Results {
        samples: vec![Vec::new(); entrants.len()],
        quiet: Vec::new(),
        answered: none.clone(),
        failures: none.clone(),
        log_lines: none,
        notes: Vec::new(),
    };
    for round in 0..effort.rounds {
        for turn in 0..entrants.len() {
            let index = (round + turn) % entrants.len();
            let entrant = &entrants[index];
            let (sample, tally) =
                measure(entrant, effort).map_err(|what| format!("{}: {what}", entrant.running.peer.kind))?;
            results.samples[index].push(sample);
            results.answered[index] += tally.ok + tally.warm;
            results.failures[index] += tally.failures();
            results.log_lines[index] += entrant.running.take_log_lines();
            if tally.failures() > 0 {
                results.notes.push(format!("{}, round {round}: {tally:?}", entrant.running.peer.kind));
            }
        }
    }
    for (index, entrant) in entrants.iter_mut().enumerate() {
        entrant.running.stop();
        results.log_lines[index] += entrant.running.take_log_lines();
    }
    results.choose_quiet(entrants);
    Ok(results)
}

fn measure(entrant: &Entrant, effort: Effort) -> Result<(Sample, Tally), String> {
    let running = &entrant.running;
    let mark = || (Instant::now(), running.tree.cpu_ns(), CpuUse::of(PROXY_CPU));
    let (before, after, tally) = match &entrant.drive {
        Drive::Own(plan) => load::run(plan, effort.warm, effort.duration, mark)?,
        Drive::H2(plan) => h2load::run(plan, effort.duration, mark)?,
    };
    if tally.ok == 0 {
        return Err(format!("nothing was answered well: {tally:?}"));
    }
    let elapsed = after.0 - before.0;
    let elapsed_ns = u64::try_from(elapsed.as_nanos()).expect("a round is short");
    let cpu_ns = after.1 - before.1;
    let own = if running.peer.kind == Kind::Direct { 0 } else { cpu_ns };
    let sample = Sample {
        cpu_ns_each: cpu_ns as f64 / tally.ok as f64,
        each_second: tally.ok as f64 / elapsed.as_secs_f64(),
        cores: cpu_ns as f64 / elapsed.as_nanos() as f64,
        foreign: after.2.foreign_since(before.2, own, elapsed_ns),
    };
    Ok((sample, tally))
}

impl Results {
    fn choose_quiet(&mut self, entrants: &[Entrant]) {
        let rounds = self.samples.first().map_or(0, Vec::len);
        let floor = entrants.iter().position(|entrant| entrant.running.peer.kind == Kind::Floor);
        let floor: Vec<f64> = floor.map_or_else(Vec::new, |index| each(&self.samples[index]));
        let usual = stats::median(&floor);
        let calm = |round: usize| {
            let alone = self.samples.iter().all(|samples| samples[round].foreign <= FOREIGN_LIMIT);
            let steady = floor.get(round).is_none_or(|floor| (floor / usual - 1.0).abs() <= DRIFT_LIMIT);
            alone && steady
        };
        let quiet: Vec<usize> = (0..rounds).filter(|&round| calm(round)).collect();
        let enough = quiet.len() >= 3 && quiet.len() * 2 >= rounds;
        self.notes.push(if enough {
            format!("{} of {rounds} rounds count", quiet.len())
        } else {
            format!(
                "NOISY: only {} of {rounds} rounds were quiet; all are shown, and none should be believed",
                quiet.len()
            )
        });
        self.quiet = if enough { quiet } else { (0..rounds).collect() };
    }

    fn counted(&self, entrant: usize, value: fn(&Sample) -> f64) -> Vec<f64> {
        self.quiet.iter().map(|&round| value(&self.samples[entrant][round])).collect()
    }

    /// CPU time of a request in microseconds: median and least.
    pub fn cpu_us(&self, entrant: usize) -> (f64, f64) {
        let values = self.counted(entrant, |sample| sample.cpu_ns_each / 1000.0);
        (stats::median(&values), stats::least(&values))
    }

    /// Requests a second: median.
    pub fn each_second(&self, entrant: usize) -> f64 {
        stats::median(&self.counted(entrant, |sample| sample.each_second))
    }

    /// CPUs that the proxy had in use: median.
    pub fn cores(&self, entrant: usize) -> f64 {
        stats::median(&self.counted(entrant, |sample| sample.cores))
    }

    /// CPU time of a request, relative to another entrant in the same round.
    pub fn ratio(&self, entrant: usize, to: usize) -> Option<Estimate> {
        self.ratio_of(|sample| sample.cpu_ns_each, entrant, to)
    }

    /// Requests a second, relative to another entrant in the same round.
    pub fn ratio_each_second(&self, entrant: usize, to: usize) -> Option<Estimate> {
        self.ratio_of(|sample| sample.each_second, entrant, to)
    }

    fn ratio_of(&self, value: fn(&Sample) -> f64, entrant: usize, to: usize) -> Option<Estimate> {
        let (ours, theirs) = (self.counted(entrant, value), self.counted(to, value));
        let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
        stats::estimate(&ratios)
    }
}

fn each(samples: &[Sample]) -> Vec<f64> {
    samples.iter().map(|sample| sample.cpu_ns_each).collect()
}
