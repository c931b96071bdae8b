//! Removing images, and what a restart finds.

use std::time::Duration;

use nexcage_image_store::{Collected, ImageStoreError};

use crate::house::{House, drop_when, until};
use crate::image::{Packing, TestImage, TestLayer};
use crate::registry::{Fault, Registry};

fn layer(content: &str) -> TestLayer {
    TestLayer::new(content, Packing::Gzip)
}

#[tokio::test]
async fn removing_takes_all_names_and_is_idempotent() {
    let (one, two) = (Registry::start().await, Registry::start().await);
    let house = House::new().await;
    let image = TestImage::new(&[layer("a"), layer("b")]);
    for tag in ["v1", "v2"] {
        one.push("app", tag, &image);
        two.push("app", tag, &image);
        house.pull(&one.name(&format!("app:{tag}"))).await.unwrap();
        house.pull(&two.name(&format!("app:{tag}"))).await.unwrap();
    }
    let removed = house.store.remove(&one.name("app:v2")).await.unwrap();
    assert_eq!(removed.unwrap().to_string(), image.id());
    house.assert_empty().await;
    for name in [&one.name("app:v2"), &two.name("app:v1"), &image.id()] {
        assert_eq!(house.store.remove(name).await.unwrap(), None);
    }
    assert_eq!(house.store.usage().await.unwrap().bytes, 0);
}

#[tokio::test]
async fn simultaneous_removals() {
    let (registry, house) = (Registry::start().await, House::new().await);
    registry.push("app", "v1", &TestImage::new(&[layer("a"), layer("b")]));
    let name = registry.name("app:v1");
    house.pull(&name).await.unwrap();
    let removals = (0..8).map(|_| house.store.remove(&name));
    for removed in futures_util::future::join_all(removals).await {
        removed.unwrap();
    }
    house.assert_empty().await;
}

#[tokio::test]
async fn layers_of_another_image_stay() {
    let (registry, house) = (Registry::start().await, House::new().await);
    registry.push("one", "v1", &TestImage::new(&[layer("base"), layer("one")]));
    registry.push("two", "v1", &TestImage::new(&[layer("base"), layer("two")]));
    house.pull(&registry.name("one:v1")).await.unwrap();
    let two = house.pull(&registry.name("two:v1")).await.unwrap();
    house.store.remove(&registry.name("one:v1")).await.unwrap();
    assert_eq!(house.layers.count(), 2);
    assert_eq!(house.store.images().await.unwrap(), [two]);
}

#[tokio::test]
async fn layers_of_a_container_stay_until_it_is_gone() {
    let (registry, house) = (Registry::start().await, House::new().await);
    registry.push("app", "v1", &TestImage::new(&[layer("a"), layer("b")]));
    let record = house.pull(&registry.name("app:v1")).await.unwrap();
    let top = record.top().unwrap();
    house.layers.set_used(top, true);
    house.store.remove(&record.id.to_string()).await.unwrap();
    assert_eq!(house.store.images().await.unwrap(), []);
    assert_eq!(house.layers.count(), 2);
    let collected = house.store.collect().await.unwrap();
    let expected = Collected {
        removed: 0,
        in_use: 2,
    };
    assert_eq!(collected, expected);
    house.layers.set_used(top, false);
    assert_eq!(house.store.collect().await.unwrap().removed, 2);
    let upper_first: Vec<_> = record.chain.iter().rev().cloned().collect();
    assert_eq!(house.layers.removed(), upper_first);
    assert!(house.layers.is_reclaimed());
}

#[tokio::test]
async fn a_collection_spares_a_running_pull() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let slow = TestLayer::random(1, 100_000);
    registry.push("app", "v1", &TestImage::new(&[layer("a"), slow.clone()]));
    registry.fault(&slow.digest(), 1, Fault::Slow(50));
    let name = registry.name("app:v1");
    let (pulled, ()) = tokio::join!(house.pull(&name), async {
        until(|| house.layers.count() > 0).await;
        assert_eq!(house.store.collect().await.unwrap().removed, 0);
    });
    assert_eq!(pulled.unwrap().chain.len(), 2);
    assert_eq!(house.layers.count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_and_removals_together_never_leave_a_broken_image() {
    let (registry, house) = (Registry::start().await, House::new().await);
    for n in 0..3 {
        let image = TestImage::new(&[layer("base"), layer(&format!("top {n}"))]);
        registry.push(&format!("app{n}"), "v1", &image);
    }
    house.layers.delay(Duration::from_millis(1));
    let work = (0..3).map(|n| {
        let (house, name) = (&house, registry.name(&format!("app{n}:v1")));
        async move {
            for _ in 0..20 {
                house.pull(&name).await.unwrap();
                house.store.remove(&name).await.unwrap();
            }
            house.pull(&name).await.unwrap();
        }
    });
    futures_util::future::join_all(work).await;
    house.store.collect().await.unwrap();
    assert_eq!(house.store.images().await.unwrap().len(), 3);
    assert_eq!(house.layers.count(), 4, "the base and three tops");
    assert!(house.layers.is_reclaimed());
}

#[tokio::test]
async fn a_restart_knows_the_images_and_sweeps_the_rest() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let whole = TestImage::new(&[layer("whole"), layer("top")]);
    registry.push("whole", "v1", &whole);
    registry.push("broken", "v1", &TestImage::new(&[layer("broken")]));
    let half = TestImage::new(&[layer("half"), TestLayer::random(1, 100_000)]);
    registry.push("half", "v1", &half);
    let record = house.pull(&registry.name("whole:v1")).await.unwrap();
    let broken = house.pull(&registry.name("broken:v1")).await.unwrap();
    house.layers.lose(&broken.chain[0]);
    registry.fault(&half.layers[1].digest(), 1, Fault::Stall(10));
    let name = registry.name("half:v1");
    let stalled = half.layers[1].digest();
    drop_when(house.pull(&name), || {
        house.layers.count() == 3 && registry.count(&stalled) == 1
    })
    .await;
    std::fs::write(house.root().join("spool/9.tar"), "left by a crash").unwrap();
    let house = house.reopen().await;
    assert_eq!(house.store.images().await.unwrap(), [record]);
    assert_eq!(house.layers.count(), 2);
    house.assert_spool_empty().await;
}

#[tokio::test]
async fn names_that_are_none_are_refused() {
    let house = House::new().await;
    for name in ["", "UPPER/Case:x", "a b", "https://quay.io/app"] {
        let error = house.store.image(name).await.unwrap_err();
        assert!(matches!(error, ImageStoreError::Name(_)), "{error:?}");
    }
}

#[tokio::test]
async fn an_image_that_has_lost_a_layer_is_not_listed_and_can_be_pulled_again() {
    let (registry, house) = (Registry::start().await, House::new().await);
    registry.push("app", "v1", &TestImage::new(&[layer("a"), layer("b")]));
    let name = registry.name("app:v1");
    let record = house.pull(&name).await.unwrap();
    for lost in &record.chain {
        house.layers.lose(lost);
        house.store.collect().await.unwrap();
        assert_eq!(house.store.images().await.unwrap(), []);
        assert_eq!(house.store.image(&name).await.unwrap(), None);
        let again = house.pull(&name).await.unwrap();
        assert_eq!(again.id, record.id);
        house.store.collect().await.unwrap();
        assert_eq!(house.layers.count(), 2);
    }
}
