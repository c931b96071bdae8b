//! Layers: refused or unpacked, and nothing outside the root is touched.
//!
//! The first byte of the input says how whiteouts are stored; the rest is the tar stream. Needs root.
use std::fs::{self, File, Permissions};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nexcage_image_store::apply::{ApplyLimits, Whiteouts, apply_layer};
use tempfile::TempDir;

/// Small, so that one input is quick.
const LIMITS: ApplyLimits = ApplyLimits {
    max_entries: 200,
    max_bytes: 1 << 20,
    max_depth: 16,
};

/// Unpacks the input as a layer.
pub(crate) fn layer(data: &[u8]) {
    let Some((&how, tar)) = data.split_first() else {
        return;
    };
    let mut tar = tar.to_vec();
    fix_checksums(&mut tar);
    let scratch = Scratch::new();
    let root = open(&scratch.path("root"));
    let lowers = [open(&scratch.path("lower"))];
    let whiteouts = if how & 1 == 0 {
        Whiteouts::Overlay { lowers: &lowers }
    } else {
        Whiteouts::Remove
    };
    let _ = apply_layer(root.as_fd(), &mut tar.as_slice(), whiteouts, &LIMITS);
    scratch.assert_only_the_root_changed();
}

/// Puts right the checksums of what look like headers, or hardly any change would get past them.
fn fix_checksums(tar: &mut [u8]) {
    for block in tar.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

/// The layer's root, a layer below it with links that lead astray, and a file that nobody may touch.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        let dir = TempDir::new_in("/dev/shm").expect("a scratch directory");
        let scratch = Self(dir);
        for dir in ["root", "lower", "lower/d", "outside"] {
            fs::create_dir(scratch.path(dir)).expect("a directory");
        }
        fs::write(scratch.path("lower/d/f"), "below").expect("a file");
        let link = |to: &str, at: &str| {
            std::os::unix::fs::symlink(to, scratch.path(at)).expect("a link");
        };
        link("d", "lower/l");
        link("../outside", "lower/up");
        link(
            scratch.path("outside").to_str().expect("UTF-8"),
            "lower/abs",
        );
        fs::write(scratch.path("outside/kept"), "kept").expect("a file");
        fs::set_permissions(scratch.path("outside/kept"), Permissions::from_mode(0o640))
            .expect("a mode");
        scratch
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn assert_only_the_root_changed(&self) {
        assert_eq!(names(self.0.path()), ["lower", "outside", "root"]);
        assert_eq!(names(&self.path("lower")), ["abs", "d", "l", "up"]);
        assert_eq!(names(&self.path("lower/d")), ["f"]);
        assert_eq!(
            fs::read(self.path("lower/d/f")).expect("it is there"),
            b"below"
        );
        assert_eq!(names(&self.path("outside")), ["kept"]);
        assert_eq!(
            fs::read(self.path("outside/kept")).expect("it is there"),
            b"kept"
        );
        let kept = fs::metadata(self.path("outside/kept")).expect("it is there");
        assert_eq!(
            (kept.mode() & 0o7777, kept.uid(), kept.nlink()),
            (0o640, 0, 1)
        );
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory");
    let mut names: Vec<_> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

fn open(dir: &Path) -> OwnedFd {
    File::open(dir).expect("a directory").into()
}
