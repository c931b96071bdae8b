//! crictl, pointed at one daemon.

use anyhow::Context as _;
use camino::Utf8PathBuf;
use serde_json::Value;

use crate::process::{self, Output};
use crate::tools;

/// Runs crictl against one daemon.
#[derive(Clone, Debug)]
pub struct Crictl {
    program: Utf8PathBuf,
    endpoint: String,
}

impl Crictl {
    /// For the daemon that listens on `socket`.
    ///
    /// # Errors
    ///
    /// If nobody has said where crictl is.
    pub fn new(socket: &camino::Utf8Path) -> anyhow::Result<Self> {
        Ok(Self {
            program: tools::crictl()?,
            endpoint: format!("unix://{socket}"),
        })
    }

    /// Runs it, whatever comes of it.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn try_run(&self, args: &[&str]) -> anyhow::Result<Output> {
        let endpoint = self.endpoint.as_str();
        let fixed = ["--runtime-endpoint", endpoint, "--image-endpoint", endpoint];
        // crictl would read /etc/crictl.yaml of this machine otherwise.
        let config = ["--config", "/dev/null", "--timeout", "60s"];
        let all: Vec<&str> = [&fixed[..], &config[..], args].concat();
        process::run(self.program.as_str(), &all, 120)
    }

    /// Runs it and gives what it printed, without the line feed at the end.
    ///
    /// # Errors
    ///
    /// If it fails, with all it said.
    pub fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        Ok(self.try_run(args)?.success()?.trim_end().to_owned())
    }

    /// Runs it and reads what it printed as JSON.
    ///
    /// # Errors
    ///
    /// If it fails, or prints something else.
    pub fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let text = self.run(args)?;
        serde_json::from_str(&text)
            .with_context(|| format!("crictl {} printed no JSON: {text}", args.join(" ")))
    }

    /// Removes all pods and containers, running or not, and then all images.
    ///
    /// # Errors
    ///
    /// If one of them cannot be removed.
    pub fn remove_everything(&self) -> anyhow::Result<()> {
        self.run(&["rmp", "--all", "--force"])?;
        self.run(&["rm", "--all", "--force"])?;
        self.run(&["rmi", "--all"])?;
        Ok(())
    }
}
