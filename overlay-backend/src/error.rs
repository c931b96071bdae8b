//! Errors of this store, in the words of the seam.

use std::io;

use camino::Utf8Path;
use nexcage_image_store::LayerStoreError;

/// The name of this driver.
pub(crate) const DRIVER: &str = "overlay";

/// Turns the kernel's answer into a [`LayerStoreError`].
pub(crate) trait Doing<T> {
    /// `what` is the gerund and its object, as in `making the directory`; the path follows it.
    fn doing(self, what: &str, path: &Utf8Path) -> Result<T, LayerStoreError>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: &str, path: &Utf8Path) -> Result<T, LayerStoreError> {
        self.map_err(|e| LayerStoreError::Io {
            doing: format!("{what} {path}"),
            source: e.into(),
        })
    }
}

pub(crate) fn unsupported(what: String) -> LayerStoreError {
    LayerStoreError::Unsupported {
        driver: DRIVER,
        what,
    }
}

/// An error that no system call gave.
pub(crate) fn refused(kind: io::ErrorKind, doing: String, why: &str) -> LayerStoreError {
    LayerStoreError::Io {
        doing,
        source: io::Error::new(kind, why.to_owned()),
    }
}
