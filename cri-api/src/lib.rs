//! The wire: CRI v1 as protobuf messages, service traits and clients.
//!
//! The contract is `proto/runtime/v1/api.proto`, the 43 calls of the Go module
//! `k8s.io/cri-api` v0.37.2. `build.rs` compiles it in-process (no `protoc`)
//! into [`v1`]: one struct per message, `runtime_service_server::RuntimeService`
//! and `image_service_server::ImageService` to implement, and a client for each,
//! which the system tests use.
//!
//! There is nothing else here. The crate knows nothing of pods, raises no message
//! limits and checks no field: that is the work of those who serve the calls.
//!
//! What to know when using the types:
//!
//! * Enums travel as `i32`. A number that this version does not know is legal on
//!   the wire, so use `Enum::try_from(number)` and refuse what it refuses; the
//!   getters that prost generates turn it into the default silently.
//! * `KeyValue.value` is bytes: secrets in the environment need not be UTF-8.
//! * Some messages mean different things when missing and when empty, for example
//!   `SecurityProfile`: missing is unconfined, empty is the runtime's default.
//! * `{:?}` never shows credentials or values of environment variables.
//!
//! `tests/descriptor.rs` compares the compiled contract with the Go module's own
//! descriptors; it needs `go` and is run by `cargo xtask test system`.

mod redact;

/// Messages, enums and services of the protobuf package `runtime.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

/// The compiled contract as an encoded `google.protobuf.FileDescriptorSet`,
/// without comments and source positions. gRPC reflection and tests read it.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
