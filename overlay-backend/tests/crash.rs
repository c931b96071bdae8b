//! The store killed at every step, and the machine's power cut.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::os::unix::process::ExitStatusExt;

use common::*;
use nexcage_image_store::{
    ChainId, Digest, LayerStore, LayerStoreError, MountOptions, RootfsOptions,
};

const PLACE: &str = "NEXCAGE_OVERLAY_TEST_PLACE";

fn layers() -> Vec<Vec<u8>> {
    vec![tar_of(&[("a", "1")]), tar_of(&[(".wh.a", ""), ("b", "2")])]
}

/// One life of a container, in whatever state it finds the store.
async fn live(place: &Place) {
    let store = place.open();
    let chain = stack(&store, place, &layers()).await;
    // Leftovers of a life that was cut short.
    for id in store.rootfses().await.unwrap() {
        store.remove_rootfs(&id).await.unwrap();
    }
    let root = rootfs(&store, "c", &chain[1]).await;
    assert!(root.join("b").exists() && !root.join("a").exists());
    std::fs::write(root.join("c"), "").unwrap();
    let options = MountOptions::default();
    store
        .mount_readonly(&id("v"), &chain[0], options)
        .await
        .unwrap();
    for id in store.rootfses().await.unwrap() {
        store.remove_rootfs(&id).await.unwrap();
    }
    for chain in chain.iter().rev() {
        store.remove_layer(chain).await.unwrap();
    }
}

/// What the test below runs in a process of its own.
#[tokio::test]
async fn a_life_to_be_cut_short() {
    let Some(path) = std::env::var_os(PLACE) else {
        return;
    };
    let dir = tempfile::TempDir::with_prefix_in("unused-", &path).unwrap();
    let mut place = Place { dir };
    place.dir.disable_cleanup(true);
    let unused = place.dir.path().to_owned();
    std::fs::remove_dir(&unused).unwrap();
    std::os::unix::fs::symlink(&path, &unused).unwrap();
    live(&place).await;
}

#[tokio::test]
async fn killed_at_any_step_it_starts_again_with_nothing_left() {
    if !is_root() {
        return;
    }
    let names: Vec<_> = (nexcage_failpoint::ALL.iter())
        .filter(|name| name.starts_with("overlay."))
        .collect();
    assert!(names.len() > 10);
    for name in names {
        // Needs a user namespace; its mounts are swept with the others.
        if *name == "overlay.layer-mapped" {
            continue;
        }
        let place = Place::new();
        #[allow(clippy::disallowed_methods, reason = "a test's own process")]
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_life_to_be_cut_short", "--nocapture"])
            .env(PLACE, place.dir.path())
            .env("NEXCAGE_FAILPOINT", name)
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(9), "{name} was not reached");
        drop(place.open());
        // What is there has a record, and what is mounted a root filesystem.
        let store = place.open();
        let known = store.rootfses().await.unwrap();
        for dir in place.names("c") {
            assert!(known.contains(&id(&dir)), "{name}: {dir}");
        }
        assert_eq!(
            place.names("l").len(),
            store.layers().await.unwrap().len(),
            "{name}"
        );
        assert!(place.mounts().len() <= known.len(), "{name}");
        drop(store);
        live(&place).await;
        let store = place.open();
        place.settled();
        drop(store);
        assert!(
            place.names("l").is_empty() && place.names("c").is_empty(),
            "{name}"
        );
        assert!(place.mounts().is_empty(), "{name}");
    }
}

fn sql(place: &Place, statement: &str) {
    let db = rusqlite::Connection::open(place.root().join("overlay.db")).unwrap();
    db.execute_batch(statement).unwrap();
}

#[tokio::test]
async fn layers_that_were_not_on_the_disk_are_dropped_after_a_power_cut() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    let chain = stack(&store, &place, &layers()).await;
    let options = RootfsOptions::default();
    store
        .create_rootfs(&id("on-lost"), &chain[1], &options)
        .await
        .unwrap();
    store
        .create_rootfs(&id("on-kept"), &chain[0], &options)
        .await
        .unwrap();
    drop(store);
    sql(
        &place,
        "UPDATE layer SET state = 'complete' WHERE dir = 1;
                 UPDATE layer SET state = 'written' WHERE dir = 2;",
    );
    // The same boot: all is there, and gets flushed.
    drop(place.open());
    sql(
        &place,
        "UPDATE layer SET state = 'written', boot = 'another' WHERE dir = 2;",
    );
    let store = place.open();
    let left = store.layers().await.unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].chain, chain[0]);
    assert_eq!(store.rootfses().await.unwrap(), [id("on-kept")]);
    assert_eq!(
        (place.names("l"), place.names("c")),
        (vec!["1".to_owned()], vec!["on-kept".to_owned()])
    );
    // And it can be pulled again.
    stack(&store, &place, &layers()).await;
}

#[tokio::test]
async fn a_layer_is_flushed_soon() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open();
    stack(&store, &place, &layers()).await;
    let db = rusqlite::Connection::open(place.root().join("overlay.db")).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let complete: i64 = db
            .query_row(
                "SELECT count(*) FROM layer WHERE state = 'complete'",
                [],
                |r| r.get(0),
            )
            .unwrap();
        if complete == 2 {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "not flushed");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_has_no_record_is_swept() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    drop(place.open());
    for path in ["l/77/etc", "c/lost/upper", "trash/5/deep"] {
        std::fs::create_dir_all(place.root().join(path)).unwrap();
    }
    let mount = place.path().join("run/rootfs/lost");
    std::fs::create_dir_all(&mount).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", mount.as_str(), "tmpfs", flags, None).unwrap();
    let mapped = place.path().join("run/idmap/lost/0");
    std::fs::create_dir_all(&mapped).unwrap();
    rustix::mount::mount("tmpfs", mapped.as_str(), "tmpfs", flags, None).unwrap();
    let store = place.open();
    place.settled();
    assert!(place.names("l").is_empty() && place.names("c").is_empty());
    assert!(place.mounts().is_empty() && !mount.exists());
    // A record without its files can still be removed.
    let chain = stack(&store, &place, &layers()).await;
    std::fs::remove_dir_all(place.root().join("l/2")).unwrap();
    store.remove_layer(&chain[1]).await.unwrap();
    let none = ChainId::from(Digest::of(b"none"));
    store.remove_layer(&none).await.unwrap();
    assert!(matches!(
        store.rootfs_usage(&id("none")).await,
        Err(LayerStoreError::NotFound { .. })
    ));
}
