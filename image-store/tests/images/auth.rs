//! Who may pull, and who gets to see the proof.

use nexcage_image_store::{Credentials, PullError};

use crate::house::House;
use crate::image::{Packing, TestImage, TestLayer};
use crate::registry::{Auth, Fault, Registry, basic};

fn ann() -> Credentials {
    user("ann", "s3cret")
}

fn user(username: &str, password: &str) -> Credentials {
    Credentials::Basic {
        username: username.into(),
        password: password.into(),
    }
}

fn image() -> TestImage {
    TestImage::new(&[
        TestLayer::new("lower", Packing::Gzip),
        TestLayer::new("upper", Packing::Gzip),
    ])
}

#[tokio::test]
async fn every_way_to_prove_oneself() {
    for (auth, credentials) in [
        (Auth::Basic("ann", "s3cret"), ann()),
        (Auth::Bearer(None), Credentials::Anonymous),
        (Auth::Bearer(Some(("ann", "s3cret"))), ann()),
        (
            Auth::Refresh("r3fresh"),
            Credentials::IdentityToken("r3fresh".into()),
        ),
        (
            Auth::Token("t0ken"),
            Credentials::RegistryToken("t0ken".into()),
        ),
    ] {
        let (registry, house) = (Registry::start().await, House::new().await);
        registry.push("app", "v1", &image());
        registry.require(auth.clone());
        let pulled = house.pull_as(&registry.name("app:v1"), credentials).await;
        assert!(pulled.is_ok(), "{auth:?}: {pulled:?}");
        assert!(registry.count("/token") <= 1, "one token for all requests");
    }
}

#[tokio::test]
async fn the_wrong_proof_is_refused_in_the_registrys_words() {
    for (auth, credentials, words) in [
        (
            Auth::Basic("ann", "s3cret"),
            user("ann", "wr0ng"),
            "authentication required",
        ),
        (
            Auth::Basic("ann", "s3cret"),
            Credentials::Anonymous,
            "authentication required",
        ),
        (
            Auth::Basic("ann", "s3cret"),
            Credentials::IdentityToken("wr0ng".into()),
            "identity token",
        ),
        (
            Auth::Bearer(Some(("ann", "s3cret"))),
            user("ann", "wr0ng"),
            "incorrect username",
        ),
        (
            Auth::Bearer(Some(("ann", "s3cret"))),
            Credentials::Anonymous,
            "incorrect username",
        ),
        (
            Auth::Refresh("r3fresh"),
            Credentials::IdentityToken("wr0ng".into()),
            "incorrect",
        ),
        (
            Auth::Token("t0ken"),
            Credentials::RegistryToken("wr0ng".into()),
            "authentication required",
        ),
    ] {
        let (registry, house) = (Registry::start().await, House::new().await);
        registry.push("app", "v1", &image());
        registry.require(auth);
        let error = house
            .pull_as(&registry.name("app:v1"), credentials)
            .await
            .unwrap_err();
        assert!(matches!(error, PullError::Unauthorized { .. }), "{error:?}");
        assert!(!error.is_retryable());
        let text = format!("{error} {error:?}");
        assert!(text.contains(words), "{text}");
        assert!(
            !text.contains("s3cret") && !text.contains("wr0ng"),
            "{text}"
        );
        house.assert_empty().await;
    }
}

#[tokio::test]
async fn credentials_are_shown_only_when_asked_for() {
    let (registry, house) = (Registry::start().await, House::new().await);
    registry.push("app", "v1", &image());
    house
        .pull_as(&registry.name("app:v1"), ann())
        .await
        .unwrap();
    assert!(registry.seen().iter().all(|s| s.authorization.is_none()));
}

#[tokio::test]
async fn a_token_that_expires_on_the_way_is_renewed() {
    let (registry, house) = (Registry::start().await, House::new().await);
    registry.push("app", "v1", &image());
    registry.require(Auth::Bearer(None));
    let expired = vec![(
        "www-authenticate",
        format!("Bearer realm=\"{}/token\",service=\"test\"", registry.url()),
    )];
    registry.fault("/blobs/", 1, Fault::Answer(401, expired, Vec::new()));
    house.pull(&registry.name("app:v1")).await.unwrap();
    assert_eq!(registry.count("/token"), 2);
    let last = registry.seen().into_iter().rfind(|s| s.path == "/token");
    assert!(
        last.unwrap()
            .query
            .contains("scope=repository%3Aapp%3Apull")
    );
}

#[tokio::test]
async fn what_one_may_pull_another_may_not() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let name = registry.name("app:v1");
    registry.push("app", "v1", &image());
    registry.require(Auth::Basic("ann", "s3cret"));
    house.pull_as(&name, ann()).await.unwrap();
    // It is here in full, and still nobody else gets it.
    for credentials in [Credentials::Anonymous, user("bob", "guess")] {
        let error = house.pull_as(&name, credentials).await.unwrap_err();
        assert!(matches!(error, PullError::Unauthorized { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn another_host_never_sees_the_credentials() {
    for auth in [
        Auth::Basic("ann", "s3cret"),
        Auth::Bearer(Some(("ann", "s3cret"))),
    ] {
        let (registry, storage) = (Registry::start().await, Registry::start().await);
        let house = House::new().await;
        let image = image();
        registry.push("app", "v1", &image);
        storage.push("app", "v1", &image);
        registry.require(auth);
        for layer in &image.layers {
            let path = format!("/v2/app/blobs/{}", layer.digest());
            let there = vec![("location", format!("{}{path}", storage.url()))];
            registry.fault(&path, 1, Fault::Answer(307, there, Vec::new()));
        }
        house
            .pull_as(&registry.name("app:v1"), ann())
            .await
            .unwrap();
        assert_eq!(storage.count("/blobs/"), 2);
        assert!(storage.seen().iter().all(|s| s.authorization.is_none()));
    }
}

#[tokio::test]
async fn a_redirect_on_the_same_host_keeps_them() {
    let (registry, house) = (Registry::start().await, House::new().await);
    let image = image();
    registry.push("app", "v1", &image);
    registry.require(Auth::Basic("ann", "s3cret"));
    let path = format!("/v2/app/blobs/{}", image.layers[0].digest());
    let there = vec![("location", format!("{path}?again"))];
    registry.fault(&path, 1, Fault::Answer(302, there, Vec::new()));
    house
        .pull_as(&registry.name("app:v1"), ann())
        .await
        .unwrap();
    let again = registry.seen().into_iter().find(|s| s.query == "again");
    assert_eq!(again.unwrap().authorization, Some(basic("ann", "s3cret")));
}

#[tokio::test]
async fn a_storage_that_refuses_is_asked_for_anew() {
    let (registry, storage) = (Registry::start().await, Registry::start().await);
    let house = House::new().await;
    let image = image();
    registry.push("app", "v1", &image);
    storage.push("app", "v1", &image);
    let path = format!("/v2/app/blobs/{}", image.layers[0].digest());
    let there = vec![("location", format!("{}{path}", storage.url()))];
    registry.fault(&path, 2, Fault::Answer(307, there, Vec::new()));
    let expired = b"<Error>Request has expired, key s3cret</Error>".to_vec();
    storage.fault(&path, 1, Fault::Answer(403, Vec::new(), expired));
    house.pull(&registry.name("app:v1")).await.unwrap();
}

#[tokio::test]
async fn the_nodes_file_serves_those_who_bring_nothing() {
    let registry = Registry::start().await;
    registry.push("app", "v1", &image());
    registry.require(Auth::Basic("node", "s3cret"));
    let dir = tempfile::tempdir().unwrap();
    let file = camino::Utf8PathBuf::try_from(dir.path().join("config.json")).unwrap();
    let entry = serde_json::json!({"username": "node", "password": "s3cret"});
    let auths = serde_json::json!({"auths": {registry.address.to_string(): entry}});
    std::fs::write(&file, auths.to_string()).unwrap();
    let house = House::with(|options| options.credentials_file = Some(file.clone())).await;
    let name = registry.name("app:v1");
    house.pull(&name).await.unwrap();
    let error = house.pull_as(&name, ann()).await.unwrap_err();
    assert!(matches!(error, PullError::Unauthorized { .. }), "{error:?}");
    std::fs::write(&file, "{").unwrap();
    let error = house.pull(&name).await.unwrap_err();
    assert!(matches!(error, PullError::Settings { .. }), "{error:?}");
    assert!(error.to_string().contains(file.as_str()), "{error}");
}
