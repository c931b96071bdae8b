//! Compiles `proto/nexcage/v1/images.proto` without `protoc`.

use std::error::Error;

use tonic_prost_build::Config;

const PROTO: &str = "proto/nexcage/v1/images.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let descriptors = protox::compile([PROTO], ["proto"])?;
    // A password must not reach a log through `{:?}`: its Debug is in src/admin.rs.
    let mut config = Config::new();
    config.skip_debug(["nexcage.v1.PullRequest"]);
    tonic_prost_build::configure()
        .generate_default_stubs(false)
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
