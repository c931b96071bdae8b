//! Pods and containers through crictl, as tests need them again and again.

use anyhow::Context as _;
use camino::Utf8PathBuf;
use serde_json::Value;

use crate::{Machine, image, leak, spec};

/// A pod that was asked for.
#[derive(Clone, Debug)]
pub struct Pod {
    /// The sandbox id.
    pub id: String,
    /// Its configuration, as a file for crictl.
    pub file: String,
    /// Where logs of its containers are.
    pub logs: Utf8PathBuf,
}

impl Machine {
    /// Lets one image, pod and container live and go, so that everything is there that a daemon makes
    /// once and keeps. What comes after that is a leak.
    ///
    /// # Errors
    ///
    /// If that does not work, or leaves something that is named after an id.
    pub fn warm_up(&self) -> anyhow::Result<()> {
        self.pull_busybox()?;
        let pod = self.run_pod("first")?;
        self.start(&pod, &spec::shell("first", "exit 0"))?;
        self.crictl().remove_everything()?;
        leak::no_ids_are_left(self)
    }

    /// Runs a pod with a network of its own.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn run_pod(&self, name: &str) -> anyhow::Result<Pod> {
        let logs = self.log_directory(name)?;
        self.run_pod_as(name, &spec::pod(name, logs.as_str()))
    }

    /// Runs a pod as `config` says, with logs in the directory of `name`.
    ///
    /// # Errors
    ///
    /// If it does not run.
    pub fn run_pod_as(&self, name: &str, config: &Value) -> anyhow::Result<Pod> {
        let file = self.file(&format!("pod-{name}.json"), config)?;
        let id = self.crictl().run(&["runp", &file])?;
        Ok(Pod {
            id,
            file,
            logs: self.log_directory(name)?,
        })
    }

    /// Creates a container in a pod and gives its id.
    ///
    /// # Errors
    ///
    /// If it is not created.
    pub fn create(&self, pod: &Pod, config: &Value) -> anyhow::Result<String> {
        let name = config["metadata"]["name"]
            .as_str()
            .context("a container needs a name")?;
        let file = self.file(&format!("container-{name}.json"), config)?;
        self.crictl()
            .run(&["create", "--no-pull", &pod.id, &file, &pod.file])
    }

    /// Creates and starts a container in a pod and gives its id.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn start(&self, pod: &Pod, config: &Value) -> anyhow::Result<String> {
        let id = self.create(pod, config)?;
        self.crictl().run(&["start", &id])?;
        Ok(id)
    }

    /// Pulls the image that [`spec::shell`] uses.
    ///
    /// # Errors
    ///
    /// If it cannot be pulled.
    pub fn pull_busybox(&self) -> anyhow::Result<()> {
        self.crictl().run(&["pull", image::BUSYBOX]).map(drop)
    }

    /// The `status` of a container.
    ///
    /// # Errors
    ///
    /// If there is no such container.
    pub fn container_status(&self, id: &str) -> anyhow::Result<Value> {
        Ok(self.crictl().json(&["inspect", id])?["status"].take())
    }

    /// The number of a container's first process on the host.
    ///
    /// # Errors
    ///
    /// If the daemon does not tell.
    pub fn container_pid(&self, id: &str) -> anyhow::Result<i32> {
        let answer = self.crictl().json(&["inspect", id])?;
        let pid = answer["info"]["pid"].as_i64();
        pid.and_then(|pid| i32::try_from(pid).ok())
            .with_context(|| format!("no pid in the info of {id}: {}", answer["info"]))
    }

    /// What a command in a container prints.
    ///
    /// # Errors
    ///
    /// If it does not end with 0.
    pub fn exec(&self, id: &str, command: &[&str]) -> anyhow::Result<String> {
        self.crictl()
            .run(&[&["exec", "--sync", id], command].concat())
    }

    /// The last number that a container running [`spec::COUNT`] has logged.
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    pub fn last_count(&self, pod: &Pod, container: &str) -> anyhow::Result<Option<u64>> {
        let path = pod.logs.join(format!("{container}.log"));
        let log = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let last = log
            .lines()
            .rev()
            .find_map(|line| line.split(" count ").nth(1));
        Ok(last.and_then(|number| number.trim().parse().ok()))
    }
}
