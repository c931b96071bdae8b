//! The cluster, its nodes, and who may do what.

use serde_json::{Map, Value, json};

use super::Api;
use super::schema::Parameters;
use crate::access::split_token;
use crate::ct::Caller;
use crate::died::{Died, Outcome};

/// The version that the simulator is made after.
const VERSION: &str = "9.2.11";

/// What there is no number for in `datacenter.cfg`.
const NEXT_ID: (u32, u32) = (100, 1_000_000);

pub(super) fn version(_: &Api, _: &Caller, _: &Parameters) -> Outcome<Value> {
    Ok(json!({"version": VERSION, "release": "9.2", "repoid": "b46aac3b42da5d15"}))
}

pub(super) fn status(api: &Api, _: &Caller, _: &Parameters) -> Outcome<Value> {
    let members = api.json(".members")?;
    let node = api.node.house().options().node.clone();
    let Some(cluster) = members.get("cluster") else {
        return Ok(json!([{
            "type": "node", "id": format!("node/{node}"), "name": node, "ip": "127.0.0.1", "local": 1, "nodeid": 0, "online": 1, "level": "",
        }]));
    };
    let mut list = vec![json!({
        "type": "cluster", "id": "cluster", "name": cluster["name"], "version": cluster["version"], "nodes": cluster["nodes"],
        "quorate": cluster["quorate"],
    })];
    let nodes = members["nodelist"].as_object().into_iter().flatten();
    list.extend(nodes.map(|(name, known)| {
        json!({
            "type": "node", "id": format!("node/{name}"), "name": name, "nodeid": known["id"], "ip": known["ip"],
            "online": known["online"], "local": u8::from(*name == node), "level": "",
        })
    }));
    Ok(Value::Array(list))
}

pub(super) fn nodes(api: &Api, _: &Caller, _: &Parameters) -> Outcome<Value> {
    let members = api.json(".members")?;
    let own = &api.node.house().options().node;
    let entry = |name: &String, online: bool| {
        let status = if online { "online" } else { "offline" };
        json!({"type": "node", "id": format!("node/{name}"), "node": name, "status": status})
    };
    let list = match members["nodelist"].as_object() {
        Some(nodes) => nodes
            .iter()
            .map(|(name, known)| entry(name, known["online"] == 1))
            .collect(),
        None => vec![entry(own, true)],
    };
    Ok(Value::Array(list))
}

pub(super) fn next_id(api: &Api, _: &Caller, given: &Parameters) -> Outcome<Value> {
    let guests = api.json(".vmlist")?;
    let taken = |vmid: &str| guests["ids"].get(vmid).is_some();
    if let Some(vmid) = given.get("vmid") {
        return match taken(vmid) {
            true => Err(Died::parameter("vmid", format!("VM {vmid} already exists"))),
            false => Ok(json!(vmid)),
        };
    }
    let (lower, upper) = NEXT_ID;
    let mut ids = (lower..upper).filter(|vmid| !taken(&vmid.to_string()));
    let free = ids.next();
    let words = || {
        Died::new(format!(
            "unable to get any free VMID in range [{lower}, {upper}]"
        ))
    };
    // Text, as Perl has it after it was looked up.
    free.map(|vmid| json!(vmid.to_string())).ok_or_else(words)
}

pub(super) fn resources(api: &Api, caller: &Caller, given: &Parameters) -> Outcome<Value> {
    let wanted = |kind: &str| given.get("type").is_none_or(|wanted| wanted == kind);
    let own = &api.node.house().options().node;
    let mut list = Vec::new();
    let guests = api.json(".vmlist")?;
    let guests = guests["ids"].as_object().cloned().unwrap_or_default();
    for (vmid, guest) in guests.iter().filter(|_| wanted("vm")) {
        if !caller.may(&format!("/vms/{vmid}"), "VM.Audit") {
            continue;
        }
        let mut entry = Map::from_iter([
            (
                "id".to_owned(),
                json!(format!(
                    "{}/{vmid}",
                    guest["type"].as_str().unwrap_or_default()
                )),
            ),
            ("type".to_owned(), guest["type"].clone()),
            ("node".to_owned(), guest["node"].clone()),
            ("vmid".to_owned(), json!(vmid.parse::<u32>().unwrap_or(0))),
            ("status".to_owned(), json!("unknown")),
            ("template".to_owned(), json!(0)),
        ]);
        if guest["node"] == json!(own) && guest["type"] == "lxc" {
            let status = api.node.status(vmid.parse().unwrap_or(0), &api.times)?;
            let keys = [
                "status", "name", "cpu", "mem", "maxmem", "disk", "maxdisk", "uptime", "netin",
                "netout", "tags", "lock",
            ];
            let known = keys
                .into_iter()
                .filter_map(|key| Some((key.to_owned(), status.get(key)?.clone())));
            entry.extend(known);
            entry.insert("maxcpu".to_owned(), status["cpus"].clone());
        }
        list.push(Value::Object(entry));
    }
    if wanted("node") {
        let nodes = nodes(api, caller, given)?;
        list.extend(nodes.as_array().cloned().unwrap_or_default());
    }
    Ok(Value::Array(list))
}

pub(super) fn permissions(_: &Api, caller: &Caller, given: &Parameters) -> Outcome<Value> {
    let who = given.get("userid").unwrap_or(&caller.who);
    let own = *who == caller.who || split_token(who).is_some_and(|(user, _)| user == caller.who);
    if !own {
        caller.check("/access", "Sys.Audit")?;
    }
    let numbers = |privileges: crate::access::Privileges| {
        let marks = privileges
            .into_iter()
            .map(|(name, down)| (name, json!(u8::from(down))));
        Value::Object(marks.collect())
    };
    Ok(match given.get("path") {
        Some(path) => json!({path: numbers(caller.users.permissions(who, path))}),
        None => {
            let all = caller.users.all_permissions(who).into_iter();
            Value::Object(all.map(|(path, held)| (path, numbers(held))).collect())
        }
    })
}

impl Api {
    /// A file that pmxcfs makes up.
    fn json(&self, name: &str) -> Outcome<Value> {
        let file = self.node.house().pve(name);
        let text = std::fs::read_to_string(&file)
            .map_err(crate::died::io_died("unable to open file", &file))?;
        serde_json::from_str(&text).map_err(|error| Died::new(error.to_string()))
    }
}
