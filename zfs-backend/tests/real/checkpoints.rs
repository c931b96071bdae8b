//! Checkpoints.

use nexcage_image_store::{Checkpoint, LayerStore, LayerStoreError};

use crate::common::*;

fn names(all: Vec<Checkpoint>) -> Vec<String> {
    all.into_iter().map(|checkpoint| checkpoint.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_kept_restored_and_removed() {
    let place = Place::new();
    let store = place.open().await;
    let chain = stack(&store, &place, &three_layers()).await;
    let mut root = rootfs(&store, "c", &chain[2]).await;
    let mut made = Vec::new();
    for n in 0..3 {
        std::fs::write(root.join("state"), n.to_string()).unwrap();
        std::fs::write(root.join(format!("big{n}")), vec![n; 1 << 20]).unwrap();
        let checkpoint = store.checkpoint_rootfs(&id("c")).await.unwrap();
        assert!(checkpoint.created > 1_600_000_000);
        made.push(checkpoint.name);
    }
    assert_eq!(names(store.checkpoints(&id("c")).await.unwrap()), made);
    let state = |root: &camino::Utf8Path| std::fs::read_to_string(root.join("state")).unwrap();
    std::fs::write(root.join("state"), "lost").unwrap();
    for (wanted, is) in [
        (None, 2),
        (Some(0), 0),
        (None, 2),
        (Some(1), 1),
        (Some(1), 1),
    ] {
        let name = wanted.map(|n: usize| made[n].as_str());
        let back = store.restore_rootfs(&id("c"), name).await.unwrap();
        assert_eq!(back.name, made[is]);
        root = mount(&store, "c").await;
        assert_eq!(state(&root), is.to_string());
        assert_eq!(root.join("big1").exists(), is >= 1);
        assert_eq!(names(store.checkpoints(&id("c")).await.unwrap()), made);
        std::fs::write(root.join("state"), "lost").unwrap();
    }
    // It stands on the image alone, so what was written before the restore is its own.
    place.sync();
    drop(store);
    let store = place.open().await;
    let usage = store.rootfs_usage(&id("c")).await.unwrap();
    assert!((2 << 20..3 << 20).contains(&usage.bytes), "{usage:?}");
    assert_eq!(usage.inodes, 3);
    // More than are kept.
    let fourth = store.checkpoint_rootfs(&id("c")).await.unwrap().name;
    assert_eq!(
        names(store.checkpoints(&id("c")).await.unwrap()),
        [made[1].clone(), made[2].clone(), fourth.clone()]
    );
    store.remove_checkpoint(&id("c"), &made[2]).await.unwrap();
    store.remove_checkpoint(&id("c"), &made[1]).await.unwrap();
    let gone = store
        .remove_checkpoint(&id("c"), &made[1])
        .await
        .unwrap_err();
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
    assert_eq!(names(store.checkpoints(&id("c")).await.unwrap()), [fourth]);
    let left: Vec<_> = place
        .names()
        .into_iter()
        .filter(|n| n.starts_with("/containers/"))
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
    remove_all(&store).await;
    place.settled(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_does_not_see_its_checkpoints_and_foreign_snapshots_stay() {
    let place = Place::new();
    let store = place.open().await;
    let chain = stack(&store, &place, &three_layers()).await;
    let root = rootfs(&store, "c", &chain[2]).await;
    let name = store.checkpoint_rootfs(&id("c")).await.unwrap().name;
    assert!(std::fs::read_dir(root.join(".zfs/snapshot")).is_err());
    std::fs::write(root.join("later"), "").unwrap();
    zfs(&["snapshot", "-r", &format!("{}@daily", place.dataset(""))]);
    store.restore_rootfs(&id("c"), Some(&name)).await.unwrap();
    let root = mount(&store, "c").await;
    assert!(!root.join("later").exists());
    assert!(place.names().contains(&"/containers/c@daily".to_owned()));
    // They go with what they are of.
    store.remove_rootfs(&id("c")).await.unwrap();
    remove_all(&store).await;
    let mut left = place.names();
    left.retain(|name| !name.ends_with("@daily"));
    place.sync();
    let top = ["/containers", "/deleted", "/fs", "/images", ""].map(|n| format!("{n}@daily"));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let mut names = place.names();
        names.sort();
        if names == top {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{names:?}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}
