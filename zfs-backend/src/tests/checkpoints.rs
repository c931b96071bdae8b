//! Checkpoints.

use super::*;

use crate::zfs::{Properties, Zfs};

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
    remove(&store, &chain[0]).await.unwrap();
    place.settled(&[]).await;
}
