//! The store killed, or refused, at every call of OpenZFS.

use super::*;

use crate::zfs::Refusal;
use crate::zfs::fake::Mishap;

/// Everything that a store does, in whatever state it is found. Stops at the first refusal.
async fn live(place: &Place) -> Result<(), LayerStoreError> {
    let store = place.try_open().await?;
    // Leftovers of a life that was cut short.
    for id in store.rootfses().await? {
        store.remove_rootfs(&id).await?;
    }
    let mut chains = Vec::new();
    for files in [["a", "b", "c"], ["a", "b", "d"]] {
        let mut chain: Vec<ChainId> = Vec::new();
        for name in files {
            let stored = apply(&store, place, chain.last(), &file(name)).await?;
            chain.push(stored.chain);
        }
        chains.push(chain);
    }
    create(&store, "x", &chains[0][2]).await?;
    create(&store, "y", &chains[1][2]).await?;
    mount(&store, "x").await?;
    store
        .mount_readonly(&id("v"), &chains[0][0], MountOptions::default())
        .await?;
    store.unmount_rootfs(&id("x")).await?;
    place.write("containers/x", "state", "1");
    let first = store.checkpoint_rootfs(&id("x")).await?.name;
    place.write("containers/x", "state", "2");
    let second = store.checkpoint_rootfs(&id("x")).await?.name;
    store.restore_rootfs(&id("x"), None).await?;
    store.restore_rootfs(&id("x"), Some(&first)).await?;
    store.checkpoint_rootfs(&id("x")).await?;
    store.restore_rootfs(&id("x"), Some(&second)).await?;
    store.remove_checkpoint(&id("x"), &first).await?;
    store.rootfs_usage(&id("x")).await?;
    // Removed while in use, and so are its image's layers.
    if place.fake.path("tank/n/containers/y").is_some() {
        place.fake.set_busy("tank/n/containers/y", true);
    }
    for id in store.rootfses().await? {
        store.remove_rootfs(&id).await?;
    }
    remove(&store, &chains[1][2]).await?;
    for chain in chains[0].iter().rev() {
        store.remove_layer(chain).await?;
    }
    store.reclaim(&chains[0]).await;
    place.fake.nothing_busy();
    drop(store);
    Ok(())
}

/// What must hold whenever a store has been opened.
async fn holds(place: &Place, what: &str) {
    let store = place.open().await;
    let names = place.names();
    let known = store.rootfses().await.unwrap();
    for layer in store.layers().await.unwrap() {
        let end = format!("@{}", &layer.chain.digest().hex()[..16]);
        let found = names
            .iter()
            .any(|n| n.starts_with("images/") && n.ends_with(&end));
        assert!(found, "{what}: {names:?}");
    }
    for name in &names {
        if let Some(name) = name.strip_prefix("containers/") {
            let owner = name.split([':', '@']).next().unwrap();
            assert!(known.contains(&id(owner)), "{what}: {names:?}");
        }
        // Nothing is in use any more.
        assert!(!name.starts_with("deleted/"), "{what}: {names:?}");
    }
    for mounted in place.fake.mounts() {
        assert!(!mounted.contains("deleted/"), "{what}: {mounted}");
    }
}

/// All that is left goes, whatever happened before.
async fn ends_with_nothing(place: &Place, what: &str) {
    live(place).await.unwrap();
    let store = place.open().await;
    for id in store.rootfses().await.unwrap() {
        store.remove_rootfs(&id).await.unwrap();
    }
    loop {
        let layers = store.layers().await.unwrap();
        if layers.is_empty() {
            break;
        }
        for layer in layers {
            let _ = remove(&store, &layer.chain).await;
        }
    }
    assert_eq!(place.names(), Vec::<String>::new(), "{what}");
    assert_eq!(place.fake.mounts(), ["tank/n/fs"], "{what}");
}

/// One life with one mishap, on a runtime that ends as a killed process does. Whether the mishap came.
fn cut_short(place: &Place, at: usize, mishap: Mishap) -> bool {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    place.fake.mishap(Some((at, mishap)));
    runtime.block_on(async {
        tokio::select! {
            // Cancel-safe: both end here for good.
            _ = live(place) => {}
            () = place.fake.killed.notified() => {}
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(10));
    let came = place.fake.calls().len() > at;
    place.fake.mishap(None);
    place.fake.nothing_busy();
    came
}

fn at_every_call(mishap: Mishap) {
    if !is_root() {
        return;
    }
    let mut at = 0;
    loop {
        let place = Place::new();
        if !cut_short(&place, at, mishap) {
            break;
        }
        let what = format!("{mishap:?} at call {at}");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            holds(&place, &what).await;
            ends_with_nothing(&place, &what).await;
        });
        at += 1;
    }
    assert!(at > 50, "{at}");
}

#[test]
fn killed_before_any_call() {
    at_every_call(Mishap::KilledBefore);
}

#[test]
fn killed_after_any_call() {
    at_every_call(Mishap::KilledAfter);
}

#[test]
fn busy_at_any_call() {
    at_every_call(Mishap::Refused(Refusal::Busy));
}

#[test]
fn full_at_any_call() {
    at_every_call(Mishap::Refused(Refusal::NoSpace));
}

#[test]
fn missing_at_any_call() {
    at_every_call(Mishap::Refused(Refusal::NotFound));
}

#[test]
fn late_at_any_call() {
    at_every_call(Mishap::DoneButFailed);
}
