//! Mirrors, and the registry behind them.

use nexcage_image_store::{Credentials, Endpoint, PullError, Registries, RegistryConfig};

use crate::house::House;
use crate::image::{TestImage, TestLayer};
use crate::registry::{Auth, Fault, Registry};

fn image() -> TestImage {
    TestImage::new(&[TestLayer::random(3, 100_000)])
}

fn behind(mirrors: &[&Registry], server: &Registry) -> Registries {
    let endpoint = |registry: &Registry| Endpoint::parse(&registry.url()).unwrap();
    let mut registries = Registries::default();
    registries.hosts.insert(
        "registry.test".into(),
        RegistryConfig {
            mirrors: mirrors.iter().map(|m| endpoint(m)).collect(),
            server: Some(endpoint(server)),
        },
    );
    registries
}

#[tokio::test]
async fn the_first_that_has_it_serves_it() {
    let (first, second) = (Registry::start().await, Registry::start().await);
    let server = Registry::start().await;
    let registries = behind(&[&first, &second], &server);
    let house = House::with(|options| options.registries = registries).await;
    let image = image();
    second.push("app", "v1", &image);
    server.push("app", "v1", &image);
    let record = house.pull("registry.test/app:v1").await.unwrap();
    assert_eq!(
        record.repo_tags,
        ["registry.test/app:v1"],
        "the name is the registry's"
    );
    assert_eq!(first.seen().len(), 1);
    assert!(second.seen().iter().all(|s| s.query == "ns=registry.test"));
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn the_registry_itself_is_asked_last() {
    let (mirror, server) = (Registry::start().await, Registry::start().await);
    let registries = behind(&[&mirror], &server);
    let house = House::with(|options| options.registries = registries).await;
    server.push("app", "v1", &image());
    house.pull("registry.test/app:v1").await.unwrap();
    assert_eq!(mirror.count("/manifests/"), 1);
    assert!(server.seen().iter().all(|s| s.query.is_empty()));
}

#[tokio::test]
async fn a_mirror_that_breaks_is_replaced_in_the_middle() {
    let (mirror, server) = (Registry::start().await, Registry::start().await);
    let registries = behind(&[&mirror], &server);
    let house = House::with(|options| options.registries = registries).await;
    let image = image();
    mirror.push("app", "v1", &image);
    server.push("app", "v1", &image);
    let layer = image.layers[0].digest();
    mirror.fault(&layer, 100, Fault::Cut(40_000));
    house.pull("registry.test/app:v1").await.unwrap();
    let resumed = server.seen().into_iter().find(|s| s.path.contains(&layer));
    assert_eq!(resumed.unwrap().range.as_deref(), Some("bytes=40000-"));
}

#[tokio::test]
async fn a_mirror_with_wrong_content_is_passed_over() {
    let (mirror, server) = (Registry::start().await, Registry::start().await);
    let registries = behind(&[&mirror], &server);
    let house = House::with(|options| options.registries = registries).await;
    let image = image();
    mirror.push("app", "v1", &image);
    server.push("app", "v1", &image);
    let layer = &image.layers[0];
    let mut wrong = layer.blob.clone();
    wrong[50_000] ^= 1;
    mirror.fault(&layer.digest(), 100, Fault::Bytes(wrong));
    house.pull("registry.test/app:v1").await.unwrap();
    assert_eq!(house.layers.count(), 1);
}

#[tokio::test]
async fn a_mirror_without_the_image_does_not_decide() {
    let mirror = Registry::start().await;
    // Nobody listens there any more.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .unwrap();
    let mut registries = behind(&[&mirror], &mirror);
    let config = registries.hosts.get_mut("registry.test").unwrap();
    config.server = Some(Endpoint::parse(&format!("http://{nobody}")).unwrap());
    let house = House::with(|options| options.registries = registries).await;
    let error = house.pull("registry.test/app:v1").await.unwrap_err();
    assert!(
        matches!(error, PullError::Unavailable { .. }),
        "nobody knows whether there is one: {error:?}"
    );
    let text = error.to_string();
    for words in [
        &mirror.address.to_string(),
        "MANIFEST_UNKNOWN",
        &nobody.to_string(),
        "Connection refused",
    ] {
        assert!(text.contains(words), "{text}");
    }
}

#[tokio::test]
async fn all_that_failed_are_named() {
    let (mirror, server) = (Registry::start().await, Registry::start().await);
    let registries = behind(&[&mirror], &server);
    let house = House::with(|options| options.registries = registries).await;
    let down = Fault::Answer(502, Vec::new(), b"bad gateway".to_vec());
    mirror.fault("/", 100, down);
    let error = house.pull("registry.test/app:v1").await.unwrap_err();
    assert!(
        matches!(error, PullError::NotFound { .. }),
        "the registry decides: {error:?}"
    );
    let text = error.to_string();
    for words in [
        &mirror.address.to_string(),
        "502 Bad Gateway: bad gateway",
        &server.address.to_string(),
        "MANIFEST_UNKNOWN",
    ] {
        assert!(text.contains(words), "{text}");
    }
}

#[tokio::test]
async fn a_mirror_gets_its_own_credentials_only() {
    let (mirror, server) = (Registry::start().await, Registry::start().await);
    mirror.require(Auth::Basic("mirror", "m1rror"));
    server.require(Auth::Basic("ann", "s3cret"));
    let image = image();
    mirror.push("app", "v1", &image);
    server.push("app", "v1", &image);
    let registries = behind(&[&mirror], &server);
    let ann = Credentials::Basic {
        username: "ann".into(),
        password: "s3cret".into(),
    };
    let house = House::with(|options| options.registries = registries.clone()).await;
    house
        .pull_as("registry.test/app:v1", ann.clone())
        .await
        .unwrap();
    assert!(mirror.seen().iter().all(|s| s.authorization.is_none()));
    assert!(server.count("/blobs/") > 0);

    server.forget_seen();
    let dir = tempfile::tempdir().unwrap();
    let file = camino::Utf8PathBuf::try_from(dir.path().join("config.json")).unwrap();
    let entry = serde_json::json!({"username": "mirror", "password": "m1rror"});
    let auths = serde_json::json!({"auths": {mirror.address.to_string(): entry}});
    std::fs::write(&file, auths.to_string()).unwrap();
    let house = House::with(|options| {
        options.registries = registries;
        options.credentials_file = Some(file);
    })
    .await;
    house.pull_as("registry.test/app:v1", ann).await.unwrap();
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn new_settings_hold_for_the_next_pull() {
    let server = Registry::start().await;
    server.push("app", "v1", &image());
    let house = House::with(|options| options.retry.tries = 1).await;
    assert!(house.pull("registry.test/app:v1").await.is_err());
    house.store.set_registries(behind(&[], &server));
    house.pull("registry.test/app:v1").await.unwrap();
}
