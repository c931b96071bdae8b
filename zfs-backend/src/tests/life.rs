//! Layers, root filesystems and checkpoints from beginning to end.

use super::*;
use nexcage_image_store::Usage;

use crate::zfs::fake::Mishap;
use crate::zfs::{Properties, Refusal, Zfs};

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
        let refused = store.remove_layer(lower).await.unwrap_err();
        assert!(
            matches!(refused, LayerStoreError::InUse { .. }),
            "{refused:?}"
        );
    }
    store.remove_layer(&one[2]).await.unwrap();
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
        store.remove_layer(chain).await.unwrap();
        store.remove_layer(chain).await.unwrap();
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
        store.remove_layer(chain).await.unwrap();
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
        store.remove_layer(chain).await.unwrap();
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
async fn what_is_not_ours_is_refused_and_left_alone() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let none = Properties::new();
    place.fake.create("tank/n/images", &none).await.unwrap();
    let refused = place.try_open().await.unwrap_err();
    assert!(
        text(&refused).contains("tank/n/images"),
        "{}",
        text(&refused)
    );
    place.fake.destroy("tank/n/images").await.unwrap();

    let store = place.open().await;
    let chain = stack(&store, &place, &["a"]).await;
    place
        .fake
        .create("tank/n/containers/c", &none)
        .await
        .unwrap();
    place.fake.create("tank/n/images/2", &none).await.unwrap();
    let refused = create(&store, "c", &chain[0]).await.unwrap_err();
    assert!(
        text(&refused).contains("tank/n/containers/c"),
        "{}",
        text(&refused)
    );
    let refused = apply(&store, &place, None, &file("b")).await.unwrap_err();
    assert!(
        text(&refused).contains("tank/n/images/2"),
        "{}",
        text(&refused)
    );
    // A clone by somebody else keeps what it stands on.
    let snapshot = place
        .fake
        .names()
        .into_iter()
        .find(|n| n.contains("images/1@"))
        .unwrap();
    place
        .fake
        .clone_of(&snapshot, "tank/n/theirs", &none)
        .await
        .unwrap();
    store.remove_layer(&chain[0]).await.unwrap();
    store.remove_rootfs(&id("c")).await.unwrap();
    drop(store);
    let store = place.open().await;
    let names = place.names();
    for theirs in ["containers/c", "images/2", "theirs", "deleted/1"] {
        assert!(names.contains(&theirs.to_owned()), "{theirs}: {names:?}");
    }
    place.fake.destroy("tank/n/theirs").await.unwrap();
    drop(store);
    let _store = place.open().await;
    place.settled(&["containers/c", "images/2"]).await;
}

#[tokio::test]
async fn two_stores_do_not_share_a_dataset() {
    let place = Place::new();
    drop(place.open().await);
    let mut options = place.options();
    options.root = place.path().join("other");
    let refused = ZfsStore::open_on(options, place.fake.clone(), place.fake.clone())
        .await
        .unwrap_err();
    assert!(
        text(&refused).contains("zfs inherit nexcage:store tank/n"),
        "{}",
        text(&refused)
    );
    // Its own properties follow the configuration.
    let mut options = place.options();
    options.properties = [("sync".to_owned(), "disabled".to_owned())].into();
    drop(
        ZfsStore::open_on(options, place.fake.clone(), place.fake.clone())
            .await
            .unwrap(),
    );
    let entry = place
        .fake
        .get("tank/n/containers", &["sync", "compression"])
        .await
        .unwrap();
    assert_eq!(
        (entry.local("sync"), entry.local("compression")),
        (Some("disabled"), None)
    );
    for (property, value) in [("dedup", "on"), ("compression", "best")] {
        let mut options = place.options();
        options.properties = [(property.to_owned(), value.to_owned())].into();
        let refused = ZfsStore::open_on(options, place.fake.clone(), place.fake.clone())
            .await
            .unwrap_err();
        assert!(text(&refused).contains(property), "{}", text(&refused));
    }
}

#[tokio::test]
async fn a_pool_that_cannot_be_used_is_named_with_the_remedy() {
    let place = Place::new();
    let store = place.open().await;
    place.fake.set_pool(Some("SUSPENDED"));
    let refused = store.check().await.unwrap_err();
    assert!(
        text(&refused).contains("zpool clear tank"),
        "{}",
        text(&refused)
    );
    assert!(refused.is_retryable());
    place.fake.set_pool(None);
    let refused = store.check().await.unwrap_err();
    assert!(
        text(&refused).contains("zpool import tank"),
        "{}",
        text(&refused)
    );
    drop(store);
    for (pool, remedy) in [
        (None, "zpool import tank"),
        (Some("ONLINE"), "zfs create tank/n"),
    ] {
        place.fake.set_pool(pool);
        place
            .fake
            .mishap(Some((0, Mishap::Refused(Refusal::NotFound))));
        let refused = place.try_open().await.unwrap_err();
        assert!(text(&refused).contains(remedy), "{}", text(&refused));
    }
}

#[tokio::test]
async fn what_somebody_else_destroyed_is_not_found_and_can_be_pulled_again() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open().await;
    let chain = stack(&store, &place, &["a", "b"]).await;
    let snapshots: Vec<_> = place
        .fake
        .names()
        .into_iter()
        .filter(|n| n.contains('@'))
        .collect();
    for snapshot in &snapshots {
        place.fake.destroy(snapshot).await.unwrap();
    }
    let gone = create(&store, "c", &chain[1]).await.unwrap_err();
    assert!(
        matches!(gone, LayerStoreError::NotFound { what: "layer", .. }),
        "{gone:?}"
    );
    assert!(store.layers().await.unwrap().is_empty());
    assert!(store.rootfses().await.unwrap().is_empty());
    let chain = stack(&store, &place, &["a", "b"]).await;
    create(&store, "c", &chain[1]).await.unwrap();
    place.fake.destroy("tank/n/containers/c").await.unwrap();
    for gone in [
        mount(&store, "c").await.unwrap_err(),
        store.checkpoint_rootfs(&id("c")).await.unwrap_err(),
    ] {
        assert!(matches!(gone, LayerStoreError::NotFound { .. }), "{gone:?}");
    }
    store.remove_rootfs(&id("c")).await.unwrap();
    // All of it at once, while the store does not look.
    create(&store, "c", &chain[1]).await.unwrap();
    drop(store);
    place.fake.destroy("tank/n/containers/c").await.unwrap();
    for name in place
        .fake
        .names()
        .into_iter()
        .rev()
        .filter(|n| n.starts_with("tank/n/images/"))
    {
        place.fake.destroy(&name).await.unwrap();
    }
    let store = place.open().await;
    assert!(store.layers().await.unwrap().is_empty() && store.rootfses().await.unwrap().is_empty());
    stack(&store, &place, &["a", "b"]).await;
}

#[tokio::test]
async fn checkpoints_are_kept_restored_and_removed() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open().await;
    let chain = stack(&store, &place, &["a"]).await;
    create(&store, "c", &chain[0]).await.unwrap();
    let mut made = Vec::new();
    for n in 0..3 {
        place.write("containers/c", "state", &n.to_string());
        made.push(store.checkpoint_rootfs(&id("c")).await.unwrap().name);
    }
    let names = |all: Vec<nexcage_image_store::Checkpoint>| -> Vec<String> {
        all.into_iter().map(|c| c.name).collect()
    };
    assert_eq!(names(store.checkpoints(&id("c")).await.unwrap()), made);
    place.write("containers/c", "state", "lost");
    assert_eq!(
        store.restore_rootfs(&id("c"), None).await.unwrap().name,
        made[2]
    );
    assert_eq!(place.content("containers/c", "state").as_deref(), Some("2"));
    // An older one: the later ones stay.
    assert_eq!(
        store
            .restore_rootfs(&id("c"), Some(&made[0]))
            .await
            .unwrap()
            .name,
        made[0]
    );
    mount(&store, "c").await.unwrap();
    assert!(
        place
            .fake
            .mounts()
            .contains(&"tank/n/containers/c:1".to_owned())
    );
    store.unmount_rootfs(&id("c")).await.unwrap();
    assert_eq!(
        place.content("containers/c:1", "state").as_deref(),
        Some("0")
    );
    assert_eq!(names(store.checkpoints(&id("c")).await.unwrap()), made);
    let origin = place
        .fake
        .get("tank/n/containers/c:1", &["origin"])
        .await
        .unwrap();
    assert!(
        origin
            .value("origin")
            .unwrap()
            .starts_with("tank/n/images/1@")
    );
    // And back to the latest, which is in the older generation.
    store.restore_rootfs(&id("c"), None).await.unwrap();
    assert_eq!(
        place.content("containers/c:2", "state").as_deref(),
        Some("2")
    );
    assert_eq!(names(store.checkpoints(&id("c")).await.unwrap()), made);
    // A fourth: three are kept.
    let fourth = store.checkpoint_rootfs(&id("c")).await.unwrap().name;
    let left = names(store.checkpoints(&id("c")).await.unwrap());
    assert_eq!(left, [made[1].clone(), made[2].clone(), fourth.clone()]);
    store.remove_checkpoint(&id("c"), &made[1]).await.unwrap();
    for gone in [
        store
            .remove_checkpoint(&id("c"), &made[1])
            .await
            .unwrap_err(),
        store
            .restore_rootfs(&id("c"), Some(&made[0]))
            .await
            .map(drop)
            .unwrap_err(),
    ] {
        assert!(
            matches!(
                gone,
                LayerStoreError::NotFound {
                    what: "checkpoint",
                    ..
                }
            ),
            "{gone:?}"
        );
    }
    drop(store);
    let store = place.open().await;
    assert_eq!(
        names(store.checkpoints(&id("c")).await.unwrap()),
        [made[2].clone(), fourth]
    );
    store.remove_rootfs(&id("c")).await.unwrap();
    place
        .settled(&[
            "images/1",
            &format!("images/1@{}", &chain[0].digest().hex()[..16]),
        ])
        .await;
}

#[tokio::test]
async fn a_foreign_snapshot_keeps_a_rollback_from_destroying_it() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open().await;
    let chain = stack(&store, &place, &["a"]).await;
    create(&store, "c", &chain[0]).await.unwrap();
    let name = store.checkpoint_rootfs(&id("c")).await.unwrap().name;
    place.write("containers/c", "state", "later");
    place
        .fake
        .snapshot("tank/n/containers/c@daily", &Properties::new())
        .await
        .unwrap();
    assert_eq!(store.checkpoints(&id("c")).await.unwrap().len(), 1);
    store.restore_rootfs(&id("c"), None).await.unwrap();
    assert_eq!(place.content("containers/c:1", "state"), None);
    assert!(place.names().contains(&"containers/c@daily".to_owned()));
    assert_eq!(store.checkpoints(&id("c")).await.unwrap()[0].name, name);
    // They go with the root filesystem that they are of.
    place
        .fake
        .snapshot("tank/n/containers/c:1@daily", &Properties::new())
        .await
        .unwrap();
    store.remove_rootfs(&id("c")).await.unwrap();
    store.remove_layer(&chain[0]).await.unwrap();
    place.settled(&[]).await;
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
