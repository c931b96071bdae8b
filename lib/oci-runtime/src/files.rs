//! Where everything of one container lies.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};

use crate::error::OciError;
use crate::options::OciRuntimeOptions;

/// Longest path of a socket in bytes: `sun_path` without its NUL (unix(7)).
const SOCKET_PATH_LIMIT: usize = 107;

/// conmon binds its console socket below `TMPDIR` under such a name.
const CONSOLE_SOCKET: &str = "conmon-term.XXXXXX";

/// Paths of one container; made from its id alone, so that they are known after a crash.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// conmon's working, temporary and persistent directory.
    pub(crate) monitor: Utf8PathBuf,
    pub(crate) conmon_pid: Utf8PathBuf,
    pub(crate) container_pid: Utf8PathBuf,
    /// Link to the container's cgroup directory.
    pub(crate) cgroup: Utf8PathBuf,
    /// Link to conmon's own cgroup directory.
    pub(crate) conmon_cgroup: Utf8PathBuf,
    /// Empty; there when the kernel killed for lack of memory.
    pub(crate) oom: Utf8PathBuf,
    /// Directory of links to the bundles, for short paths of attach sockets.
    pub(crate) sockets: Utf8PathBuf,
    pub(crate) socket_link: Utf8PathBuf,
    pub(crate) exit: Utf8PathBuf,
    /// crun's own.
    pub(crate) crun: Utf8PathBuf,
    pub(crate) crun_status: Utf8PathBuf,
}

impl Files {
    /// Refuses an id that is no plain file name, or too long for the sockets.
    pub(crate) fn of(options: &OciRuntimeOptions, id: &str) -> Result<Self, OciError> {
        let unable = |reason: String| OciError::Unable {
            id: id.to_owned(),
            reason,
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        // Names become paths here. What has a dot is a temporary file of conmon.
        if id.len() < 2 || !id.chars().all(plain) || !id.starts_with(char::is_alphanumeric) {
            return Err(unable(
                "an id is two or more of [a-zA-Z0-9_-], a letter or digit first".to_owned(),
            ));
        }
        let monitor = options.monitor_dir.join(id);
        let longest = monitor.as_str().len() + 1 + CONSOLE_SOCKET.len();
        if longest > SOCKET_PATH_LIMIT {
            return Err(unable(format!(
                "{monitor} is {} bytes too long for a socket in it; use a shorter monitor directory",
                longest - SOCKET_PATH_LIMIT
            )));
        }
        let sockets = options.monitor_dir.join(SOCKETS);
        let crun = options.root.join(id);
        Ok(Self {
            conmon_pid: monitor.join("conmon.pid"),
            container_pid: monitor.join("container.pid"),
            cgroup: monitor.join("cgroup"),
            conmon_cgroup: monitor.join("conmon-cgroup"),
            oom: monitor.join("oom"),
            socket_link: sockets.join(id),
            exit: options.exit_dir.join(id),
            crun_status: crun.join("status"),
            monitor,
            sockets,
            crun,
        })
    }
}

/// The cgroup directory behind one of the links.
pub(crate) async fn follow(link: &Utf8Path) -> io::Result<Utf8PathBuf> {
    let target = tokio::fs::read_link(link).await?;
    Utf8PathBuf::try_from(target).map_err(|e| e.into_io_error())
}

/// Name of the directory of socket links in the monitor directory; too short for an id.
pub(crate) const SOCKETS: &str = "s";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::options;

    #[test]
    fn an_id_cannot_leave_its_directory() {
        for id in [
            "", "s", "..", "a/b", "../x", "-x", ".x", "a.b", "a b", "a\n", "ä1",
        ] {
            assert!(
                matches!(Files::of(&options(), id), Err(OciError::Unable { .. })),
                "{id:?}"
            );
        }
    }

    #[test]
    fn the_sockets_of_a_full_id_fit() {
        let id = "a".repeat(64);
        let files = Files::of(&options(), &id).unwrap();
        assert!(files.socket_link.join("attach").as_str().len() <= SOCKET_PATH_LIMIT);

        let mut options = options();
        options.monitor_dir = "/a/directory/longer/than/that".into();
        let e = Files::of(&options, &id).unwrap_err().to_string();
        assert!(e.contains("too long for a socket"), "{e}");
    }
}
