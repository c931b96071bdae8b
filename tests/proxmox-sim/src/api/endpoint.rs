//! Which endpoints there are, what they take, and who may use them. As in the reference, section 1.

use super::schema::{NODE, Parameter, Parameters, Schema, VMID};
use super::{Api, cluster, containers, tasks};
use crate::conf::Kind;
use crate::ct::Caller;
use crate::died::Outcome;
use serde_json::Value;

/// What answers a request, once it has been let in and its parameters have been checked.
pub(super) type Handler = fn(&Api, &Caller, &Parameters) -> Outcome<Value>;

/// An endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Endpoint {
    /// `GET`.
    pub method: &'static str,
    /// `/nodes/{node}/lxc/{vmid}`.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
    /// Whether pvedaemon does it, and not pveproxy itself.
    pub protected: bool,
    /// What it takes.
    pub schema: Schema,
    /// What it does.
    pub handler: Handler,
}

/// Who may use an endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    /// Everybody with a good token; it may check more itself.
    All,
    /// Whoever holds all of these privileges on a path, `/vms/{vmid}`.
    Has(&'static str, &'static [&'static str]),
    /// Whoever holds one of them.
    HasAny(&'static str, &'static [&'static str]),
}

const NUMBER: Kind = Kind::Int(0, i64::MAX);

const OF_NODE: Parameter = Parameter::required("node", NODE);
const OF_CT: Parameter = Parameter::required("vmid", VMID);
const OF_TASK: Parameter = Parameter::required("upid", Kind::Text);
const SKIPLOCK: Parameter = Parameter::optional("skiplock", Kind::Bool);

const fn takes(parameters: &'static [Parameter]) -> Schema {
    Schema {
        parameters,
        configuration: false,
    }
}

const CT: &str = "/vms/{vmid}";
const AUDIT: Access = Access::Has(CT, &["VM.Audit"]);
const POWER: Access = Access::Has(CT, &["VM.PowerMgmt"]);

const fn get(path: &'static str, access: Access, schema: Schema, handler: Handler) -> Endpoint {
    Endpoint {
        method: "GET",
        path,
        access,
        protected: true,
        schema,
        handler,
    }
}

const fn post(path: &'static str, schema: Schema, handler: Handler) -> Endpoint {
    Endpoint {
        method: "POST",
        ..get(path, POWER, schema, handler)
    }
}

/// All of them.
pub(super) const ENDPOINTS: [Endpoint; 18] = [
    Endpoint {
        protected: false,
        ..get("/version", Access::All, takes(&[]), cluster::version)
    },
    get(
        "/cluster/status",
        Access::Has("/", &["Sys.Audit"]),
        takes(&[]),
        cluster::status,
    ),
    Endpoint {
        protected: false,
        ..get(
            "/cluster/nextid",
            Access::All,
            takes(&[Parameter::optional("vmid", VMID)]),
            cluster::next_id,
        )
    },
    Endpoint {
        protected: false,
        ..get(
            "/cluster/resources",
            Access::All,
            takes(&[Parameter::optional(
                "type",
                Kind::Like(
                    |kind| matches!(kind, "vm" | "storage" | "node" | "sdn"),
                    "value does not have a value in the enumeration 'vm, storage, node, sdn'",
                ),
            )]),
            cluster::resources,
        )
    },
    Endpoint {
        protected: false,
        ..get(
            "/access/permissions",
            Access::All,
            takes(&[
                Parameter::optional("path", Kind::Text),
                Parameter::optional("userid", Kind::Text),
            ]),
            cluster::permissions,
        )
    },
    Endpoint {
        protected: false,
        ..get("/nodes", Access::All, takes(&[]), cluster::nodes)
    },
    get(
        "/nodes/{node}/lxc",
        Access::All,
        takes(&[OF_NODE]),
        containers::list,
    ),
    Endpoint {
        protected: false,
        ..get(
            "/nodes/{node}/lxc/{vmid}/config",
            AUDIT,
            takes(&[OF_NODE, OF_CT, Parameter::optional("current", Kind::Bool)]),
            containers::config,
        )
    },
    Endpoint {
        method: "PUT",
        ..get(
            "/nodes/{node}/lxc/{vmid}/config",
            Access::HasAny(
                CT,
                &[
                    "VM.Config.Disk",
                    "VM.Config.CPU",
                    "VM.Config.Memory",
                    "VM.Config.Network",
                    "VM.Config.Options",
                ],
            ),
            Schema {
                parameters: &[
                    OF_NODE,
                    OF_CT,
                    Parameter::optional("delete", Kind::Text),
                    Parameter::optional("revert", Kind::Text),
                    Parameter::optional("digest", Kind::Text),
                ],
                configuration: true,
            },
            containers::set,
        )
    },
    get(
        "/nodes/{node}/lxc/{vmid}/status/current",
        AUDIT,
        takes(&[OF_NODE, OF_CT]),
        containers::current,
    ),
    get(
        "/nodes/{node}/lxc/{vmid}/interfaces",
        AUDIT,
        takes(&[OF_NODE, OF_CT]),
        containers::interfaces,
    ),
    post(
        "/nodes/{node}/lxc/{vmid}/status/start",
        takes(&[
            OF_NODE,
            OF_CT,
            SKIPLOCK,
            Parameter::optional("debug", Kind::Bool),
        ]),
        containers::start,
    ),
    post(
        "/nodes/{node}/lxc/{vmid}/status/stop",
        takes(&[
            OF_NODE,
            OF_CT,
            SKIPLOCK,
            Parameter::optional("overrule-shutdown", Kind::Bool),
        ]),
        containers::stop,
    ),
    post(
        "/nodes/{node}/lxc/{vmid}/status/shutdown",
        takes(&[
            OF_NODE,
            OF_CT,
            Parameter::optional("timeout", NUMBER),
            Parameter::optional("forceStop", Kind::Bool),
        ]),
        containers::shutdown,
    ),
    post(
        "/nodes/{node}/lxc/{vmid}/status/reboot",
        takes(&[OF_NODE, OF_CT, Parameter::optional("timeout", NUMBER)]),
        containers::reboot,
    ),
    Endpoint {
        method: "DELETE",
        ..get(
            "/nodes/{node}/lxc/{vmid}",
            Access::Has(CT, &["VM.Allocate"]),
            takes(&[
                OF_NODE,
                OF_CT,
                Parameter::optional("force", Kind::Bool),
                Parameter::optional("purge", Kind::Bool),
                Parameter::optional("destroy-unreferenced-disks", Kind::Bool),
            ]),
            containers::destroy,
        )
    },
    get(
        "/nodes/{node}/tasks/{upid}/status",
        Access::All,
        takes(&[OF_NODE, OF_TASK]),
        tasks::status,
    ),
    get(
        "/nodes/{node}/tasks/{upid}/log",
        Access::All,
        takes(&[
            OF_NODE,
            OF_TASK,
            Parameter::optional("start", NUMBER),
            Parameter::optional("limit", NUMBER),
        ]),
        tasks::log,
    ),
];

/// The endpoint of a request, and what is in its path.
pub(super) fn find(method: &str, path: &str) -> Option<(&'static Endpoint, Parameters)> {
    let mut candidates = ENDPOINTS
        .iter()
        .filter(|endpoint| endpoint.method == method);
    candidates.find_map(|endpoint| Some((endpoint, matches(endpoint.path, path)?)))
}

fn matches(template: &str, path: &str) -> Option<Parameters> {
    let mut parameters = Parameters::new();
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    for expected in template.split('/').filter(|part| !part.is_empty()) {
        let part = parts.next()?;
        match expected
            .strip_prefix('{')
            .and_then(|name| name.strip_suffix('}'))
        {
            Some(name) => drop(parameters.insert(name.to_owned(), part.to_owned())),
            None if part == expected => {}
            None => return None,
        }
    }
    parts.next().is_none().then_some(parameters)
}

/// `/vms/{vmid}` with what a request has there.
pub(super) fn fill(template: &str, parameters: &Parameters) -> String {
    let parts = template.split('/').map(|part| {
        let name = part
            .strip_prefix('{')
            .and_then(|name| name.strip_suffix('}'));
        name.map_or(part, |name| parameters.get(name).map_or("", String::as_str))
    });
    parts.collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found() {
        let (endpoint, parameters) = find("GET", "/nodes/pve1/lxc/100/status/current").unwrap();
        assert!(endpoint.path.ends_with("/current"));
        assert_eq!(parameters["vmid"], "100");
        assert_eq!(fill(CT, &parameters), "/vms/100");
        let (endpoint, _) = find("PUT", "/nodes/pve1/lxc/100/config").unwrap();
        assert!(endpoint.schema.configuration);
        for (method, path) in [
            ("GET", "/nodes/pve1/qemu"),
            ("POST", "/version"),
            ("GET", "/"),
            ("GET", "/nodes/pve1/lxc/100/status/current/x"),
        ] {
            assert!(find(method, path).is_none(), "{method} {path}");
        }
    }
}
