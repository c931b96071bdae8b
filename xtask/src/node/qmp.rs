//! QEMU's monitor.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use camino::Utf8Path;
use serde_json::{Value, json};

/// QEMU answers at once, unless its main loop is busy with a disk.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection; QEMU takes one at a time.
pub(super) struct Qmp(BufReader<UnixStream>);

impl Qmp {
    /// Connects, as soon as there is a socket.
    pub(super) fn connect(socket: &Utf8Path) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(_) if begun.elapsed() < PATIENCE => park_timeout(Duration::from_millis(50)),
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot connect to {socket}"));
                }
            }
        };
        stream
            .set_read_timeout(Some(PATIENCE))
            .context("cannot set a deadline")?;
        let mut qmp = Self(BufReader::new(stream));
        // The greeting.
        qmp.read()?;
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and gives what it returns.
    pub(super) fn execute(&mut self, command: &str, arguments: &Value) -> anyhow::Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.0.get_mut(), "{request}").context("cannot write to QEMU's monitor")?;
        loop {
            let mut answer = self.read()?;
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses {command}: {error}");
            }
            // Anything else is an event.
            if answer.get("return").is_some() {
                return Ok(answer["return"].take());
            }
        }
    }

    /// Runs `query` until its status is `wanted`.
    pub(super) fn wait_for(
        &mut self,
        query: &str,
        wanted: &[&str],
        patience: Duration,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            let answer = self.execute(query, &json!({}))?;
            let status = answer["status"].as_str().unwrap_or_default();
            if wanted.contains(&status) {
                return Ok(());
            }
            if status == "failed" || begun.elapsed() > patience {
                bail!("QEMU's {query} says {answer}, not {wanted:?}");
            }
            park_timeout(Duration::from_millis(100));
        }
    }

    fn read(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        self.0
            .read_line(&mut line)
            .context("cannot read from QEMU's monitor")?;
        serde_json::from_str(&line).with_context(|| format!("QEMU's monitor said {line:?}"))
    }
}
