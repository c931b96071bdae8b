//! The store killed at every step.

use nexcage_image_store::{LayerStore, MountOptions};

use crate::common::*;

const PLACE: &str = "NEXCAGE_ZFS_TEST_PLACE";

fn layers() -> [Vec<Vec<u8>>; 2] {
    let lower = tar_of(&[("a", "1")]);
    [
        vec![lower.clone(), tar_of(&[(".wh.a", ""), ("b", "2")])],
        vec![lower, tar_of(&[("c", "3")])],
    ]
}

/// One life of a container, in whatever state it finds the store.
async fn live(place: &Place) {
    let store = place.open().await;
    // Leftovers of a life that was cut short.
    for id in store.rootfses().await.unwrap() {
        store.remove_rootfs(&id).await.unwrap();
    }
    let [one, two] = layers();
    // A layer that nothing stands on goes while the one below stays.
    let chain = stack(&store, place, &one).await;
    remove_layers(&store, &chain[1..]).await;
    let chain = stack(&store, place, &one).await;
    let other = stack(&store, place, &two).await;
    let root = rootfs(&store, "c", &chain[1]).await;
    assert!(root.join("b").exists() && !root.join("a").exists());
    store
        .mount_readonly(&id("v"), &chain[0], MountOptions::default())
        .await
        .unwrap();
    std::fs::write(root.join("state"), "1").unwrap();
    let first = store.checkpoint_rootfs(&id("c")).await.unwrap().name;
    std::fs::write(root.join("state"), "2").unwrap();
    store.checkpoint_rootfs(&id("c")).await.unwrap();
    store.restore_rootfs(&id("c"), Some(&first)).await.unwrap();
    let root = mount(&store, "c").await;
    assert_eq!(std::fs::read_to_string(root.join("state")).unwrap(), "1");
    // The image's dataset goes before the container that stands on it.
    let inside = std::fs::File::open(root.join("state")).unwrap();
    for id in store.rootfses().await.unwrap() {
        store.remove_rootfs(&id).await.unwrap();
    }
    remove_layers(&store, &other[1..]).await;
    remove_layers(&store, &chain).await;
    drop(inside);
    place.settled(&[]).await;
}

/// What the test below runs in a process of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_life_to_be_cut_short() {
    if let Ok(dir) = std::env::var(PLACE) {
        live(&Place::of(&dir)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_step_it_starts_again_with_nothing_left() {
    let names: Vec<_> = (nexcage_failpoint::ALL.iter())
        .filter(|name| name.starts_with("zfs."))
        .collect();
    assert!(names.len() > 15);
    let place = Place::new();
    for name in names {
        let env = [(PLACE, place.dir.as_str()), ("NEXCAGE_FAILPOINT", *name)];
        assert!(
            killed_in("crash::a_life_to_be_cut_short", &env),
            "{name} was not reached"
        );
        // What is there has a record, and what is mounted is a root filesystem.
        let store = place.open().await;
        let known = store.rootfses().await.unwrap();
        for dataset in place.names() {
            if let Some(dataset) = dataset.strip_prefix("/containers/") {
                let owner = dataset.split([':', '@']).next().unwrap();
                assert!(known.contains(&id(owner)), "{name}: {dataset}");
            }
        }
        let snapshots = place
            .names()
            .iter()
            .filter(|n| n.starts_with("/images/") && n.contains('@'))
            .count();
        assert!(snapshots >= store.layers().await.unwrap().len(), "{name}");
        assert!(place.mounts().len() <= known.len() + 1, "{name}");
        drop(store);
        live(&place).await;
        assert_eq!(place.mounts().len(), 1, "{name}");
        eprintln!("{name}: well");
    }
}
