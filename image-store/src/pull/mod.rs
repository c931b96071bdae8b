//! From a reference to a recorded image.

mod error;
mod flight;
mod inflate;
mod layers;
mod progress;
mod resolve;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use oci_spec::image::ImageConfiguration;
use tokio::sync::Mutex;

pub use error::PullError;
pub use progress::LayerProgress;
pub use progress::LayerState;
pub use progress::ProgressSender;
pub use progress::PullPhase;
pub use progress::PullProgress;

pub(crate) use flight::Flight;
pub(crate) use inflate::LayerContent;

use layers::LayerWork;
use progress::Reporter;
use resolve::{Resolved, Resolver, refuse};

use crate::credentials::Credentials;
use crate::credentials_file::NodeCredentials;
use crate::digest::{ChainId, Digest};
use crate::manifest::parse_config;
use crate::records::{ImageId, ImageRecord, NewImage};
use crate::reference::Reference;
use crate::registry::{Session, SessionSettings, chain};
use crate::store::Shared;

/// A config on its way, shared by all pulls that want it.
pub(crate) type ConfigFlight = Mutex<Option<Bytes>>;

/// What a config says, and as it was sent.
struct Config {
    parsed: ImageConfiguration,
    json: String,
    diff_ids: Vec<Digest>,
    /// Kept until the record is written, so that a pull that asks meanwhile finds either the flight
    /// or the record.
    _flight: Arc<ConfigFlight>,
}

/// Pulls an image and records it. Cancel-safe: a record is written in one transaction at the end,
/// and layers that were applied by then are kept for the next try or collected.
pub(crate) async fn pull(
    shared: &Shared,
    reference: &Reference,
    credentials: &Credentials,
    progress: Option<ProgressSender>,
) -> Result<ImageRecord, PullError> {
    let reporter = Reporter::new(progress);
    reporter.phase(PullPhase::Resolving);
    let session = open_session(shared, reference, credentials).await?;
    let resolver = Resolver {
        session: &session,
        platform: &shared.options.platform,
        max_bytes: shared.options.max_manifest_bytes,
    };
    let resolved = resolver.resolve(reference).await?;
    check_sizes(shared, &session, &resolved)?;
    let config = config(shared, &session, &resolved).await?;
    check_platform(shared, &session, &resolved, &config.parsed)?;

    let chain = ChainId::stack(&config.diff_ids);
    // Held until the record is written: from here on nothing may collect these layers.
    let _lease = shared.leases.take(&chain);
    let work = LayerWork {
        shared,
        session: &session,
        resolved: &resolved,
        diff_ids: &config.diff_ids,
        chain: &chain,
        reporter: &reporter,
    };
    let unpacked = work.run().await?;

    let record = shared
        .records
        .save(NewImage {
            id: ImageId(resolved.blobs.config.digest.clone()),
            size: unpacked.saturating_add(config.json.len() as u64),
            config: config.json.clone(),
            chain,
            tag: reference.repo_tag(),
            digest: reference.repo_digest(&resolved.digest),
            now: Timestamp::now(),
        })
        .await?;
    nexcage_failpoint::hit("image.recorded");
    reporter.phase(PullPhase::Done);
    tracing::info!(%reference, id = %record.id, bytes = record.size, "image pulled");
    Ok(record)
}

async fn open_session(
    shared: &Shared,
    reference: &Reference,
    credentials: &Credentials,
) -> Result<Session, PullError> {
    let node_credentials = match &shared.options.credentials_file {
        None => NodeCredentials::default(),
        Some(path) => {
            let file = path.clone();
            tokio::task::spawn_blocking(move || NodeCredentials::read(&file))
                .await
                .map_err(|_| PullError::Closing)?
                .map_err(|error| PullError::Settings {
                    reference: reference.to_string(),
                    detail: format!("credentials file {path}: {}", chain(&error)),
                })?
        }
    };
    let (registries, connections) = shared.registries();
    let settings = SessionSettings {
        registries: &registries,
        connections: &connections,
        node_credentials: &node_credentials,
        retry: &shared.options.retry,
        progress_timeout: shared.options.progress_timeout,
    };
    Session::open(&settings, reference, credentials)
}

/// Refuses what is too large before a byte of it is asked for.
fn check_sizes(shared: &Shared, session: &Session, resolved: &Resolved) -> Result<(), PullError> {
    let refuse = |what: String, size: u64, max: u64| PullError::Unsupported {
        reference: session.subject(),
        detail: format!("{what} has {size} bytes, more than the {max} allowed"),
    };
    let config = &resolved.blobs.config;
    let max = shared.options.max_manifest_bytes;
    if config.size > max {
        return Err(refuse(
            format!("config {}", config.digest),
            config.size,
            max,
        ));
    }
    let max = shared.options.max_layer_bytes;
    for layer in &resolved.blobs.layers {
        if layer.size > max {
            return Err(refuse(format!("layer {}", layer.digest), layer.size, max));
        }
    }
    Ok(())
}

/// The image's config: from the records if the image is here, else from the registry, once for
/// all pulls that want it now.
async fn config(
    shared: &Shared,
    session: &Session,
    resolved: &Resolved,
) -> Result<Config, PullError> {
    let blob = &resolved.blobs.config;
    // First the flight, then the look into the records, as with layers.
    let flight = shared.configs.get(blob);
    let bytes = match shared.records.config(&ImageId(blob.digest.clone())).await? {
        Some(known) => Bytes::from(known),
        None => {
            let mut held = flight.lock().await;
            if let Some(bytes) = &*held {
                bytes.clone()
            } else {
                let max = shared.options.max_manifest_bytes;
                let bytes = session.small_blob(resolved.host, blob, max).await?;
                held.insert(bytes).clone()
            }
        }
    };
    let (parsed, diff_ids) = parse_config(&bytes, resolved.blobs.layers.len())
        .map_err(|error| refuse(session, &error))?;
    Ok(Config {
        parsed,
        // It has just been parsed as JSON, so it is UTF-8.
        json: String::from_utf8_lossy(&bytes).into_owned(),
        diff_ids,
        _flight: flight,
    })
}

/// An image that no index vouched for must say itself that it is for this platform.
fn check_platform(
    shared: &Shared,
    session: &Session,
    resolved: &Resolved,
    config: &ImageConfiguration,
) -> Result<(), PullError> {
    let (os, architecture) = (config.os().to_string(), config.architecture().to_string());
    if resolved.platform_known || shared.options.platform.runs(&os, &architecture) {
        return Ok(());
    }
    Err(PullError::Unsupported {
        reference: session.subject(),
        detail: format!(
            "it is an image for {os}/{architecture}, and this machine is {}",
            shared.options.platform
        ),
    })
}
