//! Names of tasks: `UPID:<node>:<pid>:<start>:<time>:<type>:<id>:<user>:`.

use std::fmt;

use camino::{Utf8Path, Utf8PathBuf};

use crate::pmxcfs::is_node_name;

/// A task's name, which tells all about it but how it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upid {
    /// The node it runs on.
    pub node: String,
    /// Its process.
    pub pid: u32,
    /// When the process was started, in ticks since the boot.
    pub pstart: u64,
    /// When it was started, in seconds since 1970.
    pub starttime: u32,
    /// `vzstart` and so on.
    pub kind: String,
    /// What it is about.
    pub id: String,
    /// Who began it: a user or a token.
    pub user: String,
}

impl Upid {
    /// Reads a name.
    pub fn parse(text: &str) -> Option<Self> {
        let fields: Vec<_> = text.split(':').collect();
        let ["UPID", node, pid, pstart, starttime, kind, id, user, ""] = fields[..] else {
            return None;
        };
        let hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
        let lengths = pid.len() == 8 && matches!(pstart.len(), 8 | 9) && starttime.len() == 8;
        let plain = |text: &str| !text.contains([' ', '\t', '\n', '/']);
        let good = lengths
            && [pid, pstart, starttime].into_iter().all(hex)
            && [kind, id, user].into_iter().all(plain)
            && !kind.is_empty()
            && !user.is_empty()
            && is_node_name(node);
        if !good {
            return None;
        }
        Some(Self {
            node: node.to_owned(),
            pid: u32::from_str_radix(pid, 16).ok()?,
            pstart: u64::from_str_radix(pstart, 16).ok()?,
            starttime: u32::from_str_radix(starttime, 16).ok()?,
            kind: kind.to_owned(),
            id: id.to_owned(),
            user: user.to_owned(),
        })
    }

    /// Its log below a directory: in one of sixteen, by the time.
    pub fn log(&self, tasks: &Utf8Path) -> Utf8PathBuf {
        let digit = format!("{:X}", self.starttime & 0xf);
        tasks.join(digit).join(self.to_string())
    }

    /// Whether its process is there.
    pub fn is_running(&self) -> bool {
        process_start(self.pid) == Some(self.pstart)
    }
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "UPID:{}:{:08X}:{:08X}:{:08X}:{}:{}:{}:",
            self.node, self.pid, self.pstart, self.starttime, self.kind, self.id, self.user
        )
    }
}

/// When a process was started, in ticks since the boot.
pub fn process_start(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        let text = "UPID:pve1:0003A5B1:0A1B2C3D:6921F0A7:vzstart:100:nexcage@pve!node:";
        let upid = Upid::parse(text).unwrap();
        assert_eq!(
            (upid.pid, &*upid.kind, &*upid.id),
            (0x3a5b1, "vzstart", "100")
        );
        assert_eq!(upid.to_string(), text);
        let log = upid.log("/tasks".into());
        assert_eq!(log, format!("/tasks/7/{text}"));
        for bad in [
            "",
            "UPID:",
            &text[1..],
            &text.replace("pve1", "../x"),
            &text.replace("100", "1/0"),
        ] {
            assert_eq!(Upid::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn this_process_runs() {
        let upid = Upid {
            node: "pve1".into(),
            pid: std::process::id(),
            pstart: process_start(std::process::id()).unwrap(),
            starttime: 0,
            kind: "vzstart".into(),
            id: String::new(),
            user: "root@pam".into(),
        };
        assert!(upid.is_running());
        let later = Upid {
            pstart: upid.pstart + 1,
            ..upid
        };
        assert!(!later.is_running(), "another process with the same number");
    }
}
