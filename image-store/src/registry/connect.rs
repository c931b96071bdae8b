//! HTTP clients: one per endpoint, without credentials.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use camino::Utf8PathBuf;
use reqwest::redirect;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::failure::{Failure, FailureKind, chain};
use super::hosts::Endpoint;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The clients made so far. Certificate files are read when an endpoint is first used.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    clients: Mutex<BTreeMap<Endpoint, reqwest::Client>>,
}

impl Connections {
    /// The client for an endpoint and for wherever it redirects to.
    pub(crate) async fn client(&self, endpoint: &Endpoint) -> Result<reqwest::Client, Failure> {
        if let Some(client) = self.known(endpoint) {
            return Ok(client);
        }
        let wanted = endpoint.clone();
        // Reads certificate files.
        let client = tokio::task::spawn_blocking(move || build(&wanted))
            .await
            .map_err(|_| Failure::new(FailureKind::Unavailable, "the runtime is ending"))??;
        self.clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(endpoint.clone(), client.clone());
        Ok(client)
    }

    fn known(&self, endpoint: &Endpoint) -> Option<reqwest::Client> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.get(endpoint).cloned()
    }
}

fn build(endpoint: &Endpoint) -> Result<reqwest::Client, Failure> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("nexcage/", env!("CARGO_PKG_VERSION")))
        // Redirects are followed by hand, to keep credentials where they belong.
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        // One connection per download: its window bounds what is buffered.
        .http1_only();
    if endpoint.is_loopback() {
        // A proxy's loopback is not ours.
        builder = builder.no_proxy();
    }
    let provider = CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let tls = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| settings(format!("TLS cannot be used: {e}")))?;
    let mut tls = if endpoint.manner.skip_verify {
        tls.dangerous()
            .with_custom_certificate_verifier(Arc::new(super::skip_verify::AnyCertificate::new(
                &provider,
            )))
            .with_no_client_auth()
    } else {
        tls.with_root_certificates(roots(&endpoint.manner.ca_files)?)
            .with_no_client_auth()
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    builder
        .tls_backend_preconfigured(tls)
        .build()
        .map_err(|e| settings(chain(&e)))
}

/// The system's certificates, and those of the files. A machine without any can still use
/// plain registries and those of the files.
fn roots(files: &[Utf8PathBuf]) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "a system certificate cannot be read");
    }
    roots.add_parsable_certificates(system.certs);
    for file in files {
        let unusable = |why: String| settings(format!("CA file {file} cannot be used: {why}"));
        let mut found = 0;
        for certificate in
            CertificateDer::pem_file_iter(file).map_err(|e| unusable(e.to_string()))?
        {
            let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
            roots
                .add(certificate)
                .map_err(|e| unusable(e.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(unusable("it holds no PEM certificate".into()));
        }
    }
    Ok(roots)
}

fn settings(detail: String) -> Failure {
    Failure::new(FailureKind::Settings, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bad_ca_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = Utf8PathBuf::try_from(dir.path().join("ca.pem")).unwrap();
        std::fs::write(&file, "not a certificate").unwrap();
        let mut endpoint = Endpoint::parse("https://quay.io").unwrap();
        endpoint.manner.ca_files.push(file.clone());
        let failure = Connections::default().client(&endpoint).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Settings);
        assert!(failure.detail.contains(file.as_str()), "{}", failure.detail);
    }
}
