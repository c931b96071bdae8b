//! `/nodes/{node}/tasks`.

use serde_json::{Value, json};

use super::Api;
use super::schema::Parameters;
use crate::access::split_token;
use crate::ct::Caller;
use crate::died::{Died, Outcome};
use crate::task::{Upid, exit_status, lines};

pub(super) fn status(api: &Api, caller: &Caller, given: &Parameters) -> Outcome<Value> {
    let upid = readable(api, caller, given)?;
    let tasks = api.node.house().tasks_dir();
    if !upid.log(&tasks).exists() {
        return Err(Died::parameter("upid", "no such task"));
    }
    let (user, token) = match split_token(&upid.user) {
        Some((user, token)) => (user, Some(token)),
        None => (upid.user.as_str(), None),
    };
    let running = upid.is_running();
    let mut status = json!({
        "upid": upid.to_string(), "node": upid.node, "pid": upid.pid, "pstart": upid.pstart, "starttime": upid.starttime,
        "type": upid.kind, "id": upid.id, "user": user, "status": if running { "running" } else { "stopped" },
    });
    if let Some(token) = token {
        status["tokenid"] = json!(token);
    }
    if !running {
        status["exitstatus"] = json!(exit_status(&tasks, &upid));
    }
    Ok(status)
}

pub(super) fn log(api: &Api, caller: &Caller, given: &Parameters) -> Outcome<Value> {
    let upid = readable(api, caller, given)?;
    let number = |name: &str, default| {
        let given = given.get(name).and_then(|text| text.parse().ok());
        given.unwrap_or(default)
    };
    let tasks = api.node.house().tasks_dir();
    let (lines, _) = lines(&tasks, &upid, number("start", 0), number("limit", 50));
    let lines = lines
        .into_iter()
        .map(|line| json!({"n": line.number, "t": line.text}));
    Ok(Value::Array(lines.collect()))
}

/// A task that the caller may see: his own, his user's, or any.
fn readable(api: &Api, caller: &Caller, given: &Parameters) -> Outcome<Upid> {
    let upid = given.get("upid").and_then(|text| Upid::parse(text));
    let upid = upid.ok_or_else(|| Died::parameter("upid", "unable to parse worker upid"))?;
    let own = upid.user == caller.who
        || split_token(&upid.user).is_some_and(|(user, _)| user == caller.who);
    if !own {
        let node = &api.node.house().options().node;
        caller.check(&format!("/nodes/{node}"), "Sys.Audit")?;
    }
    Ok(upid)
}
