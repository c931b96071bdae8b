//! Sizes, ages and ids as people read them.

/// Bytes with the largest unit that leaves a whole number before the point: `12.3 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths, in whole numbers: exact, and never 1024.0 of a unit.
    let mut scale = 0;
    while (bytes >> (10 * (scale + 1))) >= 1024 {
        scale += 1;
    }
    let tenths = (u128::from(bytes) * 10) >> (10 * (scale + 1));
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[scale])
}

/// Time that passed between two moments (nanoseconds since the epoch), in its largest unit: `5m`.
pub(super) fn age(then: i64, now: i64) -> String {
    if then <= 0 {
        return String::new();
    }
    let seconds = now.saturating_sub(then).max(0) / 1_000_000_000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A moment (nanoseconds since the epoch) by RFC 3339; `None` for CRI's "never".
pub(super) fn timestamp(nanoseconds: i64) -> Option<String> {
    if nanoseconds <= 0 {
        return None;
    }
    jiff::Timestamp::from_nanosecond(nanoseconds.into())
        .ok()
        .map(|t| t.to_string())
}

/// Nanoseconds since the epoch.
pub(super) fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// The beginning of an id, long enough to be unique in practice.
pub(super) fn short_id(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

/// An image as it was named, with a digest in it shortened.
pub(super) fn short_image(image: &str) -> String {
    match image.split_once("sha256:") {
        Some(("", hex)) => short_id(hex).to_owned(),
        Some((name, hex)) => format!("{name}sha256:{}", short_id(hex)),
        // An id without its algorithm.
        None if image.len() == 64 && image.bytes().all(|b| b.is_ascii_hexdigit()) => {
            short_id(image).to_owned()
        }
        None => image.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit_that_fits() {
        let sizes = [0, 1023, 1024, 1536, 1_048_575, 1_048_576, 5 << 30, u64::MAX].map(size);
        assert_eq!(
            sizes,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.5 KiB",
                "1023.9 KiB",
                "1.0 MiB",
                "5.0 GiB",
                "15.9 EiB"
            ]
        );
    }

    #[test]
    fn ages_are_short() {
        const S: i64 = 1_000_000_000;
        let ages = [59, 60, 3599, 3600, 86_399, 86_400, 864_000].map(|s| age(S, (s + 1) * S));
        assert_eq!(ages, ["59s", "1m", "59m", "1h", "23h", "1d", "10d"]);
        assert_eq!(age(2 * S, S), "0s", "clocks may go back");
        assert_eq!(age(0, S), "", "CRI's word for never");
    }

    #[test]
    fn moments_are_rfc_3339() {
        let moment = timestamp(1_700_000_000_123_456_789);
        assert_eq!(moment.as_deref(), Some("2023-11-14T22:13:20.123456789Z"));
        assert_eq!(timestamp(0), None);
    }

    #[test]
    fn digests_are_shortened_and_names_are_not() {
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(short_image(&format!("sha256:{hex}")), "0123456789ab");
        assert_eq!(short_image(&hex), "0123456789ab");
        assert_eq!(
            short_image(&format!("a.b/c@sha256:{hex}")),
            "a.b/c@sha256:0123456789ab"
        );
        assert_eq!(
            short_image("docker.io/library/debian:13"),
            "docker.io/library/debian:13"
        );
    }
}
