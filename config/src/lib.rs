//! The configuration file of nexcage, `/etc/nexcage/config.json`.
//!
//! The types are the documentation: the comment on a field is its entry in `docs/config.md` and its
//! `description` in the JSON schema, the `Default` implementations are the default file. [`schema`],
//! [`default_file`] and [`markdown`] are pure functions of the types; a test compares the committed
//! files with what they return, and rewrites them when `NEXCAGE_UPDATE=1` is set.
//!
//! The file is strict JSON, read in two passes that both go on after a problem, so that one
//! [`ConfigError::Invalid`] names everything that is wrong at once:
//!
//! 1. the text becomes a JSON value (a key given twice is refused), and the value becomes a
//!    [`Config`]: unknown keys, wrong types, numbers out of range and other values that a type does not
//!    allow are noted with their path and taken out, until the rest fits;
//! 2. what concerns several keys is checked on the whole.
//!
//! A [`Config`] from [`Config::load`] or [`Config::parse`] has therefore passed every check that
//! can be made without looking at the machine. Whether files and programs it names exist is found
//! out by those who use them.
//!
//! There are no tasks and no channels, and nothing is cached. On SIGHUP the daemon loads the file again and asks
//! [`changes_needing_restart`] which changed keys it cannot take over.
//!
//! Start reading at [`Config`], then `load.rs`.

mod check;
mod config;
mod error;
mod generate;
mod handlers;
mod images;
mod load;
mod lxc;
mod markdown;
mod names;
mod network;
mod path;
mod proxmox;
mod reload;
mod rootfs;
mod security;
mod services;
mod storage;
mod strict;
mod value;

pub use config::Backend;
pub use config::Config;
pub use config::Family;
pub use config::Kubernetes;
pub use config::LogFormat;
pub use config::LogLevel;
pub use config::Logging;
pub use error::ConfigError;
pub use error::Problem;
pub use generate::default_file;
pub use generate::schema;
pub use handlers::BACKEND_ANNOTATIONS;
pub use handlers::Handler;
pub use handlers::PROXMOX_HANDLERS;
pub use handlers::RuntimeHandler;
pub use images::Images;
pub use images::Registry;
pub use load::DEFAULT_PATH;
pub use lxc::CgroupDriver;
pub use lxc::IdMap;
pub use lxc::Lxc;
pub use lxc::Sandbox;
pub use markdown::markdown;
pub use network::Network;
pub use proxmox::Proxmox;
pub use proxmox::ProxmoxStart;
pub use proxmox::VmidRange;
pub use reload::RELOADABLE;
pub use reload::changes_needing_restart;
pub use reload::keys_without_effect;
pub use rootfs::Compression;
pub use rootfs::Quantity;
pub use rootfs::RecordSize;
pub use rootfs::RootfsProperties;
pub use rootfs::SyncMode;
pub use security::SANDBOX_PROFILE;
pub use security::SeccompProfile;
pub use security::Security;
pub use services::Metrics;
pub use services::Streaming;
pub use services::Tracing;
pub use storage::LayerLimits;
pub use storage::Storage;
pub use storage::StorageDriver;
pub use storage::Zfs;
pub use value::AbsolutePath;
pub use value::BaseUrl;
pub use value::Capability;
pub use value::ValueError;
