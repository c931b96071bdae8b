//! Compiles `proto/runtime/v1/api.proto` without `protoc`.

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;
use tonic_prost_build::Config;

const PROTO: &str = "proto/runtime/v1/api.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);

    let descriptors = protox::compile([PROTO], ["proto"])?;
    let mut bare = descriptors.clone();
    for file in &mut bare.file {
        file.source_code_info = None;
    }
    std::fs::write(out.join("descriptors.bin"), bare.encode_to_vec())?;

    // Credentials and environment values must not reach a log through `{:?}`:
    // their Debug is written by hand in src/redact.rs.
    let mut config = Config::new();
    config.skip_debug(["runtime.v1.AuthConfig", "runtime.v1.KeyValue"]);

    // A server without default stubs has to name each call, so a call added to
    // the contract is an error of the compiler until it is answered.
    tonic_prost_build::configure()
        .generate_default_stubs(false)
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
