//! All verbs, against plugins that do as they are told.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_cni::{Attachment, Cni, CniError, CniOptions, Verb};
use serde_json::{Value, json};

/// Directories of one test.
struct World {
    _dir: tempfile::TempDir,
    root: Utf8PathBuf,
    cni: Cni,
}

impl World {
    fn new() -> Self {
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
    fn network(&self, version: &str, plugins: &[(&str, Value)]) -> &Self {
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

    fn no_network(&self) {
        fs::remove_file(self.root.join("conf/10-pods.conflist")).unwrap();
    }

    /// What was called since this was last asked.
    fn calls(&self) -> Vec<String> {
        let file = self.root.join("record/calls");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let _ = fs::remove_file(file);
        text.lines().map(str::to_owned).collect()
    }

    fn stdin(&self, call: &str) -> Value {
        let text = fs::read(self.root.join(format!("record/{call}.json"))).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    fn env(&self, call: &str) -> String {
        fs::read_to_string(self.root.join(format!("record/{call}.env"))).unwrap()
    }

    async fn cached(&self) -> usize {
        self.cni.cached().await.unwrap().len()
    }

    fn leftover_files(&self) -> usize {
        fs::read_dir(self.root.join("state/cache")).map_or(0, Iterator::count)
    }
}

fn pod() -> Attachment {
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

#[tokio::test]
async fn add_chains_results_and_del_goes_back() {
    let w = World::new();
    let capable = json!({"capabilities": {"portMappings": true}});
    w.network("1.0.0", &[("first", json!({})), ("second", capable)]);
    let attached = w.cni.add(&pod()).await.unwrap();
    let ips: Vec<String> = attached.ips.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["10.9.0.2", "fd09::2"]);
    assert_eq!(attached.result["by"], "second");
    assert_eq!(w.calls(), ["first ADD", "second ADD"]);

    let first = w.stdin("first.ADD");
    assert_eq!(first["name"], "pods");
    assert_eq!(first["cniVersion"], "1.0.0");
    assert!(first.get("prevResult").is_none() && first.get("runtimeConfig").is_none());
    let second = w.stdin("second.ADD");
    assert_eq!(second["prevResult"]["by"], "first");
    assert_eq!(
        second["runtimeConfig"],
        json!({"portMappings": pod().capabilities["portMappings"]})
    );
    assert_eq!(
        w.env("second.ADD").replace(w.root.as_str(), "ROOT"),
        "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=u-1\n\
         CNI_COMMAND=ADD\nCNI_CONTAINERID=abc\nCNI_IFNAME=eth0\nCNI_NETNS=/proc/self/ns/net\nCNI_PATH=ROOT/none:ROOT/plugins\n"
    );

    let cached = w.cni.cached().await.unwrap();
    assert_eq!(cached[0].attachment, pod());
    assert_eq!(cached[0].network, "pods");
    assert_eq!(cached[0].result.as_ref().unwrap(), &attached.result);

    w.cni.check(&pod()).await.unwrap();
    assert_eq!(w.calls(), ["first CHECK", "second CHECK"]);
    assert_eq!(w.stdin("first.CHECK")["prevResult"]["by"], "second");

    w.cni.del(&pod()).await.unwrap();
    assert_eq!(w.calls(), ["second DEL", "first DEL"]);
    assert_eq!(w.stdin("first.DEL")["prevResult"]["by"], "second");
    assert_eq!(w.leftover_files(), 0);

    w.cni.del(&pod()).await.unwrap();
    assert!(w.calls().is_empty());
    assert!(matches!(
        w.cni.check(&pod()).await,
        Err(CniError::NotFound { .. })
    ));
}

#[tokio::test]
async fn del_needs_neither_the_configuration_nor_the_namespace() {
    let w = World::new();
    w.network("1.0.0", &[("first", json!({}))]);
    w.cni.add(&pod()).await.unwrap();
    w.no_network();
    // A pinned namespace after a reboot: an empty file.
    let stale = w.root.join("stale");
    fs::write(&stale, "").unwrap();
    w.cni
        .del(&Attachment {
            netns: Some(stale),
            ..pod()
        })
        .await
        .unwrap();
    assert!(w.env("first.DEL").contains("CNI_NETNS=\n"));
    assert_eq!(w.cached().await, 0);
}

#[tokio::test]
async fn a_failed_add_is_undone_and_tells_all() {
    let w = World::new();
    w.network(
        "1.0.0",
        &[("first", json!({})), ("second", json!({"ADD": "fail"}))],
    );
    let e = w.cni.add(&pod()).await.unwrap_err();
    let text = e.to_string();
    assert!(
        text.contains("second failed on ADD (code 7): no more addresses; all 3 are taken"),
        "{text}"
    );
    assert!(!e.is_retryable());
    assert_eq!(
        w.calls(),
        ["first ADD", "second ADD", "second DEL", "first DEL"]
    );
    assert_eq!(w.leftover_files(), 0);
}

#[tokio::test]
async fn what_cannot_be_undone_yet_is_kept_and_undone_by_the_next_call() {
    let w = World::new();
    w.network(
        "1.0.0",
        &[
            ("first", json!({"DEL": "fail"})),
            ("second", json!({"ADD": "later", "DEL": "die"})),
        ],
    );
    let e = w.cni.add(&pod()).await.unwrap_err();
    assert!(
        matches!(
            &e,
            CniError::Plugin {
                code: 11,
                verb: Verb::Add,
                ..
            }
        ),
        "{e:?}"
    );
    assert!(e.is_retryable());
    // The failure of one plugin's DEL keeps no other from its own.
    assert_eq!(
        w.calls(),
        ["first ADD", "second ADD", "second DEL", "first DEL"]
    );
    let cached = w.cni.cached().await.unwrap();
    assert_eq!((cached.len(), &cached[0].result), (1, &None));
    assert!(matches!(
        w.cni.check(&pod()).await,
        Err(CniError::NotFound { .. })
    ));

    let e = w.cni.del(&pod()).await.unwrap_err();
    assert!(
        matches!(
            &e,
            CniError::Call {
                verb: Verb::Del,
                ..
            }
        ),
        "{e:?}"
    );
    let source = std::error::Error::source(&e).unwrap().to_string();
    assert!(
        source.contains("something broke") && source.contains("exit status: 3"),
        "{source}"
    );

    // A new ADD begins by undoing the old one, with the old configuration.
    w.calls();
    w.network("1.0.0", &[("first", json!({}))]);
    assert!(w.cni.add(&pod()).await.is_err());
    assert_eq!(w.calls(), ["second DEL", "first DEL"]);
    w.cni.forget(&pod()).await.unwrap();
    w.cni.add(&pod()).await.unwrap();
    assert_eq!(w.calls(), ["first ADD"]);
}

#[tokio::test]
async fn an_add_that_was_cut_off_is_undone() {
    let w = World::new();
    w.network(
        "1.0.0",
        &[("first", json!({})), ("second", json!({"ADD": "hang"}))],
    );
    let a = pod();
    let add = w.cni.add(&a);
    assert!(
        tokio::time::timeout(Duration::from_secs(2), add)
            .await
            .is_err()
    );
    assert_eq!(w.calls(), ["first ADD", "second ADD"]);
    assert_eq!(w.cached().await, 1);
    w.cni.del(&a).await.unwrap();
    assert_eq!(w.calls(), ["second DEL", "first DEL"]);
    assert_eq!(w.cached().await, 0);
}

#[tokio::test]
async fn a_plugin_that_hangs_is_killed() {
    let w = World::new();
    w.network("1.0.0", &[("first", json!({"ADD": "hang"}))]);
    let cni = Cni::new(CniOptions {
        plugin_dirs: vec![w.root.join("plugins")],
        conf_dir: w.root.join("conf"),
        cache_dir: w.root.join("state/cache"),
        deadline: Duration::from_secs(2),
    });
    let e = cni.add(&pod()).await.unwrap_err();
    let source = std::error::Error::source(&e).unwrap().to_string();
    assert!(source.contains("did not end within 2 s"), "{source}");
    assert!(e.is_retryable());
    assert_eq!(w.leftover_files(), 0);
}

#[tokio::test]
async fn wrong_answers_are_errors_that_show_them() {
    for (behaviour, words) in [
        ("garbage", "not JSON"),
        ("flood", "more than 1048576 bytes"),
        ("silent", "a result is a JSON object"),
    ] {
        let w = World::new();
        w.network("1.0.0", &[("first", json!({"ADD": behaviour}))]);
        let e = w.cni.add(&pod()).await.unwrap_err();
        assert!(matches!(e, CniError::Answer { .. }), "{e:?}");
        assert!(e.to_string().contains(words), "{e}");
        assert_eq!(w.calls(), ["first ADD", "first DEL"]);
        assert_eq!(w.leftover_files(), 0);
    }
}

#[tokio::test]
async fn the_version_is_one_that_all_speak() {
    let w = World::new();
    let conf = |versions: Value| {
        let plugins = json!([{"type": "first"}, {"type": "third-old"}]);
        let conf = json!({"cniVersion": "1.0.0", "cniVersions": versions, "name": "pods", "plugins": plugins});
        fs::write(w.root.join("conf/10-pods.conflist"), conf.to_string()).unwrap();
    };
    conf(json!(["0.4.0", "1.1.0"]));
    assert_eq!(w.cni.status().await.unwrap().cni_version, "0.4.0");
    conf(json!([]));
    let e = w.cni.status().await.unwrap_err().to_string();
    for word in [
        "plugins/third-old",
        "0.3.1, 0.4.0",
        "10-pods.conflist",
        "1.0.0",
    ] {
        assert!(e.contains(word), "{word} is not in: {e}");
    }
}

#[tokio::test]
async fn status_tells_the_network_or_what_is_missing() {
    let w = World::new();
    assert!(matches!(
        w.cni.status().await,
        Err(CniError::NoNetwork { .. })
    ));
    w.network("1.0.0", &[("first", json!({})), ("second", json!({}))]);
    let status = w.cni.status().await.unwrap();
    assert_eq!(
        (status.name.as_str(), status.cni_version.as_str()),
        ("pods", "1.0.0")
    );
    assert_eq!(status.plugins, ["first", "second"]);
    assert!(w.calls().is_empty(), "version 1.0 has no STATUS");

    w.network(
        "1.1.0",
        &[("first", json!({})), ("second", json!({"STATUS": "later"}))],
    );
    let e = w.cni.status().await.unwrap_err();
    assert!(
        matches!(
            e,
            CniError::Plugin {
                verb: Verb::Status,
                ..
            }
        ),
        "{e:?}"
    );
    assert_eq!(w.calls(), ["first STATUS", "second STATUS"]);

    w.network("1.0.0", &[("first", json!({})), ("absent", json!({}))]);
    let e = w.cni.status().await.unwrap_err();
    assert!(e.to_string().contains("CNI plugin absent is not in"), "{e}");
    assert!(matches!(
        w.cni.add(&pod()).await,
        Err(CniError::PluginNotFound { .. })
    ));
    assert_eq!(w.cached().await, 0);
}

#[tokio::test]
async fn check_is_left_out_where_there_is_none() {
    let w = World::new();
    w.network("0.3.1", &[("first", json!({"CHECK": "fail"}))]);
    w.cni.add(&pod()).await.unwrap();
    w.cni.check(&pod()).await.unwrap();
    w.cni.del(&pod()).await.unwrap();
    assert!(w.stdin("first.DEL").get("prevResult").is_none());
    w.network("0.4.0", &[("first", json!({"CHECK": "fail"}))]);
    w.cni.add(&pod()).await.unwrap();
    let e = w.cni.check(&pod()).await.unwrap_err();
    assert!(
        matches!(
            e,
            CniError::Plugin {
                verb: Verb::Check,
                ..
            }
        ),
        "{e:?}"
    );
}

#[tokio::test]
async fn gc_detaches_what_is_not_valid_and_tells_plugins() {
    let w = World::new();
    w.network("1.1.0", &[("first", json!({}))]);
    let other = Attachment {
        container_id: "other".into(),
        ..pod()
    };
    w.cni.add(&pod()).await.unwrap();
    w.cni.add(&other).await.unwrap();
    w.calls();
    w.cni.gc(&[("other".into(), "eth0".into())]).await.unwrap();
    assert_eq!(w.calls(), ["first DEL", "first GC"]);
    assert!(w.env("first.DEL").contains("CNI_CONTAINERID=abc\n"));
    let valid = &w.stdin("first.GC")["cni.dev/valid-attachments"];
    assert_eq!(valid, &json!([{"containerID": "other", "ifname": "eth0"}]));
    let left = w.cni.cached().await.unwrap();
    assert_eq!(
        (left.len(), left[0].attachment.container_id.as_str()),
        (1, "other")
    );

    w.no_network();
    w.cni.gc(&[]).await.unwrap();
    assert_eq!(w.calls(), ["first DEL"]);
    assert_eq!(w.cached().await, 0);
}

#[tokio::test]
async fn a_damaged_cache_file_is_undone_with_the_current_network() {
    let w = World::new();
    w.network("1.0.0", &[("first", json!({}))]);
    let damage = || {
        fs::create_dir_all(w.root.join("state/cache")).unwrap();
        fs::write(w.root.join("state/cache/abc@eth0.json"), "{\"state\"").unwrap();
    };
    damage();
    let cached = w.cni.cached().await.unwrap();
    assert_eq!(cached[0].attachment.container_id, "abc");
    w.cni.del(&cached[0].attachment).await.unwrap();
    assert_eq!(w.calls(), ["first DEL"]);
    assert_eq!(w.cached().await, 0);
    damage();
    w.no_network();
    w.cni.del(&pod()).await.unwrap();
    assert_eq!(w.cached().await, 0);
}

#[tokio::test]
async fn attachments_that_plugins_would_misread_are_refused() {
    let w = World::new();
    w.network("1.0.0", &[("first", json!({}))]);
    let bad = [
        Attachment {
            container_id: "../x".into(),
            ..pod()
        },
        Attachment {
            container_id: String::new(),
            ..pod()
        },
        Attachment {
            ifname: "a/b".into(),
            ..pod()
        },
        Attachment {
            ifname: "sixteen-bytes-no".into(),
            ..pod()
        },
        Attachment {
            args: vec![("A".into(), "b;C=d".into())],
            ..pod()
        },
        Attachment {
            args: vec![("A=".into(), "b".into())],
            ..pod()
        },
    ];
    for a in bad {
        let add = w.cni.add(&a).await;
        assert!(
            matches!(add, Err(CniError::Attachment { .. })),
            "{a:?}: {add:?}"
        );
        assert!(matches!(
            w.cni.del(&a).await,
            Err(CniError::Attachment { .. })
        ));
    }
    for netns in [
        None,
        Some("/etc/passwd".into()),
        Some("/no/such/netns".into()),
    ] {
        let add = w.cni.add(&Attachment { netns, ..pod() }).await;
        assert!(matches!(add, Err(CniError::NoNetns { .. })), "{add:?}");
    }
    assert!(w.calls().is_empty());
}

#[tokio::test]
async fn a_pod_without_an_address_is_not_attached() {
    let w = World::new();
    w.network("1.0.0", &[("first", json!({"ADD": "bare"}))]);
    let e = w.cni.add(&pod()).await.unwrap_err();
    assert!(matches!(e, CniError::NoAddress { .. }), "{e:?}");
    assert_eq!(w.calls(), ["first ADD", "first DEL"]);
    assert_eq!(w.leftover_files(), 0);
}
