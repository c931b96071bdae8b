//! Several pulls at a time.

use std::time::Duration;

use nexcage_image_store::{Credentials, PullError, PullProgress};
use tokio::sync::watch;

use crate::house::{House, drop_when, until};
use crate::image::{Packing, TestImage, TestLayer};
use crate::registry::{Auth, Fault, Registry};

fn image() -> TestImage {
    TestImage::new(&[
        TestLayer::random(1, 100_000),
        TestLayer::random(2, 100_000),
        TestLayer::random(3, 100_000),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_of_one_image_download_it_once() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let image = image();
    registry.push("app", "v1", &image);
    registry.fault("/blobs/", 100, Fault::Slow(10));
    house.layers.delay(Duration::from_millis(30));
    let name = registry.name("app:v1");
    let pulls = (0..8).map(|_| house.pull(&name));
    for record in futures_util::future::join_all(pulls).await {
        assert_eq!(record.unwrap().id.to_string(), image.id());
    }
    assert_eq!(
        registry.count("/blobs/"),
        4,
        "config and three layers, once each"
    );
    assert_eq!(
        registry.count("/manifests/"),
        8,
        "each pull asks for itself"
    );
    assert_eq!(house.layers.applied().len(), 3);
    house.assert_spool_empty().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_with_common_layers_download_those_once() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let base = TestLayer::random(9, 100_000);
    let names: Vec<String> = (0..4u8)
        .map(|n| {
            let image = TestImage::new(&[base.clone(), TestLayer::random(n, 1000)]);
            registry.push(&format!("app{n}"), "v1", &image);
            registry.name(&format!("app{n}:v1"))
        })
        .collect();
    registry.fault(&base.digest(), 100, Fault::Slow(10));
    house.layers.delay(Duration::from_millis(20));
    let pulls = names.iter().map(|name| house.pull(name));
    for record in futures_util::future::join_all(pulls).await {
        record.unwrap();
    }
    assert_eq!(registry.count(&base.digest()), 1);
    assert_eq!(house.layers.applied().len(), 5);
}

#[tokio::test]
async fn a_dropped_pull_hands_over_what_it_has() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let layer = TestLayer::random(1, 300_000);
    registry.push("app", "v1", &TestImage::new(std::slice::from_ref(&layer)));
    registry.require(Auth::Token("first"));
    registry.fault(&layer.digest(), 1, Fault::Stall(100_000));
    let name = registry.name("app:v1");
    let token = |token: &str| Credentials::RegistryToken(token.into());
    let (sender, progress) = watch::channel(PullProgress::default());
    let reference = name.parse().unwrap();
    let first = house.store.pull(&reference, token("first"), Some(sender));
    let mut first = Box::pin(first);
    // Until the first pull hangs in the middle of the layer.
    drop_when(&mut first, || {
        let progress = progress.borrow();
        progress
            .layers
            .first()
            .is_some_and(|l| l.downloaded == 100_000)
    })
    .await;
    registry.require(Auth::Token("second"));
    let mut second = Box::pin(house.pull_as(&name, token("second")));
    drop_when(&mut second, || registry.count("/manifests/") == 2).await;
    let waits = tokio::time::timeout(Duration::from_millis(200), &mut second).await;
    assert!(waits.is_err());
    assert_eq!(
        registry.count(&layer.digest()),
        1,
        "the second waits for the first"
    );
    drop(first);
    second.await.unwrap();
    let resumed = registry.seen().pop().unwrap();
    assert_eq!(resumed.range.as_deref(), Some("bytes=100000-"));
    assert_eq!(resumed.authorization.as_deref(), Some("Bearer second"));
    house.assert_spool_empty().await;
}

#[tokio::test]
async fn a_failing_pull_does_not_take_others_with_it() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let layer = TestLayer::random(1, 300_000);
    registry.push("app", "v1", &TestImage::new(std::slice::from_ref(&layer)));
    let name = registry.name("app:v1");
    // The first request for the layer is held up, then refused; the second one is not.
    registry.fault(&layer.digest(), 1, Fault::Cut(50_000));
    let denied = Fault::Answer(403, Vec::new(), b"no more".to_vec());
    registry.fault(&layer.digest(), 1, denied);
    let (first, second) = tokio::join!(house.pull(&name), house.pull(&name));
    let (failed, pulled) = if first.is_err() {
        (first, second)
    } else {
        (second, first)
    };
    assert!(
        matches!(failed, Err(PullError::Unauthorized { .. })),
        "{failed:?}"
    );
    pulled.unwrap();
    house.assert_spool_empty().await;
}

#[tokio::test]
async fn a_dropped_pull_leaves_no_file_and_no_image() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let image = image();
    registry.push("app", "v1", &image);
    registry.fault(&image.layers[2].digest(), 1, Fault::Stall(50_000));
    let name = registry.name("app:v1");
    let last = image.layers[2].digest();
    drop_when(house.pull(&name), || {
        house.layers.count() == 2 && registry.count(&last) == 1
    })
    .await;
    house.assert_spool_empty().await;
    assert_eq!(house.store.images().await.unwrap(), []);
    // What was applied is kept for the next try until somebody collects.
    assert_eq!(house.layers.count(), 2);
    assert_eq!(house.store.collect().await.unwrap().removed, 2);
}

#[tokio::test]
async fn an_apply_outlives_the_pull_that_began_it() {
    let (registry, house) = (Registry::start().await, House::new().await);
    registry.push(
        "app",
        "v1",
        &TestImage::new(&[TestLayer::new("x", Packing::Gzip)]),
    );
    house.layers.delay(Duration::from_millis(600));
    let name = registry.name("app:v1");
    drop_when(house.pull(&name), || house.layers.is_busy()).await;
    // The store panics if it is asked to apply the layer twice at a time.
    house.pull(&name).await.unwrap();
    assert_eq!(house.layers.applied().len(), 1);
}

#[tokio::test]
async fn a_pull_may_run_in_a_task() {
    let (registry, house) = (Registry::start().await, House::new().await);
    registry.push("app", "v1", &image());
    let (store, name) = (house.store.clone(), registry.name("app:v1"));
    let task = tokio::spawn(async move {
        let reference = name.parse().unwrap();
        store.pull(&reference, Credentials::Anonymous, None).await
    });
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn closing_ends_pulls() {
    let (registry, house) = (Registry::start().await, House::new().await);
    registry.push("app", "v1", &image());
    registry.fault("/blobs/", 100, Fault::Stall(0));
    let name = registry.name("app:v1");
    let (pulled, ()) = tokio::join!(house.pull(&name), async {
        until(|| registry.count("/blobs/") > 0).await;
        house.store.close().await;
    });
    assert!(matches!(pulled, Err(PullError::Closing)), "{pulled:?}");
    house.assert_spool_empty().await;
}

#[tokio::test]
async fn layers_come_in_order_however_they_arrive() {
    let registry = Registry::start().await;
    let house = House::with(|options| options.max_parallel_downloads = 3).await;
    let image = image();
    registry.push("app", "v1", &image);
    registry.fault(&image.layers[0].digest(), 1, Fault::Slow(40));
    let record = house.pull(&registry.name("app:v1")).await.unwrap();
    assert_eq!(house.layers.applied(), record.chain);
}
