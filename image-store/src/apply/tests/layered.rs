//! Layers for overlayfs: names found through the layers below, and its marks.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

#[test]
fn directories_are_found_through_links_of_lower_layers() {
    let mut s = Scratch::new();
    s.layer(
        Tar::new()
            .dir("usr/lib")
            .file("usr/lib/base", "")
            .symlink("lib", "usr/lib")
            .symlink("abs", "/usr/../../../usr/lib")
            .symlink("dangling", "made/later"),
    )
    .unwrap();
    let one = s
        .layer(
            Tar::new()
                .file("lib/x", "x")
                .file("abs/y", "y")
                .file("dangling/z", "z")
                .link("lib/h", "lib/base"),
        )
        .unwrap();
    assert!(!one.join("lib").exists() && !one.join("abs").exists());
    for (path, content) in [
        ("usr/lib/x", "x"),
        ("usr/lib/y", "y"),
        ("made/later/z", "z"),
    ] {
        assert_eq!(std::fs::read_to_string(one.join(path)).unwrap(), content);
    }
    // The target of the hard link has been copied up.
    assert_eq!(
        one.join("usr/lib/h").metadata().unwrap().ino(),
        one.join("usr/lib/base").metadata().unwrap().ino()
    );
    // An entry for the directory itself replaces the link.
    let two = s.layer(Tar::new().dir("lib").file("lib/own", "")).unwrap();
    assert!(two.join("lib/own").exists());
}

#[test]
fn links_never_lead_out() {
    let mut s = Scratch::new();
    let outside = s.dir.path().join("outside");
    s.layer(Tar::new().dir("d")).unwrap();
    // Even in a lower layer that was tampered with.
    symlink(&outside, s.path("0/out")).unwrap();
    symlink("../../outside", s.path("0/up")).unwrap();
    let one = s
        .layer(
            Tar::new()
                .file("out/secret", "pwned")
                .file("up/secret", "pwned"),
        )
        .unwrap();
    s.assert_outside_untouched();
    let inside = one.join(outside.strip_prefix("/").unwrap()).join("secret");
    assert_eq!(std::fs::read_to_string(inside).unwrap(), "pwned");
    assert_eq!(
        std::fs::read_to_string(one.join("outside/secret")).unwrap(),
        "pwned"
    );
}

#[test]
fn directories_of_lower_layers_keep_their_attributes() {
    let mut s = Scratch::new();
    let zero = s
        .layer(
            Tar::new()
                .changed(b'5', "private", b"", |h| h.set_mode(0o700))
                .pax(&[("SCHILY.xattr.user.note", b"kept")])
                .changed(b'5', "private/inner", b"", |h| h.set_mode(0o1777)),
        )
        .unwrap();
    let one = s.layer(Tar::new().file("private/inner/f", "")).unwrap();
    for path in ["private", "private/inner"] {
        let (below, above) = (
            zero.join(path).metadata().unwrap(),
            one.join(path).metadata().unwrap(),
        );
        assert_eq!(
            below.permissions().mode(),
            above.permissions().mode(),
            "{path}"
        );
        assert_eq!(below.mtime(), above.mtime(), "{path}");
        assert_eq!(
            (below.uid(), below.gid()),
            (above.uid(), above.gid()),
            "{path}"
        );
    }
    let mut value = [0; 10];
    let n = rustix::fs::lgetxattr(one.join("private/inner"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..n], b"kept");
}

#[test]
fn whiteouts_are_made_for_what_is_there() {
    if !is_root() {
        return;
    }
    let mut s = Scratch::new();
    s.layer(
        Tar::new()
            .file("a", "")
            .dir("d")
            .file("d/x", "")
            .file("d/y", "")
            .dir("e")
            .file("e/x", ""),
    )
    .unwrap();
    let one = s
        .layer(
            Tar::new()
                .file(".wh.a", "")
                .file(".wh.never", "")
                .file("nowhere/.wh.x", "")
                .file("d/.wh.x", "")
                .file("d/.wh.y", "")
                // A directory that comes back is empty.
                .file(".wh.e", "")
                .dir("e")
                .file("e/new", ""),
        )
        .unwrap();
    for path in ["a", "d/x", "d/y"] {
        assert!(is_whiteout(&one.join(path)), "{path}");
    }
    assert!(!one.join("never").exists() && !one.join("nowhere").exists());
    assert!(is_opaque(&one.join("e")) && one.join("e/new").exists());
    // Below this, they are gone: nothing to hide.
    let two = s
        .layer(
            Tar::new()
                .file(".wh.a", "")
                .file("e/.wh.x", "")
                .file("d/x", "back"),
        )
        .unwrap();
    assert_eq!(std::fs::read_dir(&two).unwrap().count(), 1);
    assert_eq!(std::fs::read_to_string(two.join("d/x")).unwrap(), "back");
}

#[test]
fn opaque_marks_hide_what_is_below_and_nothing_else() {
    if !is_root() {
        return;
    }
    let mut s = Scratch::new();
    s.layer(
        Tar::new()
            .dir("d")
            .file("d/x", "")
            .dir("e")
            .file("e/x", "")
            .file("f", ""),
    )
    .unwrap();
    let one = s
        .layer(
            Tar::new()
                .file("d/before", "")
                .file("d/.wh..wh..opq", "")
                .dir("d")
                .file("d/after", "")
                .file("none/.wh..wh..opq", ""),
        )
        .unwrap();
    assert!(is_opaque(&one.join("d")));
    assert!(one.join("d/before").exists() && one.join("d/after").exists());
    assert!(!one.join("none").exists());
    // On the root, overlayfs looks for no mark: every name gets its own.
    let two = s
        .layer(
            Tar::new()
                .dir("e")
                .file("e/new", "")
                .file(".wh..wh..opq", ""),
        )
        .unwrap();
    assert!(is_whiteout(&two.join("d")) && is_whiteout(&two.join("f")));
    assert!(is_opaque(&two.join("e")) && two.join("e/new").exists());
}

#[test]
fn what_replaces_a_file_that_hid_a_directory_hides_it_too() {
    if !is_root() {
        return;
    }
    let mut s = Scratch::new();
    s.layer(Tar::new().dir("d").file("d/x", "")).unwrap();
    let one = s
        .layer(Tar::new().file("d", "").dir("d").file("d/y", ""))
        .unwrap();
    assert!(is_opaque(&one.join("d")));
    let two = s
        .layer(Tar::new().file(".wh.d", "").file("d/z", ""))
        .unwrap();
    assert!(is_opaque(&two.join("d")) && two.join("d/z").exists());
}

#[test]
fn hard_links_to_lower_layers_copy_up() {
    let mut s = Scratch::new();
    s.layer(
        Tar::new()
            .changed(b'0', "f", b"content", |h| h.set_mode(0o4711))
            .symlink("s", "f")
            .dir("d"),
    )
    .unwrap();
    let one = s
        .layer(Tar::new().link("g", "f").link("t", "s").link("g2", "f"))
        .unwrap();
    let meta = one.join("g").metadata().unwrap();
    assert_eq!(
        (meta.nlink(), meta.mode() & 0o7777, meta.mtime()),
        (3, 0o4711, 1_000_000_000)
    );
    assert_eq!(std::fs::read_to_string(one.join("f")).unwrap(), "content");
    assert_eq!(std::fs::read_link(one.join("t")).unwrap(), Path::new("f"));
    for (name, target) in [
        ("a", "d"),
        ("b", "none"),
        ("c", "d/none"),
        ("x", "x"),
        ("y", "/"),
    ] {
        let error = s.layer(Tar::new().link(name, target)).unwrap_err();
        assert!(error.to_string().contains("hard link"), "{error}");
    }
}
