//! The life of the daemon: from the command line to SIGTERM.
//!
//! Order at start: configuration, logging, the claim (so that a second daemon is refused before it touches
//! anything), stores and programs, reconciliation, the socket, readiness. Order at the end: no new
//! requests, the running ones finish, pods go on.

mod grpc;
mod logging;
mod reset;
mod signals;
mod socket;
mod watchdog;

use std::time::Duration;

use anyhow::Context;
use camino::Utf8PathBuf;
use nexcage_config::Config;
use nexcage_systemd::Notifier;

pub(crate) use reset::reset;

use socket::Claim;

use crate::reconcile;
use crate::runtime::assemble;

/// Time that requests under way have to finish when the daemon ends. What is cut off is put right at the next
/// start, as after a crash.
const DRAIN: Duration = Duration::from_secs(20);

/// What `nexcage daemon` was told.
#[derive(Debug)]
pub(crate) struct Options {
    /// The configuration file; `None` for the usual place, which may be missing.
    pub(crate) config: Option<Utf8PathBuf>,
    /// Check the configuration and the machine, start nothing.
    pub(crate) dry_run: bool,
}

/// Runs the daemon until it is told to end.
///
/// # Errors
///
/// Whatever keeps it from serving.
pub(crate) fn run(options: Options) -> anyhow::Result<()> {
    let config = load(options.config.as_deref())?;
    let logging = logging::start(&config.logging)?;
    for key in nexcage_config::keys_without_effect(&config) {
        tracing::warn!(%key, "this key of the configuration has no effect in this version");
    }
    choose_cryptography();
    let tokio = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("nexcage")
        .build()
        .context("cannot start the async runtime")?;
    if options.dry_run {
        println!("the configuration is valid");
        return Ok(());
    }
    tokio.block_on(serve(config, options.config, logging))
}

/// What registries' clients need before they are made.
fn choose_cryptography() {
    // Fails only if a provider was installed before, and then there is one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Reads the configuration file.
fn load(path: Option<&camino::Utf8Path>) -> anyhow::Result<Config> {
    let default = camino::Utf8Path::new(nexcage_config::DEFAULT_PATH);
    match path {
        None if !default.exists() => Ok(Config::default()),
        path => Ok(Config::load(path.unwrap_or(default))?),
    }
}

async fn serve(
    config: Config,
    config_path: Option<Utf8PathBuf>,
    logging: logging::Handle,
) -> anyhow::Result<()> {
    let notifier = Notifier;
    let path = config.kubernetes.cri_socket.to_path_buf();
    let mut claim = Claim::take(&path, &config.storage.root)?;
    let runtime = assemble(config).await.context("cannot start")?;
    reconcile::reconcile(&runtime)
        .await
        .context("cannot take over what the last run left")?;
    runtime.spawn_collector();
    runtime.spawn_sweeper();
    reconcile::spawn_periodic(&runtime);

    let listener = claim.listen()?;
    let control = signals::spawn(&runtime, config_path, logging, notifier)?;
    tracing::info!(socket = %path, version = env!("CARGO_PKG_VERSION"), "serving CRI v1");
    notifier.ready();
    watchdog::spawn(&runtime, notifier);
    grpc::serve(&runtime, listener, DRAIN).await;
    notifier.stopping();
    runtime.images.close().await;
    runtime.tasks.close();
    if tokio::time::timeout(DRAIN, runtime.tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!("work under way did not finish in time; the next start puts it right");
    }
    let _ = control.await;
    if runtime.inventory.pods().is_empty() {
        runtime.cgroups.tidy().await;
    }
    drop(claim);
    tracing::info!("ended; pods go on running");
    Ok(())
}
