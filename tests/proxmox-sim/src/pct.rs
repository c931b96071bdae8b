//! `pct`: what it prints and how it ends. It does the same as the API, as root@pam and in its own process.

use std::fmt::Write as _;

use serde_json::Value;

use crate::api::{shown, wanted};
use crate::arguments::Arguments;
use crate::conf::{check_in_request, encode, value_of};
use crate::ct::{Caller, CpuTimes, Node};
use crate::died::{Died, Outcome};
use crate::task::Work;

/// Seconds that a shutdown may take unless it is told.
const TIMEOUT: u64 = 60;

/// Runs a command, and gives what it prints. Warnings go to standard error.
///
/// # Errors
///
/// In Proxmox's words.
pub fn pct(node: &Node, command: &str, arguments: &[String]) -> Outcome<String> {
    let given = Arguments::parse(arguments);
    if command == "list" {
        given.words([])?;
        return list(node);
    }
    let [vmid] = given.words(["vmid"])?;
    let vmid = number(vmid)?;
    match command {
        "status" => status(node, vmid, yes(&given, "verbose")),
        "config" => config(node, vmid),
        "set" => set(node, vmid, &given),
        "unlock" => node.unlock(vmid).map(|()| String::new()),
        "start" => {
            if node.is_running(vmid) {
                return Err(Died::new(format!("CT {vmid} already running")));
            }
            node.check_quorum()?;
            work(node, vmid, &Work::Start)
        }
        "stop" => {
            must_run(node, vmid)?;
            let overrule = yes(&given, "overrule-shutdown");
            work(node, vmid, &Work::Stop { overrule })
        }
        "shutdown" => {
            must_run(node, vmid)?;
            let (timeout, force) = (timeout(&given)?, yes(&given, "forceStop"));
            work(node, vmid, &Work::Shutdown { timeout, force })
        }
        "reboot" => {
            must_run(node, vmid)?;
            let timeout = timeout(&given)?;
            work(node, vmid, &Work::Reboot { timeout })
        }
        "destroy" => {
            let force = yes(&given, "force");
            node.check_destroy(vmid, force)?;
            work(node, vmid, &Work::Destroy { force })
        }
        other => Err(Died::new(format!("ERROR: unknown command 'pct {other}'"))),
    }
}

fn work(node: &Node, vmid: u32, work: &Work) -> Outcome<String> {
    for warning in work.run(node, vmid)? {
        eprintln!("WARN: {warning}");
    }
    Ok(String::new())
}

fn must_run(node: &Node, vmid: u32) -> Outcome {
    match node.is_running(vmid) {
        true => Ok(()),
        false => Err(Died::new(format!("CT {vmid} not running"))),
    }
}

fn list(node: &Node) -> Outcome<String> {
    let vmids = node.list()?;
    let mut text = String::new();
    let mut line = |vmid: &str, status: &str, lock: &str, name: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{vmid:<10} {status:<10} {lock:<12} {name:<20}");
    };
    if !vmids.is_empty() {
        line("VMID", "Status", "Lock", "Name");
    }
    for vmid in vmids {
        let status = node.status(vmid, &CpuTimes::default())?;
        let field = |key: &str| status.get(key).and_then(Value::as_str).unwrap_or_default();
        line(
            &vmid.to_string(),
            field("status"),
            field("lock"),
            field("name"),
        );
    }
    Ok(text)
}

fn status(node: &Node, vmid: u32, verbose: bool) -> Outcome<String> {
    node.load(vmid)?;
    let status = node.status(vmid, &CpuTimes::default())?;
    if !verbose {
        let word = status
            .get("status")
            .and_then(Value::as_str)
            .unwrap_or("unknown");
        return Ok(format!("status: {word}\n"));
    }
    let shown = status
        .iter()
        .filter(|(key, value)| *key != "cpu" && !value.is_null());
    Ok(shown
        .map(|(key, value)| format!("{key}: {}\n", plain(value)))
        .collect())
}

fn config(node: &Node, vmid: u32) -> Outcome<String> {
    let mut conf = node.load(vmid)?;
    conf.apply_pending();
    let mut text = String::new();
    for (key, value) in shown(&conf).iter().filter(|(key, _)| *key != "lxc") {
        let value = plain(value);
        let value = if key == "description" {
            encode(&value)
        } else {
            value
        };
        let _ = writeln!(text, "{key}: {value}");
    }
    for (key, value) in &conf.current.lxc {
        let _ = writeln!(text, "{key}: {value}");
    }
    Ok(text)
}

fn set(node: &Node, vmid: u32, given: &Arguments) -> Outcome<String> {
    let special = |name: &str| matches!(name, "delete" | "revert" | "digest");
    let mut parameters = given.options.clone();
    let mut errors = std::collections::BTreeMap::new();
    for (name, value) in parameters.iter_mut().filter(|(name, _)| !special(name)) {
        if value_of(name).is_none() {
            return Err(Died::new(format!(
                "Unknown option: {name}\n400 unable to parse option"
            )));
        }
        // The command line takes more for a yes than the API does.
        if let Some(yes) = crate::conf::boolean(value)
            && matches!(value_of(name), Some(crate::conf::Value::Bool))
        {
            *value = u8::from(yes).to_string();
        }
        if let Err(problem) = check_in_request(name, value) {
            errors.insert(name.clone(), problem);
        }
    }
    if !errors.is_empty() {
        return Err(Died::parameters(errors));
    }
    node.change(vmid, &Caller::root(), &wanted(&parameters))?;
    Ok(String::new())
}

/// JSON as Perl prints it.
fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn number(text: &str) -> Outcome<u32> {
    let number = text
        .parse()
        .ok()
        .filter(|vmid| (100..=999_999_999).contains(vmid));
    number.ok_or_else(|| {
        let problem = "invalid format - value does not look like a valid VM ID\n";
        Died::parameter("vmid", problem)
    })
}

fn timeout(given: &Arguments) -> Outcome<u64> {
    let Some(text) = given.options.get("timeout") else {
        return Ok(TIMEOUT);
    };
    let problem = || format!("type check ('integer') failed - got '{text}'");
    text.parse()
        .map_err(|_| Died::parameter("timeout", problem()))
}

fn yes(given: &Arguments, name: &str) -> bool {
    given
        .options
        .get(name)
        .and_then(|text| crate::conf::boolean(text))
        .unwrap_or(false)
}
