//! What ordinary layers hold arrives as it is.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use super::*;

#[test]
fn files_directories_and_links() {
    let s = Scratch::new();
    let applied = s
        .apply(
            Tar::new()
                .dir("./")
                .dir("./etc/")
                .file("./etc/a", "hello")
                .symlink("etc/s", "../../../outside/secret")
                .link("etc/h", "etc/a")
                .file("/abs/deep/er", "x")
                .file("etc/a2", ""),
        )
        .unwrap();
    assert_eq!(s.read("etc/a"), "hello");
    assert_eq!(s.meta("etc/a").ino(), s.meta("etc/h").ino());
    assert_eq!(s.meta("etc/a").mode() & 0o7777, 0o644);
    assert_eq!(s.meta("etc/a").mtime(), 1_000_000_000);
    assert_eq!(s.read("abs/deep/er"), "x");
    assert_eq!(s.meta("abs/deep").mode() & 0o7777, 0o755);
    assert_eq!(
        std::fs::read_link(s.path("etc/s")).unwrap(),
        Path::new("../../../outside/secret")
    );
    assert_eq!(s.meta("etc/s").mtime(), 1_000_000_000);
    // etc, a, s, abs, deep, er, a2
    assert_eq!((applied.bytes, applied.inodes), (6, 7));
    assert!(applied.allocated > 0);
    s.assert_outside_untouched();
}

#[test]
fn directories_keep_their_times() {
    let s = Scratch::new();
    s.apply(
        Tar::new()
            .dir("d")
            .dir("d/e")
            .file("d/e/f", "1")
            .file("x", "")
            .file("d/g", "2")
            .file("d/e/h", "3")
            .link("l", "d/g"),
    )
    .unwrap();
    for path in ["d", "d/e"] {
        assert_eq!(s.meta(path).mtime(), 1_000_000_000, "{path}");
    }
    // Again, as a second layer that touches them without an entry of their own.
    s.apply(
        Tar::new()
            .file("d/e/i", "")
            .file("d/.wh.g", "")
            .dir("d/e/j"),
    )
    .unwrap();
    for path in ["d", "d/e"] {
        assert_eq!(s.meta(path).mtime(), 1_000_000_000, "{path}");
    }
    assert!(!s.path("d/g").exists());
}

#[test]
fn later_entries_replace_earlier_ones() {
    let s = Scratch::new();
    s.apply(
        Tar::new()
            .file("a", "1")
            .file("a", "2")
            .dir("b")
            .file("b/x", "")
            .file("b", "now a file")
            .file("c", "")
            .dir("c")
            .file("c/y", "")
            .symlink("d", "c")
            .dir("d")
            .dir("e")
            .symlink("e", "c")
            .dir("c")
            .link("a", "b"),
    )
    .unwrap();
    assert_eq!(s.read("a"), "now a file");
    assert_eq!(s.read("b"), "now a file");
    assert!(s.meta("c/y").is_file());
    assert!(s.meta("d").is_dir());
    assert!(s.meta("e").is_symlink());
}

#[test]
fn long_and_odd_names() {
    let s = Scratch::new();
    let long = format!("{}end", "a-directory/".repeat(50));
    let gnu = format!("{}gnu\0", "g/".repeat(60));
    let target = "t".repeat(300);
    let newline = "with\nnewline";
    s.apply(
        Tar::new()
            .pax(&[("path", long.as_bytes())])
            .file("short", "pax")
            .raw(b'L', b"././@LongLink", b"", gnu.as_bytes())
            .file("short", "gnu")
            .raw(b'K', b"././@LongLink", b"", target.as_bytes())
            .symlink("l", "short")
            .pax(&[("path", newline.as_bytes())])
            .file("short", "nl")
            .raw(b'0', b"latin\xe9", b"", b"bytes")
            .raw(b'g', b"pax_global_header", b"", b"15 comment=abc\n")
            .raw(0, b"old/", b"", b"")
            .raw(b'7', b"contiguous", b"", b"7"),
    )
    .unwrap();
    assert_eq!(s.read(&long), "pax");
    assert_eq!(s.read(gnu.trim_end_matches('\0')), "gnu");
    assert_eq!(std::fs::read_link(s.path("l")).unwrap(), Path::new(&target));
    assert_eq!(s.read(newline), "nl");
    let latin = s.root().join(std::ffi::OsStr::from_bytes(b"latin\xe9"));
    assert_eq!(std::fs::read(latin).unwrap(), b"bytes");
    assert!(s.meta("old").is_dir());
    assert_eq!(s.read("contiguous"), "7");
    assert!(!s.path("short").exists());
}

#[test]
fn a_path_longer_than_the_kernel_takes_at_once() {
    let s = Scratch::new();
    let part = "d".repeat(200);
    let path = [part.as_str(); 30].join("/");
    s.apply(
        Tar::new()
            .pax(&[("path", format!("{path}/f").as_bytes())])
            .file("short", "deep"),
    )
    .unwrap();
    let mut dir: OwnedFd = File::open(s.root()).unwrap().into();
    for _ in 0..30 {
        dir = super::super::sys::open_dir(&dir, part.as_bytes()).unwrap();
    }
    assert!(super::super::sys::stat(&dir, b"f").unwrap().is_some());
}

#[test]
fn attributes_from_pax() {
    let s = Scratch::new();
    s.apply(
        Tar::new()
            .pax(&[
                ("mtime", b"1234.5"),
                ("SCHILY.xattr.user.note", b"two\nlines"),
                ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
                ("SCHILY.xattr.security.selinux", b"label"),
                ("atime", b"1"),
            ])
            .dir("d")
            .pax(&[("mtime", b"-1.25")])
            .file("old", ""),
    )
    .unwrap();
    assert_eq!(
        (s.meta("d").mtime(), s.meta("d").mtime_nsec()),
        (1234, 500_000_000)
    );
    assert_eq!(
        (s.meta("old").mtime(), s.meta("old").mtime_nsec()),
        (-2, 750_000_000)
    );
    let mut value = [0; 100];
    let n = rustix::fs::lgetxattr(s.path("d"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..n], b"two\nlines");
    for name in [
        "trusted.overlay.opaque",
        "trusted.overlay.redirect",
        "security.selinux",
    ] {
        assert!(
            rustix::fs::lgetxattr(s.path("d"), name, &mut value).is_err(),
            "{name}"
        );
    }
}

#[test]
fn owners_setuid_capabilities_and_devices() {
    if !is_root() {
        return;
    }
    let s = Scratch::new();
    // cap_dac_override,cap_fowner=ep: a value with a newline in it.
    let caps = [
        1, 0, 0, 2, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let owned = |mode: u32| {
        move |h: &mut tar::Header| {
            h.set_uid(1234);
            h.set_gid(5678);
            h.set_mode(mode);
        }
    };
    let device = |h: &mut tar::Header| {
        h.set_device_major(1).unwrap();
        h.set_device_minor(3).unwrap();
        h.set_mode(0o666);
    };
    s.apply(
        Tar::new()
            .changed(b'0', "suid", b"x", owned(0o4755))
            .changed(b'5', "sticky", b"", owned(0o3777))
            .pax(&[("SCHILY.xattr.security.capability", &caps)])
            .changed(b'0', "capable", b"x", owned(0o755))
            .changed(b'3', "null", b"", device)
            .changed(b'4', "block", b"", device)
            .changed(b'6', "fifo", b"", owned(0o600))
            .changed(b'2', "link", b"", |h| {
                owned(0o777)(h);
                h.set_link_name("suid").unwrap();
            })
            .pax(&[("uid", b"3000000000")])
            .changed(b'0', "far", b"", |h| h.set_uid(1)),
    )
    .unwrap();
    for path in ["suid", "sticky", "capable", "fifo", "link"] {
        assert_eq!(
            (s.meta(path).uid(), s.meta(path).gid()),
            (1234, 5678),
            "{path}"
        );
    }
    assert_eq!(s.meta("suid").permissions().mode() & 0o7777, 0o4755);
    assert_eq!(s.meta("sticky").permissions().mode() & 0o7777, 0o3777);
    assert_eq!(s.meta("far").uid(), 3_000_000_000);
    let null = s.meta("null");
    assert!(null.file_type().is_char_device());
    assert_eq!(
        (null.rdev(), null.mode() & 0o7777),
        (rustix::fs::makedev(1, 3), 0o666)
    );
    assert!(s.meta("block").file_type().is_block_device());
    assert!(s.meta("fifo").file_type().is_fifo());
    let mut value = [0; 100];
    let n = rustix::fs::lgetxattr(s.path("capable"), "security.capability", &mut value).unwrap();
    assert_eq!(value[..n], caps);
}

#[test]
fn sparse_files_of_all_kinds() {
    let s = Scratch::new();
    let size = 10 << 20;
    let mut data = Tar::new();
    // PAX 1.0: the map in front of the content.
    let mut stored = b"2\n1048576\n3\n5242880\n2\n".to_vec();
    stored.resize(512, 0);
    stored.extend_from_slice(b"abcde");
    data = data
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"pax10"),
            ("GNU.sparse.realsize", size.to_string().as_bytes()),
        ])
        .raw(b'0', b"GNUSparseFile.0/pax10", b"", &stored);
    // PAX 0.1 and 0.0: the map in the header.
    data = data
        .pax(&[
            ("GNU.sparse.name", b"pax01"),
            ("GNU.sparse.size", size.to_string().as_bytes()),
            ("GNU.sparse.map", b"1048576,3,5242880,2"),
        ])
        .file("x", "abcde")
        .pax(&[
            ("GNU.sparse.size", size.to_string().as_bytes()),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"1048576"),
            ("GNU.sparse.numbytes", b"3"),
            ("GNU.sparse.offset", b"5242880"),
            ("GNU.sparse.numbytes", b"2"),
        ])
        .file("pax00", "abcde");
    // Old GNU, with one segment in the header and one in an extension.
    data.header(b'S', b"gnu", b"", 5, |h| {
        let gnu = h.as_gnu_mut().unwrap();
        gnu.sparse[0].set_offset(1 << 20);
        gnu.sparse[0].set_length(3);
        gnu.set_real_size(size);
        gnu.set_is_extended(true);
    });
    let mut more = tar::GnuExtSparseHeader::new();
    more.sparse_mut()[0].set_offset(5 << 20);
    more.sparse_mut()[0].set_length(2);
    data.0.extend_from_slice(more.as_bytes());
    data = data.content(b"abcde").file("after", "in step");
    s.apply(data).unwrap();
    for name in ["pax10", "pax01", "pax00", "gnu"] {
        let bytes = std::fs::read(s.path(name)).unwrap();
        assert_eq!(bytes.len() as u64, size, "{name}");
        assert_eq!(&bytes[1 << 20..(1 << 20) + 4], b"abc\0", "{name}");
        assert_eq!(&bytes[5 << 20..(5 << 20) + 3], b"de\0", "{name}");
        assert_eq!(bytes.iter().filter(|b| **b != 0).count(), 5, "{name}");
        assert!(s.meta(name).blocks() * 512 < 1 << 20, "{name} has no holes");
    }
    assert_eq!(s.read("after"), "in step");
    assert!(!s.path("x").exists());
}

#[test]
fn whiteouts_in_a_merged_tree() {
    let s = Scratch::new();
    s.apply(
        Tar::new()
            .file("a", "")
            .dir("d")
            .file("d/old", "")
            .dir("d/olddir")
            .file("d/olddir/x", "")
            .file("d/shared/old", "")
            .dir("gone")
            .file("gone/x", "")
            .file("kept", "old"),
    )
    .unwrap();
    s.apply(
        Tar::new()
            .file("d/new", "")
            .file("d/shared/new", "")
            // After entries of this layer in the same directory.
            .file("d/.wh..wh..opq", "")
            .file("d/late", "")
            .file(".wh.a", "")
            .file(".wh.gone", "")
            .file("kept", "new")
            .file(".wh.kept", "")
            .file("nowhere/.wh.x", "")
            .file(".wh..wh.plnk/1", "")
            .file(".wh.never", ""),
    )
    .unwrap();
    for gone in [
        "a",
        "d/old",
        "d/olddir",
        "d/shared/old",
        "gone",
        "nowhere",
        ".wh..wh.plnk",
    ] {
        assert!(!s.path(gone).exists(), "{gone}");
    }
    for there in ["d/new", "d/late", "d/shared/new"] {
        assert!(s.path(there).exists(), "{there}");
    }
    assert_eq!(s.read("kept"), "new");
}
