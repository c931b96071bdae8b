//! SIGTERM and SIGINT end the daemon, SIGHUP reads the configuration again.

use std::sync::Arc;

use anyhow::Context;
use camino::Utf8PathBuf;
use nexcage_systemd::Notifier;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::logging::Handle;
use crate::runtime::Runtime;

/// Serves signals in a task that ends with the daemon.
pub(crate) fn spawn(
    runtime: &Arc<Runtime>,
    config_path: Option<Utf8PathBuf>,
    logging: Handle,
    notifier: Notifier,
) -> anyhow::Result<JoinHandle<()>> {
    let mut term = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot catch SIGHUP")?;
    let runtime = Arc::clone(runtime);
    Ok(tokio::spawn(async move {
        loop {
            tokio::select! {
                // Cancel-safe per docs on `Signal::recv`, all three.
                _ = term.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {
                    notifier.reloading();
                    reload(&runtime, config_path.clone(), &logging).await;
                    notifier.ready();
                }
                // Cancel-safe per docs on `CancellationToken::cancelled`.
                () = runtime.stopping.cancelled() => break,
            }
        }
        tracing::info!("ending");
        runtime.stopping.cancel();
    }))
}

/// Takes over what can change while running; names what cannot. A bad file changes nothing.
async fn reload(runtime: &Runtime, path: Option<Utf8PathBuf>, logging: &Handle) {
    let read = tokio::task::spawn_blocking(move || super::load(path.as_deref())).await;
    let config = match read {
        Ok(Ok(config)) => config,
        Ok(Err(error)) => {
            tracing::error!(
                error = format!("{error:#}"),
                "the new configuration is refused"
            );
            return;
        }
        Err(error) => {
            tracing::error!(%error, "reading the configuration was interrupted");
            return;
        }
    };
    for key in nexcage_config::changes_needing_restart(&runtime.config, &config) {
        tracing::warn!(%key, "this change takes effect when the daemon is restarted");
    }
    match logging.reload(&config.logging) {
        Ok(()) => tracing::info!(
            level = config.logging.level.name(),
            "configuration reloaded"
        ),
        Err(error) => tracing::error!(error = format!("{error:#}"), "cannot reload logging"),
    }
}
