//! A local registry: Debian's docker-registry on a port of 127.0.0.1 that the kernel chooses.
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};

use anyhow::{Context as _, bail};
use camino::Utf8Path;
use serde_json::json;

/// A running registry; dropping it ends it.
pub(crate) struct Registry {
    process: Child,
    address: SocketAddr,
}

/// Whether clients may change what is stored.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// They may push.
    ReadWrite,
    /// They may only pull.
    ReadOnly,
}

impl Registry {
    /// Starts a registry that stores below `storage` and waits until it listens.
    pub(crate) fn start(storage: &Utf8Path, access: Access) -> anyhow::Result<Self> {
        // JSON is YAML.
        let config = json!({
            "version": "0.1",
            "log": { "level": "info", "formatter": "text", "accesslog": { "disabled": true } },
            "storage": {
                "filesystem": { "rootdirectory": storage },
                "maintenance": {
                    "uploadpurging": { "enabled": false },
                    "readonly": { "enabled": access == Access::ReadOnly },
                },
            },
            "http": { "addr": "127.0.0.1:0" },
        });
        let file = std::env::temp_dir().join(format!("nxt-registry-{}.yml", std::process::id()));
        fs::write(&file, config.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;

        // setpriv: the registry dies with us, however we die.
        let started = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start docker-registry; run `cargo xtask deps`");
        let listening = started.and_then(|mut process| {
            let stderr = process
                .stderr
                .take()
                .context("docker-registry has no stderr")?;
            match wait_until_it_listens(stderr) {
                Ok(address) => Ok(Self { process, address }),
                Err(error) => {
                    let _ = process.kill();
                    let _ = process.wait();
                    Err(error)
                }
            }
        });
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        listening
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may be gone already, which is what we want.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads its log up to the line that tells the address, then drains it so that it never blocks.
fn wait_until_it_listens(stderr: ChildStderr) -> anyhow::Result<SocketAddr> {
    let mut log = BufReader::new(stderr);
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        if log
            .read_line(&mut line)
            .context("cannot read docker-registry's log")?
            == 0
        {
            bail!("docker-registry ended at once:\n{seen}");
        }
        if let Some(address) = listening_address(&line) {
            std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            return Ok(address);
        }
        seen.push_str(&line);
    }
}

fn listening_address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("listening on ")?;
    let end = rest
        .find(|c: char| c == '"' || c == ',' || c.is_whitespace())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_the_log() {
        let line = r#"time="2026-11-20T11:24:21Z" level=info msg="listening on 127.0.0.1:35871" go.version=go1.19.8"#;
        assert_eq!(listening_address(line), "127.0.0.1:35871".parse().ok());
        assert_eq!(
            listening_address("level=info msg=\"redis not configured\""),
            None
        );
    }
}
