//! What a check has found.

use serde::Serialize;

use crate::cli::table::Table;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    /// As it should be.
    Ok,
    /// Pods run, but not as somebody might think.
    Warning,
    /// Some pods cannot run, or none.
    Failed,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at.
    pub(super) check: &'static str,
    pub(super) state: State,
    /// What was found.
    pub(super) reason: String,
    /// What to do, where something is wrong.
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, reason: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Ok,
            reason: reason.into(),
            remedy: None,
        }
    }

    pub(super) fn warning(
        check: &'static str,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            check,
            state: State::Warning,
            reason: reason.into(),
            remedy: Some(remedy.into()),
        }
    }

    pub(super) fn failed(
        check: &'static str,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            check,
            state: State::Failed,
            reason: reason.into(),
            remedy: Some(remedy.into()),
        }
    }

    /// Something failed, and the reason itself says what to do.
    pub(super) fn failed_by(check: &'static str, reason: impl Into<String>) -> Self {
        Self {
            check,
            state: State::Failed,
            reason: reason.into(),
            remedy: None,
        }
    }
}

/// For people: one line for each.
pub(super) fn table(findings: &[Finding]) -> String {
    let mut table = Table::new(&["CHECK", "STATE", "WHY => WHAT TO DO"]);
    for finding in findings {
        let why = match &finding.remedy {
            None => finding.reason.clone(),
            Some(remedy) => format!("{} => {remedy}", finding.reason),
        };
        table.row([
            finding.check.to_owned(),
            finding.state.name().to_owned(),
            why.replace('\n', "; "),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_is_a_line() {
        let findings = [
            Finding::ok("cgroups", "cgroup v2 alone"),
            Finding::warning("vmids", "12 of 20 numbers are taken", "widen proxmox.vmids"),
            Finding::failed("daemon", "no answer", "systemctl start nexcage"),
            Finding::failed_by("lxc", "two\nlines"),
        ];
        insta::assert_snapshot!(table(&findings), @r"
        CHECK     STATE     WHY => WHAT TO DO
        cgroups   ok        cgroup v2 alone
        vmids     warning   12 of 20 numbers are taken => widen proxmox.vmids
        daemon    failed    no answer => systemctl start nexcage
        lxc       failed    two; lines
        ");
        insta::assert_json_snapshot!(&findings[2..], @r#"
        [
          {
            "check": "daemon",
            "state": "failed",
            "reason": "no answer",
            "remedy": "systemctl start nexcage"
          },
          {
            "check": "lxc",
            "state": "failed",
            "reason": "two\nlines",
            "remedy": null
          }
        ]
        "#);
    }
}
