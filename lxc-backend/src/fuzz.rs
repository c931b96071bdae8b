//! What the fuzz targets in `fuzz/` call beyond the public interface. For nobody else.

pub use crate::api::fuzz::proxmox_answer;
use crate::proxmox::conf::{Conf, compare, edit};

/// A container's configuration as an administrator left it: changing one key changes no other.
pub fn ct_conf(text: &str) {
    let before = Conf::parse(text);
    let edited = edit(text, &[("memory", Some("64".to_owned()))]);
    let after = Conf::parse(&edited);
    assert_eq!(after.main.get("memory"), Some("64"));
    assert_eq!(after.others, before.others);
    let keys: Vec<String> = compare(text, &edited).into_iter().map(|e| e.key).collect();
    let changed = before.main.get("memory") != Some("64");
    let expected = if changed { &["memory"][..] } else { &[] };
    assert_eq!(keys, expected);
    assert_eq!(compare(text, text), []);
}
