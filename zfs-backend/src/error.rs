//! Errors of this store, in the words of the seam.

use std::io;

use camino::Utf8Path;
use nexcage_image_store::{ChainId, LayerStoreError, RootfsId};

/// The name of this driver.
pub(crate) const DRIVER: &str = "zfs";

pub(crate) type Result<T> = std::result::Result<T, LayerStoreError>;

/// Turns the answer of the kernel or of OpenZFS into a [`LayerStoreError`].
pub(crate) trait Doing<T> {
    /// `what` is the gerund and its object, as in `making the directory`; the path follows it.
    fn doing(self, what: &str, path: &Utf8Path) -> Result<T>;

    /// `what` is the gerund, as in `cloning`; the dataset's or snapshot's name follows it.
    fn doing_to(self, what: &str, name: &str) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: &str, path: &Utf8Path) -> Result<T> {
        self.doing_to(what, path.as_str())
    }

    fn doing_to(self, what: &str, name: &str) -> Result<T> {
        self.map_err(|e| LayerStoreError::Io {
            doing: format!("{what} {name}"),
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

/// An error that no call gave.
pub(crate) fn refused(
    kind: io::ErrorKind,
    doing: String,
    why: impl Into<String>,
) -> LayerStoreError {
    LayerStoreError::Io {
        doing,
        source: io::Error::new(kind, why.into()),
    }
}

/// A dataset is where this store wants to have one.
pub(crate) fn foreign(name: &str) -> LayerStoreError {
    refused(
        io::ErrorKind::AlreadyExists,
        format!("using the dataset {name}"),
        format!(
            "it exists and was not made by nexcage; rename it (zfs rename {name} ...) or give nexcage another dataset"
        ),
    )
}

pub(crate) fn no_layer(chain: &ChainId) -> LayerStoreError {
    LayerStoreError::NotFound {
        what: "layer",
        name: chain.to_string(),
    }
}

pub(crate) fn no_rootfs(id: &RootfsId) -> LayerStoreError {
    LayerStoreError::NotFound {
        what: "root filesystem",
        name: id.0.clone(),
    }
}

pub(crate) fn no_checkpoint(id: &RootfsId, name: &str) -> LayerStoreError {
    LayerStoreError::NotFound {
        what: "checkpoint",
        name: format!("{name} of {id}"),
    }
}
