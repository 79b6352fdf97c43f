//! What a server costs: processor time and memory of its processes, as the kernel counts them.

use std::collections::HashMap;
use std::time::Duration;

/// Ticks of `/proc/PID/stat` per second; 100 on every Linux that Debian runs on.
const TICKS_PER_SECOND: f64 = 100.0;

struct Stat {
    parent: u32,
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, also parentheses.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|f| f.parse::<u64>().ok());
    // utime, stime and those of children that have ended: fields 14 to 17 of proc(5).
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    Some(Stat { parent: number(1)? as u32, ticks })
}

/// The processes `roots` and all that they started.
fn tree(roots: &[u32]) -> Vec<(u32, u64)> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok())
            && let Some(stat) = stat(pid)
        {
            all.insert(pid, stat);
        }
    }
    let below = |pid: u32| {
        let mut at = Some(pid);
        while let Some(pid) = at {
            if roots.contains(&pid) {
                return true;
            }
            at = all.get(&pid).map(|s| s.parent).filter(|p| *p > 1);
        }
        false
    };
    all.iter().filter(|(pid, _)| below(**pid)).map(|(pid, s)| (*pid, s.ticks)).collect()
}

/// Processor seconds used so far by the processes and their descendants.
pub fn cpu_seconds(roots: &[u32]) -> f64 {
    tree(roots).iter().map(|(_, ticks)| *ticks as f64).sum::<f64>() / TICKS_PER_SECOND
}

/// Actor memory in bytes of the processes and their descendants.
pub fn actor(roots: &[u32]) -> u64 {
    let of = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = text.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    tree(roots).iter().filter_map(|(pid, _)| of(*pid)).sum::<u64>() * 1024
}

/// Waits until the processes have nothing left to do, so that work they put off is counted where it belongs.
pub async fn settle(roots: &[u32]) {
    let mut before = cpu_seconds(roots);
    let mut quiet = 0;
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_millis(250)).await; // the kernel counts processor time, and tells nobody
        let now = cpu_seconds(roots);
        quiet = if now - before <= 0.011 { quiet + 1 } else { 0 };
        before = now;
        if quiet == 2 {
            return;
        }
    }
}

/// How many files this process may open.
pub fn file_limit() -> usize {
    let text = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("Max open files")).unwrap_or_default();
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(1024)
}
