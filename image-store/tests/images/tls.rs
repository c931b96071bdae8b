//! HTTPS with certificates that the system does not know.

use std::sync::Arc;

use camino::Utf8PathBuf;
use nexcage_image_store::{Endpoint, PullError, Registries, RegistryConfig};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::house::House;
use crate::image::{Packing, TestImage, TestLayer};
use crate::registry::{Auth, Registry};

// Made once with openssl, good for a hundred years; nothing outside these tests trusts them.
const CERTIFICATE: &[u8] = include_bytes!("tls/server.pem");
const KEY: &[u8] = include_bytes!("tls/server.key");

async fn registry() -> Registry {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(CERTIFICATE).unwrap()],
            PrivateKeyDer::from_pem_slice(KEY).unwrap(),
        )
        .unwrap();
    let registry = Registry::start_tls(TlsAcceptor::from(Arc::new(config))).await;
    registry.push(
        "app",
        "v1",
        &TestImage::new(&[TestLayer::new("x", Packing::Gzip)]),
    );
    registry
}

async fn house(registry: &Registry, change: impl FnOnce(&mut Endpoint)) -> House {
    let mut endpoint = Endpoint::parse(&registry.url()).unwrap();
    change(&mut endpoint);
    let mut registries = Registries::default();
    let config = RegistryConfig {
        mirrors: Vec::new(),
        server: Some(endpoint),
    };
    registries
        .hosts
        .insert(registry.address.to_string(), config);
    House::with(|options| options.registries = registries).await
}

fn ca_file() -> Utf8PathBuf {
    Utf8PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/images/tls/ca.pem"
    ))
}

#[tokio::test]
async fn a_ca_of_ones_own() {
    let registry = registry().await;
    let house = house(&registry, |endpoint| {
        endpoint.manner.ca_files.push(ca_file());
    })
    .await;
    registry.require(Auth::Bearer(None));
    house.pull(&registry.name("app:v1")).await.unwrap();
}

#[tokio::test]
async fn any_certificate_if_one_says_so() {
    let registry = registry().await;
    let house = house(&registry, |endpoint| endpoint.manner.skip_verify = true).await;
    house.pull(&registry.name("app:v1")).await.unwrap();
}

#[tokio::test]
async fn a_stranger_is_not_believed() {
    let registry = registry().await;
    let house = house(&registry, |_| {}).await;
    let error = house.pull(&registry.name("app:v1")).await.unwrap_err();
    assert!(matches!(error, PullError::Unavailable { .. }), "{error:?}");
    assert!(
        !error.is_retryable(),
        "a certificate does not become good by waiting"
    );
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(registry.seen().len(), 0);
    house.assert_empty().await;
}

#[tokio::test]
async fn a_redirect_to_plain_http_is_not_followed() {
    let (registry, plain) = (registry().await, Registry::start().await);
    let house = house(&registry, |endpoint| {
        endpoint.manner.ca_files.push(ca_file());
    })
    .await;
    let there = vec![("location", format!("{}/x", plain.url()))];
    let away = crate::registry::Fault::Answer(302, there, Vec::new());
    registry.fault("/blobs/", 100, away);
    let error = house.pull(&registry.name("app:v1")).await.unwrap_err();
    assert!(
        error.to_string().contains("redirects from https to http"),
        "{error}"
    );
    assert_eq!(plain.seen().len(), 0);
}
