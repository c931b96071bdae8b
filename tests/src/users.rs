//! Pods with `hostUsers: false`: what kubelet asks for, and volumes as it leaves them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use anyhow::Context as _;
use camino::Utf8Path;
use serde_json::{Value, json};

/// First host id of these pods.
pub const BASE: u32 = 1_200_000;
/// How many ids they have.
pub const LENGTH: u32 = 65_536;

fn range() -> Value {
    json!([{ "host_id": BASE, "container_id": 0, "length": LENGTH }])
}

/// The namespace options `userns_options` of such a pod and its containers.
#[must_use]
pub fn options() -> Value {
    json!({ "mode": 0, "uids": range(), "gids": range() })
}

/// The same pod or container, with a user namespace of its own.
#[must_use]
pub fn own(mut config: Value) -> Value {
    config["linux"]["security_context"]["namespace_options"]["userns_options"] = options();
    config
}

/// A mount at `/data`, whose files belong inside to whom they belong to on disk.
#[must_use]
pub fn mapped(host: &Utf8Path) -> Value {
    json!({
        "container_path": "/data", "host_path": host, "uidMappings": range(), "gidMappings": range(),
    })
}

/// Fills a directory as kubelet leaves a volume: the file `of-1000` of a user, and the directory `group` that `fsGroup` gave to
/// group 2000.
///
/// # Errors
///
/// If it cannot be filled.
pub fn fill_volume(volume: &Utf8Path) -> anyhow::Result<()> {
    let (file, group) = (volume.join("of-1000"), volume.join("group"));
    fs::create_dir_all(&group)
        .and_then(|()| fs::write(&file, ""))
        .and_then(|()| chown(&file, Some(1000), Some(2000)))
        .and_then(|()| chown(&group, None, Some(2000)))
        .and_then(|()| fs::set_permissions(&group, fs::Permissions::from_mode(0o2770)))
        .with_context(|| format!("cannot fill the volume {volume}"))
}
