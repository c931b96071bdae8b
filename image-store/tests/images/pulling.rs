//! What a pull brings, and how it is found again.

use nexcage_image_store::{LayerState, PullPhase, PullProgress};
use serde_json::{Value, json};

use crate::house::House;
use crate::image::{
    DOCKER_LIST, OCI_INDEX, Packing, TestImage, TestLayer, descriptor, host_architecture, index,
};
use crate::registry::Registry;

fn two_layers() -> TestImage {
    TestImage::new(&[
        TestLayer::new("lower", Packing::Gzip),
        TestLayer::new("upper", Packing::Gzip),
    ])
}

#[tokio::test]
async fn tag_digest_and_both() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let image = two_layers();
    registry.push("app", "v1", &image);
    let tagged = registry.name("app:v1");
    let with_digest = registry.name(&format!("app@{}", image.digest()));
    let with_both = registry.name(&format!("app:nosuchtag@{}", image.digest()));

    let record = house.pull(&with_both).await.unwrap();
    assert_eq!(record.id.to_string(), image.id());
    assert!(record.repo_tags.is_empty(), "nobody has checked that tag");
    assert_eq!(record.repo_digests, [with_digest.as_str()]);
    assert_eq!(house.pull(&with_digest).await.unwrap(), record);

    let record = house.pull(&tagged).await.unwrap();
    assert_eq!(record.repo_tags, [tagged.as_str()]);
    assert_eq!(record.repo_digests, [with_digest.as_str()]);
    assert_eq!(record.size, 10 + image.config.len() as u64);
    assert_eq!(record.config_json.as_bytes(), image.config);
    assert_eq!(record.created.unwrap().to_string(), "2026-01-02T03:04:05Z");
    assert_eq!(record.chain, house.layers.applied());
    assert_eq!(record.chain.len(), 2);
    assert!(!record.pinned);

    let id = image.id();
    for name in [
        id.as_str(),
        &id[7..],
        &id[7..20],
        &id[..20],
        &tagged,
        &with_digest,
        &with_both,
    ] {
        assert_eq!(
            house.store.image(name).await.unwrap().as_ref(),
            Some(&record),
            "{name}"
        );
    }
    for name in [
        registry.name("app"),
        registry.name("other:v1"),
        "0".repeat(64),
    ] {
        assert_eq!(house.store.image(&name).await.unwrap(), None, "{name}");
    }
    assert_eq!(house.store.images().await.unwrap(), [record]);
    house.assert_spool_empty().await;
}

#[tokio::test]
async fn both_families_and_all_packings() {
    let (registry, house) = (Registry::start().await, House::new().await);
    for (tag, packing) in [
        ("plain", Packing::Plain),
        ("gzip", Packing::Gzip),
        ("zstd", Packing::Zstd),
    ] {
        let layers = [TestLayer::new(format!("a layer for {tag}"), packing)];
        for (family, image) in [
            ("oci", TestImage::new(&layers)),
            ("docker", TestImage::docker(&layers)),
        ] {
            registry.push(family, tag, &image);
            let name = registry.name(&format!("{family}:{tag}"));
            let record = house.pull(&name).await.unwrap();
            assert_eq!(record.id.to_string(), image.id(), "{name}");
        }
    }
}

#[tokio::test]
async fn a_layer_with_the_wrong_label_is_still_unpacked() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let mut image = TestImage::new(&[TestLayer::new("x", Packing::Zstd)]);
    let mut document = image.document.clone();
    document["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip".into();
    image.set_document(document);
    registry.push("app", "v1", &image);
    house.pull(&registry.name("app:v1")).await.unwrap();
}

fn platform(os: &str, architecture: &str) -> Value {
    json!({"os": os, "architecture": architecture})
}

#[tokio::test]
async fn an_index_and_an_index_in_it() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let ours = two_layers();
    let other = TestImage::for_platform(&[TestLayer::new("o", Packing::Gzip)], "windows", "amd64");
    registry.push("app", "ours", &ours);
    registry.push("app", "other", &other);
    for (tag, media_type) in [("oci", OCI_INDEX), ("docker", DOCKER_LIST)] {
        let entries = [
            other.entry(&platform("windows", "amd64")),
            other.entry(&platform("unknown", "unknown")),
            ours.entry(&platform("linux", host_architecture())),
        ];
        let flat = index(media_type, &entries);
        registry.push_manifest("app", tag, media_type, &flat);
        let nested = index(media_type, &[descriptor(media_type, &flat)]);
        let nested_tag = format!("{tag}-nested");
        registry.push_manifest("app", &nested_tag, media_type, &nested);
        for (tag, document) in [(tag, &flat), (&*nested_tag, &nested)] {
            let record = house
                .pull(&registry.name(&format!("app:{tag}")))
                .await
                .unwrap();
            assert_eq!(record.id.to_string(), ours.id());
            let digest = nexcage_image_store::Digest::of(document);
            let expected = registry.name(&format!("app@{digest}"));
            assert!(record.repo_digests.contains(&expected), "{record:?}");
        }
    }
}

#[tokio::test]
async fn one_image_in_two_registries_is_one_image() {
    let (one, two) = (Registry::start().await, Registry::start().await);
    let house = House::new().await;
    let image = two_layers();
    one.push("app", "v1", &image);
    two.push("copy", "v2", &image);
    let first = house.pull(&one.name("app:v1")).await.unwrap();
    let second = house.pull(&two.name("copy:v2")).await.unwrap();
    assert_eq!(first.id, second.id);
    let mut tags = vec![one.name("app:v1"), two.name("copy:v2")];
    tags.sort();
    assert_eq!(second.repo_tags, tags);
    assert_eq!(second.repo_digests.len(), 2);
    assert_eq!(two.count("/blobs/"), 0, "everything was here");
}

#[tokio::test]
async fn layers_that_are_here_are_not_downloaded() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let base = TestLayer::new("base", Packing::Gzip);
    let first = TestImage::new(&[base.clone(), TestLayer::new("one", Packing::Gzip)]);
    let second = TestImage::new(&[base.clone(), TestLayer::new("two", Packing::Gzip)]);
    registry.push("one", "v1", &first);
    registry.push("two", "v1", &second);
    house.pull(&registry.name("one:v1")).await.unwrap();
    registry.forget_seen();
    house.pull(&registry.name("two:v1")).await.unwrap();
    assert_eq!(registry.count(&base.digest()), 0);
    assert_eq!(house.layers.count(), 3);
    registry.forget_seen();
    house.pull(&registry.name("two:v1")).await.unwrap();
    assert_eq!(registry.count("/manifests/"), 1, "the registry is asked");
    assert_eq!(registry.count("/blobs/"), 0);
}

#[tokio::test]
async fn a_lost_layer_is_fetched_again() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let image = two_layers();
    registry.push("app", "v1", &image);
    let record = house.pull(&registry.name("app:v1")).await.unwrap();
    house.layers.lose(&record.chain[1]);
    assert_eq!(house.pull(&registry.name("app:v1")).await.unwrap(), record);
    assert_eq!(house.layers.count(), 2);
}

#[tokio::test]
async fn the_same_layer_twice_in_one_image() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let layer = TestLayer::new("again", Packing::Gzip);
    let image = TestImage::new(&[layer.clone(), TestLayer::new("x", Packing::Gzip), layer]);
    registry.push("app", "v1", &image);
    let record = house.pull(&registry.name("app:v1")).await.unwrap();
    assert_eq!(house.layers.applied(), record.chain);
    assert_eq!(house.layers.count(), 3);
}

#[tokio::test]
async fn a_tag_moves() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let (old, new) = (
        TestImage::new(&[TestLayer::new("old", Packing::Gzip)]),
        TestImage::new(&[TestLayer::new("new", Packing::Gzip)]),
    );
    let name = registry.name("app:latest");
    registry.push("app", "latest", &old);
    house.pull(&name).await.unwrap();
    registry.push("app", "latest", &new);
    house.pull(&name).await.unwrap();
    let found = house.store.image(&name).await.unwrap().unwrap();
    assert_eq!(found.id.to_string(), new.id());
    let left = house.store.image(&old.id()).await.unwrap().unwrap();
    assert!(left.repo_tags.is_empty());
    assert_eq!(left.repo_digests.len(), 1);
}

#[tokio::test]
async fn a_pinned_image_says_so() {
    let registry = Registry::start().await;
    let pinned = registry.name("pause:3.9");
    let house = House::with(|options| options.pinned = vec![pinned.clone()]).await;
    registry.push("pause", "3.9", &two_layers());
    assert!(house.pull(&pinned).await.unwrap().pinned);
}

#[tokio::test]
async fn a_pull_tells_how_far_it_is() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let layer = TestLayer::random(1, 200_000);
    let image = TestImage::new(&[TestLayer::new("lower", Packing::Gzip), layer.clone()]);
    registry.push("app", "v1", &image);
    registry.fault(&layer.digest(), 1, crate::registry::Fault::Slow(80));
    let (sender, mut receiver) = tokio::sync::watch::channel(PullProgress::default());
    let watching = tokio::spawn(async move {
        let mut partial = false;
        let mut last = PullProgress::default();
        while receiver.changed().await.is_ok() {
            last = receiver.borrow_and_update().clone();
            partial |= last
                .layers
                .iter()
                .any(|l| l.downloaded > 0 && l.downloaded < l.total);
        }
        (partial, last)
    });
    let reference = registry.name("app:v1").parse().unwrap();
    house
        .store
        .pull(
            &reference,
            nexcage_image_store::Credentials::Anonymous,
            Some(sender),
        )
        .await
        .unwrap();
    let (partial, last) = watching.await.unwrap();
    assert!(partial, "no progress was seen on the way");
    assert_eq!(last.phase, PullPhase::Done);
    assert_eq!(last.layers.len(), 2);
    for state in last.layers {
        assert_eq!(state.state, LayerState::Applied);
        assert_eq!(state.downloaded, state.total);
    }
}
