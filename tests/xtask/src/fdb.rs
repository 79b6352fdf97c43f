//! FoundationDB: its engine is type-checked always, and run where its programs and its client library are on the machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use rookery_tests::server::find_program;

/// What bindgen reads FoundationDB's header with.
pub(crate) fn libclang() -> bool {
    let named = |folder: &Path| {
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files.into_iter().any(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            // Not libclang-cpp, which is another library.
            let rest = name.strip_prefix("libclang");
            rest.is_some_and(|rest| {
                rest.starts_with(".so")
                    || (rest.contains(".so") && rest[1..].starts_with(|c: char| c.is_ascii_digit()))
            })
        })
    };
    let own = std::env::var_os("LIBCLANG_PATH").map(PathBuf::from).into_iter();
    let llvm = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|e| e.path());
    let llvm = llvm.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("llvm")));
    own.chain(llvm.map(|p| p.join("lib"))).chain(libraries()).any(|folder| named(&folder))
}

/// Where libraries usually are.
fn libraries() -> impl Iterator<Item = PathBuf> {
    let machine = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    ["/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", &machine].map(PathBuf::from).into_iter()
}

/// The folder of `libfdb_c`, if it is on this machine.
fn client() -> Option<PathBuf> {
    let own = std::env::var_os("FDB_CLIENT_LIB_PATH").and_then(|path| std::path::absolute(path).ok());
    own.into_iter().chain(libraries()).find(|folder| folder.join("libfdb_c.so").is_file())
}

fn program(name: &str) -> bool {
    let own = std::env::var_os("FDB_BIN_DIR").map(PathBuf::from);
    let usual = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    own.into_iter().chain(usual).any(|folder| folder.join(name).is_file()) || find_program(name).is_some()
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
