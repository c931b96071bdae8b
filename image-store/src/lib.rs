//! Images: from a reference that somebody typed to layers that root filesystems stand on.
//!
//! [`ImageStore`] is the handle that everybody holds. It keeps three things: records in
//! `images.db` (what an image is called, its config, its layers), a spool with layers on
//! their way, and a [`LayerStore`] that keeps the unpacked ones. The store knows nothing of CRI, pods
//! or file systems; `nexcage-overlay` and `nexcage-zfs` implement [`LayerStore`], with the applier in
//! [`apply`], and the daemon maps requests to calls.
//!
//! # A pull
//!
//! 1. *Resolve* (`pull/resolve.rs`). The reference leads to a manifest or an index; the index
//!    to the image for this [`Platform`]; the image to a config and layers. This is done anew for every
//!    pull, with the credentials of that pull, even if the image is here: it is the proof that this
//!    caller may have it. Only after it does a pull share anything with others.
//! 2. *Fetch* (`pull/flight.rs`). Layers that the layer store lacks are downloaded side by side. A
//!    blob that several pulls want is one *flight*: one of them moves it on with its own
//!    credentials, the others wait, and take over where it stopped if it fails or is dropped.
//!    Bytes go through a bounded channel to a blocking thread (`pull/inflate.rs`), which hashes,
//!    inflates, hashes again and writes the tar stream into the spool. Memory stays bounded whatever
//!    the size of a layer.
//! 3. *Apply* (`pull/layers.rs`). In order, each as soon as it is complete and the one below it
//!    is applied; in a task of its own, so that a dropped pull never leaves the layer store in the middle.
//! 4. *Record* (`records.rs`). One transaction when all layers are there. Before it the image
//!    does not exist; after it the image is whole.
//!
//! Registries are spoken to by `registry/`: a session per pull, hosts in order (mirrors, then
//! the registry itself), each with its own authentication, connections that know no credentials.
//!
//! # Invariants
//!
//! * Nothing is believed: manifest, config, blob and tar stream are checked against their digests,
//!   lengths against their descriptors, and everything has a limit.
//! * Credentials belong to one pull. They go to the registry that the reference names and to the
//!   token service that this registry names (by https unless the registry is a plain one), never along
//!   a redirect to another origin, never to a mirror; a mirror gets what the credentials file has for it.
//! * A layer is under one lock while the layer store is asked to find, apply or remove it. A pull
//!   holds leases on its layers from before it looks for them until its record is written, and
//!   [`ImageStore::collect`] removes only what has neither lease nor record.
//! * The spool holds nothing that outlives its pulls; it is emptied when the store is opened.
//! * Tasks: applying and collecting run in tasks that [`ImageStore::close`] waits for. Everything
//!   else lives in the caller's future and ends with it.
//!
//! Start reading at [`ImageStore::pull`], then `pull/mod.rs`.

pub mod apply;
mod credentials;
mod credentials_file;
mod digest;
#[doc(hidden)]
pub mod fuzz;
mod gc;
pub mod idmap;
mod keyed;
mod layer_store;
mod leases;
mod manifest;
mod options;
mod platform;
mod pull;
mod records;
mod reference;
mod registry;
mod spool;
mod store;

pub use credentials::AuthFields;
pub use credentials::Credentials;
pub use credentials::CredentialsError;
pub use digest::ChainId;
pub use digest::Digest;
pub use digest::DigestError;
pub use layer_store::Checkpoint;
pub use layer_store::LayerStore;
pub use layer_store::LayerStoreError;
pub use layer_store::MountOptions;
pub use layer_store::RootfsId;
pub use layer_store::RootfsOptions;
pub use layer_store::SpooledLayer;
pub use layer_store::StoredLayer;
pub use layer_store::Usage;
pub use manifest::Manifest;
pub use manifest::ManifestError;
pub use manifest::parse_manifest;
pub use options::ImageStoreOptions;
pub use options::RetryPolicy;
pub use platform::Platform;
pub use pull::LayerProgress;
pub use pull::LayerState;
pub use pull::ProgressSender;
pub use pull::PullError;
pub use pull::PullPhase;
pub use pull::PullProgress;
pub use records::ImageId;
pub use records::ImageRecord;
pub use reference::Reference;
pub use reference::ReferenceError;
pub use reference::ReferenceProblem;
pub use registry::Endpoint;
pub use registry::EndpointError;
pub use registry::Manner;
pub use registry::OtherRegistries;
pub use registry::Registries;
pub use registry::RegistryConfig;
pub use store::Collected;
pub use store::ImageStore;
pub use store::ImageStoreError;
