//! What a plugin gets as standard input (specification, section 3): a pure function.

use serde_json::{Map, Value, json};

use crate::network::{Network, PluginConf};
use crate::version::Version;

/// The configuration of one plugin for one call.
///
/// `capabilities` is what the pod offers; the plugin gets those that it declares. `previous` is the result so far.
pub(crate) fn configuration(
    network: &Network,
    plugin: &PluginConf,
    version: Version,
    capabilities: &Map<String, Value>,
    previous: Option<&Value>,
) -> Map<String, Value> {
    let mut conf = plugin.keys().clone();
    conf.remove("capabilities");
    conf.insert("cniVersion".into(), version.to_string().into());
    conf.insert("name".into(), network.name.clone().into());
    let runtime: Map<String, Value> = capabilities
        .iter()
        .filter(|(name, _)| plugin.can(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    // Only the runtime says what is in it.
    conf.remove("runtimeConfig");
    if !runtime.is_empty() {
        conf.insert("runtimeConfig".into(), runtime.into());
    }
    conf.remove("prevResult");
    if let Some(previous) = previous {
        conf.insert("prevResult".into(), previous.clone());
    }
    conf
}

/// Adds what GC is told: the attachments that are in use.
pub(crate) fn with_valid_attachments(
    mut conf: Map<String, Value>,
    valid: &[(String, String)],
) -> Map<String, Value> {
    let list: Vec<Value> = valid
        .iter()
        .map(|(id, ifname)| json!({"containerID": id, "ifname": ifname}))
        .collect();
    conf.insert("cni.dev/valid-attachments".into(), list.into());
    conf
}

#[cfg(test)]
mod tests {
    use camino::Utf8Path;

    use super::*;
    use crate::network::Document;

    #[test]
    fn a_plugin_gets_what_it_declares_and_what_came_before() {
        let conf = json!({
            "cniVersion": "1.0.0", "name": "pods",
            "plugins": [{
                "type": "portmap", "snat": true, "runtimeConfig": {"forged": 1}, "prevResult": {},
                "capabilities": {"portMappings": true, "dns": false},
            }],
        });
        let text = serde_json::to_vec(&conf).unwrap();
        let document = Document::parse(Utf8Path::new("a.conflist"), &text).unwrap();
        let network = document.network(Vec::new()).unwrap();
        let offered = json!({
            "portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}],
            "dns": {"servers": ["10.0.0.53"]},
            "bandwidth": {"ingressRate": 1},
        });
        let conf = configuration(
            &network,
            &network.plugins[0],
            network.versions[0],
            offered.as_object().unwrap(),
            Some(&json!({"ips": []})),
        );
        let conf = with_valid_attachments(conf, &[("a".into(), "eth0".into())]);
        insta::assert_json_snapshot!("configuration", conf);
    }
}
