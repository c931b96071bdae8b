//! What conmon and crun say.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;

use serde::Deserialize;

/// What crun says of some failures, and what it means here.
const EXPLAINED: &[(&str, &str)] = &[
    (
        "setns(",
        "the process whose namespace was to be joined has ended",
    ),
    (
        "/ns/",
        "the sandbox whose namespaces were to be joined has ended",
    ),
    (
        "open executable: Permission denied",
        "the file may not be executed: see its mode, and whether its filesystem is mounted noexec",
    ),
    (
        "Exec format error",
        "the file is for another processor, or a script without #! line",
    ),
    (
        "cgroups in hybrid mode not supported",
        "this host still mounts cgroup v1 controllers: use the disabled cgroup manager",
    ),
];

/// crun's text on one line, with an explanation if it needs one.
pub(crate) fn readable(text: &str) -> String {
    let text = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    if text.is_empty() {
        return "crun gave no reason".to_owned();
    }
    match EXPLAINED.iter().find(|(part, _)| text.contains(part)) {
        Some((_, meaning)) => format!("{text} ({meaning})"),
        None => text,
    }
}

/// conmon's answer on the pipe that it finds in `_OCI_SYNCPIPE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The container is created; its first process.
    Created(u32),
    /// crun failed, and this is what it wrote.
    Failed(String),
}

/// Reads one line of `{"data": <pid>}` or `{"data": -1, "message": "<crun's stderr>"}`; an empty one is what is read
/// from a conmon that died.
pub(crate) fn answer(line: &[u8]) -> Answer {
    #[derive(Deserialize)]
    struct Line {
        data: i64,
        message: Option<String>,
    }
    let text = String::from_utf8_lossy(line);
    if text.trim().is_empty() {
        return Answer::Failed("conmon ended without an answer".to_owned());
    }
    // conmon does not escape U+001F, which JSON wants escaped.
    let Ok(line) = serde_json::from_str::<Line>(&text.replace('\u{1f}', " ")) else {
        return Answer::Failed(readable(&text));
    };
    match (u32::try_from(line.data), line.message) {
        (Ok(pid), None) if pid > 0 => Answer::Created(pid),
        (_, message) => Answer::Failed(readable(&message.unwrap_or_default())),
    }
}

/// The errors in crun's log, which is a file in memory, or `None`.
pub(crate) fn logged_errors(log: OwnedFd) -> io::Result<Option<String>> {
    let mut log = File::from(log);
    let mut text = Vec::new();
    log.rewind()?;
    log.read_to_end(&mut text)?;
    Ok(errors(&String::from_utf8_lossy(&text)))
}

/// The errors in what crun wrote with `--log-format=json`, or `None` if there are only warnings.
fn errors(log: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Entry {
        msg: String,
        level: String,
    }
    let errors: Vec<String> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Entry>(line).ok())
        .filter(|entry| entry.level == "error")
        .map(|entry| entry.msg)
        .collect();
    (!errors.is_empty()).then(|| readable(&errors.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pid_is_success() {
        assert_eq!(answer(b"{\"data\": 4711}\n"), Answer::Created(4711));
    }

    #[test]
    fn a_negative_number_is_failure_with_cruns_words() {
        let line = br#"{"data": -1, "message": "executable file `nope` not found in $PATH: No such file or directory\n"}"#;
        assert_eq!(
            answer(line),
            Answer::Failed(
                "executable file `nope` not found in $PATH: No such file or directory".to_owned()
            )
        );
    }

    #[test]
    fn no_answer_and_no_pid_are_failures() {
        assert_eq!(
            answer(b""),
            Answer::Failed("conmon ended without an answer".to_owned())
        );
        assert_eq!(
            answer(b"{\"data\": 0}"),
            Answer::Failed("crun gave no reason".to_owned())
        );
        assert_eq!(
            answer(b"{\"data\": -1}"),
            Answer::Failed("crun gave no reason".to_owned())
        );
    }

    #[test]
    fn broken_json_and_utf8_keep_the_text() {
        let Answer::Failed(text) = answer(b"{\"data\": -1, \"message\": \"a\xff") else {
            panic!("taken for success");
        };
        assert!(text.contains('a'), "{text}");
        assert_eq!(
            answer(b"{\"data\": -1, \"message\": \"a\x1fb\"}"),
            Answer::Failed("a b".to_owned())
        );
    }

    #[test]
    fn well_known_messages_are_explained() {
        let text = readable("open executable: Permission denied\n");
        assert!(text.starts_with("open executable: Permission denied ("));
        assert!(text.contains("noexec"), "{text}");
    }

    #[test]
    fn warnings_are_no_errors() {
        let log = "{\"msg\":\"cannot detect HOME\",\"level\":\"warning\",\"time\":\"t\"}\n";
        assert_eq!(errors(log), None);
        let log = format!("{log}{{\"msg\":\"exec: boom\",\"level\":\"error\",\"time\":\"t\"}}\n");
        assert_eq!(errors(&log).as_deref(), Some("exec: boom"));
        assert_eq!(errors(""), None);
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = answer(&bytes);
        }

        #[test]
        fn every_message_survives_conmons_escaping(message in "[a-zA-Z0-9 \"\\\\\n\t]{1,80}") {
            prop_assume!(!message.trim().is_empty());
            let line = serde_json::json!({"data": -1, "message": message}).to_string();
            prop_assert_eq!(answer(line.as_bytes()), Answer::Failed(readable(&message)));
        }
    }
}
