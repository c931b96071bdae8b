//! The pod network: Debian's bridge plugin, a bridge and a subnet for each contender.

use serde_json::{Value, json};

use crate::contender::Kind;
use crate::stage;

/// The bridge of a contender.
pub(crate) fn bridge(kind: Kind) -> String {
    format!("{}{}", stage::NAME, kind.index())
}

/// The plugin's own configuration, with what a list adds to it.
pub(crate) fn plugin(kind: Kind) -> Value {
    let mut plugin = bare(kind);
    plugin["cniVersion"] = VERSION.into();
    plugin["name"] = bridge(kind).into();
    plugin
}

/// A list with the one plugin.
pub(crate) fn conflist(kind: Kind) -> Value {
    json!({ "cniVersion": VERSION, "name": bridge(kind), "plugins": [bare(kind)] })
}

const VERSION: &str = "1.0.0";

/// No masquerading: that is iptables' time, not that of who calls the plugin.
fn bare(kind: Kind) -> Value {
    json!({
        "type": "bridge",
        "bridge": bridge(kind),
        "isGateway": true,
        "ipam": {
            "type": "host-local",
            "dataDir": stage::run(kind).join("ipam"),
            "ranges": [[{ "subnet": format!("10.216.{}.0/24", kind.index()) }]],
            "routes": [{ "dst": "0.0.0.0/0" }],
        },
    })
}
