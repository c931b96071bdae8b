//! One virtual machine: its directory, its process, and the way to it.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Signal, kill_process};

use super::image::Image;
use super::kvm;
use super::qemu::Qemu;
use super::qmp::Qmp;
use super::ssh::Ssh;
use crate::cache;
use crate::run::{mortal_command, run};

/// Emulated on a busy machine, the way to ssh takes minutes.
const BOOT: Duration = Duration::from_secs(600);

/// A killed process is gone as soon as the kernel has taken its memory back.
const KILLED: Duration = Duration::from_secs(30);

/// Bytes of the disk for the pool; the file is sparse.
const POOL_SIZE: &str = "20G";

const MEMORY: &str = "4096";

/// `mitigations=off`: there is nobody to protect from, and emulation is slow enough.
const COMMAND_LINE: &str = "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off apparmor=1 security=apparmor \
                            systemd.show_status=0";

/// How long a machine lives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Until somebody ends it.
    Nobody,
    /// As long as the thread that starts it, however that ends.
    ThisThread,
}

/// Where a machine begins.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    /// At the kernel's first word.
    Boot,
    /// Where memory was saved in this file, with the disks as they were then.
    Restore(&'a Utf8Path),
}

/// A machine, running or not.
pub(super) struct Machine {
    dir: Utf8PathBuf,
    qemu: Qemu,
    image: Image,
    ssh: Ssh,
    /// Only what has an owner is our child.
    child: Option<Child>,
}

impl Machine {
    /// A machine in `dir`, where its disks are.
    pub(super) fn at(dir: Utf8PathBuf, qemu: Qemu, image: Image) -> anyhow::Result<Self> {
        for (from, name) in [(image.key(), "key"), (image.known_hosts(), "known_hosts")] {
            fs::copy(&from, dir.join(name)).with_context(|| format!("cannot copy {from}"))?;
        }
        // Somebody may take it before QEMU does; then QEMU says so.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .context("cannot find a free port")?
            .port();
        fs::write(dir.join("port"), port.to_string()).context("cannot write the port")?;
        let ssh = ssh(&dir, port);
        Ok(Self {
            dir,
            qemu,
            image,
            ssh,
            child: None,
        })
    }

    /// Makes its disks, with nothing on them but what the image has.
    pub(super) fn make_disks(&self) -> anyhow::Result<()> {
        self.overlay(&self.image.disk(), "raw", &self.root_disk())?;
        run(self
            .qemu
            .img()
            .args(["create", "-q", "-f", "qcow2", self.pool_disk().as_str()])
            .arg(POOL_SIZE))
    }

    /// Makes `disk`, which begins as `backing` and keeps what is written.
    pub(super) fn overlay(
        &self,
        backing: &Utf8Path,
        format: &str,
        disk: &Utf8Path,
    ) -> anyhow::Result<()> {
        run(self
            .qemu
            .img()
            .args(["create", "-q", "-f", "qcow2", "-F", format, "-b"])
            .args([backing, disk]))
    }

    pub(super) fn root_disk(&self) -> Utf8PathBuf {
        root_disk(&self.dir)
    }

    pub(super) fn pool_disk(&self) -> Utf8PathBuf {
        self.dir.join("pool.qcow2")
    }

    pub(super) fn share_disk(&self) -> Utf8PathBuf {
        self.dir.join("share.ext4")
    }

    /// Switches it on and returns when the kernel boots, or goes on from where it was saved.
    pub(super) fn power_on(&mut self, start: Start<'_>, owner: Owner) -> anyhow::Result<()> {
        let mut qemu = self.qemu.system();
        if owner == Owner::Nobody {
            qemu.arg("-daemonize");
        }
        qemu.args(accelerator(&self.qemu, &self.image)?)
            .args(["-smp", "2", "-m", MEMORY])
            .args(["-display", "none", "-nodefaults"])
            .args(["-pidfile", self.dir.join("pid").as_str()])
            .args(["-kernel", self.image.kernel().as_str()])
            .args(["-initrd", self.image.initrd().as_str()])
            .args(["-append", COMMAND_LINE])
            .args([
                "-chardev",
                &format!("file,id=console,append=on,path={}", console(&self.dir)),
            ])
            .args(["-serial", "chardev:console"])
            .args([
                "-qmp",
                &format!("unix:{},server=on,wait=off", self.monitor()),
            ]);
        let disks = [
            ("root", self.root_disk(), "qcow2"),
            ("share", self.share_disk(), "raw"),
            ("pool", self.pool_disk(), "qcow2"),
        ];
        for (name, file, format) in disks {
            qemu.args(["-drive", &drive(name, &file, format)]).args([
                "-device",
                &format!("virtio-blk-pci,drive={name},serial={name}"),
            ]);
        }
        // Without a ROM: nobody boots from the network.
        qemu.args(["-device", "virtio-net-pci,netdev=net,romfile="])
            .args([
                "-netdev",
                &format!("user,id=net,hostfwd=tcp:127.0.0.1:{}-:22", self.ssh.port),
            ])
            .args(["-device", "virtio-rng-pci"]);
        if let Start::Restore(memory) = start {
            qemu.args(["-incoming", &format!("exec:cat {memory}")]);
        }
        match owner {
            Owner::Nobody => {
                let _with_its_disks = cache::lend()?;
                run(&mut qemu)?;
            }
            Owner::ThisThread => {
                let child = with_this_thread(&qemu).spawn();
                self.child = Some(child.context("cannot start QEMU")?);
            }
        }
        if let Start::Restore(_) = start {
            let mut monitor = self.qmp()?;
            monitor.wait_for("query-status", &["paused", "postmigrate"], BOOT)?;
            monitor.execute("cont", &serde_json::json!({}))?;
        }
        Ok(())
    }

    /// Pulls the plug.
    pub(super) fn power_off(&mut self) -> anyhow::Result<()> {
        switch_off(&self.dir)?;
        if let Some(mut child) = self.child.take() {
            // It may have been about to start.
            let _ = child.kill();
            child.wait().context("cannot wait for QEMU")?;
        }
        Ok(())
    }

    /// Waits for the end of a machine that has an owner and was told to end.
    pub(super) fn wait_until_it_ends(&mut self, patience: Duration) -> anyhow::Result<()> {
        let Some(child) = &mut self.child else {
            return Ok(());
        };
        let begun = Instant::now();
        while child.try_wait().context("cannot wait for QEMU")?.is_none() {
            if begun.elapsed() > patience {
                bail!("QEMU does not end");
            }
            park_timeout(Duration::from_millis(50));
        }
        self.child = None;
        Ok(())
    }

    pub(super) fn qmp(&self) -> anyhow::Result<Qmp> {
        Qmp::connect(&self.monitor())
    }

    fn monitor(&self) -> Utf8PathBuf {
        self.dir.join("qmp")
    }

    pub(super) fn ssh(&self) -> &Ssh {
        &self.ssh
    }

    /// Where the console's output goes.
    pub(super) fn console(&self) -> Utf8PathBuf {
        console(&self.dir)
    }

    /// Waits until a command succeeds in the node.
    pub(super) fn wait_until(&self, what: &str, line: &str) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !self.ssh.succeeds(line) {
            if begun.elapsed() > Duration::from_secs(2) && pid(&self.dir).is_none() {
                bail!(
                    "QEMU ended; the end of its console:\n{}",
                    self.console_end()
                );
            }
            if begun.elapsed() > BOOT {
                let state = self.ssh.output("systemctl --no-pager status; true");
                bail!(
                    "{what}: not after {BOOT:?}\n{}\nthe end of its console:\n{}",
                    state.unwrap_or_else(|error| format!("{error:#}")),
                    self.console_end()
                );
            }
            park_timeout(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Waits until the daemon in it serves.
    pub(super) fn wait_until_it_serves(&self) -> anyhow::Result<()> {
        self.wait_until(
            "the daemon serves",
            "systemctl is-active --quiet nexcage.service",
        )
    }

    fn console_end(&self) -> String {
        let text = fs::read(self.console()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.child.is_some() {
            let _ = self.power_off();
        }
    }
}

/// The way to the machine in `dir`, if it is switched on.
pub(super) fn reach(dir: &Utf8Path) -> anyhow::Result<Option<Ssh>> {
    if pid(dir).is_none() {
        return Ok(None);
    }
    let port = dir.join("port");
    let port = fs::read_to_string(&port).with_context(|| format!("cannot read {port}"))?;
    Ok(Some(ssh(dir, port.parse().context("the node's port")?)))
}

/// Kills QEMU, if it runs.
pub(super) fn switch_off(dir: &Utf8Path) -> anyhow::Result<()> {
    let Some(pid) = pid(dir) else {
        return Ok(());
    };
    kill_process(pid, Signal::KILL).context("cannot kill QEMU")?;
    let begun = Instant::now();
    while self::pid(dir).is_some() {
        if begun.elapsed() > KILLED {
            bail!("QEMU, process {pid:?}, does not end");
        }
        park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

/// The same command, which ends with the thread that starts it.
pub(super) fn with_this_thread(program: &Command) -> Command {
    let mut mortal = mortal_command(program.get_program());
    mortal.args(program.get_args());
    mortal
}

/// All that a saved memory depends on, beside the image.
pub(super) fn hardware(qemu: &Qemu, image: &Image) -> anyhow::Result<String> {
    let (version, accelerator) = (qemu.version()?, accelerator(qemu, image)?);
    Ok(format!(
        "{version} {accelerator:?} {MEMORY} {COMMAND_LINE} {POOL_SIZE}"
    ))
}

fn accelerator(qemu: &Qemu, image: &Image) -> anyhow::Result<[&'static str; 4]> {
    Ok(if kvm::works(qemu, image)? {
        ["-accel", "kvm", "-cpu", "host"]
    } else {
        ["-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max"]
    })
}

/// `cache=writeback`: what the guest flushes is on the host's disk. What it does not flush may still be in QEMU alone,
/// as in a disk's own cache: qcow2 keeps its tables in memory until then.
fn drive(name: &str, file: &Utf8Path, format: &str) -> String {
    format!("id={name},file={file},format={format},if=none,cache=writeback,discard=unmap")
}

fn ssh(dir: &Utf8Path, port: u16) -> Ssh {
    Ssh {
        port,
        key: dir.join("key"),
        known_hosts: dir.join("known_hosts"),
    }
}

fn console(dir: &Utf8Path) -> Utf8PathBuf {
    dir.join("console.log")
}

fn root_disk(dir: &Utf8Path) -> Utf8PathBuf {
    dir.join("root.qcow2")
}

/// QEMU's process, if it lives. Its number may be another's by now, who does not name our disk.
fn pid(dir: &Utf8Path) -> Option<Pid> {
    let number: i32 = fs::read_to_string(dir.join("pid"))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let arguments = fs::read_to_string(format!("/proc/{number}/cmdline")).ok()?;
    arguments
        .contains(root_disk(dir).as_str())
        .then(|| Pid::from_raw(number))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_not_ours_is_not_the_node() {
        let temporary = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(temporary.path()).unwrap();
        assert!(pid(dir).is_none());
        fs::write(dir.join("pid"), std::process::id().to_string()).unwrap();
        assert!(pid(dir).is_none());
    }
}
