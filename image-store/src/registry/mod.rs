//! Talking to registries: the pull half of the OCI distribution spec.

mod auth;
pub(crate) mod challenge;
mod connect;
mod failure;
mod host;
mod hosts;
mod http;
mod rounds;
mod session;
mod skip_verify;

pub use hosts::Endpoint;
pub use hosts::EndpointError;
pub use hosts::Manner;
pub use hosts::OtherRegistries;
pub use hosts::Registries;
pub use hosts::RegistryConfig;

pub(crate) use connect::Connections;
pub(crate) use failure::Failure;
pub(crate) use failure::FailureKind;
pub(crate) use failure::chain;
pub(crate) use session::Session;
pub(crate) use session::SessionSettings;
