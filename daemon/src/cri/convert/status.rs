//! `Status`: readiness, and what the daemon can do.

use std::collections::HashMap;

use nexcage_config::Backend;
use nexcage_cri_api::v1;

use crate::runtime::{Condition, Runtime, conditions, proxmox_user_namespaces};

/// Answers `Status` from checks made now.
pub(crate) async fn status(runtime: &Runtime, verbose: bool) -> v1::StatusResponse {
    let conditions = conditions(runtime)
        .await
        .into_iter()
        .map(condition)
        .collect();
    let kernel = user_namespaces(runtime);
    let proxmox = kernel && proxmox_user_namespaces(runtime).await;
    let handlers = runtime
        .backends
        .handlers()
        .into_iter()
        .map(|handler| v1::RuntimeHandler {
            name: handler.name,
            features: Some(v1::RuntimeHandlerFeatures {
                recursive_read_only_mounts: true,
                user_namespaces: match handler.backend {
                    Backend::Proxmox => proxmox,
                    Backend::Lxc | Backend::Host => kernel,
                },
            }),
        });
    v1::StatusResponse {
        status: Some(v1::RuntimeStatus { conditions }),
        info: if verbose {
            info(runtime).await
        } else {
            HashMap::new()
        },
        runtime_handlers: handlers.collect(),
        features: Some(v1::RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: false,
            mount_options: true,
        }),
    }
}

/// overlayfs takes idmapped layers since Linux 5.19; which file systems can be mapped is found out pod by pod.
fn user_namespaces(runtime: &Runtime) -> bool {
    const IDMAPPED_LAYERS: (u32, u32) = (5, 19);
    runtime.container_facts.seccomp_target.kernel >= IDMAPPED_LAYERS
}

fn condition(condition: Condition) -> v1::RuntimeCondition {
    let (reason, message) = match condition.problem {
        None => (String::new(), String::new()),
        Some((reason, message)) => (reason.to_owned(), message),
    };
    v1::RuntimeCondition {
        r#type: condition.name.to_owned(),
        status: reason.is_empty(),
        reason,
        message,
    }
}

async fn info(runtime: &Runtime) -> HashMap<String, String> {
    let cni = runtime.cni.status().await;
    let config = serde_json::json!({
        // kubeadm looks for it. There is no sandbox image: a sandbox's root is nexcage's own.
        "sandboxImage": "",
        "stateDir": runtime.paths.run(),
        "rootDir": runtime.paths.root(),
        "config": runtime.config,
        "storageDriver": runtime.images.layers().driver(),
        "storageDriverReason": runtime.storage_reason,
        "cgroupDriver": if runtime.node.systemd { "systemd" } else { "cgroupfs" },
        "limits": runtime.node.limits(),
    });
    let mut info = HashMap::from([("config".to_owned(), config.to_string())]);
    match cni {
        Ok(status) => {
            let network = serde_json::json!({
                "name": status.name, "file": status.file, "cniVersion": status.cni_version,
                "plugins": status.plugins,
            });
            info.insert("cniconfig".to_owned(), network.to_string());
            info.insert("lastCNILoadStatus".to_owned(), "OK".to_owned());
        }
        Err(error) => {
            let text = crate::error::Chain(&error).to_string();
            info.insert("lastCNILoadStatus".to_owned(), text);
        }
    }
    info
}
