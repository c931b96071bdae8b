//! `/nodes/{node}/lxc`.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Api;
use super::schema::Parameters;
use crate::access::ROOT;
use crate::conf::{Conf, split_list};
use crate::ct::{Caller, Wanted};
use crate::died::{Died, Outcome};
use crate::lxc::init_pid;
use crate::program::run;
use crate::task::{Work, begin};

const INTERFACES_LIMIT: Duration = Duration::from_secs(10);

/// Seconds that a shutdown may take unless it is told.
const TIMEOUT: u64 = 60;

pub(super) fn list(api: &Api, caller: &Caller, _: &Parameters) -> Outcome<Value> {
    let mut list = Vec::new();
    for vmid in api.node.list()? {
        if caller.may(&format!("/vms/{vmid}"), "VM.Audit") {
            list.push(Value::Object(api.node.status(vmid, &api.times)?));
        }
    }
    Ok(Value::Array(list))
}

pub(super) fn current(api: &Api, _: &Caller, given: &Parameters) -> Outcome<Value> {
    let vmid = vmid(given);
    api.node.load(vmid)?;
    let mut status = api.node.status(vmid, &api.times)?;
    status.insert("ha".to_owned(), json!({"managed": 0}));
    Ok(Value::Object(status))
}

pub(super) fn config(api: &Api, caller: &Caller, given: &Parameters) -> Outcome<Value> {
    let vmid = vmid(given);
    let text = api.node.text(vmid)?;
    let (mut conf, _) = Conf::read(vmid, &text);
    if !is(given, "current") {
        // What is pending is shown as if it were so.
        conf.apply_pending();
    }
    let mut shown = shown(&conf);
    shown.insert(
        "digest".to_owned(),
        json!(crate::digest::sha1(text.as_bytes())),
    );
    if !caller.may(&format!("/vms/{vmid}"), "VM.Config.Options") {
        shown.remove("env");
    }
    Ok(Value::Object(shown))
}

/// A configuration as the API shows it.
pub(crate) fn shown(conf: &Conf) -> Map<String, Value> {
    let conf = &conf.current;
    let values = conf
        .values
        .iter()
        .map(|(key, value)| (key.clone(), json!(value)));
    let mut shown: Map<_, _> = values.collect();
    if !conf.description.is_empty() {
        shown.insert("description".to_owned(), json!(conf.description));
    }
    if !conf.env.is_empty() {
        shown.insert("env".to_owned(), json!(conf.env.join("\0")));
    }
    if !conf.lxc.is_empty() {
        shown.insert("lxc".to_owned(), json!(conf.lxc));
    }
    shown
}

pub(super) fn set(api: &Api, caller: &Caller, given: &Parameters) -> Outcome<Value> {
    api.node.change(vmid(given), caller, &wanted(given))?;
    Ok(Value::Null)
}

/// What is to be changed, out of checked parameters.
pub(crate) fn wanted(given: &Parameters) -> Wanted {
    let list = |name: &str| {
        let keys = split_list(given.get(name).map_or("", String::as_str)).into_iter();
        keys.map(str::to_owned).collect()
    };
    let values = given.iter().filter(|(name, _)| {
        !matches!(
            name.as_str(),
            "node" | "vmid" | "delete" | "revert" | "digest"
        )
    });
    Wanted {
        values: values
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        delete: list("delete"),
        revert: list("revert"),
        digest: given.get("digest").cloned(),
    }
}

pub(super) fn interfaces(api: &Api, _: &Caller, given: &Parameters) -> Outcome<Value> {
    let lxc_path = &api.node.house().options().lxc_path;
    let pid = init_pid(lxc_path, vmid(given)).ok().flatten();
    let Some(pid) = pid.filter(|_| api.node.is_running(vmid(given))) else {
        return Ok(Value::Null);
    };
    let pid = pid.to_string();
    let command = ["-t", &pid, "--net", "--", "ip", "--json", "a"];
    let text = run("nsenter", &command, INTERFACES_LIMIT)?;
    let found: Vec<Value> = serde_json::from_str(&text).map_err(|e| Died::new(e.to_string()))?;
    Ok(Value::Array(found.iter().map(interface).collect()))
}

fn interface(found: &Value) -> Value {
    let mut shown = Map::from_iter([
        ("name".to_owned(), found["ifname"].clone()),
        ("hwaddr".to_owned(), found["address"].clone()),
        ("hardware-address".to_owned(), found["address"].clone()),
    ]);
    let mut addresses = Vec::new();
    for address in found["addr_info"].as_array().into_iter().flatten() {
        let family = address["family"].as_str().unwrap_or_default();
        let local = address["local"].as_str().unwrap_or_default();
        let prefix = &address["prefixlen"];
        shown.insert(family.to_owned(), json!(format!("{local}/{prefix}")));
        addresses.push(json!({"ip-address-type": family, "ip-address": local, "prefix": prefix}));
    }
    shown.insert("ip-addresses".to_owned(), Value::Array(addresses));
    Value::Object(shown)
}

pub(super) fn start(api: &Api, caller: &Caller, given: &Parameters) -> Outcome<Value> {
    refuse_skiplock(caller, given)?;
    let vmid = vmid(given);
    if api.node.is_running(vmid) {
        return Err(Died::new(format!("CT {vmid} already running")));
    }
    api.node.check_quorum()?;
    task(api, caller, vmid, &Work::Start)
}

pub(super) fn stop(api: &Api, caller: &Caller, given: &Parameters) -> Outcome<Value> {
    refuse_skiplock(caller, given)?;
    let overrule = is(given, "overrule-shutdown");
    running_task(api, caller, given, &Work::Stop { overrule })
}

pub(super) fn shutdown(api: &Api, caller: &Caller, given: &Parameters) -> Outcome<Value> {
    let work = Work::Shutdown {
        timeout: timeout(given),
        force: is(given, "forceStop"),
    };
    running_task(api, caller, given, &work)
}

pub(super) fn reboot(api: &Api, caller: &Caller, given: &Parameters) -> Outcome<Value> {
    let work = Work::Reboot {
        timeout: timeout(given),
    };
    running_task(api, caller, given, &work)
}

pub(super) fn destroy(api: &Api, caller: &Caller, given: &Parameters) -> Outcome<Value> {
    let force = is(given, "force");
    api.node.check_destroy(vmid(given), force)?;
    task(api, caller, vmid(given), &Work::Destroy { force })
}

fn running_task(api: &Api, caller: &Caller, given: &Parameters, work: &Work) -> Outcome<Value> {
    let vmid = vmid(given);
    if !api.node.is_running(vmid) {
        return Err(Died::new(format!("CT {vmid} not running")));
    }
    task(api, caller, vmid, work)
}

fn task(api: &Api, caller: &Caller, vmid: u32, work: &Work) -> Outcome<Value> {
    let upid = begin(api.node.house(), &caller.who, vmid, work)?;
    Ok(json!(upid.to_string()))
}

fn refuse_skiplock(caller: &Caller, given: &Parameters) -> Outcome {
    match is(given, "skiplock") && caller.who != ROOT {
        true => Err(Died::parameter(
            "skiplock",
            "Only root may use this option.",
        )),
        false => Ok(()),
    }
}

fn timeout(given: &Parameters) -> u64 {
    let given = given.get("timeout").and_then(|text| text.parse().ok());
    given.unwrap_or(TIMEOUT)
}

/// Checked to be a number.
fn vmid(given: &Parameters) -> u32 {
    given
        .get("vmid")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn is(given: &Parameters, name: &str) -> bool {
    given.get(name).is_some_and(|value| value == "1")
}
