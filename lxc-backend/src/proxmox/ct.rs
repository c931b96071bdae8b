//! One pod's container: its number, and what is where because of it.

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_sandbox::SandboxSpec;

use super::confs::include_name;
use crate::container::{Directory, Engine};

/// Where it is remembered which configuration was written, to tell what an administrator edited.
const WRITTEN: &str = "backend/written.conf";

/// A container of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Ct {
    /// Its number.
    pub(crate) vmid: u32,
    /// Its directory in LXC's.
    pub(crate) directory: Directory,
    /// The LXC configuration that Proxmox's includes.
    pub(crate) include: Utf8PathBuf,
    /// A copy of Proxmox's configuration as it was written.
    pub(crate) written: Utf8PathBuf,
}

impl Ct {
    pub(crate) fn new(engine: &Engine, spec: &SandboxSpec, vmid: u32) -> Self {
        Self {
            directory: engine.directory(&vmid.to_string(), &spec.id),
            include: include_path(&spec.run_dir, vmid),
            written: spec.run_dir.join(WRITTEN),
            vmid,
        }
    }

    /// What LXC calls it.
    pub(crate) fn name(&self) -> String {
        self.vmid.to_string()
    }
}

/// Of a container whose sandbox has this run directory.
pub(crate) fn include_path(run_dir: &Utf8Path, vmid: u32) -> Utf8PathBuf {
    run_dir.join(include_name(vmid))
}

/// The command that LXC's shell runs when a container has stopped.
pub(crate) fn hook_command(program: &Utf8Path, cgroup: &Utf8Path, include: &Utf8Path) -> String {
    let words = [program, cgroup, include].map(quoted);
    let [program, cgroup, include] = words;
    format!("{program} hook post-stop {cgroup} {include}")
}

/// A word as a shell takes it back. Left bare where that changes nothing: LXC takes the quotes away from a value that begins and ends
/// with one.
fn quoted(word: &Utf8Path) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@+=".contains(c);
    match word.as_str().chars().all(is_plain) {
        true => word.to_string(),
        false => format!("'{}'", word.as_str().replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_for_the_shell_to_read() {
        let include = "/run/nexcage/pods/0/backend/900000.conf";
        assert_eq!(
            hook_command(
                "/usr/bin/nexcage".into(),
                "/sys/fs/cgroup/a.slice/b.scope/ct".into(),
                include.into()
            ),
            format!("/usr/bin/nexcage hook post-stop /sys/fs/cgroup/a.slice/b.scope/ct {include}")
        );
        assert_eq!(
            hook_command(
                "/opt/my own/nexcage".into(),
                "/c\\x2d1".into(),
                "/it's".into()
            ),
            r"'/opt/my own/nexcage' hook post-stop '/c\x2d1' '/it'\''s'"
        );
    }
}
