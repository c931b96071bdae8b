//! Structured log lines, as text or JSON, to standard error or a file.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use nexcage_config::{LogFormat, Logging};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

/// Changes the level of a running daemon, and opens its log file anew.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    filter: reload::Handle<EnvFilter, Registry>,
    output: Output,
}

/// Begins to log.
pub(crate) fn start(config: &Logging) -> anyhow::Result<Handle> {
    let output = Output::open(config)?;
    let (filter, handle) = reload::Layer::new(filter(config));
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(output.clone())
        .with_ansi(false);
    match config.format {
        LogFormat::Text => registry.with(lines).try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    }
    .context("cannot start logging")?;
    Ok(Handle {
        filter: handle,
        output,
    })
}

/// Our own crates at the configured level, the libraries below at `warn` at the most.
fn filter(config: &Logging) -> EnvFilter {
    let level = config.level.name();
    let libraries = if level == "error" { "error" } else { "warn" };
    EnvFilter::new(format!(
        "{libraries},nexcage={level},nexcage_cni={level},nexcage_command={level},\
         nexcage_image_store={level},nexcage_lxc={level},nexcage_oci_runtime={level},\
         nexcage_overlay={level},nexcage_zfs={level},nexcage_sandbox={level},nexcage_sqlite={level},\
         nexcage_systemd={level}"
    ))
}

impl Handle {
    /// Takes over a new level, and opens the log file anew in case it was renamed.
    pub(crate) fn reload(&self, config: &Logging) -> anyhow::Result<()> {
        self.filter
            .reload(filter(config))
            .context("cannot change the log level")?;
        self.output.reopen(config)
    }
}

/// Standard error, or a file that can be exchanged under the writers.
#[derive(Clone, Debug)]
struct Output(Arc<Mutex<Option<std::fs::File>>>);

impl Output {
    fn open(config: &Logging) -> anyhow::Result<Self> {
        let output = Self(Arc::new(Mutex::new(None)));
        output.reopen(config)?;
        Ok(output)
    }

    fn reopen(&self, config: &Logging) -> anyhow::Result<()> {
        let file = match &config.file {
            None => None,
            Some(path) => {
                let path = path.to_path_buf();
                if let Some(dir) = path.parent() {
                    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {dir}"))?;
                }
                let opened = std::fs::OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(&path);
                Some(opened.with_context(|| format!("cannot open the log file {path}"))?)
            }
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }
}

impl Write for Output {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(file) => file.write(line),
            None => std::io::stderr().write(line),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
