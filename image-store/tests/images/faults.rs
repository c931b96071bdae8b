//! A registry or a network that misbehaves.

use std::time::Duration;

use nexcage_image_store::{Digest, PullError};

use crate::house::House;
use crate::image::{Packing, TestImage, TestLayer};
use crate::registry::{Fault, Registry};

const LENGTH: usize = 300_000;

struct Scene {
    registry: Registry,
    house: House,
    image: TestImage,
    name: String,
}

/// An image of two layers, the upper one of some size.
async fn scene() -> Scene {
    let registry = Registry::start().await;
    let house = House::new().await;
    let image = TestImage::new(&[
        TestLayer::new("small", Packing::Gzip),
        TestLayer::random(7, LENGTH),
    ]);
    registry.push("app", "v1", &image);
    let name = registry.name("app:v1");
    Scene {
        registry,
        house,
        image,
        name,
    }
}

impl Scene {
    fn large(&self) -> String {
        self.image.layers[1].digest()
    }

    /// `Range` headers of the requests for the large layer.
    fn ranges(&self) -> Vec<Option<String>> {
        let large = self.large();
        let seen = self.registry.seen().into_iter();
        seen.filter(|s| s.path.contains(&large))
            .map(|s| s.range)
            .collect()
    }

    async fn succeeds(&self) {
        let record = self.house.pull(&self.name).await.unwrap();
        assert_eq!(record.id.to_string(), self.image.id());
        assert_eq!(self.house.layers.count(), 2);
        self.house.assert_spool_empty().await;
    }

    async fn fails(&self) -> PullError {
        let error = self.house.pull(&self.name).await.unwrap_err();
        assert_eq!(self.house.store.images().await.unwrap(), []);
        self.house.assert_spool_empty().await;
        error
    }
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stopped() {
    let scene = scene().await;
    scene.registry.fault(&scene.large(), 1, Fault::Cut(100_000));
    scene.registry.fault(&scene.large(), 1, Fault::Cut(50_000));
    scene.succeeds().await;
    let ranges = scene.ranges();
    assert_eq!(ranges[0], None);
    assert_eq!(ranges[1].as_deref(), Some("bytes=100000-"));
    assert_eq!(ranges[2].as_deref(), Some("bytes=150000-"));
    assert_eq!(ranges.len(), 3);
}

#[tokio::test]
async fn a_registry_without_ranges_sends_it_all_again() {
    for fault in [Fault::IgnoreRange, Fault::RefuseRange] {
        let scene = scene().await;
        scene.registry.fault(&scene.large(), 1, Fault::Cut(100_000));
        scene.registry.fault(&scene.large(), 1, fault);
        scene.succeeds().await;
    }
}

#[tokio::test]
async fn a_download_that_breaks_every_time_is_given_up() {
    let scene = scene().await;
    scene.registry.fault(&scene.large(), 100, Fault::Cut(0));
    let error = scene.fails().await;
    assert!(matches!(error, PullError::Unavailable { .. }), "{error:?}");
    assert!(error.is_retryable());
    assert_eq!(scene.ranges().len(), 4, "as often as the policy says");
}

#[tokio::test]
async fn a_body_that_ends_early_without_an_error() {
    let scene = scene().await;
    let half = scene.image.layers[1].blob[..LENGTH / 2].to_vec();
    scene.registry.fault(&scene.large(), 1, Fault::Bytes(half));
    scene.succeeds().await;
    let resumed = format!("bytes={}-", LENGTH / 2);
    assert_eq!(scene.ranges()[1].as_deref(), Some(resumed.as_str()));
}

#[tokio::test]
async fn server_errors_and_limits_pass() {
    let scene = scene().await;
    let answer = |status| Fault::Answer(status, Vec::new(), b"later".to_vec());
    scene.registry.fault("/manifests/", 1, answer(503));
    scene.registry.fault("/blobs/", 2, answer(500));
    let limit = vec![("retry-after", "0".to_owned())];
    scene
        .registry
        .fault(&scene.large(), 1, Fault::Answer(429, limit, Vec::new()));
    scene.succeeds().await;
}

#[tokio::test]
async fn a_limit_that_lasts_is_reported_as_one() {
    let scene = scene().await;
    let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit"}]}"#;
    let limit = vec![("retry-after", "3600".to_owned())];
    scene
        .registry
        .fault("/manifests/", 100, Fault::Answer(429, limit, body.to_vec()));
    let error = scene.fails().await;
    let PullError::RateLimited { retry_after, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*retry_after, Some(Duration::from_secs(3600)));
    assert!(
        error.to_string().contains("reached your pull rate limit"),
        "{error}"
    );
    assert_eq!(scene.registry.seen().len(), 1, "an hour is not waited for");
    scene.house.assert_empty().await;
}

#[tokio::test]
async fn the_wait_that_is_asked_for_is_kept() {
    let scene = scene().await;
    let house = House::with(|options| options.retry.max_delay = Duration::from_secs(5)).await;
    let limit = vec![("retry-after", "1".to_owned())];
    scene
        .registry
        .fault("/manifests/", 1, Fault::Answer(429, limit, Vec::new()));
    let start = std::time::Instant::now();
    house.pull(&scene.name).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_stall_is_left_for_a_new_connection() {
    let mut scene = scene().await;
    scene.house = House::with(|options| options.progress_timeout = Duration::from_secs(4)).await;
    scene
        .registry
        .fault(&scene.large(), 1, Fault::Stall(100_000));
    scene.succeeds().await;
    assert_eq!(scene.ranges()[1].as_deref(), Some("bytes=100000-"));
}

#[tokio::test]
async fn no_progress_ends_the_pull_and_says_what_was_reached() {
    let mut scene = scene().await;
    scene.house = House::with(|options| {
        options.progress_timeout = Duration::from_millis(600);
        options.retry.tries = 100;
    })
    .await;
    scene
        .registry
        .fault(&scene.large(), 1, Fault::Stall(100_000));
    scene.registry.fault(&scene.large(), 1000, Fault::Stall(0));
    let error = scene.fails().await;
    assert!(matches!(error, PullError::Timeout { .. }), "{error:?}");
    let size = scene.image.layers[1].blob.len();
    let words = format!("after 100000 of {size} bytes");
    assert!(error.to_string().contains(&words), "{error}");
}

#[tokio::test]
async fn a_registry_that_says_nothing() {
    let mut scene = scene().await;
    scene.house = House::with(|options| {
        options.progress_timeout = Duration::from_millis(200);
        options.retry.tries = 2;
    })
    .await;
    scene.registry.fault("/manifests/", 100, Fault::Silence);
    let error = scene.fails().await;
    assert!(matches!(error, PullError::Timeout { .. }), "{error:?}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn wrong_bytes_are_never_kept() {
    for longer in [false, true] {
        let scene = scene().await;
        let mut blob = scene.image.layers[1].blob.clone();
        if longer {
            blob.push(0);
        } else {
            blob[LENGTH / 2] ^= 1;
        }
        scene
            .registry
            .fault(&scene.large(), 100, Fault::Bytes(blob));
        let error = scene.fails().await;
        assert!(matches!(error, PullError::Invalid { .. }), "{error:?}");
        assert_eq!(
            scene.ranges().len(),
            1,
            "wrong content is not asked for again"
        );
        assert!(scene.house.layers.count() <= 1);
    }
}

#[tokio::test]
async fn the_same_few_bytes_again_and_again() {
    let scene = scene().await;
    scene
        .registry
        .fault(&scene.large(), 100, Fault::Bytes(b"a few bytes".to_vec()));
    let error = scene.fails().await;
    assert!(matches!(error, PullError::Unavailable { .. }), "{error:?}");
    assert_eq!(scene.ranges().len(), 4, "as often as the policy says");
}

#[tokio::test]
async fn lies_about_length() {
    let scene = scene().await;
    let length = vec![("content-length", "17".to_owned())];
    let seventeen = vec![b'x'; 17];
    scene
        .registry
        .fault(&scene.large(), 100, Fault::Answer(200, length, seventeen));
    let error = scene.fails().await;
    assert!(matches!(error, PullError::Invalid { .. }), "{error:?}");
    assert!(
        error.to_string().contains("sends 17 bytes for a blob of"),
        "{error}"
    );
}

#[tokio::test]
async fn a_web_page_is_called_one() {
    for path in ["/manifests/", "/blobs/"] {
        let scene = scene().await;
        let html = vec![("content-type", "text/html; charset=utf-8".to_owned())];
        let page = b"<html><body>Please log in</body></html>".to_vec();
        scene
            .registry
            .fault(path, 100, Fault::Answer(200, html, page));
        let error = scene.fails().await;
        assert!(matches!(error, PullError::Invalid { .. }), "{error:?}");
        assert!(error.to_string().contains("a web page"), "{error}");
    }
}

#[tokio::test]
async fn a_manifest_must_have_its_digest() {
    let scene = scene().await;
    let other = TestImage::new(&[TestLayer::new("evil", Packing::Gzip)]);
    let by_digest = scene
        .registry
        .name(&format!("app@{}", scene.image.digest()));
    let bytes = other.manifest().to_vec();
    scene
        .registry
        .fault("/manifests/", 1, Fault::Bytes(bytes.clone()));
    let error = scene.house.pull(&by_digest).await.unwrap_err();
    assert!(matches!(error, PullError::Invalid { .. }), "{error:?}");
    assert!(
        error.to_string().contains(&Digest::of(&bytes).to_string()),
        "{error}"
    );
    let claim = vec![("docker-content-digest", scene.image.digest())];
    scene
        .registry
        .fault("/manifests/", 1, Fault::Answer(200, claim, bytes));
    let error = scene.house.pull(&scene.name).await.unwrap_err();
    assert!(matches!(error, PullError::Invalid { .. }), "{error:?}");
    scene.house.assert_empty().await;
}

#[tokio::test]
async fn a_config_must_have_its_digest() {
    let scene = scene().await;
    let mut config = scene.image.config.clone();
    config[0] = b' ';
    scene
        .registry
        .fault(&scene.image.id(), 100, Fault::Bytes(config));
    let error = scene.fails().await;
    assert!(matches!(error, PullError::Invalid { .. }), "{error:?}");
    scene.house.assert_empty().await;
}

#[tokio::test]
async fn redirects_without_end() {
    let scene = scene().await;
    let round = vec![("location", format!("/v2/app/blobs/{}", scene.large()))];
    scene
        .registry
        .fault(&scene.large(), 1000, Fault::Answer(307, round, Vec::new()));
    let error = scene.fails().await;
    assert!(error.to_string().contains("more than 10 times"), "{error}");
}
