//! What the fuzz targets in `fuzz/` call beyond the public interface. For nobody else.

use crate::network::Document;
use crate::result;

/// A network configuration, as a list of plugins and as a single one.
pub fn network(text: &[u8]) {
    for file in ["fuzz.conflist", "fuzz.conf"] {
        let document = Document::parse(file.into(), text);
        if let Ok(network) = document.and_then(|document| document.network(Vec::new())) {
            assert!(!network.versions.is_empty() && !network.plugins.is_empty());
        }
    }
}

/// A plugin's answer to ADD.
pub fn result(output: &[u8]) {
    if let Ok(output) = serde_json::from_slice(output) {
        let _ = result::addresses(&output, "eth0");
    }
}
