//! ADD, CHECK and DEL as they go well, and where the network has changed in between.

use std::fs;

use nexcage_cni::{Attachment, CniError, Verb};
use serde_json::json;

use super::world::{World, pod};

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
