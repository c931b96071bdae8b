//! What is not pulled, and what is said then.

use nexcage_image_store::PullError;
use serde_json::{Value, json};

use crate::house::House;
use crate::image::{
    OCI_INDEX, OCI_MANIFEST, Packing, TestImage, TestLayer, host_architecture, index,
};
use crate::registry::Registry;

fn one_layer() -> TestImage {
    TestImage::new(&[TestLayer::new("layer", Packing::Gzip)])
}

fn with(change: impl FnOnce(&mut Value)) -> TestImage {
    let mut image = one_layer();
    let mut document = image.document.clone();
    change(&mut document);
    image.set_document(document);
    image
}

async fn error_of(image: &TestImage) -> PullError {
    let (registry, house) = (Registry::start().await, House::new().await);
    registry.push("app", "v1", image);
    let error = house.pull(&registry.name("app:v1")).await.unwrap_err();
    assert!(!error.is_retryable(), "{error}");
    house.assert_empty().await;
    error
}

#[tokio::test]
async fn what_is_no_image_for_this_machine() {
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    let helm = "application/vnd.cncf.helm.config.v1+json";
    for (image, words) in [
        (
            with(|d| d["layers"][0]["mediaType"] = foreign.into()),
            "foreign type",
        ),
        (with(|d| d["config"]["mediaType"] = helm.into()), "artifact"),
        (with(|d| d["layers"] = json!([])), "no layers"),
        (
            with(|d| *d = json!({"schemaVersion": 1, "fsLayers": []})),
            "schema 1",
        ),
        (
            with(|d| d["layers"][0]["size"] = (1u64 << 50).into()),
            "more than the",
        ),
        (
            with(|d| d["config"]["size"] = (1u64 << 30).into()),
            "more than the",
        ),
        (
            TestImage::for_platform(&one_layer().layers, "windows", "amd64"),
            "an image for windows/amd64",
        ),
    ] {
        let error = error_of(&image).await;
        assert!(matches!(error, PullError::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn what_contradicts_itself() {
    let other = TestImage::new(&[
        TestLayer::new("layer", Packing::Gzip),
        TestLayer::new("other", Packing::Gzip),
    ]);
    let mut mixed = one_layer();
    mixed.config.clone_from(&other.config);
    let mut document = mixed.document.clone();
    document["config"] = other.document["config"].clone();
    mixed.set_document(document);
    let mut lying = one_layer();
    lying.layers[0].tar = b"another".to_vec();
    let config = String::from_utf8(lying.config.clone()).unwrap();
    let config = config.replace(
        &one_layer().layers[0].diff_id().to_string(),
        &lying.layers[0].diff_id().to_string(),
    );
    lying.config = config.into_bytes();
    let mut document = lying.document.clone();
    document["config"]["digest"] = lying.id().into();
    document["config"]["size"] = lying.config.len().into();
    lying.set_document(document);
    for (image, words) in [
        (mixed, "1 layers and the config 2"),
        (lying, "unpacked, it has the digest"),
        (
            with(|d| d["manifests"] = json!([])),
            "both an index and a manifest",
        ),
        (with(|d| *d = json!("x")), "not valid JSON"),
        (with(|d| d["config"]["size"] = 1.into()), "bytes"),
        (
            with(|d| d["layers"][0]["size"] = 1.into()),
            "blob of 1 bytes",
        ),
    ] {
        let error = error_of(&image).await;
        assert!(matches!(error, PullError::Invalid { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[tokio::test]
async fn an_index_without_this_platform_says_what_it_has() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let image = one_layer();
    registry.push("app", "image", &image);
    let entries = [
        image.entry(&json!({"os": "linux", "architecture": "s390x"})),
        image.entry(&json!({"os": "linux", "architecture": "arm", "variant": "v9"})),
        image.entry(&json!({"os": "unknown", "architecture": "unknown"})),
    ];
    registry.push_manifest("app", "v1", OCI_INDEX, &index(OCI_INDEX, &entries));
    let error = house.pull(&registry.name("app:v1")).await.unwrap_err();
    assert!(matches!(error, PullError::Unsupported { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("the index offers linux/arm/v9, linux/s390x"),
        "{text}"
    );
    assert!(text.contains(host_architecture()), "{text}");
    house.assert_empty().await;
}

#[tokio::test]
async fn an_index_that_never_ends() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let mut inner = index(OCI_INDEX, &[]);
    for level in 0..10 {
        registry.push_manifest("app", &format!("v{level}"), OCI_INDEX, &inner);
        inner = index(OCI_INDEX, &[crate::image::descriptor(OCI_INDEX, &inner)]);
    }
    let error = house.pull(&registry.name("app:v9")).await.unwrap_err();
    assert!(error.to_string().contains("too many indexes"), "{error}");
}

#[tokio::test]
async fn what_is_too_large() {
    let registry = Registry::start().await;
    let house = House::with(|options| {
        options.max_manifest_bytes = 4000;
        options.max_layer_bytes = 50_000;
    })
    .await;
    let bomb = TestImage::new(&[TestLayer::new(vec![0; 1_000_000], Packing::Gzip)]);
    registry.push("app", "bomb", &bomb);
    let mut padded = bomb.manifest().to_vec();
    padded.resize(5000, b' ');
    registry.push_manifest("app", "padded", OCI_MANIFEST, &padded);
    for (tag, words) in [
        ("bomb", "larger than the 50000 bytes"),
        ("padded", "more than the 4000 bytes"),
    ] {
        let error = house
            .pull(&registry.name(&format!("app:{tag}")))
            .await
            .unwrap_err();
        assert!(matches!(error, PullError::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains(words), "{error}");
        house.assert_empty().await;
    }
}

#[tokio::test]
async fn what_the_registry_does_not_have() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let error = house.pull(&registry.name("app:v1")).await.unwrap_err();
    assert!(matches!(error, PullError::NotFound { .. }), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("MANIFEST_UNKNOWN: manifest unknown"),
        "{error}"
    );
    assert_eq!(registry.seen().len(), 1, "asked once is enough");
}

#[tokio::test]
async fn nobody_listens() {
    let house = House::new().await;
    let error = house.pull("127.0.0.1:1/app:v1").await.unwrap_err();
    assert!(matches!(error, PullError::Unavailable { .. }), "{error:?}");
    assert!(error.is_retryable());
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}
