//! What can go wrong with a pod's network.

use std::fmt;

use camino::Utf8PathBuf;
use nexcage_command::CommandError;
use serde::{Deserialize, Serialize};

/// Error code of a plugin that asks to be called again later (specification, section 5).
const TRY_AGAIN_LATER: u64 = 11;

/// Codes by which STATUS says that a plugin cannot serve now.
const NOT_AVAILABLE: [u64; 2] = [50, 51];

/// `CNI_COMMAND`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verb {
    /// Attach.
    Add,
    /// Detach.
    Del,
    /// Is the attachment as it should be?
    Check,
    /// Remove what belongs to no attachment.
    Gc,
    /// Could the plugin attach now?
    Status,
    /// Which versions does it speak?
    Version,
}

impl Verb {
    /// As in `CNI_COMMAND`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A pod's network could not be set up, checked or taken down.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CniError {
    /// The attachment is not in the cache.
    #[error("container {container_id} has no interface {ifname}")]
    NotFound {
        /// The pod sandbox.
        container_id: String,
        /// The interface.
        ifname: String,
    },
    /// There is no configuration.
    #[error(
        "no network is configured: {dir} has no .conf, .conflist or .json file; install a network plugin, or write a configuration there"
    )]
    NoNetwork {
        /// The configuration directory.
        dir: Utf8PathBuf,
    },
    /// A configuration cannot be read.
    #[error("cannot read the network configuration {path}")]
    Read {
        /// The file or directory.
        path: Utf8PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
    /// A configuration is wrong.
    #[error("network configuration {file}: {key}: {reason}")]
    Config {
        /// The file.
        file: Utf8PathBuf,
        /// The key, or `.` for the whole file.
        key: String,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// A plugin is not installed.
    #[error(
        "CNI plugin {plugin} is not in {looked}; on Debian: apt install containernetworking-plugins, other plugins come with their network"
    )]
    PluginNotFound {
        /// The plugin's type.
        plugin: String,
        /// The directories that were searched.
        looked: String,
    },
    /// A plugin and the configuration have no version in common.
    #[error(
        "CNI plugin {plugin} supports versions {supported}, but {file} asks for {wanted}; change its cniVersion or install another plugin"
    )]
    Version {
        /// The plugin's file.
        plugin: Utf8PathBuf,
        /// What it supports.
        supported: String,
        /// The configuration file.
        file: Utf8PathBuf,
        /// What it asks for.
        wanted: String,
    },
    /// The attachment cannot be handed to a plugin.
    #[error("attachment: {field} {reason}")]
    Attachment {
        /// The field of `Attachment`.
        field: &'static str,
        /// What is allowed.
        reason: &'static str,
    },
    /// The network namespace does not exist.
    #[error("{path:?} is not a network namespace")]
    NoNetns {
        /// The path; empty if none was given.
        path: Utf8PathBuf,
    },
    /// A plugin said no.
    #[error(
        "CNI plugin {plugin} failed on {verb} (code {code}): {message}{}",
        appended(details)
    )]
    Plugin {
        /// The plugin's type.
        plugin: String,
        /// What it was asked.
        verb: Verb,
        /// Its code: below 100 the specification's, else its own.
        code: u64,
        /// Its message.
        message: String,
        /// Its longer message; may be empty.
        details: String,
    },
    /// A plugin could not be started, did not end in time, or failed without an error object.
    #[error("CNI plugin {plugin} could not do {verb}")]
    Call {
        /// The plugin's type.
        plugin: String,
        /// What it was asked.
        verb: Verb,
        /// The failed call.
        #[source]
        source: CommandError,
    },
    /// A plugin answered something that is not a result.
    #[error("CNI plugin {plugin} gave no valid answer to {verb}: {reason}")]
    Answer {
        /// The plugin's type.
        plugin: String,
        /// What it was asked.
        verb: Verb,
        /// What is wrong with it.
        reason: String,
    },
    /// The plugins succeeded, but gave the pod no address.
    #[error("network {network} gave {ifname} of container {container_id} no IP address")]
    NoAddress {
        /// The network's name.
        network: String,
        /// The pod sandbox.
        container_id: String,
        /// The interface.
        ifname: String,
    },
    /// Work on files was not done to its end: the process is ending, or it panicked.
    #[error("the network call was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
    /// The cache cannot be read or written.
    #[error("cannot use {path}, where results of CNI plugins are kept")]
    Cache {
        /// The file or directory.
        path: Utf8PathBuf,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

impl CniError {
    /// Whether the same call may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Plugin { code, .. } => *code == TRY_AGAIN_LATER || NOT_AVAILABLE.contains(code),
            Self::Call { source, .. } => source.is_retryable(),
            // A network plugin installs itself as a pod, after this daemon has started.
            Self::NoNetwork { .. } => true,
            Self::Read { source, .. } | Self::Cache { source, .. } => matches!(
                source.kind(),
                std::io::ErrorKind::StorageFull
                    | std::io::ErrorKind::Interrupted
                    | std::io::ErrorKind::ResourceBusy
            ),
            Self::NotFound { .. }
            | Self::PluginNotFound { .. }
            | Self::Config { .. }
            | Self::Version { .. }
            | Self::Attachment { .. }
            | Self::NoNetns { .. }
            | Self::Answer { .. }
            | Self::NoAddress { .. }
            | Self::Interrupted(_) => false,
        }
    }
}

/// `; details`, or nothing.
fn appended(details: &str) -> String {
    match details.trim() {
        "" => String::new(),
        details => format!("; {details}"),
    }
}
