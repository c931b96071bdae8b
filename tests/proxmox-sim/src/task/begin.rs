//! Beginning a task.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use super::upid::{Upid, process_start};
use super::work::Work;
use crate::died::{Died, Outcome};
use crate::house::House;
use crate::program::ourselves;

/// Begins a task, and gives its name when its log is there.
///
/// # Errors
///
/// No process can be started.
pub fn begin(house: &House, user: &str, vmid: u32, work: &Work) -> Outcome<Upid> {
    let failed = |why: &str| Died::new(format!("starting worker failed: {why}"));
    let mut command = ourselves().map_err(|e| failed(&e.to_string()))?;
    let text = serde_json::to_string(work).map_err(|e| failed(&e.to_string()))?;
    command
        .args([
            "--dir",
            house.dir().as_str(),
            "worker",
            &vmid.to_string(),
            &text,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|e| failed(&e.to_string()))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    let upid = process_start(child.id()).map(|pstart| Upid {
        node: house.options().node.clone(),
        pid: child.id(),
        pstart,
        starttime: u32::try_from(now).unwrap_or(u32::MAX),
        kind: work.kind().to_owned(),
        id: vmid.to_string(),
        user: user.to_owned(),
    });
    let ready = upid.and_then(|upid| {
        let mut input = child.stdin.take()?;
        writeln!(input, "{upid}").ok()?;
        drop(input);
        let mut line = String::new();
        BufReader::new(child.stdout.take()?)
            .read_line(&mut line)
            .ok()?;
        (line.trim() == "OK").then_some(upid)
    });
    if ready.is_none() {
        let _ = child.kill();
    }
    // A process that nobody waits for would look as if it ran.
    std::thread::spawn(move || child.wait());
    ready.ok_or_else(|| failed("got no worker upid"))
}
