//! QEMU.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Signal, kill_process};

use super::image::Image;
use super::share;
use super::ssh::Ssh;
use crate::cache;
use crate::run::{command, run};

const QEMU: &str = "qemu-system-x86_64";

/// Emulated on a busy machine, the way to ssh takes minutes.
const BOOT: Duration = Duration::from_secs(600);

/// A kernel says its first word within a second, if it can.
const PROBE: Duration = Duration::from_secs(10);

const SHUTDOWN: Duration = Duration::from_secs(60);

/// `mitigations=off`: there is nobody to protect from, and emulation is slow enough.
const COMMAND_LINE: &str = "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off apparmor=1 security=apparmor \
                            systemd.show_status=0";

/// The running node.
pub(crate) struct Machine {
    dir: Utf8PathBuf,
    ssh: Ssh,
}

impl Machine {
    /// The node that is up.
    pub(crate) fn running() -> anyhow::Result<Self> {
        let dir = directory();
        if pid(&dir).is_none() {
            bail!("the node is not up; start it: cargo xtask node up");
        }
        let port = dir.join("port");
        let port = fs::read_to_string(&port).with_context(|| format!("cannot read {port}"))?;
        let port = port.parse().context("the node's port")?;
        Ok(Self::at(dir, port))
    }

    fn at(dir: Utf8PathBuf, port: u16) -> Self {
        let ssh = Ssh {
            port,
            key: dir.join("key"),
            known_hosts: dir.join("known_hosts"),
        };
        Self { dir, ssh }
    }

    /// Starts it anew and returns when the kernel boots.
    pub(crate) fn start(image: &Image) -> anyhow::Result<Self> {
        let dir = directory();
        remove(&dir)?;
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {dir}"))?;
        share::make(&dir.join("share.ext4"))?;
        run(command("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .arg(image.disk())
            .arg(dir.join("root.qcow2")))?;
        for (from, name) in [(image.key(), "key"), (image.known_hosts(), "known_hosts")] {
            fs::copy(&from, dir.join(name)).with_context(|| format!("cannot copy {from}"))?;
        }
        // Somebody may take it before QEMU does; then QEMU says so.
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .context("cannot find a free port")?
            .port();
        fs::write(dir.join("port"), port.to_string()).context("cannot write the port")?;

        let accelerator = if kvm_works(image, &dir)? {
            ["-accel", "kvm", "-cpu", "host"]
        } else {
            println!(
                "KVM does not boot this kernel here: the node is emulated, about ten times slower"
            );
            ["-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max"]
        };
        run(command(QEMU)
            .args(accelerator)
            .args(["-smp", "2", "-m", "4096"])
            .args(["-display", "none", "-nodefaults"])
            .args(["-daemonize", "-pidfile", dir.join("pid").as_str()])
            .args(["-kernel", image.kernel().as_str()])
            .args(["-initrd", image.initrd().as_str()])
            .args(["-append", COMMAND_LINE])
            .args(["-serial", &format!("file:{}", console(&dir))])
            .args(["-drive", &drive(&dir.join("root.qcow2"), "qcow2")])
            .args(["-drive", &drive(&dir.join("share.ext4"), "raw")])
            .args(["-device", "virtio-net-pci,netdev=net"])
            .args([
                "-netdev",
                &format!("user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22"),
            ])
            .args(["-device", "virtio-rng-pci"]))?;
        Ok(Self::at(dir, port))
    }

    pub(crate) fn ssh(&self) -> &Ssh {
        &self.ssh
    }

    /// A place for a file that lasts as long as the node.
    pub(crate) fn file(&self, name: &str) -> Utf8PathBuf {
        self.dir.join(name)
    }

    /// Waits until the daemon in it serves.
    pub(crate) fn wait_until_it_serves(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        let up = || self.ssh.succeeds("systemctl is-active --quiet nexcage");
        while !up() {
            if pid(&self.dir).is_none() {
                bail!(
                    "QEMU ended; the end of its console:\n{}",
                    self.console_end()
                );
            }
            if begun.elapsed() > BOOT {
                let state = self.ssh.output("systemctl --no-pager status nexcage; true");
                bail!(
                    "the node does not serve after {BOOT:?}\n{}\nthe end of its console:\n{}",
                    state.unwrap_or_else(|error| format!("{error:#}")),
                    self.console_end()
                );
            }
            park_timeout(Duration::from_secs(1));
        }
        println!(
            "the node is up after {:.0?}; its console is in {}",
            begun.elapsed(),
            console(&self.dir)
        );
        Ok(())
    }

    fn console_end(&self) -> String {
        let text = fs::read(console(&self.dir)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Shuts it down, if it is up, and removes all that belonged to it.
    pub(crate) fn down() -> anyhow::Result<()> {
        let dir = directory();
        if let Some(pid) = pid(&dir) {
            // The connection breaks before the command ends.
            let asked = Self::running().map(|node| node.ssh.succeeds("systemctl poweroff"));
            let begun = Instant::now();
            while asked.is_ok() && self::pid(&dir).is_some() && begun.elapsed() < SHUTDOWN {
                park_timeout(Duration::from_millis(200));
            }
            if self::pid(&dir).is_some() {
                println!("the node does not shut down and is switched off");
                kill_process(pid, Signal::KILL).context("cannot kill QEMU")?;
            }
        }
        remove(&dir)
    }
}

/// Everything of the one node there is.
fn directory() -> Utf8PathBuf {
    cache::root().join("node")
}

fn console(dir: &Utf8Path) -> Utf8PathBuf {
    dir.join("console.log")
}

fn remove(dir: &Utf8Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {dir}"))
        }
        _ => Ok(()),
    }
}

/// QEMU's process, if it lives. Its number may be another's by now, who does not name our disk.
fn pid(dir: &Utf8Path) -> Option<Pid> {
    let number: i32 = fs::read_to_string(dir.join("pid"))
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let arguments = fs::read_to_string(format!("/proc/{number}/cmdline")).ok()?;
    let disk = dir.join("root.qcow2");
    arguments
        .contains(disk.as_str())
        .then(|| Pid::from_raw(number))?
}

/// `cache=unsafe`: it is thrown away anyhow.
fn drive(file: &Utf8Path, format: &str) -> String {
    format!("file={file},format={format},if=virtio,cache=unsafe")
}

/// Whether the kernel says anything under KVM: `/dev/kvm` may be there and still run no stock kernel.
fn kvm_works(image: &Image, dir: &Utf8Path) -> anyhow::Result<bool> {
    if !fs::exists("/dev/kvm").unwrap_or(false) {
        return Ok(false);
    }
    let said = dir.join("probe.log");
    let mut qemu = command(QEMU)
        .args(["-accel", "kvm", "-cpu", "host", "-m", "512"])
        .args(["-display", "none", "-nodefaults", "-no-reboot"])
        .args(["-kernel", image.kernel().as_str()])
        .args(["-append", "console=ttyS0 panic=-1"])
        .args(["-serial", &format!("file:{said}")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {QEMU}"))?;
    // Without a root file system it panics and QEMU ends; with a KVM that fails, QEMU stands still.
    let works = wait_for_word(&mut qemu, &said);
    let _ = qemu.kill();
    qemu.wait().context("cannot wait for QEMU")?;
    Ok(works)
}

fn wait_for_word(qemu: &mut Child, said: &Utf8Path) -> bool {
    let begun = Instant::now();
    let spoke = || fs::read(said).is_ok_and(|text| contains(&text, b"Linux version"));
    while begun.elapsed() < PROBE && !spoke() {
        if !matches!(qemu.try_wait(), Ok(None)) {
            return spoke();
        }
        park_timeout(Duration::from_millis(100));
    }
    spoke()
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_not_ours_is_not_the_node() {
        let dir = Utf8PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/node-pid");
        fs::create_dir_all(&dir).unwrap();
        assert!(pid(&dir).is_none());
        fs::write(dir.join("pid"), std::process::id().to_string()).unwrap();
        assert!(pid(&dir).is_none());
        fs::remove_dir_all(&dir).unwrap();
    }
}
