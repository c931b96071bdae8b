//! This machine as a node of Proxmox VE: what the configuration says, and what is found.

use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_command::Program;
use nexcage_config::{Config, Proxmox, ProxmoxStart};
use nexcage_lxc::{
    ApiClient, ApiOptions, LxcOptions, ProxmoxBackend, ProxmoxOptions, Pve, PveError, StartMode,
    check_subids,
};
use nexcage_sandbox::{CgroupTree, IdMapping};
use url::Url;

use super::AssembleError;

/// Where Proxmox locks the configurations of containers.
const LOCK_DIR: &str = "/run/lock/lxc";

/// Where Proxmox keeps what is said while it starts a container.
const RUN_DIR: &str = "/run/pve";

/// Settings, and what was found.
#[derive(Clone, Debug)]
pub(crate) struct ProxmoxNode {
    /// The section of the configuration, or its defaults.
    pub(crate) settings: Proxmox,
    /// The name of this node in the cluster.
    pub(crate) name: String,
    /// Whether the cluster file system is there.
    pub(crate) mounted: bool,
    /// Whether the configuration asks for containers of Proxmox.
    pub(crate) configured: bool,
}

impl ProxmoxNode {
    /// Looks. Blocking.
    pub(crate) fn find(config: &Config) -> Self {
        let settings = config.proxmox.clone().unwrap_or_default();
        let local = local_node(&settings.pve_dir);
        let host = || {
            let name = crate::node::hostname();
            name.split('.').next().unwrap_or_default().to_owned()
        };
        Self {
            name: settings
                .node
                .clone()
                .or_else(|| local.clone())
                .unwrap_or_else(host),
            mounted: local.is_some(),
            configured: config.names_proxmox(),
            settings,
        }
    }

    /// Whether the cluster has quorum; `None` if its file system does not say. Blocking, for as long as that has no answer.
    pub(crate) fn quorate(&self) -> Option<bool> {
        let text = std::fs::read(self.settings.pve_dir.join(".members")).ok()?;
        let members: serde_json::Value = serde_json::from_slice(&text).ok()?;
        match members.get("cluster") {
            // A node of its own is no cluster, and has all the votes there are.
            None => Some(members.get("nodename").is_some()),
            Some(cluster) => cluster.get("quorate").and_then(as_bool),
        }
    }

    /// The API, if there is a token for it.
    ///
    /// # Errors
    ///
    /// [`PveError::Setup`].
    pub(crate) fn api(&self) -> Result<Option<Arc<dyn Pve>>, PveError> {
        let Some(token_file) = &self.settings.token_file else {
            return Ok(None);
        };
        let url = self.settings.api_url.as_str();
        let url = Url::parse(url).map_err(|source| PveError::Setup {
            what: format!("{url} (proxmox.api_url)"),
            source: source.into(),
        })?;
        let client = ApiClient::new(ApiOptions {
            url,
            ca_file: self.settings.ca_file.to_path_buf(),
            token_file: token_file.to_path_buf(),
            node: self.name.clone(),
        })?;
        Ok(Some(Arc::new(client)))
    }

    /// The backend; nothing of Proxmox needs to be there yet.
    ///
    /// # Errors
    ///
    /// [`AssembleError`]: no program to ask for versions, or an API that cannot be one.
    pub(crate) fn backend(
        &self,
        lxc: LxcOptions,
        cgroups: Arc<CgroupTree>,
    ) -> Result<ProxmoxBackend, AssembleError> {
        let vmids = &self.settings.vmids;
        let options = ProxmoxOptions {
            lxc: LxcOptions {
                lxc_path: self.settings.lxc_path.to_path_buf(),
                ..lxc
            },
            pve_dir: self.settings.pve_dir.to_path_buf(),
            node: self.name.clone(),
            vmids: vmids.first..=vmids.last,
            lock_dir: Utf8PathBuf::from(LOCK_DIR),
            run_dir: Utf8PathBuf::from(RUN_DIR),
            start: self.start_mode()?,
            dpkg_query: Program::find("dpkg-query", "dpkg")?,
            hook: Program::myself()?,
        };
        Ok(ProxmoxBackend::new(options, cgroups))
    }

    /// Whether pods with a user namespace of their own can be started, with the ids that kubelet gives them. Blocking.
    pub(crate) fn has_user_namespaces(&self) -> bool {
        if self.settings.start == ProxmoxStart::Direct {
            return true;
        }
        let subids = |file| kubelet_ids(&std::fs::read_to_string(file).unwrap_or_default());
        check_subids(&subids("/etc/subuid"), &subids("/etc/subgid")).is_ok()
    }

    fn start_mode(&self) -> Result<StartMode, AssembleError> {
        let doing = "the Proxmox API of the configuration cannot be used";
        match self.settings.start {
            ProxmoxStart::Direct => Ok(StartMode::Direct),
            ProxmoxStart::Api => match self.api().map_err(AssembleError::step(doing))? {
                Some(api) => Ok(StartMode::Api(api)),
                None => Err(AssembleError::step(doing)("there is no proxmox.token_file")),
            },
        }
    }
}

/// The ids that kubelet gives to pods, from the text of subuid(5): those of the user `kubelet`, and for the first of all pods where
/// there is no such line.
fn kubelet_ids(text: &str) -> Vec<IdMapping> {
    let range = |host_id, length| IdMapping {
        container_id: 0,
        host_id,
        length,
    };
    let own = text.lines().filter_map(|line| {
        let mut fields = line.strip_prefix("kubelet:")?.split(':');
        Some(range(
            fields.next()?.parse().ok()?,
            fields.next()?.parse().ok()?,
        ))
    });
    let own: Vec<IdMapping> = own.collect();
    match own.is_empty() {
        true => vec![range(65_536, 65_536)],
        false => own,
    }
}

/// pmxcfs writes 0 and 1.
fn as_bool(value: &serde_json::Value) -> Option<bool> {
    value.as_bool().or_else(|| Some(value.as_u64()? != 0))
}

/// The node that the cluster file system says this is: `<pve_dir>/local` points to `nodes/<name>`.
fn local_node(pve_dir: &Utf8Path) -> Option<String> {
    let target = pve_dir.join("local").read_link_utf8().ok()?;
    target.file_name().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_is_what_the_cluster_file_system_says() {
        let dir = tempfile::tempdir().unwrap();
        let pve_dir = Utf8Path::from_path(dir.path()).unwrap();
        let config = |node: Option<&str>| {
            let json = serde_json::json!({"proxmox": {"pve_dir": pve_dir, "node": node}});
            Config::parse(&json.to_string(), "test").unwrap()
        };
        let found = ProxmoxNode::find(&config(None));
        assert!(
            !found.mounted && found.configured && !found.name.contains('.'),
            "{found:?}"
        );
        std::os::unix::fs::symlink("nodes/pve7", pve_dir.join("local")).unwrap();
        let found = ProxmoxNode::find(&config(None));
        assert_eq!((found.name.as_str(), found.mounted), ("pve7", true));
        assert_eq!(ProxmoxNode::find(&config(Some("other"))).name, "other");
    }

    #[test]
    fn the_cluster_file_system_tells_of_quorum() {
        let dir = tempfile::tempdir().unwrap();
        let pve_dir = Utf8Path::from_path(dir.path()).unwrap();
        let json = serde_json::json!({"proxmox": {"pve_dir": pve_dir}});
        let node = ProxmoxNode::find(&Config::parse(&json.to_string(), "test").unwrap());
        assert_eq!(node.quorate(), None);
        for (members, quorate) in [
            (r#"{"nodename": "a", "version": 4}"#, Some(true)),
            (
                r#"{"nodename": "a", "cluster": {"quorate": 1, "nodes": 3}}"#,
                Some(true),
            ),
            (
                r#"{"nodename": "a", "cluster": {"quorate": 0}}"#,
                Some(false),
            ),
            (r#"{"nodename": "a", "cluster": {}}"#, None),
            ("{", None),
        ] {
            std::fs::write(pve_dir.join(".members"), members).unwrap();
            assert_eq!(node.quorate(), quorate, "{members}");
        }
    }

    #[test]
    fn ids_that_kubelet_gives_to_pods() {
        let ids = |text| -> Vec<(u32, u32)> {
            kubelet_ids(text)
                .iter()
                .map(|m| (m.host_id, m.length))
                .collect()
        };
        assert_eq!(ids("root:100000:65536\n"), [(65_536, 65_536)]);
        assert_eq!(
            ids("kubelet:200000:655360\nkubelet:x:1\n"),
            [(200_000, 655_360)]
        );
    }

    #[test]
    fn there_is_an_api_where_there_is_a_token() {
        let config = |json: serde_json::Value| {
            let json = serde_json::json!({"proxmox": json});
            ProxmoxNode::find(&Config::parse(&json.to_string(), "test").unwrap())
        };
        let none = config(serde_json::json!({}));
        assert!(none.api().unwrap().is_none());
        let some = config(serde_json::json!({"token_file": "/t", "start": "api", "node": "a"}));
        assert!(some.api().unwrap().is_some());
        assert!(matches!(some.start_mode(), Ok(StartMode::Api(_))));
    }
}
