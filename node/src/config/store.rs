//! `[store]`: which store, and what its client must be told.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rookery_cluster::store::{FdbSettings, Url};
use toml::de::DeTable;

use super::Store;
use super::read::{Reader, Section};

pub(super) fn read(r: &mut Reader<'_>, file: &DeTable<'_>, base: &Path) -> Store {
    let section = r.section(file, "store");
    let found = r.text(&section, "url");
    let mut url = found.value;
    match url.parse() {
        Ok(Url::Fdb(cluster)) => {
            url = format!("fdb:{}", base.join(cluster).display());
            if !Url::HAS_FDB {
                let what = "is FoundationDB, which this build of rookery is without";
                let remedy = "install libclang-dev and FoundationDB's client library, and build with \
                    `cargo build --release --features fdb`; see ops/deploy/FOUNDATIONDB.md";
                r.problem(found.line, "store.url", what, remedy);
            }
        }
        Ok(_) => {}
        Err(_) => {
            let remedy = "write \"embedded:\", \"memory:\", \"dev://127.0.0.1:7300\" or \
                \"fdb:/etc/foundationdb/fdb.cluster\"";
            r.problem(found.line, "store.url", format!("is {url:?}"), remedy);
        }
    }
    let sync = r.text(&section, "durability").value == "sync";
    let free = r.number(&section, "free_megabytes").value.saturating_mul(1_000_000);
    Store { url, sync, free, fdb: fdb(r, &section, base) }
}

fn fdb(r: &mut Reader<'_>, section: &Section<'_, '_>, base: &Path) -> FdbSettings {
    let path = |r: &mut Reader<'_>, name| {
        let found = r.text(section, name);
        (!found.value.is_empty()).then(|| base.join(&found.value))
    };
    let knobs = r.list(section, "fdb_knobs");
    for knob in &knobs {
        if !knob.value.split_once('=').is_some_and(|(name, value)| !name.is_empty() && !value.is_empty()) {
            let remedy = "write \"name=value\"";
            r.problem(knob.line, "store.fdb_knobs", format!("has {:?}", knob.value), remedy);
        }
    }
    let settings = FdbSettings {
        timeout: Duration::from_secs(r.number(section, "fdb_timeout_seconds").value),
        trace: path(r, "fdb_trace_dir"),
        knobs: knobs.into_iter().map(|knob| knob.value).collect(),
        tls_certificate: path(r, "fdb_tls_certificate"),
        tls_key: path(r, "fdb_tls_key"),
        tls_ca: path(r, "fdb_tls_ca"),
        tls_verify_peers: Some(r.text(section, "fdb_tls_verify_peers").value).filter(|v| !v.is_empty()),
    };
    if settings.tls_certificate.is_some() != settings.tls_key.is_some() {
        let remedy = "a certificate and its key go together";
        r.problem(section.line, "store.fdb_tls_key", "or fdb_tls_certificate is missing", remedy);
    }
    check(r, section, "store.fdb_tls_certificate", settings.tls_certificate.as_ref());
    check(r, section, "store.fdb_tls_key", settings.tls_key.as_ref());
    check(r, section, "store.fdb_tls_ca", settings.tls_ca.as_ref());
    check(r, section, "store.fdb_trace_dir", settings.trace.as_ref());
    settings
}

fn check(r: &mut Reader<'_>, section: &Section<'_, '_>, option: &str, path: Option<&PathBuf>) {
    let Some(path) = path else { return };
    if let Err(error) = std::fs::metadata(path) {
        let what = format!("{} cannot be read: {error}", path.display());
        r.problem(
            section.line,
            option,
            what,
            "correct the path, or make it readable for the user that runs rookery",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn lines(store: &str) -> Vec<String> {
        let text = format!("[store]\n{store}\n[[domain]]\nname = 'a.example'\nself_signed = true");
        match parse(&text, Path::new("/nowhere")) {
            Ok(_) => Vec::new(),
            Err(problems) => problems.into_iter().map(|p| p.option).collect(),
        }
    }

    #[test]
    fn urls() {
        for good in ["embedded:", "memory:", "dev://127.0.0.1:7300", "dev://store.example.org:1"] {
            assert!(lines(&format!("url = '{good}'")).is_empty(), "{good}");
        }
        for bad in ["", "dev:127.0.0.1:7300", "dev://here", "fdb:", "postgres://x"] {
            assert_eq!(lines(&format!("url = '{bad}'")), ["store.url"], "{bad}");
        }
        let fdb = lines("url = 'fdb:fdb.cluster'");
        assert_eq!(fdb.is_empty(), Url::HAS_FDB, "refused by a build that lacks it: {fdb:?}");
    }

    #[test]
    fn what_the_client_of_foundationdb_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), "").unwrap();
        let text = "[store]\nfdb_timeout_seconds = 3\nfdb_knobs = ['max_batch_size=10']\nfdb_tls_ca = 'ca.pem'\n\
            fdb_tls_verify_peers = 'Check.Valid=1'\nfdb_trace_dir = '.'\n[[domain]]\nname = 'a.example'\nself_signed = true";
        let fdb = parse(text, folder.path()).unwrap().store.fdb;
        assert_eq!((fdb.timeout, fdb.knobs.len()), (Duration::from_secs(3), 1));
        assert_eq!(fdb.tls_ca, Some(folder.path().join("ca.pem")));
        assert_eq!(fdb.tls_verify_peers.as_deref(), Some("Check.Valid=1"));
        assert_eq!(fdb.trace, Some(folder.path().join(".")));
        assert_eq!(lines("fdb_knobs = ['x', 'a=1', '=2']"), ["store.fdb_knobs"; 2]);
        assert_eq!(lines("fdb_tls_key = 'k'"), ["store.fdb_tls_key"; 2], "its certificate, and its file");
        assert_eq!(lines("fdb_timeout_seconds = 0"), ["store.fdb_timeout_seconds"]);
    }
}
