//! What the process itself uses, read from `/proc` at each scrape: three small files and one directory. Elsewhere than
//! on Linux these metrics are absent.

use std::fs;

/// Linux reports CPU time in these, on every architecture since 2.6.
const TICKS_PER_SECOND: f64 = 100.0;

/// Sets the `process_*` gauges.
pub(super) fn sample() {
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        if let Some(kib) = field(&status, "VmRSS:") {
            metrics::gauge!("process_resident_memory_bytes").set(kib * 1024.0);
        }
        if let Some(threads) = field(&status, "Threads:") {
            metrics::gauge!("process_threads").set(threads);
        }
    }
    if let Some(seconds) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds) {
        // A gauge of our recorder: it takes the system's count, and shows fractions, which its counters cannot.
        metrics::gauge!("process_cpu_seconds_total").set(seconds);
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // Less the one that lists the directory.
        let open = u32::try_from(entries.count().saturating_sub(1)).unwrap_or(u32::MAX);
        metrics::gauge!("process_open_fds").set(f64::from(open));
    }
    if let Ok(limits) = fs::read_to_string("/proc/self/limits")
        && let Some(most) = field(&limits, "Max open files")
    {
        metrics::gauge!("process_max_fds").set(most);
    }
}

/// The first number on the line that begins with `name`.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time from `/proc/self/stat`: fields 14 and 15 of proc_pid_stat(5), after the parenthesised name,
/// which may itself hold spaces and parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_understood() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 4 0 100 1000 50";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!(cpu_seconds("7 (x) S 1"), None);
        assert_eq!(field("VmPeak:\t 9 kB\nVmRSS:\t   1234 kB\n", "VmRSS:"), Some(1234.0));
        assert_eq!(field("Max open files            unlimited  unlimited  files", "Max open files"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_measured() {
        let (recorder, handle) = crate::metrics::recorder().unwrap();
        let text = metrics::with_local_recorder(&recorder, || handle.render());
        for name in
            ["process_resident_memory_bytes", "process_open_fds", "process_max_fds", "process_threads"]
        {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
            assert!(line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() > 0.0, "{line}");
        }
    }
}
