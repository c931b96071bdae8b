//! Reading LXC's log for the reason of a failure.

/// Messages that say only that something failed, not why.
const CONSEQUENCES: &[&str] = &[
    "The container failed to start",
    "To get more details",
    "Additional information can be obtained",
    "Failed to spawn container",
    "Failed to setup container",
    "An error occurred in another process",
    "Received container state",
];

/// How many errors are told.
const TOLD: usize = 3;

/// The first errors in a log of lxc-start, on one line; `None` if there are none.
///
/// A line is `lxc-start <name> <time> ERROR    <module> - <file>:<function>:<line> - <message>`.
pub(crate) fn reason(log: &str) -> Option<String> {
    let errors = log.lines().filter(|line| line.contains(" ERROR "));
    let messages = errors.filter_map(|line| line.splitn(3, " - ").nth(2));
    let telling: Vec<&str> = messages
        .filter(|message| !CONSEQUENCES.iter().any(|c| message.contains(c)))
        .take(TOLD)
        .collect();
    (!telling.is_empty()).then(|| telling.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_and_consequences_not() {
        let log = "\
lxc-start x 20261120112106.388 WARN     conf - ../src/lxc/conf.c:lxc_map_ids:3628 - newuidmap binary is missing
lxc-start x 20261120112106.388 ERROR    dir - ../src/lxc/storage/dir.c:dir_mount:163 - Permission denied - Failed to open \"/r\"
lxc-start x 20261120112106.388 ERROR    start - ../src/lxc/start.c:do_start:1272 - Failed to setup container \"x\"
lxc-start x 20261120112106.389 ERROR    lxc_start - ../src/lxc/tools/lxc_start.c:main:306 - The container failed to start
";
        assert_eq!(
            reason(log).unwrap(),
            "Permission denied - Failed to open \"/r\""
        );
    }

    #[test]
    fn a_log_without_errors_has_no_reason() {
        assert_eq!(reason(""), None);
        assert_eq!(reason("lxc-start x 1 ERROR garbage"), None);
    }
}
