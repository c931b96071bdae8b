//! Pod and container configurations, as JSON files for crictl.
//!
//! crictl reads protobuf JSON with the field names of the contract, so these are also what an
//! administrator would write by hand.

use serde_json::{Value, json};

/// Namespaces as kubelet asks for them: a network and an IPC namespace for the pod, processes for each
/// container. (Without the message, CRI's default is one PID namespace for the whole pod.)
fn security() -> Value {
    json!({ "namespace_options": { "network": 0, "pid": 1, "ipc": 0 } })
}

/// A pod with a network of its own. Its name is also its hostname; logs go below `log_directory`.
#[must_use]
pub fn pod(name: &str, log_directory: &str) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "nxt", "uid": format!("uid-{name}"), "attempt": 0 },
        "hostname": name,
        "log_directory": log_directory,
        "labels": { "app": name },
        "annotations": { "nxt/note": "kept as it is" },
        "dns_config": { "servers": ["10.96.0.10"], "searches": ["nxt.local"], "options": ["ndots:5"] },
        "linux": { "security_context": security() },
    })
}

/// A container of the busybox image that runs `command` in a shell.
#[must_use]
pub fn shell(name: &str, command: &str) -> Value {
    json!({
        "metadata": { "name": name, "attempt": 0 },
        "image": { "image": crate::image::BUSYBOX },
        "command": ["sh", "-c", command],
        "envs": [{ "key": "NXT", "value": "from the environment" }],
        "labels": { "app": name },
        "log_path": format!("{name}.log"),
        "linux": { "security_context": security() },
    })
}

/// A shell command that runs until it is asked to end, and then ends at once with code 0.
/// Each second it prints a number, one higher than before.
pub const COUNT: &str =
    "trap 'exit 0' TERM; i=0; while true; do echo count $i; i=$((i+1)); sleep 1 & wait $!; done";
