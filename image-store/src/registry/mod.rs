//! Talking to registries.

mod hosts;

pub use hosts::Endpoint;
pub use hosts::EndpointError;
pub use hosts::Registries;
pub use hosts::RegistryConfig;
