//! What the daemon serves beside CRI.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::value::BaseUrl;

/// The server for exec, attach and port-forward streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Streaming {
    /// The IP address to listen on; not the unspecified one (`0.0.0.0`, `::`), which no client could be told to connect to.
    #[schemars(with = "String")]
    pub address: IpAddr,
    /// The TCP port; 0 lets the kernel choose a free one.
    pub port: u16,
    /// Seconds after which a stream without any bytes is closed.
    #[schemars(range(min = 1, max = 604800))]
    pub idle_timeout_seconds: u64,
    /// Seconds a client has to open its streams after it has connected.
    #[schemars(range(min = 1, max = 3600))]
    pub creation_timeout_seconds: u64,
}

impl Default for Streaming {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
            idle_timeout_seconds: 4 * 60 * 60,
            creation_timeout_seconds: 30,
        }
    }
}

/// The endpoint for Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Serve `/metrics`.
    pub enabled: bool,
    /// The IP address and TCP port to listen on. There is no authentication: whoever reaches it can read the names of pods.
    #[schemars(with = "String")]
    pub address: SocketAddr,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            enabled: false,
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464),
        }
    }
}

/// Traces of requests by OTLP over gRPC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tracing {
    /// Send traces.
    pub enabled: bool,
    /// The collector.
    pub endpoint: BaseUrl,
    /// How many of a million requests that come without a sampling decision are traced.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub sampling_per_million: u32,
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            enabled: false,
            endpoint: BaseUrl::constant("http://127.0.0.1:4317"),
            sampling_per_million: 1_000_000,
        }
    }
}
