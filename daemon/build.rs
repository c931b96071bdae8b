//! Compiles `proto/nexcage/v1` without `protoc`.

use std::error::Error;

use tonic_prost_build::Config;

const PROTOS: [&str; 2] = [
    "proto/nexcage/v1/checkpoints.proto",
    "proto/nexcage/v1/images.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for proto in PROTOS {
        println!("cargo::rerun-if-changed={proto}");
    }
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    // A password must not reach a log through `{:?}`: its Debug is in src/admin.rs.
    let mut config = Config::new();
    config.skip_debug(["nexcage.v1.PullRequest"]);
    tonic_prost_build::configure()
        .generate_default_stubs(false)
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
