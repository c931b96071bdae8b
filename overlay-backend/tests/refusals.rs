//! What overlayfs cannot do, and what no store does.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::*;
use nexcage_image_store::{LayerStore, LayerStoreError, RootfsOptions};

#[tokio::test]
async fn what_cannot_be_done_is_refused() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    let chain = stack(&store, &place, &[tar_of(&[])]).await;
    let quota = RootfsOptions {
        quota_bytes: Some(1),
        ..Default::default()
    };
    let refused = store
        .create_rootfs(&id("a"), &chain[0], &quota)
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("limit of the writable layer on"),
        "{refused}"
    );
    let property = RootfsOptions {
        properties: [("recordsize".to_owned(), "8K".to_owned())].into(),
        ..Default::default()
    };
    let refused = store
        .create_rootfs(&id("a"), &chain[0], &property)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("recordsize"), "{refused}");
    let refused = store.checkpoint_rootfs(&id("a")).await.unwrap_err();
    assert!(refused.to_string().contains("checkpoints"), "{refused}");
    for refused in [
        store.checkpoints(&id("a")).await.err(),
        store.restore_rootfs(&id("a"), None).await.err(),
        store.remove_checkpoint(&id("a"), "x").await.err(),
    ] {
        let Some(LayerStoreError::Unsupported { driver, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(driver, "overlay");
    }
    for name in ["", "..", "a/b", ".hidden", &"a".repeat(129)] {
        let options = RootfsOptions::default();
        assert!(
            store
                .create_rootfs(&id(name), &chain[0], &options)
                .await
                .is_err(),
            "{name}"
        );
        assert!(store.remove_rootfs(&id(name)).await.is_err(), "{name}");
    }
    assert!(store.rootfses().await.unwrap().is_empty());
    // A hostile layer names its entry, and nothing of it stays.
    let bad = apply(&store, &place, Some(&chain[0]), b"this is no archive")
        .await
        .unwrap_err();
    assert!(matches!(bad, LayerStoreError::Apply { .. }), "{bad:?}");
    assert_eq!(place.names("l").len(), 1);
    store.remove_layer(&chain[0]).await.unwrap();
}

#[tokio::test]
async fn paths_that_cannot_be_mounted_are_refused_at_once() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    for name in ["with:colon", "with,comma", &"long".repeat(50)] {
        let mut options = place.options();
        options.root = place.path().join(name);
        let refused = nexcage_overlay::OverlayStore::open(options).unwrap_err();
        assert!(
            refused.to_string().contains("using the directory"),
            "{refused}"
        );
    }
}
