//! Layers made to do harm.

use std::os::unix::fs::symlink;

use super::*;

/// Each must be refused with an error that names the entry, and leave everything else alone.
#[test]
fn hostile_entries_are_refused_by_name() {
    let pax = |key: &str, value: &[u8], path: &str| Tar::new().pax(&[(key, value)]).file(path, "");
    let zero = |h: &mut tar::Header| h.set_mode(0o666);
    let cases: Vec<(&str, Tar, &str)> = vec![
        (
            "parent",
            Tar::new().file("../outside/secret", "pwned"),
            "../outside/secret",
        ),
        (
            "inner parent",
            Tar::new().file("a/../../outside/secret", "pwned"),
            "a/../../outside/secret",
        ),
        (
            "pax parent",
            pax("path", b"../outside/secret", "x"),
            "../outside/secret",
        ),
        ("empty", Tar::new().file("", ""), ""),
        ("nul", pax("path", b"a\0b", "x"), "a\\x00b"),
        (
            "whiteout of parent",
            Tar::new().file("a/.wh...", ""),
            "a/.wh...",
        ),
        ("whiteout of nothing", Tar::new().file(".wh.", ""), ".wh."),
        (
            "whiteout as directory",
            Tar::new().file(".wh.a/b", ""),
            ".wh.a/b",
        ),
        ("root as file", Tar::new().file("./", ""), "./"),
        (
            "link to parent",
            Tar::new().link("h", "../outside/secret"),
            "h",
        ),
        ("link to nothing", Tar::new().link("h", "none"), "h"),
        (
            "link through link",
            Tar::new().symlink("s", "../outside").link("h", "s/secret"),
            "h",
        ),
        ("empty link", Tar::new().symlink("s", ""), "s"),
        (
            "file as directory",
            Tar::new().file("f", "").file("f/x", ""),
            "f/x",
        ),
        (
            "link loop",
            Tar::new()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/x", ""),
            "a/x",
        ),
        (
            "self loop",
            Tar::new().symlink("a", "a/a").file("a/x", ""),
            "a/x",
        ),
        (
            "overlay whiteout",
            Tar::new().changed(b'3', "c", b"", zero),
            "c",
        ),
        ("unknown type", Tar::new().raw(b'Z', b"z", b"", b""), "z"),
        ("uid", pax("uid", b"4294967295", "u"), "u"),
        ("gid", pax("gid", b"99999999999", "g"), "g"),
        ("name too long", pax("path", &[b'n'; 256], "x"), "nnnn"),
    ];
    for (what, tar, name) in cases {
        let s = Scratch::new();
        let error = s.apply(tar).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("entry {name}")), "{what}: {text}");
        s.assert_outside_untouched();
    }
}

#[test]
fn links_of_this_layer_do_not_lead_out() {
    let s = Scratch::new();
    let outside = s.dir.path().join("outside");
    let outside = outside.to_str().unwrap();
    s.apply(
        Tar::new()
            .symlink("up", "../outside")
            .file("up/secret", "pwned")
            .symlink("c", "c2")
            .symlink("c2", "../../outside/")
            .dir("c/d")
            .file("c/secret", "pwned"),
    )
    .unwrap();
    // Absolute, as the name of a link may be longer than the header has room for.
    s.apply(
        Tar::new()
            .raw(b'K', b"././@LongLink", b"", outside.as_bytes())
            .symlink("abs", "x")
            .file("abs/secret", "pwned")
            .file("abs/.wh.other", ""),
    )
    .unwrap();
    s.assert_outside_untouched();
    // They lead to the same place below the root.
    assert_eq!(s.read("outside/secret"), "pwned");
}

#[test]
fn writing_through_an_existing_link_replaces_it() {
    let s = Scratch::new();
    symlink(s.dir.path().join("outside/secret"), s.path("f")).unwrap();
    symlink(s.dir.path().join("outside"), s.path("d")).unwrap();
    s.apply(
        Tar::new()
            .file("f", "new")
            .dir("d")
            .changed(b'5', "./", b"", |h| h.set_mode(0o711)),
    )
    .unwrap();
    s.assert_outside_untouched();
    assert!(s.meta("f").is_file() && s.meta("d").is_dir());
}

#[test]
fn limits_hold() {
    let limits = |max_entries, max_bytes, max_depth| ApplyLimits {
        max_entries,
        max_bytes,
        max_depth,
    };
    let many = (0..11).fold(Tar::new(), |tar, n| tar.file(&n.to_string(), ""));
    let mut bomb = Tar::new();
    bomb.header(b'S', b"bomb", b"", 0, |h| {
        h.as_gnu_mut().unwrap().set_real_size(1 << 50);
    });
    let deep_by_links = (0..20).fold(Tar::new(), |tar, n| {
        tar.symlink(&format!("l{n}"), &format!("l{}/d/d/d", n + 1))
    });
    for (what, tar, limits, error) in [
        ("entries", many, limits(10, 100, 9), "10 entries"),
        (
            "bytes",
            Tar::new().file("a", "123456").file("b", "123456"),
            limits(10, 10, 9),
            "10 bytes",
        ),
        ("sparse", bomb, limits(10, 1 << 30, 9), "1073741824 bytes"),
        (
            "depth",
            Tar::new().file("1/2/3/4", ""),
            limits(10, 10, 3),
            "3 path components",
        ),
        (
            "deep",
            deep_by_links.file("l0/x", ""),
            limits(99, 10, 16),
            "too deep",
        ),
    ] {
        let s = Scratch::new();
        let refused = s.apply_limited(&tar.end(), &limits).unwrap_err();
        assert!(refused.to_string().contains(error), "{what}: {refused}");
    }
}

#[test]
fn a_path_cannot_take_forever() {
    let s = Scratch::new();
    // Every component goes back to the root and down again.
    let winding = "d/../".repeat(800);
    let mut tar = Tar::new().dir("d");
    for n in 0..30 {
        let target = format!("{winding}l{}", n + 1);
        tar = tar
            .raw(b'K', b"././@LongLink", b"", target.as_bytes())
            .symlink(&format!("l{n}"), "x");
    }
    let error = s.apply(tar.file("l0/x", "")).unwrap_err();
    assert!(error.to_string().contains("too many parts"), "{error}");
}

#[test]
fn malformed_streams_are_refused() {
    let long = vec![b'a'; (1 << 20) + 1];
    let mut checksum = Tar::new().file("a", "");
    checksum.0[0] ^= 1;
    let mut size = Tar::new();
    size.header(b'0', b"a", b"", 0, |h| {
        h.as_old_mut().size = *b"not a number";
    });
    let mut negative = Tar::new();
    negative.header(b'0', b"a", b"", 0, |h| h.as_old_mut().size = [0xff; 12]);
    let mut huge = Tar::new();
    huge.header(b'0', b"a", b"", 1 << 62, |_| {});
    let mut endless = Tar::new();
    endless.header(b'S', b"a", b"", 0, |h| {
        h.as_gnu_mut().unwrap().set_is_extended(true);
    });
    let mut block = tar::GnuExtSparseHeader::new();
    block.set_is_extended(true);
    for _ in 0..5000 {
        endless.0.extend_from_slice(block.as_bytes());
    }
    let segments = "1,0,".repeat(70_000);
    let short = Tar::new().file("a", &"x".repeat(1000)).0[..1000].to_vec();
    for (what, bytes) in [
        (
            "long name",
            Tar::new().raw(b'L', b"x", b"", &long).file("a", "").end(),
        ),
        (
            "long pax",
            Tar::new().raw(b'x', b"x", b"", &long).file("a", "").end(),
        ),
        (
            "two names",
            Tar::new()
                .raw(b'L', b"x", b"", b"a")
                .raw(b'L', b"x", b"", b"b")
                .file("a", "")
                .end(),
        ),
        (
            "name of nothing",
            Tar::new().raw(b'L', b"x", b"", b"a").end(),
        ),
        (
            "bad pax",
            Tar::new()
                .raw(b'x', b"x", b"", b"5 a\n")
                .file("a", "")
                .end(),
        ),
        ("checksum", checksum.end()),
        ("size", size.end()),
        ("negative size", negative.end()),
        ("huge size", huge.end()),
        ("endless map", endless.end()),
        (
            "many segments",
            Tar::new()
                .pax(&[
                    ("GNU.sparse.map", segments.as_bytes()),
                    ("GNU.sparse.size", b"9"),
                ])
                .file("a", "")
                .end(),
        ),
        (
            "map without size",
            Tar::new()
                .pax(&[("GNU.sparse.major", b"1")])
                .file("a", "1\n0\n0\n")
                .end(),
        ),
        (
            "map without end",
            Tar::new()
                .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"9")])
                .file("a", "3\n0\n")
                .end(),
        ),
        ("cut off", short),
        ("text", b"this is no archive".to_vec()),
        ("html", "<html>".repeat(100).into_bytes()),
    ] {
        let s = Scratch::new();
        let error = s.apply_limited(&bytes, &ApplyLimits::default());
        assert!(
            matches!(
                error,
                Err(ApplyError::Malformed { .. } | ApplyError::Read(_) | ApplyError::Limit { .. })
            ),
            "{what}: {error:?}"
        );
        s.assert_outside_untouched();
    }
}

#[test]
fn an_archive_without_its_end_is_an_archive() {
    let s = Scratch::new();
    let tar = Tar::new().file("a", "x");
    s.apply_limited(&tar.0, &ApplyLimits::default()).unwrap();
    s.apply_limited(b"", &ApplyLimits::default()).unwrap();
    assert_eq!(s.read("a"), "x");
}
