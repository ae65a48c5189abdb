//! How much CPU time and memory did a process and its children take, and was anybody else on its CPU?
//!
//! `/proc/PID/stat` counts in ticks of 10 ms; `schedstat` counts nanoseconds.

use std::collections::BTreeMap;
use std::fs;

/// Nanoseconds of one tick of `/proc/stat` (USER_HZ is 100 on every Linux).
const TICK_NS: u64 = 10_000_000;

/// A process with all its descendants, by id.
#[derive(Clone, Debug)]
pub struct Tree(Vec<u32>);

impl Tree {
    /// Finds the descendants that `root` has now.
    pub fn of(root: u32) -> Self {
        let parents = parents();
        let mut tree = vec![root];
        let mut next = 0;
        while let Some(&parent) = tree.get(next) {
            tree.extend(parents.iter().filter(|&(_, &of)| of == parent).map(|(&child, _)| child));
            next += 1;
        }
        Self(tree)
    }

    /// The processes, parents first.
    pub fn pids(&self) -> &[u32] {
        &self.0
    }

    /// Time on a CPU of all threads so far.
    pub fn cpu_ns(&self) -> u64 {
        self.0.iter().map(|&pid| process_cpu_ns(pid)).sum()
    }

    /// Resident memory; pages shared by parent and child count twice, as `ps` would show.
    pub fn rss_bytes(&self) -> u64 {
        self.0.iter().map(|&pid| process_rss_bytes(pid)).sum()
    }
}

fn parents() -> BTreeMap<u32, u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold blanks and parentheses itself.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn process_cpu_ns(pid: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

fn process_rss_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// What one CPU did since boot, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuUse {
    /// User, kernel, interrupts.
    pub busy: u64,
    /// Taken by the hypervisor.
    pub steal: u64,
}

impl CpuUse {
    /// Reads the counters of one CPU.
    pub fn of(cpu: usize) -> Self {
        let stat = fs::read_to_string("/proc/stat").expect("/proc/stat can be read");
        let name = format!("cpu{cpu} ");
        let line = stat.lines().find_map(|line| line.strip_prefix(&name)).expect("the CPU exists");
        let ticks: Vec<u64> = line.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        // user nice system idle iowait irq softirq steal
        let at = |index: usize| ticks.get(index).copied().unwrap_or(0);
        Self { busy: (at(0) + at(1) + at(2) + at(5) + at(6)) * TICK_NS, steal: at(7) * TICK_NS }
    }

    /// Share of `elapsed_ns` in which the CPU was not the proxy's, though the proxy may have wanted it.
    pub fn foreign_since(&self, before: Self, own_ns: u64, elapsed_ns: u64) -> f64 {
        let busy = (self.busy - before.busy).saturating_sub(own_ns);
        (busy + self.steal - before.steal) as f64 / elapsed_ns as f64
    }
}
