//! What does the kernel say about this process, at the moment of a scrape?
//!
//! Where /proc is not mounted the lines are left out.

use super::families;
use super::render::{Text, seconds};
use std::fs;

/// Ticks a second of the times in /proc/self/stat: fixed by the kernel's ABI on every architecture that we build for.
const TICKS: u64 = 100;

/// Writes the `process_` families.
pub(super) fn write(text: &mut Text) {
    if let Some(stat) = Stat::read() {
        text.family(&families::PROCESS_CPU);
        text.sample(
            &families::PROCESS_CPU,
            "",
            std::iter::empty(),
            None,
            seconds(stat.cpu_ticks * (1_000_000_000 / TICKS)),
        );
        if let Some(boot) = boot_time() {
            text.family(&families::PROCESS_START);
            text.sample(&families::PROCESS_START, "", std::iter::empty(), None, boot + stat.start_ticks / TICKS);
        }
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let numbers = [
        (&families::PROCESS_RSS, number_after(&status, "VmRSS:").map(|kib| kib * 1024)),
        (&families::PROCESS_THREADS, number_after(&status, "Threads:")),
        (&families::PROCESS_FDS, open_fds()),
        (&families::PROCESS_MAX_FDS, number_after(&limits, "Max open files")),
    ];
    for (family, value) in numbers {
        if let Some(value) = value {
            text.family(family);
            text.sample(family, "", std::iter::empty(), None, value);
        }
    }
}

struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the program's name in parentheses, which may itself hold blanks and parentheses.
        let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self { cpu_ticks: number(14)? + number(15)?, start_ticks: number(22)? })
    }
}

fn boot_time() -> Option<u64> {
    number_after(&fs::read_to_string("/proc/stat").ok()?, "btime")
}

/// Since Linux 6.2 the size of the folder is the number of open descriptors; before, it is 0 and they are counted.
fn open_fds() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => u64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok(),
        open => Some(open),
    }
}

fn number_after(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::render::tests::parse;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn the_numbers_are_plausible() {
        let mut text = Text::default();
        write(&mut text);
        let samples = parse(&text.finish());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - samples["process_start_time_seconds"]) < 86_400.0);
        assert!(samples["process_resident_memory_bytes"] > 100_000.0);
        assert!(samples["process_open_fds"] >= 3.0 && samples["process_open_fds"] <= samples["process_max_fds"]);
        assert!(samples["process_threads"] >= 1.0);
    }
}
