//! Image references: what is taken must mean the same when it is written and read again.
use nexcage_image_store::Reference;

/// Reads the input as a reference.
pub(crate) fn reference(text: &str) {
    let Ok(reference) = text.parse::<Reference>() else {
        return;
    };
    let written = reference.to_string();
    let again: Reference = written.parse().expect("what was written can be read");
    assert_eq!(again, reference);
    assert_eq!(again.to_string(), written);
    // These become parts of URLs.
    for part in [
        reference.registry(),
        reference.repository(),
        &reference.manifest_name(),
    ] {
        assert!(!part.is_empty());
        assert!(
            part.bytes()
                .all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'%' | b'\\')),
            "{part:?}"
        );
    }
    assert!(
        !reference
            .repository()
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."))
    );
}
