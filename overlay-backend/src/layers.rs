//! Unpacking and removing layers.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_failpoint::hit;
use nexcage_image_store::apply::{Applied, ApplyError, Whiteouts, apply_layer};
use nexcage_image_store::{ChainId, Digest, LayerStoreError, StoredLayer, Usage};
use rustix::fs::{CWD, Mode, OFlags, XattrFlags};

use crate::error::Doing;
use crate::records::{Begun, LayerDir, wait};
use crate::store::Inner;

/// One call of `apply`.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) parent: Option<ChainId>,
    pub(crate) chain: ChainId,
    pub(crate) tar: Utf8PathBuf,
    pub(crate) diff_id: Digest,
    /// Set when nobody wants the layer any more.
    pub(crate) cancelled: Arc<AtomicBool>,
}

impl Inner {
    /// Unpacks a layer. Blocking.
    pub(crate) fn apply(&self, job: &Job) -> Result<StoredLayer, LayerStoreError> {
        let begun = wait(self.records.begin_layer(job.parent.as_ref(), &job.chain))?;
        let (dir, below) = match begun {
            Begun::Exists(layer) => return Ok(layer),
            Begun::Apply(dir, below) => (dir, below),
        };
        hit("overlay.layer-row");
        let path = self.layer_path(dir);
        let written = self.unpack(job, &path, &below).and_then(|usage| {
            hit("overlay.layer-unpacked");
            Ok((wait(self.records.layer_written(dir, usage))?, usage))
        });
        match written {
            Ok((true, usage)) => {
                hit("overlay.layer-written");
                self.chores.flush();
                Ok(StoredLayer {
                    chain: job.chain.clone(),
                    parent: job.parent.clone(),
                    bytes: usage.bytes,
                    inodes: usage.inodes,
                })
            }
            Ok((false, _)) => {
                // Another call was quicker with the same layer.
                self.take_back(dir, &path);
                wait(self.records.layer(&job.chain))?.ok_or_else(|| LayerStoreError::NotFound {
                    what: "layer",
                    name: job.chain.to_string(),
                })
            }
            Err(error) => {
                self.take_back(dir, &path);
                Err(error)
            }
        }
    }

    /// Unpacks into a new directory and says what that takes.
    fn unpack(
        &self,
        job: &Job,
        path: &Utf8Path,
        below: &[LayerDir],
    ) -> Result<Usage, LayerStoreError> {
        let tar = File::open(&job.tar).doing("opening the layer", &job.tar)?;
        std::fs::create_dir(path).doing("making the directory", path)?;
        hit("overlay.layer-dir");
        let root = open(path)?;
        let lowers: Vec<OwnedFd> = (below.iter())
            .map(|dir| open(&self.layer_path(*dir)))
            .collect::<Result<_, _>>()?;
        if let Some(parent) = lowers.first() {
            copy_root(parent, &root).doing("setting the attributes of", path)?;
        } else {
            rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755))
                .doing("setting the mode of", path)?;
        }
        let mut tar = Cancellable {
            file: tar,
            cancelled: &job.cancelled,
        };
        let whiteouts = Whiteouts::Overlay { lowers: &lowers };
        let applied = apply_layer(root.as_fd(), &mut tar, whiteouts, &self.limits);
        let Applied {
            allocated, inodes, ..
        } = applied.map_err(|e| apply_error(&job.diff_id, e))?;
        Ok(Usage {
            bytes: allocated,
            inodes,
        })
    }

    /// Undoes an `apply`. What cannot be undone now is swept at the next start.
    fn take_back(&self, dir: LayerDir, path: &Utf8Path) {
        // The files first, and now: the disk may be full, and striking the record off needs room.
        let undone = (self.chores.delete(path)).and_then(|()| wait(self.records.forget_layer(dir)));
        if let Err(error) = undone {
            tracing::warn!(%error, %path, "a layer that could not be unpacked is left until the next start");
        }
    }

    /// Removes a layer. Blocking.
    pub(crate) fn remove_layer(&self, chain: &ChainId) -> Result<(), LayerStoreError> {
        for dir in wait(self.records.begin_removal(chain))? {
            hit("overlay.layer-removing");
            self.chores.discard(&self.layer_path(dir))?;
            hit("overlay.layer-discarded");
            wait(self.records.forget_layer(dir))?;
        }
        self.chores.empty();
        Ok(())
    }

    pub(crate) fn layer_path(&self, dir: LayerDir) -> Utf8PathBuf {
        self.places.layers.join(dir.to_string())
    }
}

/// A full disk is the machine's fault, not the layer's.
fn apply_error(diff_id: &Digest, error: ApplyError) -> LayerStoreError {
    match error {
        ApplyError::Io {
            entry,
            doing,
            source,
        } if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) =>
        {
            LayerStoreError::Io {
                doing: format!("unpacking layer {diff_id}: cannot {doing} {entry}"),
                source,
            }
        }
        source => LayerStoreError::Apply {
            diff_id: diff_id.clone(),
            source,
        },
    }
}

/// Gives `to` the owner, mode, time and attributes of `from`: overlayfs shows those of the uppermost
/// root directory.
pub(crate) fn copy_root(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let metadata = File::from(from.try_clone()?).metadata()?;
    std::os::unix::fs::fchown(
        to,
        Some(std::os::unix::fs::MetadataExt::uid(&metadata)),
        Some(std::os::unix::fs::MetadataExt::gid(&metadata)),
    )?;
    for acl in ["system.posix_acl_access", "system.posix_acl_default"] {
        let mut value = [0_u8; 4096];
        match rustix::fs::fgetxattr(from, acl, &mut value) {
            Ok(n) => rustix::fs::fsetxattr(to, acl, &value[..n], XattrFlags::empty())?,
            Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let to = File::from(to.try_clone()?);
    to.set_permissions(metadata.permissions())?;
    to.set_modified(metadata.modified()?)
}

pub(crate) fn open(path: &Utf8Path) -> Result<OwnedFd, LayerStoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path.as_std_path(), flags, Mode::empty()).doing("opening", path)
}

/// A file that cannot be read any more once nobody wants it.
struct Cancellable<'a> {
    file: File,
    cancelled: &'a AtomicBool,
}

impl Read for Cancellable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("the pull was given up"));
        }
        self.file.read(buffer)
    }
}
