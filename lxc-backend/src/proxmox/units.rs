//! systemd's units of containers that Proxmox has started, `pve-container@<vmid>.service`.

use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nexcage_command::{Command, CommandError, Program};

/// How long systemd may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// How long a unit whose container is gone may take to end: a program of Proxmox's runs then, in Perl, and perhaps `lxc-stop`.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(50);

/// What systemd knows of containers.
#[async_trait]
pub(crate) trait Units: Send + Sync + fmt::Debug {
    /// Waits until the unit of a container that is gone has ended, too, and has systemd forget it. Nothing is stopped: the number may be
    /// somebody else's by now. What cannot be done is left, and told in the log.
    async fn forget(&self, vmid: u32);
}

/// This machine's.
#[derive(Debug)]
pub(crate) struct Systemd;

#[async_trait]
impl Units for Systemd {
    async fn forget(&self, vmid: u32) {
        let Ok(systemctl) = Program::find("systemctl", "systemd") else {
            return;
        };
        let unit = format!("pve-container@{vmid}.service");
        if let Err(error) = forget(&systemctl, &unit).await {
            tracing::debug!(%unit, %error, "systemd does not forget it");
        }
    }
}

/// A container that was ended by a signal is a failed unit to systemd, which remembers it.
async fn forget(systemctl: &Program, unit: &str) -> Result<(), CommandError> {
    let begun = Instant::now();
    let mut state = state(systemctl, unit).await?;
    while is_ending(&state) && begun.elapsed() < PATIENCE {
        tokio::time::sleep(PAUSE).await;
        state = self::state(systemctl, unit).await?;
    }
    if state == "failed" {
        let command = Command::new(systemctl, DEADLINE);
        command.args(["reset-failed", unit]).run().await?;
    }
    Ok(())
}

/// `inactive` also of a unit that systemd does not know.
async fn state(systemctl: &Program, unit: &str) -> Result<String, CommandError> {
    let command = Command::new(systemctl, DEADLINE);
    let show = ["show", "--property=ActiveState", "--value", unit];
    let output = command.args(show).run().await?;
    Ok(output.stdout_text().trim().to_owned())
}

/// Also while systemd has not heard yet that its process has ended.
fn is_ending(state: &str) -> bool {
    matches!(state, "active" | "deactivating")
}
