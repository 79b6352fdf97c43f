//! The documents name what exists, and the house rule about the size of files holds.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "test code")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The documents whose paths and names are checked.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "ops/deploy/CLUSTER.md",
    "ops/deploy/COMPONENTS.md",
    "ops/deploy/CONFIGURATION.md",
    "ops/deploy/FOUNDATIONDB.md",
    "ops/deploy/RUNBOOK.md",
    "ops/deploy/XEPS.md",
];

/// Written by a command, so they need not be there.
const MADE: &[&str] = &["tests/bench/RESULTS.md", "target/release/rookery", "rookery-data/tls/ca.pem"];

/// The most lines of a Rust file.
const LINES: usize = 500;
/// The most lines of one that gives no reason for its length.
const USUAL: usize = 400;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All files under `folder` that end in `.rs`, but for what was built.
fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "rookery-data" {
            sources(&path, into);
        } else if name.ends_with(".rs") {
            into.push(path);
        }
    }
}

fn all_sources() -> Vec<PathBuf> {
    let mut all = Vec::new();
    sources(&root(), &mut all);
    assert!(all.len() > 100, "the sources were not found");
    all
}

/// What stands between single backticks outside of fenced blocks.
fn code(text: &str) -> Vec<&str> {
    let outside = text.split("```").step_by(2);
    outside.flat_map(|part| part.lines()).flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

/// Whether it is a path in this repository: it begins with one of its folders, or it is a file at the top.
fn is_path(code: &str) -> bool {
    let plain = code.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    let first = code.split('/').next().unwrap_or_default();
    let top = [
        "actors",
        "cluster",
        "demo",
        "node",
        "ops",
        "proto",
        "tests",
        "target",
        "rookery-data",
        ".ci",
        ".cargo",
    ];
    plain && (top.contains(&first) || code.ends_with(".md") || code == "clippy.toml")
}

#[test]
fn every_path_that_a_document_names_exists() {
    let mut missing = Vec::new();
    let mut seen = 0;
    for document in DOCUMENTS {
        let text = fs::read_to_string(root().join(document)).unwrap();
        let beside = root().join(document).parent().unwrap().to_owned();
        let paths = code(&text).into_iter().filter(|c| is_path(c) && !MADE.contains(c));
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        let links = links.filter(|l| !l.starts_with('#') && !l.contains("://"));
        let files = links.map(|link| link.split('#').next().unwrap_or_default());
        for name in paths.chain(files) {
            seen += 1;
            if !root().join(name).exists() && !beside.join(name).exists() {
                missing.push(format!("{document}: {name}"));
            }
        }
    }
    assert!(seen > 50, "only {seen} paths were found");
    assert!(missing.is_empty(), "{missing:#?}");
}

/// `Host::route_from`, `PIPE_ITEMS`, `keep_open_messages`: what ARCHITECTURE.md calls by name is in the sources.
#[test]
fn every_name_in_the_map_is_in_the_sources() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let names: BTreeSet<&str> = code(&text)
        .into_iter()
        .filter(|c| c.chars().all(|c| c.is_ascii_alphanumeric() || "_:".contains(c)))
        .filter(|c| c.contains("::") || c.contains('_') || c.starts_with(char::is_uppercase))
        .collect();
    assert!(names.len() > 8, "{names:?}");
    let mut words = BTreeSet::new();
    let all: Vec<String> = all_sources().iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    for text in &all {
        words.extend(text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    }
    let lost: Vec<&&str> =
        names.iter().filter(|name| !name.split("::").all(|word| words.contains(word))).collect();
    assert!(lost.is_empty(), "ARCHITECTURE.md names what is not in the sources: {lost:?}");
}

/// The anchors of a document's headings, as forges make them: lower case, spaces become hyphens, other signs go.
fn anchors(text: &str) -> BTreeSet<String> {
    let anchor = |heading: &str| -> String {
        let heading = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        heading.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    text.lines().filter(|line| line.starts_with('#')).map(anchor).collect()
}

#[test]
fn every_heading_that_a_link_points_to_exists() {
    let (mut seen, mut missing) = (0, Vec::new());
    for document in DOCUMENTS {
        let path = root().join(document);
        let text = fs::read_to_string(&path).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for (file, heading) in links.filter(|l| !l.contains("://")).filter_map(|link| link.split_once('#')) {
            seen += 1;
            let target = if file.is_empty() { path.clone() } else { path.with_file_name("").join(file) };
            if !anchors(&fs::read_to_string(target).unwrap()).contains(heading) {
                missing.push(format!("{document}: {file}#{heading}"));
            }
        }
    }
    assert!(seen > 5, "only {seen} links to headings were found");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn no_file_is_too_long() {
    let mut long = Vec::new();
    for path in all_sources() {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().count();
        if lines > LINES || lines > USUAL && !text.contains("//! Length: ") {
            long.push(format!("{}: {lines}", path.display()));
        }
    }
    assert!(
        long.is_empty(),
        "over {LINES} lines, or over {USUAL} without a reason in a line \"//! Length: …\" of the head; split them by subject: {long:#?}"
    );
}

#[test]
fn documents_name_no_machine() {
    for document in DOCUMENTS {
        let text = fs::read_to_string(root().join(document)).unwrap();
        for private in ["/home/", "/root/", "/work/", "/tmp/"] {
            assert!(!text.contains(private), "{document} names a folder of somebody's machine, {private}");
        }
    }
}
