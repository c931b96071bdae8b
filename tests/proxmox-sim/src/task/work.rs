//! What tasks do, in their processes.

use std::fs::{self, File};
use std::io::{self, BufRead as _, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::upid::Upid;
use crate::ct::Node;
use crate::died::{Died, Outcome};
use crate::misbehave::{Misbehaviour, TaskEnd};
use crate::program::pause;

/// What is to be done with a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// `vzstart`.
    Start,
    /// `vzstop`.
    Stop {
        /// Ends tasks that shut the container down.
        overrule: bool,
    },
    /// `vzshutdown`.
    Shutdown {
        /// Seconds that it may take.
        timeout: u64,
        /// Whether it is killed then.
        force: bool,
    },
    /// `vzreboot`.
    Reboot {
        /// Seconds that stopping may take.
        timeout: u64,
    },
    /// `vzdestroy`.
    Destroy {
        /// Whether it is stopped if it runs.
        force: bool,
    },
}

impl Work {
    /// The type in the task's name.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Start => "vzstart",
            Self::Stop { .. } => "vzstop",
            Self::Shutdown { .. } => "vzshutdown",
            Self::Reboot { .. } => "vzreboot",
            Self::Destroy { .. } => "vzdestroy",
        }
    }

    /// Does it. Gives warnings.
    ///
    /// # Errors
    ///
    /// In Proxmox's words.
    pub fn run(&self, node: &Node, vmid: u32) -> Outcome<Vec<String>> {
        let none = |()| Vec::new();
        match self {
            Self::Start => node.start(vmid),
            Self::Stop { overrule } => {
                if *overrule {
                    overrule_shutdowns(node, vmid);
                }
                node.stop(vmid).map(none)
            }
            Self::Shutdown { timeout, force } => node
                .shutdown(vmid, Duration::from_secs(*timeout), *force)
                .map(none),
            Self::Reboot { timeout } => node.reboot(vmid, Duration::from_secs(*timeout)),
            Self::Destroy { force } => node.destroy(vmid, *force).map(none),
        }
    }
}

/// The process of a task: is told its name, says that it is ready, and works with the log as its output.
///
/// # Errors
///
/// Whoever began it is gone, or the log cannot be written.
pub fn run_worker(node: &Node, vmid: u32, work: &Work) -> anyhow::Result<()> {
    let mut name = String::new();
    io::stdin().lock().read_line(&mut name)?;
    let upid = Upid::parse(name.trim()).context("no name for the task")?;
    let log = upid.log(&node.house().tasks_dir());
    if let Some(dir) = log.parent() {
        fs::create_dir_all(dir)?;
    }
    let log = File::create(&log).with_context(|| format!("cannot write {log}"))?;
    println!("OK");
    io::stdout().flush()?;
    rustix::stdio::dup2_stdout(&log)?;
    rustix::stdio::dup2_stderr(&log)?;
    let misbehaviour = Misbehaviour::read(node.house());
    pause(Duration::from_millis(misbehaviour.task_delay_ms));
    let ended = match &misbehaviour.task_end {
        Some(TaskEnd::Error(words)) => Err(Died::new(words.clone())),
        Some(TaskEnd::Warnings) => work.run(node, vmid).map(|mut warnings| {
            warnings.push("the simulator was told to warn".to_owned());
            warnings
        }),
        None => work.run(node, vmid),
    };
    let last = match ended {
        Ok(warnings) => {
            for warning in &warnings {
                println!("WARN: {warning}");
            }
            match warnings.len() {
                0 => "TASK OK".to_owned(),
                count => format!("TASK WARNINGS: {count}"),
            }
        }
        Err(died) => format!("TASK ERROR: {}", died.to_string().replace('\n', " ")),
    };
    println!("{last}");
    Ok(())
}

/// Ends tasks that shut a container down.
fn overrule_shutdowns(node: &Node, vmid: u32) {
    let dirs = node.house().tasks_dir().read_dir_utf8();
    let dirs = dirs.into_iter().flatten().flatten();
    let files = dirs
        .filter_map(|dir| dir.path().read_dir_utf8().ok())
        .flatten()
        .flatten();
    let tasks = files.filter_map(|file| Upid::parse(file.file_name()));
    let wanted = tasks.filter(|task| task.kind == "vzshutdown" && task.id == vmid.to_string());
    for task in wanted.filter(Upid::is_running) {
        println!("overruled vzshutdown task: {task}");
        let pid = i32::try_from(task.pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself meanwhile.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
}
