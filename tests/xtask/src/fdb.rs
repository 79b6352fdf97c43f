//! FoundationDB: its engine is type-checked always, and run where its programs and its client library are on the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use rookery_tests::server::find_program;

/// What bindgen reads FoundationDB's header with: the library, and clang's own headers, which Debian has in another package.
pub(crate) fn libclang() -> bool {
    let named = |folder: &Path| {
        entries(folder).any(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Not libclang-cpp, which is another library.
            let rest = name.strip_prefix("libclang");
            rest.is_some_and(|rest| {
                rest.starts_with(".so")
                    || (rest.contains(".so") && rest[1..].starts_with(|c: char| c.is_ascii_digit()))
            })
        })
    };
    let headers = |folder: &Path| {
        entries(&folder.join("clang")).any(|version| version.join("include/stddef.h").is_file())
    };
    // A user who names the folder knows what is there.
    if std::env::var_os("LIBCLANG_PATH").is_some_and(|folder| named(Path::new(&folder))) {
        return true;
    }
    let llvm = entries(Path::new("/usr/lib"));
    let llvm = llvm.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("llvm")));
    let folders: Vec<PathBuf> = llvm.map(|p| p.join("lib")).chain(libraries()).collect();
    folders.iter().any(|folder| named(folder)) && folders.iter().any(|folder| headers(folder))
}

/// What is in a folder; nothing, if it is not there.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// Where libraries usually are.
fn libraries() -> impl Iterator<Item = PathBuf> {
    let machine = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", &machine].map(PathBuf::from).into_iter()
}

/// The folder of `libfdb_c`, if it is on this machine.
pub(crate) fn client() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).and_then(|path| std::path::absolute(path).ok());
    // Some name the file; what builds with it wants the folder.
    let own =
        named("FDB_CLIENT_LIB_PATH").map(|path| if path.is_file() { path.with_file_name("") } else { path });
    let search = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let search: Vec<PathBuf> =
        std::env::split_paths(&search).filter_map(|folder| std::path::absolute(folder).ok()).collect();
    let beside = named("FDB_BIN_DIR").into_iter().flat_map(|programs| [programs.join("../lib"), programs]);
    let mut folders = own.into_iter().chain(search).chain(beside).chain(libraries());
    folders.find(|folder| folder.join("libfdb_c.so").is_file())
}

fn program(name: &str) -> bool {
    let own = std::env::var_os("FDB_BIN_DIR").map(PathBuf::from);
    let usual = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    own.into_iter().chain(usual).any(|folder| folder.join(name).is_file()) || find_program(name).is_some()
}

/// Whether somebody said where FoundationDB is: not to find it is a failure then.
pub(crate) fn is_named() -> bool {
    ["FDB_BIN_DIR", "FDB_CLIENT_LIB_PATH"].into_iter().any(|name| std::env::var_os(name).is_some())
}

/// Why nothing can be run on FoundationDB here; or where its client library is.
pub(crate) fn ready() -> Result<PathBuf, &'static str> {
    if !libclang() {
        return Err("no libclang");
    }
    if !program("fdbserver") || !program("fdbcli") {
        return Err("no fdbserver");
    }
    client().ok_or("no libfdb_c")
}

/// Lets `command` build and run programs with the client library of that folder.
pub(crate) fn with_client(command: &mut Command, folder: &Path) {
    let mut search = vec![folder.to_owned()];
    search.extend(std::env::var_os("LD_LIBRARY_PATH").iter().flat_map(std::env::split_paths));
    command.env("FDB_CLIENT_LIB_PATH", folder);
    // Cargo runs tests in the folder of their package.
    if let Some(programs) = std::env::var_os("FDB_BIN_DIR").and_then(|path| std::path::absolute(path).ok()) {
        command.env("FDB_BIN_DIR", programs);
    }
    if let Ok(search) = std::env::join_paths(search) {
        command.env("LD_LIBRARY_PATH", search);
    }
}
