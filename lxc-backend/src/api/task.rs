//! Tasks: what Proxmox does in the background, and how it ended.

use std::time::Duration;

use proxmox_api::nodes::NodesClient;
use proxmox_api::nodes::node::tasks::upid::{log, status};
use url::form_urlencoded;

use super::answer::{AnswerError, meaning};
use super::error::PveError;
use super::server::Server;

/// The first and the longest pause between two questions after a task.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Lines of a failed task's log that are shown.
const LOG_LINES: usize = 5;

/// The most that is read of a log, in lines.
const LOG_LIMIT: i128 = 500;

/// The name of a task: `UPID:<node>:<pid>:<start>:<time>:<type>:<id>:<user>:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Upid(String);

impl Upid {
    /// Takes what a request answered.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let fields: Vec<_> = text.split(':').collect();
        let [kind, node, pid, start, time, r#type, id, user, end] = fields[..] else {
            return None;
        };
        let hex = |field: &str, lengths: std::ops::RangeInclusive<usize>| {
            lengths.contains(&field.len()) && field.bytes().all(|b| b.is_ascii_hexdigit())
        };
        let plain = |field: &str| field.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        // The start is in ticks since the boot, and gets longer after 497 days.
        let fits = kind == "UPID"
            && end.is_empty()
            && !node.is_empty()
            && node.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && hex(pid, 8..=8)
            && hex(start, 8..=9)
            && hex(time, 8..=8)
            && !r#type.is_empty()
            && !user.is_empty()
            && [r#type, id, user].into_iter().all(plain);
        fits.then(|| Self(text.to_owned()))
    }

    /// As a part of a path. The crate proxmox-api puts into paths what it is given.
    pub(super) fn encoded(&self) -> String {
        form_urlencoded::byte_serialize(self.0.as_bytes()).collect()
    }
}

/// Waits until a task has ended, as long as the caller likes. That it cannot be asked after for a while says nothing about the task.
pub(super) async fn wait(
    server: &Server,
    node: &str,
    doing: &str,
    answer: &str,
) -> Result<(), PveError> {
    let call = server.call(doing);
    let upid = Upid::parse(answer)
        .ok_or_else(|| call.not_understood(AnswerError::Upid(answer.to_owned())))?;
    let task = NodesClient::new(call)
        .node(node)
        .tasks()
        .upid(&upid.encoded());
    let mut pause = FIRST_PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        let state = match task.status().get().await {
            Ok(state) => state,
            Err(error) if error.is_retryable() => {
                tracing::debug!(%error, upid = upid.0, "a Proxmox task cannot be asked after");
                continue;
            }
            Err(error) => return Err(error),
        };
        if state.status == status::Status::Running {
            continue;
        }
        let exit_status = state.exitstatus.unwrap_or_default();
        return match Outcome::of(&exit_status) {
            Outcome::Good => Ok(()),
            Outcome::Warnings => {
                let log = read_log(&task).await;
                tracing::warn!(upid = upid.0, ?log, "a Proxmox task has {exit_status}");
                Ok(())
            }
            Outcome::Bad => match meaning(&exit_status, call.asked()) {
                Some(error) => Err(error),
                None => Err(PveError::Task {
                    upid: upid.0,
                    exit_status,
                    log: read_log(&task).await,
                }),
            },
        };
    }
}

/// How a task ended.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Good,
    /// It did what it should, and warned of something.
    Warnings,
    Bad,
}

impl Outcome {
    fn of(exit_status: &str) -> Self {
        if exit_status == "OK" {
            return Self::Good;
        }
        let count = exit_status.strip_prefix("WARNINGS: ");
        match count.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
            true => Self::Warnings,
            false => Self::Bad,
        }
    }
}

/// The last lines of a task's log, without the one that repeats the exit status. A log that cannot be read must not hide how the task ended.
async fn read_log<T>(task: &proxmox_api::nodes::node::tasks::upid::UpidClient<T>) -> Vec<String>
where
    T: proxmox_api::client::Client<Error = PveError>,
{
    let params = log::GetParams {
        limit: LOG_LIMIT.try_into().ok(),
        ..log::GetParams::default()
    };
    match task.log().get(params).await {
        Ok(lines) => last_lines(lines.into_iter().map(|line| line.t)),
        Err(error) => {
            tracing::debug!(%error, "the log of a Proxmox task cannot be read");
            Vec::new()
        }
    }
}

fn last_lines(lines: impl Iterator<Item = String>) -> Vec<String> {
    let lines: Vec<_> = lines
        .map(|line| super::answer::excerpt(&line))
        .filter(|line| !line.is_empty() && !line.starts_with("TASK "))
        .collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UPID: &str = "UPID:pve1:0003A5B1:0A1B2C3D:6921F0A7:vzstart:100:nexcage@pve!node:";

    #[test]
    fn a_upid_is_encoded_for_paths() {
        let upid = Upid::parse(UPID).unwrap();
        assert_eq!(
            upid.encoded(),
            "UPID%3Apve1%3A0003A5B1%3A0A1B2C3D%3A6921F0A7%3Avzstart%3A100%3Anexcage%40pve%21node%3A"
        );
    }

    #[test]
    fn other_texts_are_no_upids() {
        assert!(Upid::parse(&UPID.replace("0A1B2C3D", "10A1B2C3D")).is_some());
        assert!(Upid::parse(&UPID.replace(":100:", "::")).is_some());
        for text in [
            "",
            "null",
            &UPID[..UPID.len() - 1],
            &UPID.replace("pve1", "pve/1"),
            &UPID.replace("vzstart", ""),
            &UPID.replace("nexcage", "../nexcage"),
            &UPID.replace("6921F0A7", "6921F0AZ"),
            &format!("{UPID}\n"),
        ] {
            assert!(Upid::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn warnings_are_good() {
        assert_eq!(Outcome::of("OK"), Outcome::Good);
        assert_eq!(Outcome::of("WARNINGS: 3"), Outcome::Warnings);
        for text in ["", "WARNINGS: ", "WARNINGS: x", "unexpected status", "ok"] {
            assert_eq!(Outcome::of(text), Outcome::Bad, "{text}");
        }
    }

    #[test]
    fn the_last_lines_explain() {
        let lines = (0..9).map(|n| format!("line {n}"));
        let lines = lines.chain(["".into(), "TASK ERROR: startup failed".into()]);
        assert_eq!(
            last_lines(lines),
            ["line 4", "line 5", "line 6", "line 7", "line 8"]
        );
    }

    proptest! {
        #[test]
        fn a_upid_in_a_path_stays_there(text in "(UPID:[a-z0-9/.%]{1,4}:[0-9A-F]{8}:[0-9A-F]{8}:[0-9A-F]{8}:[a-z/.?#%:]{1,9}:[0-9/]{0,4}:[a-z@!/]{1,9}:)|.{0,60}") {
            if let Some(upid) = Upid::parse(&text) {
                let encoded = upid.encoded();
                prop_assert!(encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"%.-_*".contains(&b)));
            }
        }
    }
}
