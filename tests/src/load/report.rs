//! The table of what was measured.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;

use super::Plan;

/// What kind of number it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Processor seconds of the server per 10,000.
    Cpu,
    /// How many a second.
    PerSecond,
    /// Median latency in milliseconds.
    P50,
    /// 99th percentile in milliseconds.
    P99,
    /// Actor kilobytes of the server per session.
    Kilobytes,
}

/// A row of the table.
pub struct Row {
    pub group: &'static str,
    pub archive: bool,
    pub figure: Figure,
    pub title: &'static str,
    /// At most this part of the better peer's, as issue 2 wants it.
    pub target: Option<f64>,
}

const fn row(
    group: &'static str,
    archive: bool,
    figure: Figure,
    title: &'static str,
    target: Option<f64>,
) -> Row {
    Row { group, archive, figure, title, target }
}

/// All rows, in the order of the report.
pub const FIGURES: &[Row] = &[
    row("chat16", false, Figure::Cpu, "CPU s per 10,000 messages, 50 pairs, 16 in flight", Some(1.0 / 5.0)),
    row("chat1", false, Figure::Cpu, "CPU s per 10,000 messages, 50 pairs, one in flight", Some(1.0 / 5.0)),
    row("rate1000", false, Figure::Cpu, "CPU s per 10,000 messages at 1,000/s", Some(1.0 / 4.0)),
    row("rate1000", false, Figure::P50, "latency at 1,000/s, p50, ms", None),
    row("rate1000", false, Figure::P99, "latency at 1,000/s, p99, ms", Some(1.0)),
    row("chat16", false, Figure::PerSecond, "messages per second, 16 in flight", None),
    row("chat1", false, Figure::PerSecond, "messages per second, one in flight", None),
    row(
        "chat16-archive",
        true,
        Figure::Cpu,
        "archive on: CPU s per 10,000 messages, 16 in flight",
        Some(1.0 / 8.0),
    ),
    row(
        "chat1-archive",
        true,
        Figure::Cpu,
        "archive on: CPU s per 10,000 messages, one in flight",
        Some(1.0 / 8.0),
    ),
    row(
        "rate1000-archive",
        true,
        Figure::Cpu,
        "archive on: CPU s per 10,000 messages at 1,000/s",
        Some(1.0 / 8.0),
    ),
    row("rate1000-archive", true, Figure::P50, "archive on: latency at 1,000/s, p50, ms", None),
    row("rate1000-archive", true, Figure::P99, "archive on: latency at 1,000/s, p99, ms", Some(1.0)),
    row(
        "chat16-archive",
        true,
        Figure::PerSecond,
        "archive on: messages (two appends each) per second, 16 in flight",
        None,
    ),
    row(
        "chat1-archive",
        true,
        Figure::PerSecond,
        "archive on: messages (two appends each) per second, one in flight",
        None,
    ),
    row("pages-archive", true, Figure::Cpu, "CPU s per 10,000 archive pages of 50", Some(1.0 / 6.0)),
    row("pages-archive", true, Figure::PerSecond, "archive pages of 50 per second", None),
    row("offline-store", false, Figure::Cpu, "CPU s per 10,000 offline messages stored", None),
    row("offline-drain", false, Figure::Cpu, "CPU s per 10,000 offline messages drained", Some(1.0 / 4.0)),
    row(
        "logins",
        false,
        Figure::Cpu,
        "CPU s per 10,000 logins (TLS 1.3, SCRAM-SHA-1, roster, presence)",
        Some(1.0 / 4.0),
    ),
    row("logins", false, Figure::PerSecond, "logins per second", None),
    row(
        "idle-small",
        false,
        Figure::Kilobytes,
        "kB resident per idle TLS session, {small} sessions",
        Some(1.0 / 3.0),
    ),
    row(
        "idle-large",
        false,
        Figure::Kilobytes,
        "kB resident per idle TLS session, {large} sessions",
        Some(1.0 / 3.0),
    ),
];

/// Numbers as they come in.
pub struct Report {
    found: BTreeMap<(String, String, Figure), f64>,
    notes: Vec<String>,
    /// How many sessions the two idle rows had.
    pub sizes: (usize, usize),
}

impl Default for Report {
    fn default() -> Report {
        Report { found: BTreeMap::new(), notes: Vec::new(), sizes: (5_000, 20_000) }
    }
}

impl Report {
    /// Notes a number, and prints it.
    pub fn put(&mut self, server: &str, group: &str, figure: Figure, value: f64) {
        eprintln!("  {group} {figure:?}: {value:.3}");
        self.found.insert((server.to_owned(), group.to_owned(), figure), value);
    }

    /// Notes what went wrong.
    pub fn note(&mut self, note: String) {
        eprintln!("  failed: {note}");
        self.notes.push(note);
    }

    fn get(&self, server: &str, row: &Row) -> Option<f64> {
        self.found.get(&(server.to_owned(), row.group.to_owned(), row.figure)).copied()
    }

    /// The report as Markdown.
    pub fn text(&self, plan: &Plan) -> String {
        let mut out = String::from("# Rookery compared with Prosody and ejabberd\n\n");
        let _ = writeln!(out, "{}\n", circumstances(plan));
        out.push_str(
            "Same load generator, same machine, one server at a time. TLS 1.3, SCRAM-SHA-1, stream management and carbons are on.\n\
             CPU is the CPU time of the server, from `/proc`, including PostgreSQL where Prosody and ejabberd store their archive in\n\
             it (as Debian configures it). Rookery's archive is its embedded store with `durability = \"sync\"`. The ratio is\n\
             Rookery's figure divided by that of the better peer. For rates, higher is better.\n\n",
        );
        let _ = writeln!(out, "| figure | Rookery | Prosody | ejabberd | ratio | target |");
        let _ = writeln!(out, "| --- | ---: | ---: | ---: | ---: | ---: |");
        for row in FIGURES.iter().filter(|r| plan.wants(r.group)) {
            let [ours, prosody, ejabberd] = ["rookery", "prosody", "ejabberd"].map(|s| self.get(s, row));
            let more_is_better = row.figure == Figure::PerSecond;
            let better = match (prosody, ejabberd) {
                (Some(a), Some(b)) => Some(if more_is_better { a.max(b) } else { a.min(b) }),
                (a, b) => a.or(b),
            };
            let ratio = ours.zip(better).map(|(o, b)| o / b);
            let verdict = match (ratio, row.target) {
                (Some(ratio), Some(target)) => {
                    // The latency must also be below 20 ms, whatever the peers' is.
                    let met =
                        ratio <= target && (row.figure != Figure::P99 || ours.is_some_and(|o| o <= 20.0));
                    format!("{} {}", fraction(target), if met { "met" } else { "missed" })
                }
                (None, Some(target)) => fraction(target),
                _ => String::new(),
            };
            let title = row
                .title
                .replace("{small}", &self.sizes.0.to_string())
                .replace("{large}", &self.sizes.1.to_string());
            let [o, p, e] = [ours, prosody, ejabberd].map(|v| v.map_or("–".to_owned(), number));
            let ratio = ratio.map_or("–".to_owned(), |r| format!("{r:.2}"));
            let _ = writeln!(out, "| {title} | {o} | {p} | {e} | {ratio} | {verdict} |");
        }
        if !self.notes.is_empty() {
            out.push_str("\nWhat failed:\n\n");
            for note in &self.notes {
                let _ = writeln!(out, "- {}", note.lines().next().unwrap_or_default());
            }
        }
        out
    }
}

pub(super) fn number(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

fn fraction(target: f64) -> String {
    if target >= 1.0 { "1".into() } else { format!("1/{:.0}", 1.0 / target) }
}

pub(super) fn circumstances(plan: &Plan) -> String {
    let output = |program: &str, arguments: &[&str]| {
        let out = Command::new(program).args(arguments).output().ok();
        out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
    };
    let version = |package: &str| output("dpkg-query", &["-W", "-f=${Version}", package]);
    let peers = [("prosody", "Prosody"), ("ejabberd", "ejabberd"), ("postgresql", "PostgreSQL")];
    let peers = peers
        .iter()
        .filter(|_| !plan.nodes())
        .map(|(package, name)| format!("; {name} {}", version(package)));
    let peers = peers.collect::<String>();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or_default();
    format!(
        "{}{}: {cores} cores{}, Linux {}{}; written by `cargo xtask bench{}`.",
        if plan.quick { "A quick run: the figures are coarse. " } else { "" },
        output("date", &["-u", "+%Y-%m-%d"]),
        cpu.trim_matches([' ', '\t', ':']).split("  ").next().map(|c| format!(" ({c})")).unwrap_or_default(),
        output("uname", &["-r"]),
        peers,
        [if plan.quick { " --quick" } else { "" }, if plan.nodes() { " --servers nodes" } else { "" }]
            .concat()
    )
}
