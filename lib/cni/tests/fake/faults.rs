//! Plugins that fail, hang or answer nonsense, and a damaged cache: what was begun is undone.

use std::fs;
use std::time::Duration;

use nexcage_cni::{Cni, CniError, CniOptions, Verb};
use serde_json::json;

use super::world::{World, pod};

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
async fn a_pod_without_an_address_is_not_attached() {
    let w = World::new();
    w.network("1.0.0", &[("first", json!({"ADD": "bare"}))]);
    let e = w.cni.add(&pod()).await.unwrap_err();
    assert!(matches!(e, CniError::NoAddress { .. }), "{e:?}");
    assert_eq!(w.calls(), ["first ADD", "first DEL"]);
    assert_eq!(w.leftover_files(), 0);
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
