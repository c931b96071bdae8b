//! The AppArmor profile and namespace that LXC makes for a container whose profile is `generated`, as that of each pod once was.
//!
//! LXC's monitor takes them away when it ends by itself. One that was killed, because it took too long or with the daemon, leaves
//! them in the kernel until the next boot.

use std::fs;
use std::io;

use camino::Utf8Path;

/// Where the kernel shows AppArmor, `securityfs`.
const APPARMOR: &str = "/sys/kernel/security/apparmor";

/// Takes away what is left of them; nothing usually.
pub(crate) fn remove(name: &str, lxc_path: &Utf8Path) -> io::Result<()> {
    remove_from(Utf8Path::new(APPARMOR), name, lxc_path)
}

fn remove_from(apparmor: &Utf8Path, name: &str, lxc_path: &Utf8Path) -> io::Result<()> {
    let loaded = match fs::read_to_string(apparmor.join("profiles")) {
        Ok(loaded) => loaded,
        // Without AppArmor in the kernel there is none.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    let profile = format!("lxc-{name}_<{lxc_path}>");
    // Each line is a name and a mode, `name (enforce)`; profiles of namespaces begin with a colon.
    let is_loaded = loaded.lines().any(|line| {
        line.strip_prefix(profile.as_str())
            .is_some_and(|rest| rest.starts_with(" ("))
    });
    if is_loaded {
        gone(fs::write(apparmor.join(".remove"), &profile))?;
    }
    let namespace = format!("lxc-{name}_<{}>", lxc_path.as_str().replace('/', "-"));
    gone(fs::remove_dir(
        apparmor.join("policy/namespaces").join(namespace),
    ))
}

/// What is not there is gone.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_own_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let apparmor = Utf8Path::from_path(dir.path()).unwrap();
        remove_from(apparmor, "pod", Utf8Path::new("/var/lib/lxc")).unwrap();

        let others = "lxc-pod_</var/lib/lxc2> (enforce)\n:lxc-pod_<-var-lib-lxc>:x (enforce)\ncrun (unconfined)\n";
        fs::write(apparmor.join("profiles"), others).unwrap();
        let namespaces = apparmor.join("policy/namespaces");
        fs::create_dir_all(namespaces.join("lxc-other_<-var-lib-lxc>")).unwrap();
        remove_from(apparmor, "pod", Utf8Path::new("/var/lib/lxc")).unwrap();
        assert!(!apparmor.join(".remove").exists());

        let all = format!("{others}lxc-pod_</var/lib/lxc> (enforce)\n");
        fs::write(apparmor.join("profiles"), all).unwrap();
        fs::create_dir(namespaces.join("lxc-pod_<-var-lib-lxc>")).unwrap();
        remove_from(apparmor, "pod", Utf8Path::new("/var/lib/lxc")).unwrap();
        let removed = fs::read_to_string(apparmor.join(".remove")).unwrap();
        assert_eq!(removed, "lxc-pod_</var/lib/lxc>");
        let left: Vec<_> = namespaces.read_dir_utf8().unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
    }
}
