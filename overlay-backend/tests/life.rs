//! Layers and root filesystems from pull to removal, on real mounts.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use common::*;
use nexcage_image_store::{
    ChainId, Digest, LayerStore, LayerStoreError, MountOptions, RootfsOptions, Usage,
};

fn three_layers() -> Vec<Vec<u8>> {
    vec![
        tar_of(&[
            ("etc/", ""),
            ("etc/a", "lowest"),
            ("etc/b", "lowest"),
            ("data/", ""),
            ("data/x", ""),
            ("gone/", ""),
            ("gone/x", ""),
        ]),
        tar_of(&[
            ("etc/a", "middle"),
            (".wh.gone", ""),
            ("data/.wh..wh..opq", ""),
            ("data/y", ""),
        ]),
        tar_of(&[("etc/.wh.b", ""), ("gone/", ""), ("gone/z", "")]),
    ]
}

#[tokio::test]
async fn a_container_sees_its_layers_and_writes_beside_them() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    store.check().await.unwrap();
    assert!(store.mountpoint().is_dir());
    let chain = stack(&store, &place, &three_layers()).await;
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

    let before = store.rootfs_usage(&id("c1")).await.unwrap();
    std::fs::write(root.join("etc/a"), vec![7; 200_000]).unwrap();
    std::fs::remove_file(root.join("data/y")).unwrap();
    // Fresh answers are kept for a while; another container has none.
    assert_eq!(store.rootfs_usage(&id("c1")).await.unwrap(), before);
    let other = rootfs(&store, "c2", &chain[2]).await;
    assert_eq!(
        std::fs::read_to_string(other.join("etc/a")).unwrap(),
        "middle"
    );
    std::fs::write(other.join("new"), vec![7; 200_000]).unwrap();
    let usage = store.rootfs_usage(&id("c2")).await.unwrap();
    assert_eq!(usage.inodes, 2);
    assert!((200_000..300_000).contains(&usage.bytes), "{usage:?}");
    let sum = store.rootfses_usage().await.unwrap();
    assert_eq!(sum.inodes, before.inodes + 2);

    // What was written outlives an unmount, a restart of the store, and a second mount.
    store.unmount_rootfs(&id("c1")).await.unwrap();
    store.unmount_rootfs(&id("c1")).await.unwrap();
    assert!(!root.exists());
    drop(store);
    let store = place.open();
    assert_eq!(place.mounts(), [other.to_string()]);
    let again = store
        .mount_rootfs(&id("c1"), MountOptions::default())
        .await
        .unwrap();
    assert_eq!(again, root);
    assert_eq!(root.join("etc/a").metadata().unwrap().len(), 200_000);
    assert_eq!(
        store
            .mount_rootfs(&id("c1"), MountOptions::default())
            .await
            .unwrap(),
        root
    );

    for name in ["c1", "c2", "c1"] {
        store.remove_rootfs(&id(name)).await.unwrap();
    }
    assert_eq!(place.mounts(), Vec::<String>::new());
    assert!(store.rootfses().await.unwrap().is_empty());
    for chain in chain.iter().rev() {
        store.remove_layer(chain).await.unwrap();
        store.remove_layer(chain).await.unwrap();
    }
    assert_eq!(store.layers_usage().await.unwrap(), Usage::default());
    place.settled();
    assert!(place.names("l").is_empty() && place.names("c").is_empty());
}

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
async fn image_volumes_are_read_only() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    let chain = stack(&store, &place, &three_layers()).await;
    for (name, top) in [("one", &chain[0]), ("three", &chain[2])] {
        let options = MountOptions::default();
        let path = store.mount_readonly(&id(name), top, options).await.unwrap();
        assert!(path.join("etc/a").exists());
        let refused = std::fs::write(path.join("new"), "").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(
            store.rootfs_usage(&id(name)).await.unwrap(),
            Usage::default()
        );
        assert_eq!(
            store
                .mount_readonly(&id(name), top, MountOptions::default())
                .await
                .unwrap(),
            path
        );
        // It is no writable root filesystem.
        assert!(
            store
                .mount_rootfs(&id(name), MountOptions::default())
                .await
                .is_err()
        );
        store.remove_rootfs(&id(name)).await.unwrap();
        assert!(!path.exists());
    }
}

#[tokio::test]
async fn a_busy_mount_is_removed_all_the_same() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    let chain = stack(&store, &place, &three_layers()).await;
    let root = rootfs(&store, "busy", &chain[2]).await;
    let open = std::fs::File::open(root.join("etc/a")).unwrap();
    store.remove_rootfs(&id("busy")).await.unwrap();
    assert!(!root.exists() && place.mounts().is_empty());
    place.settled();
    assert_eq!(open.metadata().unwrap().len(), 6);
    // The name is free again.
    let root = rootfs(&store, "busy", &chain[1]).await;
    assert!(root.join("etc/b").exists());
    store.remove_rootfs(&id("busy")).await.unwrap();
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
async fn deep_and_immutable_trees_are_deleted() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    let chain = stack(&store, &place, &[tar_of(&[])]).await;
    let root = rootfs(&store, "deep", &chain[0]).await;
    let mut dir: std::os::fd::OwnedFd = std::fs::File::open(&root).unwrap().into();
    for _ in 0..3000 {
        use rustix::fs::{Mode, OFlags, mkdirat, openat};
        mkdirat(&dir, "d", Mode::RWXU).unwrap();
        dir = openat(
            &dir,
            "d",
            OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .unwrap();
    }
    drop(dir);
    assert!(store.rootfs_usage(&id("deep")).await.unwrap().inodes > 200);
    std::fs::write(root.join("fixed"), "").unwrap();
    let upper = place.root().join("c/deep/upper/fixed");
    let fixed = std::fs::File::open(upper).unwrap();
    rustix::fs::ioctl_setflags(&fixed, rustix::fs::IFlags::IMMUTABLE).unwrap();
    store.remove_rootfs(&id("deep")).await.unwrap();
    place.settled();
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

/// A process in a user namespace of its own, for its mapping.
struct UserNamespace(std::process::Child);

impl UserNamespace {
    fn new(base: u32) -> Self {
        #[allow(clippy::disallowed_methods, reason = "a test's own process")]
        let child = std::process::Command::new("unshare")
            .args(["--user", "sleep", "60"])
            .spawn()
            .unwrap();
        let me = std::fs::read_link("/proc/self/ns/user").unwrap();
        let process = format!("/proc/{}", child.id());
        while std::fs::read_link(format!("{process}/ns/user")).unwrap() == me {
            std::thread::yield_now();
        }
        for map in ["uid_map", "gid_map"] {
            std::fs::write(format!("{process}/{map}"), format!("0 {base} 65536")).unwrap();
        }
        Self(child)
    }

    fn options(&self) -> MountOptions {
        let ns = std::fs::File::open(format!("/proc/{}/ns/user", self.0.id())).unwrap();
        MountOptions {
            idmap: Some(ns.into()),
        }
    }
}

impl Drop for UserNamespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_user_namespace_sees_its_own_ids() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    let chain = stack(&store, &place, &three_layers()).await;
    let userns = UserNamespace::new(100_000);
    let options = RootfsOptions::default();
    store
        .create_rootfs(&id("mapped"), &chain[2], &options)
        .await
        .unwrap();
    let root = match store.mount_rootfs(&id("mapped"), userns.options()).await {
        Ok(root) => root,
        Err(LayerStoreError::Unsupported { what, .. }) => {
            eprintln!("skipped: {what}");
            return;
        }
        Err(e) => panic!("{e:?}"),
    };
    // From here, root's files belong to the namespace's root.
    for path in ["", "etc", "etc/a", "data/y"] {
        assert_eq!(root.join(path).metadata().unwrap().uid(), 100_000, "{path}");
    }
    let layer = place.root().join("l/1/etc/a");
    assert_eq!(layer.metadata().unwrap().uid(), 0);
    // Copied up, they stay its.
    std::fs::write(root.join("etc/a"), "changed").unwrap();
    assert_eq!(root.join("etc/a").metadata().unwrap().uid(), 100_000);
    // Only this mount, and none of the helpers.
    assert_eq!(place.mounts(), [root.to_string()]);
    assert!(
        store
            .mount_rootfs(&id("mapped"), MountOptions::default())
            .await
            .is_err()
    );
    assert_eq!(
        store
            .mount_rootfs(&id("mapped"), userns.options())
            .await
            .unwrap(),
        root
    );
    let volume = store
        .mount_readonly(&id("volume"), &chain[1], userns.options())
        .await
        .unwrap();
    assert_eq!(volume.join("etc/a").metadata().unwrap().uid(), 100_000);
    for name in ["mapped", "volume"] {
        store.remove_rootfs(&id(name)).await.unwrap();
    }
    assert!(place.mounts().is_empty());
}
