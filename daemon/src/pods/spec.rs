//! What a pod shall be: the domain's `PodSandboxConfig`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nexcage_sandbox::{NamespaceMode, UserNamespace};
use serde::{Deserialize, Serialize};

use super::limits::PodLimits;

/// A pod's specification, kept in the database and echoed to kubelet as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PodSpec {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) namespace: String,
    pub(crate) attempt: u32,
    /// Empty: the host's.
    pub(crate) hostname: String,
    /// Absolute, or empty: containers log below the state directory.
    pub(crate) log_directory: String,
    /// `None`: the host's resolv.conf.
    pub(crate) dns: Option<Dns>,
    pub(crate) port_mappings: Vec<PortMapping>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) cgroup_parent: String,
    pub(crate) network: NamespaceMode,
    pub(crate) ipc: NamespaceMode,
    pub(crate) pid: NamespaceMode,
    /// The pod was asked for with PID mode POD: kubelet wants that echoed.
    pub(crate) shared_pid: bool,
    pub(crate) user_namespace: Option<UserNamespace>,
    pub(crate) privileged: bool,
    pub(crate) sysctls: BTreeMap<String, String>,
    /// Of its containers together, or as they were changed last.
    pub(crate) resources: PodLimits,
    /// What the pod may use beyond its containers.
    #[serde(default)]
    pub(crate) overhead: PodLimits,
}

/// Contents of resolv.conf.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Dns {
    pub(crate) servers: Vec<String>,
    pub(crate) searches: Vec<String>,
    pub(crate) options: Vec<String>,
}

/// One published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortMapping {
    pub(crate) protocol: Protocol,
    pub(crate) container_port: u16,
    /// 0: not published.
    pub(crate) host_port: u16,
    pub(crate) host_ip: Option<IpAddr>,
}

/// Transport of a published port, as CNI's portMappings spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Default for PodSpec {
    fn default() -> Self {
        Self {
            name: String::new(),
            uid: String::new(),
            namespace: String::new(),
            attempt: 0,
            hostname: String::new(),
            log_directory: String::new(),
            dns: None,
            port_mappings: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            cgroup_parent: String::new(),
            network: NamespaceMode::Pod,
            ipc: NamespaceMode::Pod,
            pid: NamespaceMode::Pod,
            shared_pid: false,
            user_namespace: None,
            privileged: false,
            sysctls: BTreeMap::new(),
            resources: PodLimits::default(),
            overhead: PodLimits::default(),
        }
    }
}

impl PodSpec {
    /// The name kubelet retries under. Two pods never share it.
    pub(crate) fn key(&self) -> String {
        format!(
            "{}/{}/{}/{}",
            self.namespace, self.name, self.uid, self.attempt
        )
    }

    /// Published ports in the form of CNI's `portMappings` capability.
    pub(crate) fn cni_port_mappings(&self) -> Vec<serde_json::Value> {
        let published = self.port_mappings.iter().filter(|m| m.host_port != 0);
        published
            .map(|m| {
                let mut entry = serde_json::json!({
                    "hostPort": m.host_port,
                    "containerPort": m.container_port,
                    "protocol": m.protocol,
                });
                if let Some(ip) = m.host_ip {
                    entry["hostIP"] = ip.to_string().into();
                }
                entry
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_published_ports_reach_cni() {
        let mapping = |host_port| PortMapping {
            protocol: Protocol::Tcp,
            container_port: 80,
            host_port,
            host_ip: None,
        };
        let spec = PodSpec {
            port_mappings: vec![mapping(0), mapping(8080)],
            ..PodSpec::default()
        };
        let got = serde_json::Value::Array(spec.cni_port_mappings());
        insta::assert_snapshot!(got, @r#"[{"containerPort":80,"hostPort":8080,"protocol":"tcp"}]"#);
    }
}
