//! The shape of this crate: its folders use only those below them, and a file is one subject.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The folders of `src`, lowest first. Each uses only itself and those before it.
const ORDER: [&str; 16] = [
    "runtime",
    "connection",
    "placement",
    "host",
    "maintenance",
    "routing",
    "session",
    "auth",
    "user",
    "features",
    "component",
    "export",
    "link",
    "toys",
    "server",
    "lib",
];

/// What is still wrong: a user asks the list of features what to do, and the contract of features names the user; a session asks
/// that list which messages are worth keeping.
const KNOWN: [(&str, &str); 2] = [("session", "features"), ("user", "features")];

/// A file with more lines than this says why in its head, by a line with `Length:`.
const LINES: usize = 400;

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&root, &mut all);
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
        (name, std::fs::read_to_string(path).unwrap())
    };
    all.into_iter().map(read).collect()
}

/// The folder of a file; of a file at the top, its name.
fn folder(name: &str) -> &str {
    name.split(['/', '.']).next().unwrap()
}

/// What of a file is not a test.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap()
}

#[test]
fn folders_use_only_those_below_them() {
    let place = |name: &str| ORDER.iter().position(|folder| *folder == name);
    let (mut wrong, mut known) = (BTreeSet::new(), BTreeSet::new());
    for (name, text) in sources() {
        if name.contains("test") {
            continue;
        }
        let from = folder(&name).to_owned();
        assert!(place(&from).is_some(), "{name} is in a folder that has no place in the order");
        for line in code(&text).lines().filter(|line| !line.trim_start().starts_with("//")) {
            for path in line.split("crate::").skip(1) {
                let to: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if place(&to) <= place(&from) || to.starts_with(char::is_uppercase) {
                    continue;
                }
                match KNOWN.iter().find(|(a, b)| (*a, *b) == (from.as_str(), to.as_str())) {
                    Some(pair) => drop(known.insert(*pair)),
                    None => drop(wrong.insert(format!("{name} uses {to}"))),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        known,
        KNOWN.into_iter().collect(),
        "what is known to be wrong has been mended: take it out of KNOWN"
    );
}

#[test]
fn a_long_file_says_why() {
    let long = |(name, text): &(String, String)| {
        let head = text.lines().take_while(|line| line.starts_with("//!"));
        let says = head.clone().any(|line| line.contains("Length:"));
        (code(text).lines().count() > LINES && !says)
            .then(|| format!("{name}: {}", code(text).lines().count()))
    };
    let long: Vec<String> = sources().iter().filter_map(long).collect();
    assert!(long.is_empty(), "{long:#?}");
}
