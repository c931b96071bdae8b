//! Whom to believe: the one certificate authority that the configuration names, not the system's.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use camino::Utf8PathBuf;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt as _;

use super::error::PveError;

/// Longest file read, in bytes. Proxmox's own has 2 KiB.
const MAX_FILE: u64 = 256 << 10;

/// A certificate authority. Its file is read for every connection, since Proxmox replaces it without telling.
#[derive(Debug)]
pub(super) struct Trust {
    file: Utf8PathBuf,
    /// What was made of the file, for as long as it has not changed: it also remembers TLS sessions.
    made: Mutex<Option<(Vec<u8>, Arc<ClientConfig>)>>,
}

/// Why a file is no certificate authority.
#[derive(Debug, thiserror::Error)]
pub(super) enum TrustError {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it has more than {MAX_FILE} bytes")]
    TooLong,
    #[error("it holds no certificate in PEM")]
    Empty,
    #[error("it holds something else than certificates in PEM")]
    Pem(#[source] rustls::pki_types::pem::Error),
    #[error("a certificate in it cannot be used, or TLS cannot")]
    Tls(#[source] rustls::Error),
}

impl Trust {
    pub(super) fn new(file: Utf8PathBuf) -> Self {
        Self {
            file,
            made: Mutex::default(),
        }
    }

    /// The file.
    pub(super) fn file(&self) -> &Utf8PathBuf {
        &self.file
    }

    /// Settings for TLS that believe this authority alone.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, PveError> {
        let made = async {
            let pem = self.read().await?;
            if let Some((known, config)) = &*self.lock()
                && *known == pem
            {
                return Ok(config.clone());
            }
            let config = Arc::new(client_config(&pem)?);
            *self.lock() = Some((pem, config.clone()));
            Ok(config)
        };
        made.await.map_err(|source: TrustError| PveError::Setup {
            what: format!("the certificate authority {} (proxmox.ca_file)", self.file),
            source: source.into(),
        })
    }

    async fn read(&self) -> Result<Vec<u8>, TrustError> {
        let file = tokio::fs::File::open(&self.file)
            .await
            .map_err(TrustError::Read)?;
        let mut pem = Vec::new();
        file.take(MAX_FILE + 1)
            .read_to_end(&mut pem)
            .await
            .map_err(TrustError::Read)?;
        if pem.len() as u64 > MAX_FILE {
            return Err(TrustError::TooLong);
        }
        Ok(pem)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Vec<u8>, Arc<ClientConfig>)>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn client_config(pem: &[u8]) -> Result<ClientConfig, TrustError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(TrustError::Pem)?;
        roots.add(certificate).map_err(TrustError::Tls)?;
    }
    if roots.is_empty() {
        return Err(TrustError::Empty);
    }
    let provider = CryptoProvider::get_default()
        .cloned()
        .unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TrustError::Tls)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
