//! A program that was linked against FoundationDB's client library in an unusual place shall find it there.

fn main() {
    println!("cargo:rerun-if-env-changed=FDB_CLIENT_LIB_PATH");
    if std::env::var_os("CARGO_FEATURE_FDB").is_some()
        && let Ok(folder) = std::env::var("FDB_CLIENT_LIB_PATH")
    {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
    }
}
