//! The documents agree with the code: the generated parts of CONFIGURATION.md and XEPS.md, doap.xml, and the example
//! configuration. `UPDATE_DOCUMENTS=1 cargo test -p rookery --test documents` updates them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code"
)]

use std::path::{Path, PathBuf};

use rookery_actors::features::doap;
use rookery_node::config;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

/// Compares a file with what it should be, or writes it if that is asked for.
fn agrees(name: &str, wanted: &str, found: &str) {
    if found == wanted {
        return;
    }
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        return std::fs::write(path(name), wanted).unwrap();
    }
    let at = found.lines().zip(wanted.lines()).take_while(|(a, b)| a == b).count();
    panic!(
        "{name} is not what the code says, from line {} on: {:?}; run UPDATE_DOCUMENTS=1 cargo test -p rookery --test documents",
        at + 1,
        wanted.lines().nth(at)
    );
}

/// `text` with `part` between `<!-- name -->` and `<!-- /name -->`.
fn with_part(text: &str, name: &str, part: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("no {end}"));
    format!("{before}{begin}{}\n{end}{after}", part.trim())
}

#[test]
fn the_configuration_reference_has_all_options() {
    let name = "ops/deploy/CONFIGURATION.md";
    let found = std::fs::read_to_string(path(name)).unwrap();
    agrees(name, &with_part(&found, "configuration", &config::markdown()), &found);
}

#[test]
fn the_page_of_xeps_has_all_features() {
    let name = "ops/deploy/XEPS.md";
    let found = std::fs::read_to_string(path(name)).unwrap();
    agrees(name, &with_part(&found, "xeps", &doap::table()), &found);
}

#[test]
fn the_doap_file_is_that_of_the_features() {
    let found = std::fs::read_to_string(path("doap.xml")).unwrap_or_default();
    agrees("doap.xml", &doap::doap(), &found);
}

/// As it stands, but for its certificate; and with every suggestion taken.
#[test]
fn the_example_configuration_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["fullchain.pem", "key.pem"] {
        std::fs::write(folder.path().join(file), "").unwrap();
    }
    let example = std::fs::read_to_string(path("ops/deploy/rookery.example.toml")).unwrap();
    let example = example.replace("/etc/rookery/example.org", folder.path().to_str().unwrap());
    let parsed = config::parse(&example, Path::new("/etc/rookery")).unwrap();
    assert_eq!(parsed.data_dir, Path::new("/var/lib/rookery"));
    assert!(!parsed.domains[0].registration && parsed.store.sync);

    let suggestion = |line: &&str| {
        line.starts_with('#') && !line.starts_with("# ") && (line.contains(" = ") || line.starts_with("#["))
    };
    std::fs::write(folder.path().join("irc.secret"), "a long secret of a component").unwrap();
    let example =
        example.replace("/etc/rookery/irc.secret", folder.path().join("irc.secret").to_str().unwrap());
    assert!(example.lines().filter(suggestion).count() > 5);
    let all: Vec<&str> = example.lines().map(|l| if suggestion(&l) { &l[1..] } else { l }).collect();
    config::parse(&all.join("\n"), Path::new("/etc/rookery")).unwrap();
}
