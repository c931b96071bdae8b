//! What there is on the pool: a dataset for one run.

use crate::process::{command, run};
use crate::stage;

/// A dataset with nothing in it that others need. Dropping it destroys it, with all that was made below it.
pub(crate) struct Dataset {
    name: String,
    destroyed: bool,
}

impl Dataset {
    /// Makes it in a pool, in the place of what an earlier run has left there.
    pub(crate) fn make(pool: &str) -> anyhow::Result<Self> {
        let dataset = Self {
            name: format!("{pool}/{}", stage::NAME),
            destroyed: false,
        };
        if run(command("zfs").args(["list", &dataset.name])).is_ok() {
            dataset.remove()?;
        }
        run(command("zfs")
            .args(["create", "-o", "canmount=off", "-o", "mountpoint=none"])
            .arg(&dataset.name))?;
        Ok(dataset)
    }

    /// `pool/name`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Destroys it; nobody may use it any more.
    pub(crate) fn destroy(mut self) -> anyhow::Result<()> {
        self.destroyed = true;
        self.remove()
    }

    /// With clones, wherever they are, and those that are still mounted.
    fn remove(&self) -> anyhow::Result<()> {
        run(command("zfs").args(["destroy", "-R", "-f", &self.name])).map(drop)
    }
}

impl Drop for Dataset {
    fn drop(&mut self) {
        if self.destroyed {
            return;
        }
        if let Err(error) = self.remove() {
            eprintln!("cannot destroy the benchmark's dataset: {error:#}");
        }
    }
}
