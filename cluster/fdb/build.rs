//! Tells the linker where FoundationDB's client library is, if it is in no usual place. The bindings do that too, but do not
//! notice when the variable changes.

fn main() {
    println!("cargo:rerun-if-env-changed=FDB_CLIENT_LIB_PATH");
    if std::env::var_os("CARGO_FEATURE_CLIENT").is_some()
        && let Ok(folder) = std::env::var("FDB_CLIENT_LIB_PATH")
    {
        println!("cargo:rustc-link-search=native={folder}");
    }
}
