//! Log lines and RUNBOOK.md are held together: an operator finds every line there, and what stands there is said by the
//! sources. (Alerts and metrics: `ops/src/metrics/used.rs`.)
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines at WARN or above that RUNBOOK.md need not explain.
const EXPLAIN_THEMSELVES: &[&str] = &[
    // The operator knows that `rookery cluster evict` was called; what follows is in the runbook.
    "admin: node declared dead",
    // Says whatever it is given, which is in the runbook: what a node waits for when it starts.
    "{line}",
];

/// Programs that the runbook lets an operator call. What begins so is a command.
const COMMANDS: &[&str] =
    &["alias", "chmod", "chown", "curl", "iostat", "journalctl", "openssl", "rookery", "sudo", "systemctl"];

/// What other programs say.
const OTHERS: &[&str] = &["out of memory"];

/// An event that is logged.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    level: &'static str,
    message: String,
    place: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() {
            // Tests say what they like.
            if name != "tests" && name != "target" {
                collect(&path, into);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            into.push(path);
        }
    }
}

/// The sources of what is shipped, with their places: without tests and comments.
fn sources() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for folder in ["actors", "cluster", "node", "ops", "proto"] {
        collect(&root().join(folder), &mut files);
    }
    assert!(files.len() > 100, "the sources were not found");
    let mut texts = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code = |line: &&str| !line.trim_start().starts_with("//");
        let place = file.strip_prefix(root()).unwrap().display().to_string();
        texts.push((place, shipped.lines().filter(code).collect::<Vec<_>>().join("\n")));
    }
    texts
}

/// The text behind a quotation mark up to the next, and what follows. A line that is continued is one.
fn literal(code: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut chars = code.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((text, &code[at + 1..])),
            '\\' => match chars.next()?.1 {
                '\n' => while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {},
                'n' => text.push('\n'),
                other => text.push(other),
            },
            c => text.push(c),
        }
    }
    None
}

/// The last text in the macro call that `code` goes on with: its message. What stands behind a `=` is the value of a field.
fn message(mut code: &str) -> Option<String> {
    let (mut depth, mut found, mut before) = (1, None, ' ');
    loop {
        let at = code.find(|c: char| !c.is_whitespace())?;
        let c = code[at..].chars().next()?;
        code = &code[at + c.len_utf8()..];
        match c {
            '"' => {
                let (text, rest) = literal(code)?;
                code = rest;
                if depth == 1 && before != '=' {
                    found = Some(text);
                }
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return found;
        }
        before = c;
    }
}

fn events(sources: &[(String, String)]) -> BTreeSet<Event> {
    let mut events = BTreeSet::new();
    for (place, code) in sources {
        for level in ["error", "warn", "info"] {
            for (at, call) in code.match_indices(&format!("tracing::{level}!(")) {
                let message = message(&code[at + call.len()..]);
                let message =
                    message.unwrap_or_else(|| panic!("{place}: an event at {level} without a message"));
                events.insert(Event { level, message, place: place.clone() });
            }
        }
    }
    events
}

/// All texts of the sources.
fn literals(sources: &[(String, String)]) -> Vec<String> {
    let mut all = Vec::new();
    for (_, code) in sources {
        let mut rest = code.as_str();
        while let Some((_, after)) = rest.split_once('"') {
            let Some((text, behind)) = literal(after) else { break };
            all.push(text);
            rest = behind;
        }
    }
    all
}

fn runbook() -> String {
    fs::read_to_string(root().join("ops/deploy/RUNBOOK.md")).unwrap()
}

/// What stands between backticks.
fn quotes(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// What the tables of lines and messages have in their first columns.
fn rows(runbook: &str) -> Vec<&str> {
    let tables = runbook.split_once("## Log lines").unwrap().1;
    let rows = tables.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    rows.flat_map(quotes).collect()
}

#[test]
fn the_runbook_explains_every_line_that_may_wake_somebody() {
    let (runbook, sources) = (runbook(), sources());
    let rows = rows(&runbook);
    let events = events(&sources);
    let loud = events.iter().filter(|event| event.level != "info");
    let known = |event: &&Event| {
        EXPLAIN_THEMSELVES.contains(&event.message.as_str())
            || rows.iter().any(|row| row.contains(' ') && event.message.starts_with(row))
            || rows.contains(&event.message.as_str())
    };
    let missing: Vec<String> = loud
        .filter(|event| !known(event))
        .map(|Event { level, message, place }| format!("{place}: {level}: {message}"))
        .collect();
    assert!(missing.is_empty(), "in no first column of RUNBOOK.md's log lines:\n{}", missing.join("\n"));
    for message in EXPLAIN_THEMSELVES {
        assert!(events.iter().any(|event| event.message == *message), "nobody says {message:?} any more");
    }
}

#[test]
fn what_the_runbook_quotes_is_said() {
    let (runbook, sources) = (runbook(), sources());
    let texts = literals(&sources);
    // "…" stands for what differs: the pieces around it must be in one text.
    let said = |quote: &str| texts.iter().any(|text| quote.split('…').all(|piece| text.contains(piece)));
    let sentence = |quote: &&str| {
        let word = quote.split(' ').next().unwrap_or_default();
        quote.contains(' ')
            && quote.starts_with(|c: char| c.is_ascii_lowercase() || c == '…')
            && !quote.contains('=')
            && !COMMANDS.contains(&word)
            && !OTHERS.contains(quote)
    };
    let lost: BTreeSet<&str> = quotes(&runbook).filter(sentence).filter(|quote| !said(quote)).collect();
    assert!(lost.is_empty(), "RUNBOOK.md quotes what nothing says: {lost:#?}");
    let mut lines: Vec<&str> = rows(&runbook).into_iter().filter(|quote| !quote.contains('=')).collect();
    assert!(lines.len() > 60, "only {} lines were found", lines.len());
    lines.retain(|quote| !said(quote));
    assert!(lines.is_empty(), "RUNBOOK.md explains what nothing says: {lines:#?}");
}
