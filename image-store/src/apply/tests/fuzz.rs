//! Any bytes: refused or unpacked, never anything else.

use proptest::prelude::*;

use super::*;

/// What a fuzzer calls: unpacks `data` and checks that nothing left the root and nothing panicked.
fn fuzz(data: &[u8]) {
    let s = Scratch::new();
    let limits = ApplyLimits {
        max_entries: 1000,
        max_bytes: 1 << 20,
        max_depth: 16,
    };
    let _ = s.apply_limited(data, &limits);
    s.assert_outside_untouched();
}

/// Puts right the checksums of what look like headers, or hardly any change would get past them.
fn fix_checksums(data: &mut [u8]) {
    for block in data.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

fn seed() -> Vec<u8> {
    let mut tar = Tar::new()
        .dir("d/")
        .file("d/f", "content")
        .pax(&[
            ("path", b"d/p"),
            ("SCHILY.xattr.user.x", b"1"),
            ("mtime", b"1.5"),
        ])
        .file("x", "y")
        .symlink("s", "../outside")
        .file("s/g", "1")
        .link("d/h", "d/f")
        .raw(b'L', b"././@LongLink", b"", b"long/er/name\0")
        .file("x", "")
        .file("d/.wh.f", "")
        .file("d/.wh..wh..opq", "");
    tar.header(b'S', b"sparse", b"", 2, |h| {
        let gnu = h.as_gnu_mut().unwrap();
        gnu.sparse[0].set_offset(100);
        gnu.sparse[0].set_length(2);
        gnu.set_real_size(1000);
    });
    tar.content(b"ab").end()
}

#[test]
fn the_seed_is_a_layer() {
    let s = Scratch::new();
    s.apply_limited(&seed(), &ApplyLimits::default()).unwrap();
    s.assert_outside_untouched();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn changed_archives(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
        let mut data = seed();
        for (at, byte) in changes {
            let at = at.index(data.len());
            data[at] = byte;
        }
        fix_checksums(&mut data);
        fuzz(&data);
    }

    #[test]
    fn random_bytes(data in proptest::collection::vec(any::<u8>(), 0..4096)) {
        fuzz(&data);
    }
}
