//! Layers and root filesystems from beginning to end.

use super::*;
use nexcage_image_store::Usage;

use crate::zfs::Zfs;

#[tokio::test]
async fn one_dataset_per_image_and_one_snapshot_per_layer() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open().await;
    store.check().await.unwrap();
    let one = stack(&store, &place, &["a", "b", "c"]).await;
    let two = stack(&store, &place, &["a", "b", "d"]).await;
    assert_eq!(one[1], two[1]);
    let snapshot = |n: i64, chain: &ChainId| format!("images/{n}@{}", &chain.digest().hex()[..16]);
    let mut expected = vec![
        "images/1".to_owned(),
        snapshot(1, &one[0]),
        snapshot(1, &one[1]),
        snapshot(1, &one[2]),
        "images/2".to_owned(),
        snapshot(2, &two[2]),
    ];
    assert_eq!(place.names(), expected);
    assert_eq!(
        place.content(&snapshot(2, &two[2]), "b").as_deref(),
        Some("b")
    );
    assert_eq!(place.content(&snapshot(2, &two[2]), "c"), None);
    // The whole tree, its root directory included.
    assert_eq!(store.layer(&one[2]).await.unwrap().unwrap().inodes, 1);

    // From the top down, as images are removed.
    for lower in &one[..2] {
        let refused = remove(&store, lower).await.unwrap_err();
        assert!(
            matches!(refused, LayerStoreError::InUse { .. }),
            "{refused:?}"
        );
    }
    remove(&store, &one[2]).await.unwrap();
    expected.remove(3);
    assert_eq!(place.names(), expected);
    assert_eq!(place.content("images/1", "c"), None);
    // The dataset is as its uppermost layer left it, so it is built on again.
    let again = stack(&store, &place, &["a", "b", "e", "f"]).await;
    assert_eq!(
        place.content(&snapshot(1, &again[3]), "f").as_deref(),
        Some("f")
    );
    for chain in [&again[3], &again[2], &two[2], &one[1], &one[0]] {
        remove(&store, chain).await.unwrap();
        remove(&store, chain).await.unwrap();
    }
    assert_eq!(place.names(), Vec::<String>::new());
    assert!(store.layers().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_removed_image_waits_for_its_last_clone_and_is_taken_back() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open().await;
    let chain = stack(&store, &place, &["a", "b"]).await;
    create(&store, "c", &chain[1]).await.unwrap();
    // Something in the container's mount namespace is slow to end.
    place.fake.set_busy("tank/n/containers/c", true);
    store.remove_rootfs(&id("c")).await.unwrap();
    assert!(store.rootfses().await.unwrap().is_empty());
    for chain in chain.iter().rev() {
        remove(&store, chain).await.unwrap();
        assert_eq!(store.layer(chain).await.unwrap(), None);
    }
    let names = place.names();
    assert_eq!(names.len(), 4, "{names:?}");
    assert!(
        names.iter().all(|name| name.starts_with("deleted/")),
        "{names:?}"
    );
    // It is pulled again: nothing is unpacked.
    place.fake.mishap(None);
    let again = stack(&store, &place, &["a", "b"]).await;
    assert_eq!(again, chain);
    assert!(
        !place
            .fake
            .calls()
            .iter()
            .any(|call| call.starts_with("snapshot"))
    );
    assert_eq!(
        place
            .names()
            .iter()
            .filter(|n| n.starts_with("images/"))
            .count(),
        3
    );
    create(&store, "d", &chain[1]).await.unwrap();
    assert_eq!(place.content("containers/d", "b").as_deref(), Some("b"));
    store.remove_rootfs(&id("d")).await.unwrap();
    for chain in chain.iter().rev() {
        remove(&store, chain).await.unwrap();
    }
    place.fake.nothing_busy();
    place.settled(&[]).await;
}

#[tokio::test]
async fn a_root_filesystem_is_a_clone() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open().await;
    let chain = stack(&store, &place, &["a", "b"]).await;
    let options = RootfsOptions {
        quota_bytes: Some(1000),
        properties: [("recordsize".to_owned(), "8K".to_owned())].into(),
    };
    store
        .create_rootfs(&id("c"), &chain[1], &options)
        .await
        .unwrap();
    store
        .create_rootfs(&id("c"), &chain[1], &options)
        .await
        .unwrap();
    let other = store
        .create_rootfs(&id("c"), &chain[0], &options)
        .await
        .unwrap_err();
    assert!(text(&other).contains("another layer"), "{}", text(&other));
    let name = "tank/n/containers/c";
    let entry = place
        .fake
        .get(name, &["refquota", "recordsize", "compression", "atime"])
        .await
        .unwrap();
    // What it shares with the image counts for ZFS: two files of one byte.
    assert_eq!(entry.local("refquota"), Some("1002"));
    assert_eq!(entry.local("recordsize"), Some("8K"));
    assert_eq!(
        (entry.value("compression"), entry.value("atime")),
        (Some("lz4"), Some("off"))
    );

    let target = mount(&store, "c").await.unwrap();
    assert_eq!(mount(&store, "c").await.unwrap(), target);
    assert!(place.fake.mounts().contains(&name.to_owned()));
    store.unmount_rootfs(&id("c")).await.unwrap();
    store.unmount_rootfs(&id("c")).await.unwrap();
    assert!(!target.exists() && !place.fake.mounts().contains(&name.to_owned()));

    let view = store
        .mount_readonly(&id("v"), &chain[0], MountOptions::default())
        .await
        .unwrap();
    assert!(view.exists());
    assert!(mount(&store, "v").await.is_err());
    assert!(store.checkpoint_rootfs(&id("v")).await.is_err());
    assert_eq!(
        store.rootfs_usage(&id("v")).await.unwrap(),
        Usage::default()
    );
    for name in ["c", "v", "c"] {
        store.remove_rootfs(&id(name)).await.unwrap();
    }
    assert!(store.rootfses().await.unwrap().is_empty());
    assert_eq!(place.fake.mounts(), ["tank/n/fs"]);
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_name() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open().await;
    let chain = stack(&store, &place, &["a"]).await;
    for (property, value, said) in [
        ("mountpoint", "/etc", "mountpoint"),
        ("recordsize", "9K", "recordsize=9K"),
    ] {
        let options = RootfsOptions {
            properties: [(property.to_owned(), value.to_owned())].into(),
            ..Default::default()
        };
        let refused = store
            .create_rootfs(&id("c"), &chain[0], &options)
            .await
            .unwrap_err();
        assert!(text(&refused).contains(said), "{}", text(&refused));
    }
    for name in ["", "..", "a/b", "a:b", "a@b", ".hidden", &"a".repeat(129)] {
        assert!(create(&store, name, &chain[0]).await.is_err(), "{name}");
        assert!(store.remove_rootfs(&id(name)).await.is_err(), "{name}");
    }
    assert!(store.rootfses().await.unwrap().is_empty());
    let nothing = ChainId::from(Digest::of(b"nothing"));
    for refused in [
        create(&store, "c", &nothing).await.unwrap_err(),
        apply(&store, &place, Some(&nothing), &file("a"))
            .await
            .unwrap_err(),
        mount(&store, "none").await.unwrap_err(),
        store.checkpoints(&id("none")).await.unwrap_err(),
        store.rootfs_usage(&id("none")).await.unwrap_err(),
    ] {
        assert!(
            matches!(refused, LayerStoreError::NotFound { .. }),
            "{refused:?}"
        );
    }
    let bad = apply(&store, &place, Some(&chain[0]), b"this is no archive")
        .await
        .unwrap_err();
    assert!(matches!(bad, LayerStoreError::Apply { .. }), "{bad:?}");
    assert_eq!(place.names().len(), 2);
}

#[tokio::test]
async fn two_hundred_questions_are_one_listing() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = Arc::new(place.open().await);
    let chain = stack(&store, &place, &["a", "b"]).await;
    for n in 0..200 {
        create(&store, &format!("c{n}"), &chain[1]).await.unwrap();
    }
    place.write("containers/c7", "new", "seven");
    place.fake.mishap(None);
    let mut asked = tokio::task::JoinSet::new();
    for n in 0..200 {
        let store = store.clone();
        asked.spawn(async move { (n, store.rootfs_usage(&id(&format!("c{n}"))).await.unwrap()) });
    }
    for (n, usage) in asked.join_all().await {
        assert_eq!(usage.inodes, u64::from(n == 7), "{n}");
    }
    store.rootfses_usage().await.unwrap();
    let images = store.layers_usage().await.unwrap();
    assert_eq!(images.inodes, 2);
    assert_eq!(place.fake.calls(), ["list tank/n tank/n/containers"]);
    // One that is younger than the listing is soon in one.
    create(&store, "new", &chain[1]).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    store.rootfs_usage(&id("new")).await.unwrap();
}

#[tokio::test]
async fn a_pull_that_is_given_up_leaves_nothing() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open().await;
    let big = "x".repeat(1 << 20);
    let files: Vec<_> = (0..64).map(|n| (n.to_string(), big.clone())).collect();
    let files: Vec<_> = files
        .iter()
        .map(|(n, c)| (n.as_str(), c.as_str()))
        .collect();
    let tar = tar_of(&files);
    let soon = std::time::Duration::from_millis(5);
    let given_up = tokio::time::timeout(soon, apply(&store, &place, None, &tar)).await;
    assert!(given_up.is_err(), "the layer was too quick for this test");
    place.settled(&[]).await;
    apply(&store, &place, None, &tar).await.unwrap();
}
