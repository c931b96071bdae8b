//! Logs of tasks. The last line tells how one ended.

use std::fs;

use camino::Utf8Path;

use super::upid::Upid;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// Without its end.
    pub text: String,
}

/// How a task that does not run has ended.
pub fn exit_status(tasks: &Utf8Path, upid: &Upid) -> String {
    let text = match fs::read_to_string(upid.log(tasks)) {
        Ok(text) => text,
        Err(error) => return format!("unable to get last line from task log - {error}"),
    };
    let last = text.trim_end().lines().next_back().unwrap_or_default();
    let Some(words) = last.strip_prefix("TASK ") else {
        return "unexpected status".to_owned();
    };
    match words.strip_prefix("ERROR: ") {
        Some(error) => error.to_owned(),
        None if words == "OK" || words.starts_with("WARNINGS: ") => words.to_owned(),
        None => "unexpected status".to_owned(),
    }
}

/// Some lines of a log, and how many there are.
pub fn lines(tasks: &Utf8Path, upid: &Upid, start: usize, limit: usize) -> (Vec<Line>, usize) {
    let text = fs::read_to_string(upid.log(tasks)).unwrap_or_default();
    let all: Vec<_> = (1..).zip(text.lines()).collect();
    let count = all.len();
    // Proxmox takes 0 for all.
    let limit = if limit == 0 { usize::MAX } else { limit };
    let chosen = all.into_iter().skip(start).take(limit);
    let lines: Vec<_> = chosen
        .map(|(number, text)| Line {
            number,
            text: text.to_owned(),
        })
        .collect();
    if count == 0 {
        let line = Line {
            number: 1,
            text: "no content".to_owned(),
        };
        return (vec![line], 1);
    }
    (lines, count)
}
