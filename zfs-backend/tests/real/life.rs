//! Layers and root filesystems from pull to removal.

use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use nexcage_image_store::{LayerStore, LayerStoreError, MountOptions, RootfsOptions, Usage};

use crate::common::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_container_sees_its_layers_and_writes_beside_them() {
    let place = Place::new();
    let store = place.open().await;
    store.check().await.unwrap();
    let chain = stack(&store, &place, &three_layers()).await;
    // No mount but the one that stands for all.
    assert_eq!(place.mounts(), [store.mountpoint().to_string()]);
    let names = place.names();
    assert_eq!(
        names.iter().filter(|name| !name.contains('@')).count(),
        1,
        "{names:?}"
    );
    let top = store.layer(&chain[2]).await.unwrap().unwrap();
    assert_eq!(top.inodes, 2);
    assert!(top.bytes > 0);
    let root = rootfs(&store, "c1", &chain[2]).await;
    assert_eq!(
        std::fs::read_to_string(root.join("etc/a")).unwrap(),
        "middle"
    );
    for gone in ["etc/b", "data/x", "gone/x"] {
        assert!(!root.join(gone).exists(), "{gone}");
    }
    for there in ["data/y", "gone/z"] {
        assert!(root.join(there).exists(), "{there}");
    }
    assert_eq!(
        root.metadata().unwrap().permissions().mode() & 0o7777,
        0o755
    );

    std::fs::write(root.join("etc/a"), vec![7; 2_000_000]).unwrap();
    for n in 0..50 {
        std::fs::write(root.join(format!("new{n}")), "").unwrap();
    }
    place.sync();
    let usage = store.rootfs_usage(&id("c1")).await.unwrap();
    assert_eq!(usage.inodes, 50);
    assert!((2_000_000..3_000_000).contains(&usage.bytes), "{usage:?}");
    // And when only somebody who is inside has the mount, or nobody.
    let inside = std::fs::File::open(root.join("etc/a")).unwrap();
    store.unmount_rootfs(&id("c1")).await.unwrap();
    store.unmount_rootfs(&id("c1")).await.unwrap();
    assert!(!root.exists());
    drop(store);
    let store = place.open().await;
    assert_eq!(store.rootfs_usage(&id("c1")).await.unwrap(), usage);
    drop(inside);
    let sum = store.rootfses_usage().await.unwrap();
    assert_eq!(sum.inodes, 50);
    assert!(sum.bytes >= usage.bytes);
    assert!(store.layers_usage().await.unwrap().bytes > 0);
    let again = mount(&store, "c1").await;
    assert_eq!(again, root);
    assert_eq!(root.join("etc/a").metadata().unwrap().len(), 2_000_000);
    remove_all(&store).await;
    place.settled(&[]).await;
    assert_eq!(place.mounts(), [store.mountpoint().to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_the_writable_layers() {
    let place = Place::new();
    let store = place.open().await;
    let big = "x".repeat(4 << 20);
    let chain = stack(&store, &place, &[tar_of(&[("big", &big)])]).await;
    let options = RootfsOptions {
        quota_bytes: Some(8 << 20),
        properties: [("recordsize".to_owned(), "16K".to_owned())].into(),
    };
    store
        .create_rootfs(&id("c"), &chain[0], &options)
        .await
        .unwrap();
    let root = mount(&store, "c").await;
    std::fs::write(root.join("fits"), vec![7; 6 << 20]).unwrap();
    place.sync();
    let mut refused = None;
    for n in 0..64 {
        let more = std::fs::write(root.join(format!("more{n}")), vec![n; 1 << 20]);
        place.sync();
        if let Err(e) = more {
            refused = Some((n, e.kind()));
            break;
        }
    }
    let (n, kind) = refused.expect("the quota was not enforced");
    assert!(n < 5, "{n}");
    assert!(
        matches!(kind, ErrorKind::QuotaExceeded | ErrorKind::StorageFull),
        "{kind:?}"
    );
    assert_eq!(
        zfs(&[
            "get",
            "-Hp",
            "-o",
            "value",
            "recordsize",
            &place.dataset("/containers/c")
        ])
        .trim(),
        "16384"
    );
    let bad = RootfsOptions {
        properties: [("recordsize".to_owned(), "9K".to_owned())].into(),
        ..Default::default()
    };
    let refused = store
        .create_rootfs(&id("d"), &chain[0], &bad)
        .await
        .unwrap_err();
    assert!(
        text(&refused).contains("must be power of 2"),
        "{}",
        text(&refused)
    );
    let mut options = place.options();
    options.properties = [("compression".to_owned(), "best".to_owned())].into();
    drop(store);
    let refused = nexcage_zfs::ZfsStore::open(options).await.unwrap_err();
    assert!(text(&refused).contains("compression"), "{}", text(&refused));
    let store = place.open().await;
    remove_all(&store).await;
    place.settled(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_root_filesystem_goes_when_its_last_user_does() {
    let place = Place::new();
    let store = place.open().await;
    let chain = stack(&store, &place, &three_layers()).await;
    let root = rootfs(&store, "busy", &chain[2]).await;
    let view = store
        .mount_readonly(&id("view"), &chain[0], MountOptions::default())
        .await
        .unwrap();
    let inside = [&root, &view].map(|dir| std::fs::File::open(dir.join("etc/a")).unwrap());
    store.remove_rootfs(&id("busy")).await.unwrap();
    store.remove_rootfs(&id("view")).await.unwrap();
    assert!(!root.exists() && !view.exists());
    assert_eq!(place.mounts(), [store.mountpoint().to_string()]);
    // The name is free again.
    rootfs(&store, "busy", &chain[1]).await;
    store.remove_rootfs(&id("busy")).await.unwrap();
    remove_layers(&store, &chain).await;
    assert!(store.layers().await.unwrap().is_empty());
    let names = place.names();
    assert!(
        !names.is_empty() && names.iter().all(|n| n.starts_with("/deleted/")),
        "{names:?}"
    );
    // Pulled again, it is taken back and not unpacked.
    let mut spooled = three_layers();
    for (n, layer) in spooled.iter().enumerate() {
        let parent = n.checked_sub(1).map(|n| &chain[n]);
        let taken = apply(&store, &place, parent, layer).await.unwrap();
        assert_eq!(taken.chain, chain[n]);
    }
    spooled.clear();
    let names = place.names();
    assert_eq!(
        names
            .iter()
            .filter(|n| n.starts_with("/images/") && n.contains('@'))
            .count(),
        3,
        "{names:?}"
    );
    remove_layers(&store, &chain).await;
    drop(inside);
    place.settled(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn image_volumes_are_read_only() {
    let place = Place::new();
    let store = place.open().await;
    let chain = stack(&store, &place, &three_layers()).await;
    let before = place.names();
    for (name, top) in [("one", &chain[0]), ("three", &chain[2])] {
        let path = store
            .mount_readonly(&id(name), top, MountOptions::default())
            .await
            .unwrap();
        assert!(path.join("etc/a").exists());
        let refused = std::fs::write(path.join("new"), "").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
        assert_eq!(
            store.rootfs_usage(&id(name)).await.unwrap(),
            Usage::default()
        );
        assert_eq!(place.names(), before);
        assert!(store.remove_layer(top).await.is_err());
    }
    remove_all(&store).await;
    place.settled(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_namespace_sees_its_own_ids() {
    let place = Place::new();
    let store = place.open().await;
    let chain = stack(&store, &place, &three_layers()).await;
    let child = Process::start("unshare", &["--user", "sleep", "600"]);
    let process = format!("/proc/{}", child.0.id());
    let me = std::fs::read_link("/proc/self/ns/user").unwrap();
    while std::fs::read_link(format!("{process}/ns/user")).unwrap() == me {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("{process}/{map}"), "0 100000 65536").unwrap();
    }
    let options = || MountOptions {
        idmap: Some(
            std::fs::File::open(format!("{process}/ns/user"))
                .unwrap()
                .into(),
        ),
    };
    let rootfs = RootfsOptions::default();
    store
        .create_rootfs(&id("mapped"), &chain[2], &rootfs)
        .await
        .unwrap();
    let root = store.mount_rootfs(&id("mapped"), options()).await.unwrap();
    for path in ["", "etc", "etc/a", "data/y"] {
        assert_eq!(root.join(path).metadata().unwrap().uid(), 100_000, "{path}");
    }
    std::os::unix::fs::chown(root.join("etc/a"), Some(100_007), None).unwrap();
    let refused = store
        .mount_rootfs(&id("mapped"), MountOptions::default())
        .await
        .unwrap_err();
    assert!(matches!(refused, LayerStoreError::Io { .. }));
    assert_eq!(
        store.mount_rootfs(&id("mapped"), options()).await.unwrap(),
        root
    );
    let volume = store
        .mount_readonly(&id("volume"), &chain[1], options())
        .await
        .unwrap();
    assert_eq!(volume.join("etc/a").metadata().unwrap().uid(), 100_000);
    // On the disk, ids are the container's.
    store.unmount_rootfs(&id("mapped")).await.unwrap();
    let plain = mount(&store, "mapped").await;
    assert_eq!(plain.join("etc/a").metadata().unwrap().uid(), 7);
    remove_all(&store).await;
    place.settled(&[]).await;
    assert_eq!(place.mounts(), [store.mountpoint().to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_layers_as_anybody_has() {
    let place = Place::new();
    let store = place.open().await;
    let layers: Vec<_> = (0..30)
        .map(|n| tar_of(&[("same", &n.to_string()), (&format!("f{n}"), "")]))
        .collect();
    let chain = stack(&store, &place, &layers).await;
    let root = rootfs(&store, "many", &chain[29]).await;
    assert_eq!(std::fs::read_to_string(root.join("same")).unwrap(), "29");
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 31);
    let datasets = place.names().iter().filter(|n| !n.contains('@')).count();
    assert_eq!(datasets, 2);
    remove_all(&store).await;
    place.settled(&[]).await;
}
