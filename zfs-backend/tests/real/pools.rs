//! Pools that are not as they should be.

use std::io::ErrorKind;

use nexcage_image_store::{LayerStore, LayerStoreError, MountOptions, RootfsOptions};
use nexcage_zfs::{ZfsStore, dataset_exists, dataset_room};

use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named_with_the_remedy() {
    let place = Place::new();
    assert!(dataset_exists(&place.dataset("")).await.unwrap());
    assert!(!dataset_exists(&place.dataset("/none")).await.unwrap());
    assert!(!dataset_exists("nexcage-no-such-pool/x").await.unwrap());
    assert!(dataset_room(&place.dataset("")).await.unwrap() > Some(0));
    assert_eq!(dataset_room(&place.dataset("/none")).await.unwrap(), None);
    let mut options = place.options();
    options.dataset = place.dataset("/none");
    let refused = ZfsStore::open(options).await.unwrap_err();
    assert!(
        text(&refused).contains(&format!("zfs create {}", place.dataset("/none"))),
        "{}",
        text(&refused)
    );
    drop(place.open().await);
    run("umount", &[place.dir.join("root/fs").as_str()]);
    run("zpool", &["export", &place.pool]);
    let refused = ZfsStore::open(place.options()).await.unwrap_err();
    assert!(
        text(&refused).contains(&format!("zpool import {}", place.pool)),
        "{}",
        text(&refused)
    );
    assert!(!dataset_exists(&place.dataset("")).await.unwrap());
    let disk = place.disk_dir();
    run(
        "zpool",
        &[
            "import",
            "-d",
            disk.as_str(),
            "-o",
            "readonly=on",
            &place.pool,
        ],
    );
    let store = place.open().await;
    let refused = store.check().await.unwrap_err();
    assert!(
        matches!(&refused, LayerStoreError::Io { source, .. } if source.kind() == ErrorKind::ReadOnlyFilesystem),
        "{refused:?}"
    );
    drop(store);
    run("umount", &[place.dir.join("root/fs").as_str()]);
    run("zpool", &["export", &place.pool]);
    run("zpool", &["import", "-d", disk.as_str(), &place.pool]);
    place.open().await.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_is_said_and_left_as_it_was() {
    let place = Place::with_size("96M", "");
    let store = place.open().await;
    let chain = stack(&store, &place, &[tar_of(&[("small", "x")])]).await;
    let before = place.names();
    let big = tar_of(&[("big", &"x".repeat(128 << 20))]);
    let full = apply(&store, &place, Some(&chain[0]), &big)
        .await
        .unwrap_err();
    let LayerStoreError::Io { source, doing } = &full else {
        panic!("{full:?}");
    };
    assert_eq!(source.kind(), ErrorKind::StorageFull);
    assert!(doing.contains("big"), "{doing}");
    assert!(full.is_retryable());
    place.settled(&before).await;
    // There is room again for what fits, in the same dataset.
    place.sync();
    place.sync();
    let half = tar_of(&[("half", &"x".repeat(8 << 20))]);
    apply(&store, &place, Some(&chain[0]), &half).await.unwrap();
    assert_eq!(place.names().len(), before.len() + 1);
    remove_all(&store).await;
    place.settled(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_destroyed_is_not_found_and_can_be_pulled_again() {
    let place = Place::new();
    let store = place.open().await;
    let chain = stack(&store, &place, &three_layers()).await;
    zfs(&["destroy", "-r", &place.dataset("/images/1")]);
    let options = RootfsOptions::default();
    let gone = store
        .create_rootfs(&id("c"), &chain[2], &options)
        .await
        .unwrap_err();
    assert!(
        matches!(gone, LayerStoreError::NotFound { what: "layer", .. }),
        "{gone:?}"
    );
    assert!(store.layers().await.unwrap().is_empty());
    stack(&store, &place, &three_layers()).await;
    rootfs(&store, "c", &chain[2]).await;
    store.unmount_rootfs(&id("c")).await.unwrap();
    zfs(&["destroy", &place.dataset("/containers/c")]);
    let gone = store
        .mount_rootfs(&id("c"), MountOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(gone, LayerStoreError::NotFound { .. }), "{gone:?}");
    let gone = store.rootfs_usage(&id("c")).await.unwrap_err();
    assert!(matches!(gone, LayerStoreError::NotFound { .. }), "{gone:?}");
    remove_all(&store).await;
    place.settled(&[]).await;
    // What is not ours is refused by name, and left alone.
    zfs(&["create", "-u", &place.dataset("/containers/c")]);
    let chain = stack(&store, &place, &three_layers()).await;
    let refused = store
        .create_rootfs(&id("c"), &chain[2], &options)
        .await
        .unwrap_err();
    assert!(
        text(&refused).contains(&place.dataset("/containers/c")),
        "{}",
        text(&refused)
    );
    store.remove_rootfs(&id("c")).await.unwrap();
    remove_all(&store).await;
    drop(store);
    let _store = place.open().await;
    place.settled(&["/containers/c".to_owned()]).await;
}

/// The disk is a file on a tmpfs that is too small for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_pool_is_said_at_once() {
    let place = Place::with_size("1G", "96M");
    let store = place.open().await;
    store.check().await.unwrap();
    let state = format!("/proc/spl/kstat/zfs/{}/state", place.pool);
    let target = store.mountpoint().join("big");
    let writer = Process::start(
        "dd",
        &[
            "if=/dev/urandom",
            &format!("of={target}"),
            "bs=1M",
            "count=300",
        ],
    );
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while std::fs::read_to_string(&state).unwrap().trim() != "SUSPENDED" {
        assert!(
            std::time::Instant::now() < deadline,
            "the pool goes on without room"
        );
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let asked = std::time::Instant::now();
    let refused = store.check().await.unwrap_err();
    assert!(asked.elapsed().as_secs() < 10);
    assert!(
        text(&refused).contains(&format!("zpool clear {}", place.pool)),
        "{}",
        text(&refused)
    );
    assert!(refused.is_retryable());
    // Nothing that waits for it waits for ever, and what needs no pool does not wait.
    store.layers().await.unwrap();
    run(
        "mount",
        &["-o", "remount,size=2G", place.disk_dir().as_str()],
    );
    run("zpool", &["clear", &place.pool]);
    drop(writer);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while let Err(error) = store.check().await {
        assert!(std::time::Instant::now() < deadline, "{}", text(&error));
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}
