//! Who a process is, and what it may do.

use oci_spec::runtime::Capability;

use super::super::tests::{Fixture, seccomp_profile};
use super::pod::{Pod, possible};
use crate::containers::config::*;
use crate::containers::{devices, users};

#[test]
fn users_and_rights() {
    if !possible() {
        return;
    }
    let pod = Pod::new();
    let as_user = |fixture: &mut Fixture| {
        let user = RunAs {
            user: RunAsUser::Name("user".into()),
            group: None,
        };
        fixture.config.security.run_as = Some(user);
        fixture.config.security.supplemental_groups = vec![1234];
        let rootfs = fixture.rootfs.clone();
        fixture.user = users::resolve(&rootfs, "", &fixture.config.security).unwrap();
    };
    let got = pod.shell("id -u; id -g; id -G; echo $HOME", as_user);
    assert_eq!(got, "1000\n1000\n1000 1234 50000\n/home/user");

    let caps = "grep -E 'CapEff|CapAmb' /proc/self/status";
    assert!(
        pod.shell(caps, as_user)
            .contains("CapEff:\t0000000000000000")
    );
    let got = pod.shell(caps, |f| {
        as_user(f);
        f.config.security.capabilities.add_ambient = vec![Capability::NetBindService];
    });
    assert_eq!(got, "CapEff:\t0000000000000400\nCapAmb:\t0000000000000400");
    let none = CapabilityChanges {
        drop_all: true,
        ..CapabilityChanges::default()
    };
    let got = pod.shell("grep CapBnd /proc/self/status", |f| {
        f.config.security.capabilities = none;
    });
    assert_eq!(got, "CapBnd:\t0000000000000000");
    let all = CapabilityChanges {
        add_all: true,
        ..CapabilityChanges::default()
    };
    let got = pod.shell("cat /proc/self/status", |f| {
        f.config.security.capabilities = all;
    });
    let mine = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounding = |text: &str| {
        text.lines()
            .find(|l| l.starts_with("CapBnd"))
            .unwrap()
            .to_owned()
    };
    assert_eq!(bounding(&got), bounding(&mine));

    let got = pod.shell(
        "grep NoNewPrivs /proc/self/status; touch /x 2>&1 || true",
        |f| {
            f.config.security.no_new_privs = true;
            f.config.security.readonly_rootfs = true;
        },
    );
    assert_eq!(got, "NoNewPrivs:\t1\ntouch: /x: Read-only file system");
}

#[test]
fn privileged_containers_can_do_everything() {
    if !possible() {
        return;
    }
    let pod = Pod::new();
    let script = "brctl addbr foobar && touch /sys/x 2>&1; mount -t tmpfs t /tmp && echo mounted; \
        ls /dev/null /dev/ptmx /dev/full; grep Seccomp: /proc/self/status; cat /proc/uptime";
    let got = pod.shell(script, |f| {
        f.config.security.privileged = true;
        f.config.security.seccomp = SeccompProfile::RuntimeDefault;
        f.config.security.masked_paths = vec!["/proc/uptime".into()];
        f.devices = devices::resolve(&f.config).unwrap();
    });
    assert!(
        got.contains("mounted") && got.contains("Seccomp:\t0"),
        "{got}"
    );
    assert!(!got.contains("Read-only"), "{got}");
    let (ok, got) = pod.run(&pod.container("brctl addbr foobaz"));
    assert!(!ok && got.contains("ermitted"), "{got}");
}

#[test]
fn filters_and_hidden_paths() {
    if !possible() {
        return;
    }
    let pod = Pod::new();
    let seccomp = "grep Seccomp: /proc/self/status; chmod 400 /tmp 2>&1; echo $?";
    let got = pod.shell(seccomp, |f| {
        let default =
            crate::containers::seccomp::load(crate::containers::seccomp::DEFAULT_PATH.into());
        f.node.default_seccomp = Some(default.unwrap());
        f.config.security.seccomp = SeccompProfile::RuntimeDefault;
    });
    assert_eq!(got, "Seccomp:\t2\n0");
    let got = pod.shell(seccomp, |f| {
        f.localhost_seccomp = Some(seccomp_profile("chmod"));
        f.config.security.seccomp = SeccompProfile::Localhost("/p.json".into());
    });
    assert_eq!(got, "Seccomp:\t2\nchmod: /tmp: Operation not permitted\n1");
    let got = pod.shell("/bin/ls 2>&1; touch /tmp/test 2>&1; true", |f| {
        f.config.security.masked_paths = vec!["/bin/ls".into()];
        f.config.security.readonly_paths = vec!["/tmp".into()];
    });
    assert!(got.contains("Permission denied"), "{got}");
    assert!(
        got.contains("touch: /tmp/test: Read-only file system"),
        "{got}"
    );
}
