//! Layers from pull to removal: the stack they make, and what is left of one that fails.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::*;
use nexcage_image_store::{
    ChainId, Digest, LayerStore, LayerStoreError, MountOptions, RootfsOptions,
};

#[tokio::test]
async fn layers_are_known_by_their_chains() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    let layers = three_layers();
    let chain = stack(&store, &place, &layers).await;
    let listed = store.layers().await.unwrap();
    assert_eq!(listed.len(), 3);
    let top = store.layer(&chain[2]).await.unwrap().unwrap();
    assert_eq!(top.parent.as_ref(), Some(&chain[1]));
    // A whiteout, etc, gone, gone/z.
    assert_eq!(top.inodes, 4);
    let sum = store.layers_usage().await.unwrap();
    assert_eq!(sum.inodes, listed.iter().map(|l| l.inodes).sum::<u64>());
    assert!(sum.bytes > 0);

    // The tar is not read for a layer that is there.
    let mut spooled = spool(&place.path(), &layers[2]);
    spooled.tar = "/nowhere".into();
    assert_eq!(
        store
            .apply(Some(&chain[1]), &chain[2], &spooled)
            .await
            .unwrap(),
        top
    );

    // Lower layers stay as long as something stands on them.
    for lower in &chain[..2] {
        let refused = store.remove_layer(lower).await.unwrap_err();
        assert!(matches!(refused, LayerStoreError::InUse { .. }) && refused.is_retryable());
    }
    let options = RootfsOptions::default();
    store
        .create_rootfs(&id("c"), &chain[2], &options)
        .await
        .unwrap();
    assert!(store.remove_layer(&chain[2]).await.is_err());

    // Nothing stands on what is not there.
    let nothing = ChainId::from(Digest::of(b"nothing"));
    assert_eq!(store.layer(&nothing).await.unwrap(), None);
    assert!(matches!(
        store.create_rootfs(&id("d"), &nothing, &options).await,
        Err(LayerStoreError::NotFound { what: "layer", .. })
    ));
    assert!(matches!(
        apply(&store, &place, Some(&nothing), &layers[0]).await,
        Err(LayerStoreError::NotFound { what: "layer", .. })
    ));
    assert!(matches!(
        store
            .mount_rootfs(&id("none"), MountOptions::default())
            .await,
        Err(LayerStoreError::NotFound {
            what: "root filesystem",
            ..
        })
    ));
    store.remove_rootfs(&id("none")).await.unwrap();
    // The same again is fine, on another layer not.
    store
        .create_rootfs(&id("c"), &chain[2], &options)
        .await
        .unwrap();
    assert!(
        store
            .create_rootfs(&id("c"), &chain[1], &options)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn as_many_layers_as_anybody_has() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    let layers: Vec<_> = (0..130)
        .map(|n| {
            tar_of(&[
                ("same", &n.to_string()),
                (&format!("f{n}"), ""),
                ("d/", ""),
                (&format!("d/{n}"), ""),
            ])
        })
        .collect();
    let chain = stack(&store, &place, &layers).await;
    let root = rootfs(&store, "many", &chain[129]).await;
    assert_eq!(std::fs::read_to_string(root.join("same")).unwrap(), "129");
    assert_eq!(std::fs::read_dir(root.join("d")).unwrap().count(), 130);
    store.remove_rootfs(&id("many")).await.unwrap();
}

#[tokio::test]
async fn a_pull_that_is_given_up_leaves_nothing() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    let big = "x".repeat(1 << 20);
    let files: Vec<_> = (0..64).map(|n| (n.to_string(), big.clone())).collect();
    let files: Vec<_> = files
        .iter()
        .map(|(n, c)| (n.as_str(), c.as_str()))
        .collect();
    let tar = tar_of(&files);
    let given_up = tokio::time::timeout(
        std::time::Duration::from_millis(5),
        apply(&store, &place, None, &tar),
    )
    .await;
    assert!(given_up.is_err(), "the layer was too quick for this test");
    let chain = ChainId::on(None, &Digest::of(&tar));
    assert_eq!(store.layer(&chain).await.unwrap(), None);
    // Asked for again at once, it is there once.
    apply(&store, &place, None, &tar).await.unwrap();
    drop(store);
    let store = place.open();
    place.settled();
    assert_eq!(place.names("l").len(), 1);
    assert_eq!(store.layers().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_full_disk_is_said_and_left_as_it_was() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    std::fs::create_dir(place.root()).unwrap();
    let options = std::ffi::CString::new("size=16m").unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount(
        "tmpfs",
        place.root().as_str(),
        "tmpfs",
        flags,
        options.as_c_str(),
    )
    .unwrap();
    let store = place.open();
    let chain = stack(&store, &place, &[tar_of(&[("small", "x")])]).await;
    let big = tar_of(&[("big", &"x".repeat(32 << 20))]);
    let full = apply(&store, &place, Some(&chain[0]), &big)
        .await
        .unwrap_err();
    let LayerStoreError::Io { source, doing } = &full else {
        panic!("{full:?}");
    };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    assert!(doing.contains("big"), "{doing}");
    assert!(full.is_retryable());
    assert_eq!((place.names("l").len(), place.names("trash").len()), (1, 0));
    // There is room again for what fits.
    apply(
        &store,
        &place,
        Some(&chain[0]),
        &tar_of(&[("half", &"x".repeat(8 << 20))]),
    )
    .await
    .unwrap();
    drop(store);
}
