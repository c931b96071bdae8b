//! What the demo makes on the machine, and how it goes away again.
#![allow(clippy::disallowed_methods)]

use std::cell::RefCell;
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FlockOperation, flock};
use serde_json::json;

use crate::run::{command, output, succeeds};

/// State of the demo's daemon.
const ROOT: &str = "/var/lib/nexcage-demo";
/// Its sockets, bundles and mounts.
const RUN: &str = "/run/nxdemo";
/// Its bridge, and the addresses of its pods.
const BRIDGE: &str = "nxdemo0";
const SUBNET: &str = "10.214.0.0/24";
/// Its LXC containers and cgroups.
const PREFIX: &str = "nxdemo-";

/// Held while a demo plays.
const LOCK: &str = "/run/lock/nxdemo";

/// Time the daemon has to open its socket, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running daemon and everything around it.
pub(super) struct Stage {
    program: Utf8PathBuf,
    daemon: RefCell<Option<Child>>,
    /// Held as long as the demo plays: there is one stage.
    _lock: fs::File,
}

impl Stage {
    /// Takes away what an earlier demo left, if it was killed, and starts the daemon.
    pub(super) fn set(program: &Utf8Path, registry: SocketAddr) -> anyhow::Result<Self> {
        let lock = lock()?;
        for dir in [ROOT, RUN, &format!("{ROOT}/cni.d"), &format!("{ROOT}/lxc")] {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {dir}"))?;
        }
        write("config.json", &config(registry))?;
        write("cni.d/10-demo.conflist", &network())?;
        let stage = Self {
            program: program.to_owned(),
            daemon: RefCell::new(None),
            _lock: lock,
        };
        stage.start_daemon()?;
        stage.delete_pods()?;
        Ok(stage)
    }

    /// Starts the daemon and waits until it serves.
    pub(super) fn start_daemon(&self) -> anyhow::Result<()> {
        let log = fs::File::create(format!("{ROOT}/daemon.log")).context("cannot make the log")?;
        let child = Command::new(&self.program)
            .args(["daemon", "--config", &format!("{ROOT}/config.json")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program))?;
        *self.daemon.borrow_mut() = Some(child);
        let end = Instant::now() + PATIENCE;
        while UnixStream::connect(socket()).is_err() {
            let ended = self.daemon.borrow_mut().as_mut().map(Child::try_wait);
            let ended = matches!(ended, Some(Ok(Some(_))));
            if ended || Instant::now() > end {
                let log = fs::read_to_string(format!("{ROOT}/daemon.log")).unwrap_or_default();
                bail!("the daemon does not serve:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Ends the daemon as a crash would.
    pub(super) fn kill_daemon(&self) -> anyhow::Result<()> {
        if let Some(mut daemon) = self.daemon.borrow_mut().take() {
            println!("$ kill -9 {}", daemon.id());
            daemon.kill().context("cannot kill the daemon")?;
            daemon.wait().context("cannot wait for the daemon")?;
        }
        Ok(())
    }

    /// Shows a command of the command line, runs it and shows what it says.
    pub(super) fn nexcage(&self, args: &[&str]) -> anyhow::Result<String> {
        println!("$ nexcage {}", shown(args));
        let said = self.quietly(args)?;
        print!("{said}");
        Ok(said)
    }

    /// Runs a command of the command line.
    pub(super) fn quietly(&self, args: &[&str]) -> anyhow::Result<String> {
        output(
            command(&self.program)
                .args(["--socket", &socket()])
                .args(args),
        )
    }

    /// Shows `lxc-ls`.
    pub(super) fn lxc_ls(&self) -> anyhow::Result<String> {
        let args = [
            "-P",
            &format!("{ROOT}/lxc"),
            "--fancy",
            "-F",
            "NAME,STATE,PID,UNPRIVILEGED",
        ];
        println!("$ lxc-ls {}", shown(&args));
        let said = output(command("lxc-ls").args(args))?;
        print!("{said}");
        Ok(said)
    }

    fn delete_pods(&self) -> anyhow::Result<()> {
        let pods = self.quietly(&["list", "--all", "--output", "json"])?;
        let pods: serde_json::Value = serde_json::from_str(&pods).context("`list` is no JSON")?;
        for pod in pods.as_array().into_iter().flatten() {
            let id = pod["id"].as_str().context("a pod without id")?;
            self.quietly(&["delete", "--force", "--timeout", "0", id])?;
        }
        Ok(())
    }

    /// Takes everything away.
    pub(super) fn strike(self) -> anyhow::Result<()> {
        self.delete_pods()?;
        self.end_daemon()?;
        if succeeds(command("ip").args(["link", "show", "dev", BRIDGE])) {
            output(command("ip").args(["link", "delete", "dev", BRIDGE]))?;
        }
        // LXC keeps a directory of locks for every lxcpath there ever was.
        for dir in [ROOT, RUN, &format!("/run/lxc/lock{ROOT}")] {
            match fs::remove_dir_all(dir) {
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(e).with_context(|| format!("cannot remove {dir}"));
                }
                _ => println!("removed {dir}"),
            }
        }
        fs::remove_file(LOCK).with_context(|| format!("cannot remove {LOCK}"))
    }

    fn end_daemon(&self) -> anyhow::Result<()> {
        let Some(mut daemon) = self.daemon.borrow_mut().take() else {
            return Ok(());
        };
        let pid = i32::try_from(daemon.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)
                .context("cannot end the daemon")?;
        }
        let end = Instant::now() + PATIENCE;
        while daemon
            .try_wait()
            .context("cannot wait for the daemon")?
            .is_none()
        {
            if Instant::now() > end {
                daemon.kill().context("cannot kill the daemon")?;
                bail!("the daemon did not end on SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Only reached with a daemon when the demo itself has failed badly.
        if let Some(mut daemon) = self.daemon.borrow_mut().take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// One demo at a time.
fn lock() -> anyhow::Result<fs::File> {
    let file = fs::File::create(LOCK).with_context(|| format!("cannot make {LOCK}"))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive)
        .context("another demo is playing on this machine")?;
    Ok(file)
}

fn socket() -> String {
    format!("{RUN}/nexcage.sock")
}

fn write(name: &str, text: &serde_json::Value) -> anyhow::Result<()> {
    let path = format!("{ROOT}/{name}");
    fs::write(&path, format!("{text:#}\n")).with_context(|| format!("cannot write {path}"))
}

/// The embedded defaults, in directories of the demo's own.
fn config(registry: SocketAddr) -> serde_json::Value {
    let mirror = json!({ "mirrors": [format!("http://{registry}")] });
    json!({
        "lxc_path": format!("{ROOT}/lxc"),
        "oci_fallback": true,
        "kubernetes": { "cri_socket": socket() },
        "lxc": { "name_prefix": PREFIX },
        "storage": { "root": format!("{ROOT}/state"), "run_dir": RUN },
        "network": { "conf_dir": format!("{ROOT}/cni.d") },
        "images": { "registries": { "docker.io": mirror, "registry.k8s.io": mirror } },
    })
}

fn network() -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "nxdemo",
        "plugins": [{
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": true,
            "ipam": {
                "type": "host-local",
                "dataDir": format!("{ROOT}/ipam"),
                "ranges": [[{ "subnet": SUBNET }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    })
}

/// A command line as one would type it.
fn shown(args: &[&str]) -> String {
    let quoted = |arg: &&str| match arg.contains(|c: char| c.is_whitespace() || "|;$".contains(c)) {
        true => format!("'{arg}'"),
        false => (*arg).to_owned(),
    };
    args.iter().map(quoted).collect::<Vec<_>>().join(" ")
}
