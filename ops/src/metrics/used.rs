//! Policy: the sources of the workspace use the metrics of the list, with its labels, and nothing else; and every
//! metric of the list is used somewhere. Names are literals in the macros, so that this test and people can find them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Kind, METRICS};

/// Metrics of the list that nothing records yet. An entry leaves when its code comes; the test prints which could.
const PLANNED: &[&str] = &[];

/// A use of a metric in the sources.
struct Use {
    place: String,
    kind: &'static str,
    name: String,
    labels: BTreeSet<String>,
}

#[test]
fn sources_and_list_agree() {
    let listed: BTreeMap<&str, _> = METRICS.iter().map(|metric| (metric.name, metric)).collect();
    assert_eq!(listed.len(), METRICS.len(), "a name is listed twice");
    let mut complaints = Vec::new();
    let mut used = BTreeSet::new();
    for found in uses() {
        let Some(metric) = listed.get(found.name.as_str()) else {
            complaints.push(format!("{}: {:?} is not in METRICS", found.place, found.name));
            continue;
        };
        used.insert(metric.name);
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        if found.kind != kind {
            complaints.push(format!("{}: {} is listed as a {kind}", found.place, metric.name));
        }
        let labels = metric.labels.iter().map(|&label| label.to_owned()).collect::<BTreeSet<_>>();
        if found.labels != labels {
            complaints.push(format!("{}: {} is listed with labels {labels:?}", found.place, metric.name));
        }
    }
    for metric in METRICS {
        match (used.contains(metric.name), PLANNED.contains(&metric.name)) {
            (false, false) => complaints.push(format!("{} is listed and never recorded", metric.name)),
            (true, true) => eprintln!("{} is recorded now: take it off PLANNED", metric.name),
            _ => {}
        }
    }
    for name in PLANNED.iter().filter(|name| !listed.contains_key(*name)) {
        complaints.push(format!("{name} is on PLANNED and not in METRICS"));
    }
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn names_follow_prometheus() {
    for metric in METRICS {
        let name = metric.name;
        assert!(name.starts_with("rookery_") || name.starts_with("process_"), "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
        assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total") && !name.contains("cpu"), "{name}");
        assert!(!metric.help.ends_with('.') && metric.help.len() > 10, "{name}");
        if let Kind::Histogram(bounds) = metric.kind {
            assert!(bounds.is_sorted() && !bounds.is_empty(), "{name}");
        }
    }
}

/// Every use in `../*/src` and the crates nested there, this file left out.
fn uses() -> Vec<Use> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for folder in ["actors", "cluster", "node", "ops", "proto"] {
        collect(&root.join(folder), &mut files);
    }
    assert!(files.len() > 10, "sources not found at {}", root.display());
    let mut uses = Vec::new();
    for file in files.iter().filter(|file| !file.ends_with("ops/src/metrics/used.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.lines().map(without_comment).collect::<Vec<_>>().join("\n");
        for kind in ["counter", "gauge", "histogram"] {
            scan(file, &code, kind, &mut uses);
        }
    }
    uses
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|ext| ext == "rs")
            && path.components().any(|c| c.as_os_str() == "src")
        {
            files.push(path);
        }
    }
}

fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with("//") { "" } else { line }
}

/// Finds `kind!(…)` in `code`; a macro of another name that ends alike (`describe_counter!`) is none.
fn scan(file: &Path, code: &str, kind: &'static str, uses: &mut Vec<Use>) {
    let needle = format!("{kind}!(");
    for (at, _) in code.match_indices(&needle) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let place = format!("{}:{}", file.display(), code[..at].lines().count().max(1));
        let arguments = code[at + needle.len()..].trim_start();
        let Some((name, rest)) = arguments.strip_prefix('"').and_then(|rest| rest.split_once('"')) else {
            panic!("{place}: write the metric's name as a literal");
        };
        uses.push(Use { place, kind, name: name.to_owned(), labels: labels(rest) });
    }
}

/// The label names up to the macro's closing parenthesis: each `"name" =>`.
fn labels(rest: &str) -> BTreeSet<String> {
    let (mut depth, mut end) = (0, rest.len());
    for (at, c) in rest.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => {
                end = at;
                break;
            }
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
    }
    let mut pieces = rest[..end].split("=>").collect::<Vec<_>>();
    pieces.pop();
    pieces
        .iter()
        .filter_map(|piece| piece.trim_end().strip_suffix('"')?.rsplit('"').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn alerts_use_the_list_and_are_in_the_runbook() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let rules = std::fs::read_to_string(deploy.join("alerts.yml")).unwrap();
    let runbook = std::fs::read_to_string(deploy.join("RUNBOOK.md")).unwrap();
    // What an operator is told to look at. A crate is no metric.
    for word in runbook.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        let crates = ["rookery_actors", "rookery_cluster"];
        if word.starts_with("rookery_") && !crates.contains(&word) {
            assert!(METRICS.iter().any(|metric| metric.name == word), "RUNBOOK.md: {word} is not in METRICS");
        }
    }
    let mut alerts = 0;
    for line in rules.lines().filter(|line| !line.trim_start().starts_with('#')) {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            alerts += 1;
            assert!(runbook.contains(&format!("\n### {name}\n")), "{name} has no section in RUNBOOK.md");
        }
        for word in line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if !word.starts_with("rookery_") && !word.starts_with("process_") {
                continue;
            }
            let name =
                ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word);
            assert!(METRICS.iter().any(|metric| metric.name == name), "{name} is not in METRICS");
        }
    }
    assert_eq!(alerts, runbook.matches("\n### Rookery").count(), "the runbook has a section for no alert");
}
