//! What LXC runs when a container has stopped.

use std::fs::OpenOptions;
use std::io::{self, Write as _};

use camino::Utf8Path;

/// Ends what is left of a pod whose container has stopped, with no daemon needed: kills everything in the container's cgroup, the
/// app containers, whose process namespaces are children of the host's; and removes the LXC configuration that Proxmox's includes,
/// so that nobody can start a container whose pod is over.
///
/// For the first lines of `main`: it needs no configuration and makes no threads. What is already gone is no error.
///
/// # Errors
///
/// What the file system says; both are tried.
pub fn post_stop(cgroup: &Utf8Path, include: &Utf8Path) -> io::Result<()> {
    let killed = OpenOptions::new()
        .write(true)
        .open(cgroup.join("cgroup.kill"))
        .and_then(|mut kill| kill.write_all(b"1"));
    let removed = std::fs::remove_file(include);
    gone(killed).and(gone(removed))
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        // The cgroup was removed between the two calls.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_ended_and_what_is_not_is_no_error() {
        let temp = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(temp.path()).unwrap();
        let (cgroup, include) = (base.join("ct"), base.join("100.conf"));
        post_stop(&cgroup, &include).unwrap();

        std::fs::create_dir(&cgroup).unwrap();
        std::fs::write(cgroup.join("cgroup.kill"), "").unwrap();
        std::fs::write(&include, "").unwrap();
        post_stop(&cgroup, &include).unwrap();
        let written = std::fs::read_to_string(cgroup.join("cgroup.kill")).unwrap();
        assert_eq!(written, "1");
        assert!(!include.exists());
    }

    #[test]
    fn a_failure_of_one_does_not_keep_the_other_from_being_tried() {
        let temp = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(temp.path()).unwrap();
        let include = base.join("100.conf");
        std::fs::create_dir_all(base.join("ct/cgroup.kill")).unwrap();
        std::fs::write(&include, "").unwrap();
        assert!(post_stop(&base.join("ct"), &include).is_err());
        assert!(!include.exists());
    }
}
