//! What the machine has: rights, cgroups, AppArmor, seccomp, programs, LXC.

use nexcage_command::Program;
use nexcage_config::Config;
use nexcage_lxc::LxcBackend;
use nexcage_sandbox::{CgroupHost, SandboxBackend as _};

use super::Doctor;
use super::finding::Finding;
use crate::apparmor;
use crate::containers::node_facts;
use crate::error::Chain;
use crate::runtime::{cgroup_tree, find_node, lxc_options};

/// Controllers that pods' limits need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Programs that nexcage drives, and their Debian packages.
const PROGRAMS: [(&str, &str); 4] = [
    ("crun", "crun"),
    ("conmon", "conmon"),
    ("catatonit", "catatonit"),
    ("lxc-start", "lxc"),
];

pub(super) fn rights() -> Finding {
    match rustix::process::geteuid().is_root() {
        true => Finding::ok("rights", "this is root"),
        false => Finding::failed(
            "rights",
            "this is not root, so not all can be seen",
            "run it as root",
        ),
    }
}

/// Blocking.
pub(super) fn cgroups() -> Finding {
    let host = match CgroupHost::detect() {
        Ok(host) => host,
        Err(error) => {
            let reason = format!("/proc/self/mounts cannot be read: {error}");
            return Finding::failed("cgroups", reason, "mount /proc");
        }
    };
    let offered = host.root().map(|root| root.join("cgroup.controllers"));
    let offered = offered.and_then(|path| std::fs::read_to_string(path).ok());
    judge_cgroups(&host, &offered.unwrap_or_default())
}

fn judge_cgroups(host: &CgroupHost, offered: &str) -> Finding {
    const CHECK: &str = "cgroups";
    const REMEDY: &str = "boot with systemd.unified_cgroup_hierarchy=1";
    match host {
        CgroupHost::None => Finding::failed(
            CHECK,
            "no cgroup v2 tree is mounted below /sys/fs/cgroup",
            REMEDY,
        ),
        CgroupHost::Hybrid { .. } => Finding::warning(
            CHECK,
            "cgroup v1 controllers are mounted beside cgroup v2: pods have no limits, and newer kubelets do not start",
            REMEDY,
        ),
        CgroupHost::V2 { root } => {
            let offered: Vec<&str> = offered.split_whitespace().collect();
            let missing: Vec<&str> = CONTROLLERS
                .into_iter()
                .filter(|c| !offered.contains(c))
                .collect();
            match missing.is_empty() {
                true => Finding::ok(
                    CHECK,
                    format!("cgroup v2 at {root}, with {}", offered.join(", ")),
                ),
                false => Finding::failed(
                    CHECK,
                    format!(
                        "cgroup v2 at {root} lacks the controllers {}",
                        missing.join(", ")
                    ),
                    "take cgroup_disable= off the kernel's command line",
                ),
            }
        }
    }
}

/// What there is of AppArmor.
#[derive(Debug, Clone, Copy)]
struct AppArmor {
    /// `security.apparmor`.
    wanted: bool,
    /// The kernel has it switched on.
    in_kernel: bool,
    /// It can be seen what is loaded.
    visible: bool,
    /// `apparmor_parser` is there.
    parser: bool,
}

/// Blocking.
pub(super) fn apparmor(config: &Config) -> Finding {
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    judge_apparmor(AppArmor {
        wanted: config.security.apparmor,
        in_kernel: enabled.is_ok_and(|text| text.starts_with('Y')),
        visible: apparmor::loaded(&config.security).is_ok(),
        parser: Program::find("apparmor_parser", "apparmor").is_ok(),
    })
}

fn judge_apparmor(found: AppArmor) -> Finding {
    const CHECK: &str = "apparmor";
    match found {
        AppArmor { wanted: false, .. } => Finding::warning(
            CHECK,
            "security.apparmor is false: containers are not confined",
            "set it to true",
        ),
        AppArmor {
            in_kernel: false, ..
        } => Finding::warning(
            CHECK,
            "the kernel has no AppArmor, or it is switched off: containers are not confined",
            "boot with apparmor=1 security=apparmor",
        ),
        AppArmor { visible: false, .. } => Finding::failed(
            CHECK,
            "the kernel has AppArmor but does not show it here, so nothing can be confined",
            "mount -t securityfs securityfs /sys/kernel/security, or set security.apparmor to false",
        ),
        AppArmor { parser: false, .. } => Finding::failed(
            CHECK,
            "apparmor_parser is missing, so the profiles of pods and containers cannot be loaded",
            "apt install apparmor",
        ),
        AppArmor { .. } => Finding::ok(CHECK, "it is on, and profiles can be loaded"),
    }
}

/// Blocking.
pub(super) fn seccomp(config: &Config) -> Finding {
    const CHECK: &str = "seccomp";
    if !config.security.seccomp {
        let reason = "security.seccomp is false: containers may call anything of the kernel";
        return Finding::warning(CHECK, reason, "set it to true");
    }
    match node_facts(config) {
        Ok(_) => Finding::ok(CHECK, "the default profile can be used"),
        Err(error) => Finding::failed(
            CHECK,
            Chain(&error).to_string(),
            "apt install golang-github-containers-common, or name another file in security.seccomp_profile",
        ),
    }
}

/// Blocking.
pub(super) fn programs() -> Finding {
    let found = PROGRAMS.map(|(name, package)| (name, Program::find(name, package).is_ok()));
    judge_programs(&found)
}

fn judge_programs(found: &[(&'static str, bool)]) -> Finding {
    const CHECK: &str = "programs";
    let names = |there: bool| -> Vec<&str> {
        let some = found.iter().filter(|(_, is_there)| *is_there == there);
        some.map(|(name, _)| *name).collect()
    };
    let missing = names(false);
    if missing.is_empty() {
        return Finding::ok(CHECK, format!("{} are there", names(true).join(", ")));
    }
    let packages = PROGRAMS.iter().filter(|(name, _)| missing.contains(name));
    let packages: Vec<&str> = packages.map(|(_, package)| *package).collect();
    Finding::failed(
        CHECK,
        format!("{} cannot be found", missing.join(", ")),
        format!("apt install {}", packages.join(" ")),
    )
}

/// Whether LXC containers can be started; LXC is asked for its version.
pub(super) async fn lxc(doctor: &Doctor) -> Finding {
    const CHECK: &str = "lxc";
    let config = &doctor.config;
    let node = match find_node(config) {
        Ok(node) => node,
        Err(error) => return Finding::failed_by(CHECK, error.to_string()),
    };
    let options = match lxc_options(config, &doctor.paths) {
        Ok(options) => options,
        Err(error) => return Finding::failed_by(CHECK, Chain(&error).to_string()),
    };
    let lxc_path = &config.lxc_path;
    if !tokio::fs::try_exists(lxc_path).await.unwrap_or(false) {
        let reason = format!("{lxc_path} is not there");
        return Finding::warning(CHECK, reason, "systemctl start nexcage, which makes it");
    }
    let backend = LxcBackend::new(options, cgroup_tree(config, &node));
    match backend.check().await {
        Ok(()) => Finding::ok(CHECK, format!("containers can be started in {lxc_path}")),
        // It says what to do.
        Err(error) => Finding::failed_by(CHECK, Chain(&error).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::State;

    #[test]
    fn kinds_of_cgroups() {
        let v2 = CgroupHost::V2 {
            root: "/sys/fs/cgroup".into(),
        };
        assert_eq!(judge_cgroups(&v2, "cpu io memory pids\n").state, State::Ok);
        let lacking = judge_cgroups(&v2, "cpu pids\n");
        assert!(
            lacking.state == State::Failed && lacking.reason.contains("memory"),
            "{lacking:?}"
        );
        let hybrid = CgroupHost::Hybrid {
            root: "/sys/fs/cgroup/unified".into(),
            v1: Vec::new(),
        };
        assert_eq!(judge_cgroups(&hybrid, "").state, State::Warning);
        assert_eq!(judge_cgroups(&CgroupHost::None, "").state, State::Failed);
    }

    #[test]
    fn apparmor_that_does_not_confine() {
        let state = |wanted, in_kernel, visible, parser| {
            judge_apparmor(AppArmor {
                wanted,
                in_kernel,
                visible,
                parser,
            })
            .state
        };
        assert_eq!(state(true, true, true, true), State::Ok);
        assert_eq!(state(true, true, true, false), State::Failed);
        assert_eq!(state(true, true, false, true), State::Failed);
        assert_eq!(state(true, false, true, false), State::Warning);
        assert_eq!(state(false, true, true, true), State::Warning);
    }

    #[test]
    fn programs_that_are_missing_are_named_with_their_packages() {
        assert_eq!(
            judge_programs(&[("crun", true), ("conmon", true)]).state,
            State::Ok
        );
        let missing = judge_programs(&[("crun", false), ("conmon", true), ("lxc-start", false)]);
        assert_eq!(missing.reason, "crun, lxc-start cannot be found");
        assert_eq!(missing.remedy.as_deref(), Some("apt install crun lxc"));
    }

    #[test]
    fn what_is_switched_off_is_told() {
        let mut config = Config::default();
        config.security.seccomp = false;
        assert_eq!(seccomp(&config).state, State::Warning);
    }
}
