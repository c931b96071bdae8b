//! What every container of a pod shares on disk: resolv.conf, hostname, /dev/shm.
//!
//! All of it lives in the pod's run directory, on tmpfs: after a reboot the pod is gone
//! and so are its files.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::spec::Dns;

/// Size of a pod's /dev/shm in bytes, as in containerd and CRI-O.
const SHM_BYTES: u64 = 64 << 20;

/// Paths below a pod's run directory.
#[derive(Clone, Debug)]
pub(crate) struct PodFiles {
    dir: Utf8PathBuf,
}

impl PodFiles {
    pub(crate) fn new(dir: &Utf8Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    pub(crate) fn resolv_conf(&self) -> Utf8PathBuf {
        self.dir.join("resolv.conf")
    }

    pub(crate) fn hostname(&self) -> Utf8PathBuf {
        self.dir.join("hostname")
    }

    /// For containers whose mounts bring none: kubelet always brings its own.
    pub(crate) fn hosts(&self) -> Utf8PathBuf {
        self.dir.join("hosts")
    }

    pub(crate) fn shm(&self) -> Utf8PathBuf {
        self.dir.join("shm")
    }

    /// Makes the directory and everything in it; `/dev/shm` if the pod has its own, for the owner given. Blocking.
    pub(crate) fn create(
        &self,
        dns: Option<&Dns>,
        hostname: &str,
        shm: Option<u32>,
    ) -> io::Result<()> {
        std::fs::create_dir_all(&self.dir)?;
        std::fs::write(self.resolv_conf(), resolv_conf(dns)?)?;
        std::fs::write(self.hostname(), format!("{hostname}\n"))?;
        std::fs::write(self.hosts(), hosts(hostname))?;
        if let Some(owner) = shm {
            self.mount_shm(owner)?;
        }
        Ok(())
    }

    fn mount_shm(&self, owner: u32) -> io::Result<()> {
        let shm = self.shm();
        std::fs::create_dir_all(&shm)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let options = format!("mode=1777,size={SHM_BYTES},uid={owner},gid={owner}");
        let options = std::ffi::CString::new(options)?;
        mount(
            "shm",
            shm.as_std_path(),
            "tmpfs",
            flags,
            Some(options.as_c_str()),
        )?;
        Ok(())
    }

    /// Removes everything, also what a crash left half made. Blocking.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.unmount_shm()?;
        match std::fs::remove_dir_all(&self.dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Gives the memory of /dev/shm back. Blocking.
    pub(crate) fn unmount_shm(&self) -> io::Result<()> {
        let shm = self.shm();
        // Once for every mount on it; the last answer is EINVAL, "not a mount point".
        loop {
            match unmount(
                shm.as_std_path(),
                UnmountFlags::DETACH | UnmountFlags::NOFOLLOW,
            ) {
                Ok(()) => {}
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// The pod's own DNS configuration, or the host's if it has none.
fn resolv_conf(dns: Option<&Dns>) -> io::Result<Vec<u8>> {
    match dns {
        Some(dns) if *dns != Dns::default() => Ok(render_resolv_conf(dns).into_bytes()),
        _ => match std::fs::read("/etc/resolv.conf") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        },
    }
}

/// resolv.conf(5) lines in the order that critest and kubelet's own tests compare.
fn render_resolv_conf(dns: &Dns) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

fn hosts(hostname: &str) -> String {
    format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_has_one_line_per_server() {
        let dns = Dns {
            servers: vec!["10.0.0.10".into(), "10.0.0.11".into()],
            searches: vec!["a.local".into(), "b.local".into()],
            options: vec!["ndots:5".into()],
        };
        insta::assert_snapshot!(render_resolv_conf(&dns), @r"
        search a.local b.local
        nameserver 10.0.0.10
        nameserver 10.0.0.11
        options ndots:5
        ");
    }
}
