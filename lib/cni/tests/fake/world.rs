//! Directories, a network and plugins of one test.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_cni::{Attachment, Cni, CniOptions};
use serde_json::{Value, json};

/// Directories of one test.
pub(crate) struct World {
    _dir: tempfile::TempDir,
    pub(crate) root: Utf8PathBuf,
    pub(crate) cni: Cni,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::try_from(dir.path().to_owned()).unwrap();
        for name in ["plugins", "conf", "record"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        let script = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugin.sh");
        for name in ["first", "second", "third-old"] {
            symlink(&script, root.join("plugins").join(name)).unwrap();
        }
        let cni = Cni::new(CniOptions {
            plugin_dirs: vec![root.join("none"), root.join("plugins")],
            conf_dir: root.join("conf"),
            cache_dir: root.join("state/cache"),
            deadline: Duration::from_secs(20),
        });
        Self {
            _dir: dir,
            root,
            cni,
        }
    }

    /// A network of plugins, each given as its name and more keys.
    pub(crate) fn network(&self, version: &str, plugins: &[(&str, Value)]) -> &Self {
        let plugins: Vec<Value> = plugins
            .iter()
            .map(|(kind, more)| {
                let mut conf = json!({"type": kind, "record": self.root.join("record")});
                conf.as_object_mut()
                    .unwrap()
                    .extend(more.as_object().unwrap().clone());
                conf
            })
            .collect();
        let conf = json!({"cniVersion": version, "name": "pods", "plugins": plugins});
        fs::write(self.root.join("conf/10-pods.conflist"), conf.to_string()).unwrap();
        self
    }

    pub(crate) fn no_network(&self) {
        fs::remove_file(self.root.join("conf/10-pods.conflist")).unwrap();
    }

    /// What was called since this was last asked.
    pub(crate) fn calls(&self) -> Vec<String> {
        let file = self.root.join("record/calls");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let _ = fs::remove_file(file);
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn stdin(&self, call: &str) -> Value {
        let text = fs::read(self.root.join(format!("record/{call}.json"))).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    pub(crate) fn env(&self, call: &str) -> String {
        fs::read_to_string(self.root.join(format!("record/{call}.env"))).unwrap()
    }

    pub(crate) async fn cached(&self) -> usize {
        self.cni.cached().await.unwrap().len()
    }

    pub(crate) fn leftover_files(&self) -> usize {
        fs::read_dir(self.root.join("state/cache")).map_or(0, Iterator::count)
    }
}

/// A pod with everything that a plugin may be told.
pub(crate) fn pod() -> Attachment {
    let args = [
        ("IgnoreUnknown", "1"),
        ("K8S_POD_NAMESPACE", "ns"),
        ("K8S_POD_NAME", "web"),
        ("K8S_POD_INFRA_CONTAINER_ID", "abc"),
        ("K8S_POD_UID", "u-1"),
    ];
    Attachment {
        container_id: "abc".into(),
        netns: Some("/proc/self/ns/net".into()),
        ifname: "eth0".into(),
        args: args.map(|(k, v)| (k.into(), v.into())).into(),
        capabilities: json!({
            "portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}],
            "bandwidth": {"ingressRate": 1},
        })
        .as_object()
        .unwrap()
        .clone(),
    }
}
