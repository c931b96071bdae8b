//! Root filesystems and image volumes from mount to removal, on real mounts.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use common::*;
use nexcage_image_store::{LayerStore, LayerStoreError, MountOptions, RootfsOptions, Usage};

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
