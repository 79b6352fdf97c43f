//! Compiles the `.proto` files with protox, so that a build needs no system protoc.

/// Messages with a password in them; `lib.rs` writes their `Debug` by hand.
const SECRET: &[&str] = &[
    ".rookery.admin.v1.UserAddRequest",
    ".rookery.admin.v1.UserPasswdRequest",
    ".rookery.admin.v1.UserImportLine",
    ".rookery.admin.v1.ImportRequest",
    ".rookery.admin.v1.ExportResponse",
];

/// Messages that the command line prints as JSON. Their field names are those of the `.proto` file.
const PRINTED: &[&str] = &[
    "User",
    "Session",
    "S2sStream",
    "S2sPair",
    "StatusResponse",
    "ImportReport",
    "ImportError",
    "ClusterStatusResponse",
    "ClusterNode",
    "ShardGroup",
    "ShardRange",
    "Certificate",
];

/// Every file, relative to `proto/`.
const FILES: &[&str] = &[
    "rookery/admin/v1/admin.proto",
    "rookery/mesh/v1/mesh.proto",
    "rookery/payload/v1/payload.proto",
    "rookery/store/v1/store.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let mut builder = tonic_prost_build::configure().bytes(".").skip_debug(SECRET);
    for message in PRINTED {
        builder =
            builder.message_attribute(format!(".rookery.admin.v1.{message}"), "#[derive(serde::Serialize)]");
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}
