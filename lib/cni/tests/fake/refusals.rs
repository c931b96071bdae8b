//! What is refused before any plugin is asked to attach: networks that cannot work, and attachments that cannot be meant.

use std::fs;

use nexcage_cni::{Attachment, CniError, Verb};
use serde_json::{Value, json};

use super::world::{World, pod};

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
