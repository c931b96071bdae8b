//! One function per parser of something that a stranger wrote.
//!
//! Each takes any bytes and panics if something is wrong. They are called in two ways: by libFuzzer, which looks for inputs for as
//! long as it is let (`fuzz_targets/`, `cargo xtask fuzz`), and by a test that tries the inputs in `seeds/` and a number of
//! changes of them (`tests/short.rs`, with all other unit tests).
//!
//! Start reading at [`TARGETS`].

mod config;
mod layer;
mod reference;

/// A target: its name, which is also that of its directory of seeds, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 11] = [
    ("challenge", |data| {
        text(data, nexcage_image_store::fuzz::challenge);
    }),
    ("cni_network", nexcage_cni::fuzz::network),
    ("cni_result", nexcage_cni::fuzz::result),
    ("config", |data| text(data, config::config)),
    ("ct_conf", |data| text(data, nexcage_lxc::fuzz::ct_conf)),
    ("layer", layer::layer),
    ("log_line", nexcage::fuzz::log),
    ("manifest", |data| {
        nexcage_image_store::fuzz::manifest(data);
        nexcage_image_store::fuzz::image_config(data);
    }),
    ("proxmox_answer", nexcage_lxc::fuzz::proxmox_answer),
    ("reference", |data| text(data, reference::reference)),
    ("seccomp", nexcage::fuzz::seccomp),
];

/// Runs the target of this name.
///
/// # Panics
///
/// If there is none, or if the input shows a mistake.
pub fn run(name: &str, data: &[u8]) {
    let found = TARGETS.iter().find(|(target, _)| *target == name);
    let (_, target) = found.unwrap_or_else(|| panic!("there is no fuzz target {name}"));
    target(data);
}

/// What is no text cannot get to a parser of text.
fn text(data: &[u8], target: impl FnOnce(&str)) {
    if let Ok(text) = std::str::from_utf8(data) {
        target(text);
    }
}
