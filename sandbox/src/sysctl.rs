//! Kernel parameters of a pod's own namespaces.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

use camino::Utf8PathBuf;
use rustix::process::Uid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_thread_res_uid};

use crate::backend::{NamespaceMode, SandboxSpec};
use crate::error::SandboxError;

/// The CRI field, for refusals.
const FIELD: &str = "linux.sysctls";

/// A kernel parameter could not be set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SysctlError {
    /// The pod's namespaces could not be entered.
    #[error("cannot enter the {namespace} namespace of process {pid}")]
    Namespace {
        /// `ipc`, `net` or `uts`.
        namespace: &'static str,
        /// The sandbox's first process.
        pid: u32,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The kernel has no such parameter in a pod's namespaces, or does not take the value.
    #[error("cannot set {name} to {value:?}")]
    Write {
        /// The parameter as given.
        name: String,
        /// The value as given.
        value: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No thread could be started, or it died.
    #[error("cannot run a thread for it")]
    Thread(#[source] io::Error),
}

/// Which namespace a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Ipc,
    Network,
}

/// Refuses parameters that are not a pod's own: those the kernel has once for the whole machine, and those of a
/// namespace that the pod shares with the host. The same set as kubelet's.
///
/// # Errors
///
/// [`SandboxError::Unsupported`].
pub fn validate_sysctls(backend: &'static str, spec: &SandboxSpec) -> Result<(), SandboxError> {
    let refuse = |reason: String| {
        Err(SandboxError::Unsupported {
            backend,
            field: FIELD,
            reason,
        })
    };
    for (name, value) in &spec.sysctls {
        let Some((_, scope)) = parse(name) else {
            return refuse(format!(
                "{name:?} is not a parameter of a pod's namespaces; allowed are kernel.shm*, kernel.msg*, kernel.sem, \
                 fs.mqueue.* and net.*"
            ));
        };
        let (shared, what) = match scope {
            Scope::Ipc => (spec.ipc == NamespaceMode::Node, "IPC"),
            Scope::Network => (spec.network == NamespaceMode::Node, "network"),
        };
        if shared {
            return refuse(format!(
                "{name} would change the host, whose {what} namespace this pod uses"
            ));
        }
        if value.contains(['\n', '\0']) {
            return refuse(format!("the value of {name} has more than one line"));
        }
    }
    Ok(())
}

/// Sets the parameters in the namespaces of the sandbox whose first process is `pid`.
///
/// # Errors
///
/// A [`SysctlError`] of any kind; parameters before the failing one are set then.
pub async fn apply_sysctls(
    pid: u32,
    sysctls: &BTreeMap<String, String>,
) -> Result<(), SysctlError> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let sysctls = sysctls.clone();
    let (answer, answered) = tokio::sync::oneshot::channel();
    // A thread that has entered other namespaces must not go back to a pool: this one ends.
    std::thread::Builder::new()
        .name("sysctl".to_owned())
        .spawn(move || {
            let _ = answer.send(enter_and_write(pid, &sysctls));
        })
        .map_err(SysctlError::Thread)?;
    answered
        .await
        .map_err(|e| SysctlError::Thread(io::Error::other(e)))?
}

/// The file below `/proc/sys` and the namespace of a parameter that a pod may set. Names are written with dots, or with
/// slashes where a component has dots (`net/ipv4/conf/eth0.1/forwarding`), sysctl.d(5).
fn parse(name: &str) -> Option<(Utf8PathBuf, Scope)> {
    let path = match name.find(['.', '/']) {
        Some(first) if name.as_bytes()[first] == b'.' => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    };
    let bad = |component: &str| {
        matches!(component, "" | "." | "..")
            || !component
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '@'))
    };
    if path.split('/').any(bad) {
        return None;
    }
    let scope = if path.starts_with("net/") {
        Scope::Network
    } else if path.starts_with("kernel/shm")
        || path.starts_with("kernel/msg")
        || path == "kernel/sem"
        || path.starts_with("fs/mqueue/")
    {
        Scope::Ipc
    } else {
        return None;
    };
    Some((path.into(), scope))
}

fn enter_and_write(pid: u32, sysctls: &BTreeMap<String, String>) -> Result<(), SysctlError> {
    for (namespace, kind) in [
        ("ipc", LinkNameSpaceType::InterProcessCommunication),
        ("net", LinkNameSpaceType::Network),
    ] {
        let enter = || -> io::Result<()> {
            let file = File::open(format!("/proc/{pid}/ns/{namespace}"))?;
            Ok(move_into_link_name_space(file.as_fd(), Some(kind))?)
        };
        enter().map_err(|source| SysctlError::Namespace {
            namespace,
            pid,
            source,
        })?;
    }
    let mut unprivileged = Vec::new();
    for (name, value) in sysctls {
        match write(name, value) {
            // On recent kernels an IPC namespace's parameters belong to the root of its user namespace, and to nobody
            // else, however privileged.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                unprivileged.push((name, value));
            }
            other => other.map_err(|e| failed(name, value, e))?,
        }
    }
    if let Some((name, value)) = unprivileged.first() {
        become_owner(pid).map_err(|e| failed(name, value, e))?;
    }
    for (name, value) in unprivileged {
        write(name, value).map_err(|e| failed(name, value, e))?;
    }
    Ok(())
}

fn failed(name: &str, value: &str, source: io::Error) -> SysctlError {
    SysctlError::Write {
        name: name.to_owned(),
        value: value.to_owned(),
        source,
    }
}

fn write(name: &str, value: &str) -> io::Result<()> {
    let (path, _) = parse(name).ok_or(io::ErrorKind::InvalidInput)?;
    let path = Utf8PathBuf::from("/proc/sys").join(path);
    let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
    file.write_all(value.as_bytes())
}

/// Lets this thread be the user who owns process `pid`: the sandbox's root.
fn become_owner(pid: u32) -> io::Result<()> {
    let owner = Uid::from_raw(std::fs::metadata(format!("/proc/{pid}"))?.uid());
    Ok(set_thread_res_uid(None, owner, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::spec;
    use proptest::prelude::*;

    #[test]
    fn names_with_dots_and_with_slashes() {
        let path = |name| parse(name).map(|(path, _)| path.into_string());
        assert_eq!(path("net.ipv4.ip_forward").unwrap(), "net/ipv4/ip_forward");
        let vlan = "net/ipv4/conf/eth0.1/forwarding";
        assert_eq!(path(vlan).unwrap(), vlan);
        assert_eq!(path("net.ipv4.conf.eth0/1.forwarding").unwrap(), vlan);
        assert_eq!(
            path("kernel.shm_rmid_forced").unwrap(),
            "kernel/shm_rmid_forced"
        );
        assert_eq!(path("fs.mqueue.msg_max").unwrap(), "fs/mqueue/msg_max");
    }

    #[test]
    fn parameters_of_the_machine_are_refused() {
        for name in [
            "kernel.panic",
            "vm.swappiness",
            "fs.file-max",
            "kernel.hostname",
            "net",
            "net.",
            "kernel.semx",
            "",
            "net.ipv4../../kernel/panic",
            "net/../kernel/panic",
            "net.a b",
            "fs.mqueue.",
        ] {
            let mut spec = spec();
            spec.sysctls.insert(name.into(), "1".into());
            let error = validate_sysctls("host", &spec).unwrap_err().to_string();
            assert!(error.contains("linux.sysctls"), "{name}: {error}");
        }
    }

    #[test]
    fn parameters_of_the_hosts_namespaces_are_refused() {
        let mut spec = spec();
        spec.sysctls.insert("net.core.somaxconn".into(), "1".into());
        validate_sysctls("host", &spec).unwrap();
        spec.network = NamespaceMode::Node;
        let error = validate_sysctls("host", &spec).unwrap_err().to_string();
        assert!(error.contains("network namespace"), "{error}");
        spec.sysctls.clear();
        spec.sysctls.insert("kernel.shmmax".into(), "1".into());
        validate_sysctls("host", &spec).unwrap();
        spec.ipc = NamespaceMode::Node;
        assert!(validate_sysctls("host", &spec).is_err());
        spec.sysctls.clear();
        spec.sysctls.insert("net.x".into(), "1\n2".into());
        spec.network = NamespaceMode::Pod;
        assert!(validate_sysctls("host", &spec).is_err());
    }

    proptest! {
        #[test]
        fn no_name_leads_out_of_its_directory(name in "(net|kernel|fs)[./].{0,30}") {
            if let Some((path, _)) = parse(&name) {
                prop_assert!(path.is_relative());
                prop_assert!(path.components().all(|c| matches!(c, camino::Utf8Component::Normal(_))));
            }
        }
    }
}
