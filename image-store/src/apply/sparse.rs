//! Maps of sparse files: where the bytes in the archive belong in the file.

/// Segments of one file: 1 MiB of memory, and more than GNU tar makes of a badly broken up disk image.
pub(super) const MAX_SEGMENTS: usize = 65_536;

/// A stretch of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// How long it is.
    pub(super) length: u64,
}

/// Checks a map: in order, without overlap, inside a file of `size` bytes, and `stored` bytes in all.
pub(super) fn check(segments: &[Segment], size: u64, stored: u64) -> Result<(), &'static str> {
    if segments.len() > MAX_SEGMENTS {
        return Err("a sparse file has more than 65536 segments");
    }
    let (mut end, mut sum) = (0_u64, 0_u64);
    for segment in segments {
        let after = segment.offset.checked_add(segment.length);
        let (true, Some(after)) = (segment.offset >= end, after) else {
            return Err("the map of a sparse file is out of order");
        };
        end = after;
        sum = sum.saturating_add(segment.length);
    }
    if end > size {
        return Err("the map of a sparse file goes beyond its end");
    }
    if sum != stored {
        return Err("the map of a sparse file does not fit its content");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_checked() {
        let map = |pairs: &[(u64, u64)]| -> Vec<Segment> {
            pairs
                .iter()
                .map(|&(offset, length)| Segment { offset, length })
                .collect()
        };
        assert!(check(&map(&[(0, 1), (10, 5), (100, 0)]), 100, 6).is_ok());
        assert!(check(&map(&[(10, 5), (0, 1)]), 100, 6).is_err());
        assert!(check(&map(&[(0, 5), (4, 1)]), 100, 6).is_err());
        assert!(check(&map(&[(0, 5)]), 4, 5).is_err());
        assert!(check(&map(&[(0, 5)]), 100, 6).is_err());
        assert!(check(&map(&[(u64::MAX, 5)]), u64::MAX, 5).is_err());
    }
}
