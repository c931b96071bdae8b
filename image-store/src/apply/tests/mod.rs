//! Archives that are built here, byte by byte, because no well-behaved builder makes most of them.

mod contents;
mod fuzz;
mod hostile;
mod layered;
mod model;

use std::fs::{File, Metadata};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::{Applied, ApplyError, ApplyLimits, Whiteouts, apply_layer};

/// An archive being built.
#[derive(Clone, Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn new() -> Self {
        Self::default()
    }

    /// An entry as it is, with at most 100 bytes of name.
    fn raw(mut self, flag: u8, path: &[u8], link: &[u8], content: &[u8]) -> Self {
        self.header(flag, path, link, content.len() as u64, |_| {});
        self.content(content)
    }

    fn header(
        &mut self,
        flag: u8,
        path: &[u8],
        link: &[u8],
        size: u64,
        change: impl FnOnce(&mut tar::Header),
    ) {
        let mut header = tar::Header::new_gnu();
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..path.len()].copy_from_slice(path);
        gnu.linkname[..link.len()].copy_from_slice(link);
        gnu.typeflag[0] = flag;
        header.set_size(size);
        header.set_mode(if flag == b'5' { 0o755 } else { 0o644 });
        // As whoever runs the test, so that most of it needs no root.
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(1_000_000_000);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
    }

    fn changed(
        mut self,
        flag: u8,
        path: &str,
        content: &[u8],
        change: impl FnOnce(&mut tar::Header),
    ) -> Self {
        self.header(flag, path.as_bytes(), b"", content.len() as u64, change);
        self.content(content)
    }

    fn content(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        let end = self.0.len().next_multiple_of(512);
        self.0.resize(end, 0);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.raw(b'0', path.as_bytes(), b"", content.as_bytes())
    }

    fn dir(self, path: &str) -> Self {
        self.raw(b'5', path.as_bytes(), b"", b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(b'2', path.as_bytes(), target.as_bytes(), b"")
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.raw(b'1', path.as_bytes(), target.as_bytes(), b"")
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut data = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..)
                .find(|n| n.to_string().len() + rest == *n)
                .unwrap();
            data.extend_from_slice(format!("{length} {key}=").as_bytes());
            data.extend_from_slice(value);
            data.push(b'\n');
        }
        self.raw(b'x', b"PaxHeaders", b"", &data)
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// A directory to unpack into, with a place beside it that nothing may touch.
struct Scratch {
    dir: tempfile::TempDir,
    count: usize,
}

impl Scratch {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        std::fs::write(dir.path().join("outside/secret"), "untouched").unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        Self { dir, count: 0 }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root().join(path)
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap()
    }

    fn meta(&self, path: &str) -> Metadata {
        std::fs::symlink_metadata(self.path(path)).unwrap()
    }

    /// Applies to the merged tree.
    fn apply(&self, tar: Tar) -> Result<Applied, ApplyError> {
        self.apply_limited(&tar.end(), &ApplyLimits::default())
    }

    fn apply_limited(&self, tar: &[u8], limits: &ApplyLimits) -> Result<Applied, ApplyError> {
        let root = File::open(self.root()).unwrap();
        apply_layer(root.as_fd(), &mut &tar[..], Whiteouts::Remove, limits)
    }

    /// Applies as the next layer of an overlay: into `root/<n>`, on all before it.
    fn layer(&mut self, tar: Tar) -> Result<PathBuf, ApplyError> {
        let dir = self.path(&self.count.to_string());
        std::fs::create_dir(&dir).unwrap();
        let lowers: Vec<OwnedFd> = (0..self.count)
            .rev()
            .map(|n| File::open(self.path(&n.to_string())).unwrap().into())
            .collect();
        self.count += 1;
        let root = File::open(&dir).unwrap();
        let whiteouts = Whiteouts::Overlay { lowers: &lowers };
        let limits = ApplyLimits::default();
        apply_layer(root.as_fd(), &mut &tar.end()[..], whiteouts, &limits)?;
        Ok(dir)
    }

    fn assert_outside_untouched(&self) {
        let outside = self.dir.path().join("outside");
        let names: Vec<_> = (std::fs::read_dir(&outside).unwrap())
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(names, ["secret"]);
        let secret = std::fs::read_to_string(outside.join("secret")).unwrap();
        assert_eq!(secret, "untouched");
        assert_eq!(std::fs::read_dir(self.dir.path()).unwrap().count(), 2);
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

fn is_whiteout(path: &Path) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let meta = std::fs::symlink_metadata(path).unwrap();
    meta.file_type().is_char_device() && meta.rdev() == 0
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0; 8];
    rustix::fs::lgetxattr(path, "trusted.overlay.opaque", &mut value)
        .is_ok_and(|n| &value[..n] == b"y")
}
