//! `proxmox-sim ctl`: telling a running simulator to misbehave, over a Unix socket. A request is one line of words, an answer one line: `ok`, or
//! what is wrong.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::sync::watch;

use crate::house::House;
use crate::misbehave::{Http, Misbehaviour, TaskEnd};
use crate::pmxcfs::Pmxcfs;

/// What it understands.
pub const WORDS: &str = "quorum on|off, api up|down, daemon up|down, task-delay <ms>, task-result ok|warnings|error [words], \
                         lock <vmid> <seconds>, http ok|html|stall|truncated|<status> [words], status";

/// How long the simulator may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Sends words to a simulator, and gives its answer.
///
/// # Errors
///
/// None runs, or it does not do it.
pub fn send(house: &House, words: &[String]) -> anyhow::Result<String> {
    let path = house.control();
    let mut socket = UnixStream::connect(&path)
        .with_context(|| format!("no simulator runs in {}", house.dir()))?;
    socket.set_read_timeout(Some(LIMIT))?;
    writeln!(socket, "{}", words.join(" "))?;
    let mut answer = String::new();
    BufReader::new(socket).read_line(&mut answer)?;
    match answer.trim() {
        answer if answer.starts_with("ok") => Ok(answer.trim_start_matches("ok").trim().to_owned()),
        "" => bail!("the simulator did not answer"),
        error => bail!("{error}"),
    }
}

/// What a simulator can be told about.
pub struct Control {
    house: House,
    pmxcfs: Pmxcfs,
    /// Whether the API listens.
    api: watch::Sender<bool>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control")
            .field("pmxcfs", &self.pmxcfs)
            .finish_non_exhaustive()
    }
}

impl Control {
    /// The control of a simulator.
    pub fn new(house: House, pmxcfs: Pmxcfs, api: watch::Sender<bool>) -> Self {
        Self { house, pmxcfs, api }
    }

    /// Listens until it is dropped.
    ///
    /// # Errors
    ///
    /// The socket cannot be made.
    pub async fn serve(&self) -> anyhow::Result<()> {
        let path = self.house.control();
        let _ = std::fs::remove_file(&path);
        let listener =
            UnixListener::bind(&path).with_context(|| format!("cannot listen on {path}"))?;
        loop {
            let (socket, _) = listener.accept().await?;
            let (input, mut output) = socket.into_split();
            let mut line = String::new();
            let mut input = tokio::io::BufReader::new(input);
            let read = input.read_line(&mut line);
            // One at a time, and each is short.
            if !matches!(tokio::time::timeout(LIMIT, read).await, Ok(Ok(_))) {
                continue;
            }
            let answer = match self.obey(line.trim()) {
                Ok(answer) => format!("ok {answer}\n"),
                Err(error) => format!("{error:#}\n"),
            };
            let _ = output.write_all(answer.as_bytes()).await;
        }
    }

    fn obey(&self, line: &str) -> anyhow::Result<String> {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["quorum", state @ ("on" | "off")] => self.quorum(state == "on")?,
            ["api", state @ ("up" | "down")] => drop(self.api.send_replace(state == "up")),
            ["lock", vmid, seconds] => self.hold(vmid.parse()?, seconds.parse()?)?,
            ["status"] => return self.status(),
            _ => {
                let mut misbehaviour = Misbehaviour::read(&self.house);
                change(&mut misbehaviour, &words)?;
                misbehaviour.write(&self.house)?;
            }
        }
        Ok(String::new())
    }

    fn quorum(&self, quorate: bool) -> anyhow::Result<()> {
        if self.house.options().cluster.is_none() && !quorate {
            bail!("a node without a cluster cannot lose quorum");
        }
        self.pmxcfs.tree().set_quorate(quorate);
        Ok(())
    }

    /// Holds the lock of a container's configuration for a while, as a long task does.
    fn hold(&self, vmid: u32, seconds: u64) -> anyhow::Result<()> {
        let file = File::options()
            .append(true)
            .create(true)
            .open(self.house.lock(vmid))?;
        file.try_lock().context("somebody else holds it")?;
        std::thread::spawn(move || {
            crate::program::pause(Duration::from_secs(seconds));
            drop(file);
        });
        Ok(())
    }

    fn status(&self) -> anyhow::Result<String> {
        let status = serde_json::json!({
            "quorum": self.pmxcfs.tree().quorate(),
            "api": *self.api.borrow(),
            "misbehaviour": Misbehaviour::read(&self.house),
        });
        Ok(serde_json::to_string(&status)?)
    }
}

fn change(misbehaviour: &mut Misbehaviour, words: &[&str]) -> anyhow::Result<()> {
    match *words {
        ["daemon", state @ ("up" | "down")] => misbehaviour.daemon_down = state == "down",
        ["task-delay", ms] => misbehaviour.task_delay_ms = ms.parse()?,
        ["task-result", "ok"] => misbehaviour.task_end = None,
        ["task-result", "warnings"] => misbehaviour.task_end = Some(TaskEnd::Warnings),
        ["task-result", "error", ref words @ ..] => {
            let words = match words.is_empty() {
                true => "the simulator was told to fail".to_owned(),
                false => words.join(" "),
            };
            misbehaviour.task_end = Some(TaskEnd::Error(words));
        }
        ["http", "ok"] => misbehaviour.http = None,
        ["http", "html"] => misbehaviour.http = Some(Http::Html),
        ["http", "stall"] => misbehaviour.http = Some(Http::Stall),
        ["http", "truncated"] => misbehaviour.http = Some(Http::Truncated),
        ["http", status, ref words @ ..] => {
            let status = status
                .parse()
                .ok()
                .filter(|status| (100..1000).contains(status));
            let status = status.with_context(|| format!("not understood; there are: {WORDS}"))?;
            misbehaviour.http = Some(Http::Status(status, words.join(" ")));
        }
        _ => bail!("not understood; there are: {WORDS}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_understood() {
        let mut misbehaviour = Misbehaviour::default();
        let mut tell = |line: &str| {
            let words: Vec<_> = line.split_whitespace().collect();
            change(&mut misbehaviour, &words).map(|()| misbehaviour.clone())
        };
        assert_eq!(tell("task-delay 500").unwrap().task_delay_ms, 500);
        let end = tell("task-result error got signal 9").unwrap().task_end;
        assert_eq!(end, Some(TaskEnd::Error("got signal 9".into())));
        assert_eq!(tell("task-result ok").unwrap().task_end, None);
        let http = tell("http 596 Connection timed out").unwrap().http;
        assert_eq!(http, Some(Http::Status(596, "Connection timed out".into())));
        assert_eq!(tell("http ok").unwrap().http, None);
        assert!(tell("daemon down").unwrap().daemon_down);
        for line in ["", "nonsense", "http 5", "task-delay soon", "quorum maybe"] {
            assert!(tell(line).is_err(), "{line}");
        }
    }
}
