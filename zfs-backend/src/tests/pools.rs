//! Pools that are not as they should be, and what others do in them.

use super::*;

use crate::open::room;
use crate::zfs::fake::Mishap;
use crate::zfs::{Properties, Refusal, Zfs};

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
    remove(&store, &chain[0]).await.unwrap();
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
async fn a_dataset_is_given_back_as_it_was() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let store = place.open().await;
    let chain = stack(&store, &place, &["a"]).await;
    create(&store, "c", &chain[0]).await.unwrap();
    let kept = store.dismantle().await.unwrap_err();
    assert!(text(&kept).contains("tank/n/containers"), "{}", text(&kept));
    store.remove_rootfs(&id("c")).await.unwrap();
    remove(&store, &chain[0]).await.unwrap();
    store.dismantle().await.unwrap();
    drop(store);
    assert_eq!(place.fake.names(), Vec::<String>::new());
    // Another store may have it now.
    let mut options = place.options();
    options.root = place.path().join("other");
    ZfsStore::open_on(options, place.fake.clone(), place.fake.clone())
        .await
        .unwrap();
}

#[tokio::test]
async fn the_room_is_what_zfs_says() {
    let place = Place::new();
    let asked = async |dataset: &str| room(place.fake.as_ref(), dataset).await;
    assert_eq!(asked("tank/n").await.unwrap(), Some(1 << 30));
    place.fake.set_room("0");
    assert_eq!(asked("tank/n").await.unwrap(), Some(0));
    assert_eq!(asked("tank/none").await.unwrap(), None);
    place.fake.set_room("-");
    let unknown = text(&asked("tank/n").await.unwrap_err());
    assert!(unknown.contains("tank/n"), "{unknown}");
    for (refusal, known) in [(Refusal::NoModule, true), (Refusal::Suspended, false)] {
        (place.fake).mishap(Some((0, Mishap::Refused(refusal))));
        assert_eq!(asked("tank/n").await.is_ok(), known, "{refusal:?}");
    }
}
