//! Whether containers can be made and started in this node's Proxmox.

use camino::Utf8Path;
use nexcage_sandbox::SandboxError;
use serde::Deserialize;

use super::backend::ProxmoxBackend;
use super::features::Features;
use super::options::{ProxmoxOptions, StartMode};
use super::subids;
use super::vmid::{LARGEST, SMALLEST};
use crate::api::{Pve, PveError};
use crate::container::check;

/// What a token must have to start containers.
const START_PRIVILEGE: &str = "VM.PowerMgmt";

impl ProxmoxBackend {
    pub(super) async fn check_all(&self) -> Result<(), SandboxError> {
        let unavailable = |reason: String| self.engine.unavailable(reason);
        vet(&self.options).map_err(unavailable)?;
        let lxc = check(self.engine.options(), self.engine.cgroups()).await;
        lxc.map_err(unavailable)?;
        let features = self.look_for_features().await?;
        let (options, directory) = (self.options.clone(), self.confs.directory().to_owned());
        let files = tokio::task::spawn_blocking(move || {
            mounted(&options.pve_dir, &options.node, &directory)?;
            quorum(&options.pve_dir)
        });
        files
            .await
            .map_err(|e| unavailable(e.to_string()))?
            .map_err(unavailable)?;
        match &self.options.start {
            StartMode::Direct => Ok(()),
            StartMode::Api(pve) => self.check_api(pve.as_ref(), features).await,
        }
    }

    async fn check_api(&self, pve: &dyn Pve, features: Features) -> Result<(), SandboxError> {
        let unavailable = |reason: String| self.engine.unavailable(reason);
        if !features.starts_unmanaged {
            return Err(unavailable(
                "this pve-container cannot start containers of type unmanaged; upgrade it to 6.1.1 or newer, or set proxmox.start to \
                 direct"
                    .to_owned(),
            ));
        }
        let (ids, rootfs) = ([self.engine.ids()], self.options.lxc.rootfs.clone());
        let files = tokio::task::spawn_blocking(move || {
            without_links(&rootfs)?;
            subids::check(&ids, &ids)
        });
        files
            .await
            .map_err(|e| unavailable(e.to_string()))?
            .map_err(unavailable)?;
        let refused = |error: PveError| self.engine.unavailable_by(&error);
        pve.version().await.map_err(refused)?;
        let permissions = pve.permissions().await.map_err(refused)?;
        let vmids = &self.options.vmids;
        for vmid in [vmids.start(), vmids.end()] {
            let path = format!("/vms/{vmid}");
            if !permissions.has(&path, START_PRIVILEGE) {
                return Err(unavailable(format!(
                    "the API token may not start containers: it lacks {START_PRIVILEGE} on {path}; give it a role with that privilege \
                     on /vms, in Datacenter, Permissions"
                )));
            }
        }
        Ok(())
    }
}

/// What is wrong with the options alone.
fn vet(options: &ProxmoxOptions) -> Result<(), String> {
    let (first, last) = (*options.vmids.start(), *options.vmids.end());
    if first > last || first < SMALLEST || last > LARGEST {
        return Err(format!(
            "proxmox.vmids goes from {first} to {last}; it must lie between {SMALLEST} and {LARGEST}, the first not above the last"
        ));
    }
    // A value of Proxmox's: options follow behind a comma.
    let rootfs = &options.lxc.rootfs;
    if rootfs.as_str().contains([',', '=', ' ', '\t', '\n']) {
        return Err(format!(
            "{rootfs} has a character in its path that Proxmox cannot have there: a comma, an equals sign or white space; move \
             storage.root"
        ));
    }
    Ok(())
}

/// Proxmox follows no symbolic links to a root filesystem.
fn without_links(rootfs: &Utf8Path) -> Result<(), String> {
    let real = rootfs
        .canonicalize_utf8()
        .map_err(|e| format!("{rootfs} cannot be examined: {e}"))?;
    match real == *rootfs {
        true => Ok(()),
        false => Err(format!(
            "Proxmox follows no symbolic links, and {rootfs} is {real}; name that in storage.root"
        )),
    }
}

/// Whether the cluster file system is there and has this node.
fn mounted(pve_dir: &Utf8Path, node: &str, directory: &Utf8Path) -> Result<(), String> {
    let local = pve_dir.join("local").read_link_utf8().map_err(|e| {
        format!("Proxmox's cluster file system is not mounted at {pve_dir} ({e}); run: systemctl start pve-cluster")
    })?;
    if local.file_name() != Some(node) {
        return Err(format!(
            "this node is not {node}, but {} to Proxmox; set proxmox.node",
            local.file_name().unwrap_or_default()
        ));
    }
    match directory.is_dir() {
        true => Ok(()),
        false => Err(format!(
            "{directory} is no directory; is {node} a node of this cluster?"
        )),
    }
}

/// What pmxcfs says of the cluster, in `.members`; `cluster` is missing on a node of its own.
#[derive(Deserialize)]
struct Members {
    cluster: Option<Cluster>,
}

#[derive(Deserialize)]
struct Cluster {
    quorate: u8,
}

/// Whether configurations can be written. Reads only: to try it would be seen in the whole cluster.
fn quorum(pve_dir: &Utf8Path) -> Result<(), String> {
    let path = pve_dir.join(".members");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) => return Err(format!("{path} cannot be read: {e}")),
    };
    let members: Members =
        serde_json::from_str(&text).map_err(|e| format!("{path} is not understood: {e}"))?;
    match members.cluster {
        Some(Cluster { quorate: 0 }) => Err(
            "the Proxmox cluster has no quorum, so no container can be configured; bring the other nodes back (pvecm status shows them)"
                .to_owned(),
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxmox::fake::FakePmxcfs;
    use camino::Utf8PathBuf;

    #[test]
    fn links_on_the_way_to_the_root_filesystem() {
        let temp = tempfile::tempdir().unwrap();
        let base = Utf8PathBuf::try_from(temp.path().to_owned()).unwrap();
        std::fs::create_dir_all(base.join("real/sandbox")).unwrap();
        std::os::unix::fs::symlink("real", base.join("link")).unwrap();
        without_links(&base.join("real/sandbox")).unwrap();
        let error = without_links(&base.join("link/sandbox")).unwrap_err();
        assert!(error.contains("real/sandbox; name that"), "{error}");
        assert!(without_links(&base.join("none")).is_err());
    }

    #[test]
    fn a_cluster_file_system_that_is_there() {
        let temp = tempfile::tempdir().unwrap();
        let pve = Utf8PathBuf::try_from(temp.path().to_owned()).unwrap();
        let directory = pve.join("nodes/pve1/lxc");
        let error = mounted(&pve, "pve1", &directory).unwrap_err();
        assert!(error.contains("systemctl start pve-cluster"), "{error}");

        let fake = FakePmxcfs::new(&pve, &["pve1", "pve2"]).unwrap();
        mounted(&pve, "pve1", &directory).unwrap();
        quorum(&pve).unwrap();
        let error = mounted(&pve, "pve2", &pve.join("nodes/pve2/lxc")).unwrap_err();
        assert!(error.contains("set proxmox.node"), "{error}");

        fake.set_quorate(false).unwrap();
        assert!(quorum(&pve).unwrap_err().contains("no quorum"));
        // As on a node of its own.
        std::fs::write(
            pve.join(".members"),
            "{\n\"nodename\": \"pve1\",\n\"version\": 0\n}\n",
        )
        .unwrap();
        quorum(&pve).unwrap();
        std::fs::write(pve.join(".members"), "").unwrap();
        assert!(quorum(&pve).unwrap_err().contains("not understood"));
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(mounted(&pve, "pve1", &directory).is_err());
    }
}
