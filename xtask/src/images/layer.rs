//! A layer: files by path, written as a tar archive that is the same whenever it is built.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::rc::Rc;

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use crate::cache::hex;

/// Files by path, without a leading slash. Owned by root, except where said otherwise.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    mode: u32,
    owner: u64,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Directory,
    File(Vec<u8>),
    HardLink(String),
}

/// A layer as a registry stores it.
pub(super) struct Packed {
    /// The gzipped archive.
    pub(super) blob: Blob,
    /// Digest of the archive before compression, as it stands in the image config.
    pub(super) diff_id: String,
}

/// Bytes and their digest.
pub(super) struct Blob {
    /// As the OCI image spec writes it: `sha256:<hex>`.
    pub(super) digest: String,
    /// The content.
    pub(super) bytes: Vec<u8>,
}

impl Blob {
    /// Hashes the bytes.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self {
            digest: sha256(&bytes),
            bytes,
        }
    }
}

impl Layer {
    /// Adds a regular file.
    pub(super) fn file(&mut self, path: impl Into<String>, mode: u32, content: impl Into<Vec<u8>>) {
        self.add(path.into(), mode, 0, Kind::File(content.into()));
    }

    /// Adds a directory.
    pub(super) fn directory(&mut self, path: impl Into<String>, mode: u32) {
        self.add(path.into(), mode, 0, Kind::Directory);
    }

    /// Adds a directory that belongs to another user and the group of the same number.
    pub(super) fn directory_of(&mut self, path: impl Into<String>, mode: u32, owner: u64) {
        self.add(path.into(), mode, owner, Kind::Directory);
    }

    /// Adds another name for a file of this layer.
    pub(super) fn hard_link(&mut self, path: impl Into<String>, target: impl Into<String>) {
        self.add(path.into(), 0o755, 0, Kind::HardLink(target.into()));
    }

    fn add(&mut self, path: String, mode: u32, owner: u64, kind: Kind) {
        // Parents that nobody described are ordinary directories.
        let mut end = 0;
        while let Some(slash) = path[end..].find('/') {
            let parent = path[..end + slash].to_owned();
            self.entries.entry(parent).or_insert(Entry {
                mode: 0o755,
                owner: 0,
                kind: Kind::Directory,
            });
            end += slash + 1;
        }
        self.entries.insert(path, Entry { mode, owner, kind });
    }

    /// Writes the archive and compresses it. Costly, so many images share the result.
    pub(super) fn pack(&self) -> anyhow::Result<Rc<Packed>> {
        let mut archive = Builder::new(Vec::new());
        // A hard link comes after the file it names.
        let is_link = |entry: &Entry| matches!(entry.kind, Kind::HardLink(_));
        let files = self.entries.iter().filter(|(_, entry)| !is_link(entry));
        let links = self.entries.iter().filter(|(_, entry)| is_link(entry));
        for (path, entry) in files.chain(links) {
            append(&mut archive, path, entry).with_context(|| format!("cannot pack {path}"))?;
        }
        let archive = archive.into_inner().context("cannot finish the archive")?;
        let diff_id = sha256(&archive);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&archive).context("cannot compress")?;
        let blob = Blob::new(gzip.finish().context("cannot compress")?);
        Ok(Rc::new(Packed { blob, diff_id }))
    }
}

fn append(archive: &mut Builder<Vec<u8>>, path: &str, entry: &Entry) -> std::io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(entry.owner);
    header.set_gid(entry.owner);
    header.set_mtime(0);
    header.set_size(0);
    match &entry.kind {
        Kind::Directory => {
            header.set_entry_type(EntryType::Directory);
            archive.append_data(&mut header, format!("{path}/"), std::io::empty())
        }
        Kind::File(content) => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path, content.as_slice())
        }
        Kind::HardLink(target) => {
            header.set_entry_type(EntryType::Link);
            archive.append_link(&mut header, path, target)
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_first_and_keep_what_was_said_of_them() {
        let mut layer = Layer::default();
        layer.directory_of("var/lib/thing", 0o700, 33);
        layer.file("var/lib/thing/data", 0o600, "x");
        let packed = layer.pack().unwrap();

        let mut plain = Vec::new();
        std::io::copy(
            &mut flate2::read::GzDecoder::new(packed.blob.bytes.as_slice()),
            &mut plain,
        )
        .unwrap();
        assert_eq!(sha256(&plain), packed.diff_id);
        let mut archive = tar::Archive::new(plain.as_slice());
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                (
                    path,
                    entry.header().mode().unwrap(),
                    entry.header().uid().unwrap(),
                )
            })
            .collect();
        let expected = [
            ("var/", 0o755, 0),
            ("var/lib/", 0o755, 0),
            ("var/lib/thing/", 0o700, 33),
            ("var/lib/thing/data", 0o600, 0),
        ];
        assert_eq!(
            found,
            expected.map(|(path, mode, uid)| (path.to_owned(), mode, uid))
        );
    }

    #[test]
    fn a_hard_link_comes_after_its_file() {
        let mut layer = Layer::default();
        layer.hard_link("a", "b");
        layer.file("b", 0o644, "x");
        let dir = std::env::temp_dir().join(format!("nxt-layer-{}", std::process::id()));
        let packed = layer.pack().unwrap();
        let plain = flate2::read::GzDecoder::new(packed.blob.bytes.as_slice());
        tar::Archive::new(plain).unpack(&dir).unwrap();
        assert_eq!(std::fs::read(dir.join("a")).unwrap(), b"x");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_layer_is_the_same_whenever_it_is_built() {
        let build = || {
            let mut layer = Layer::default();
            layer.hard_link("bin/ash", "bin/busybox");
            layer.file("bin/busybox", 0o755, "x");
            layer.directory("tmp", 0o1777);
            layer.pack().unwrap().blob.digest.clone()
        };
        assert_eq!(build(), build());
    }
}
