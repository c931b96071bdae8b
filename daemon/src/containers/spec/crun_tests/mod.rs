//! The configurations, given to the real crun: they start, and do what they say.
//!
//! Cgroups are left alone, so that this runs anywhere; limits are shown by the system tests. `pod` is what a sandbox would give.

mod files;
mod pod;
mod rights;

use super::tests::Fixture;
use crate::containers::config::*;
use pod::{Pod, possible};

#[test]
fn a_plain_container_starts_in_its_pod() {
    if !possible() {
        return;
    }
    let pod = Pod::new();
    let got = pod.shell(
        "id; hostname; echo $HOME $HOSTNAME; pwd; cat /etc/resolv.conf /etc/hostname; \
         ls /sys/class/net; echo pid $$; grep -E 'CapBnd|CapEff|NoNewPrivs|Seccomp:' /proc/self/status; \
         touch /new /dev/shm/x && echo writable; touch /sys/x 2>&1; ls -d /dev/pts /dev/mqueue",
        |_| {},
    );
    let expected = [
        "uid=0(root) gid=0(root) groups=0(root)",
        "pod-1\n/root pod-1\n/\nnameserver 192.0.2.1\npod-1\nlo\npid 1",
        "NoNewPrivs:\t0",
        "Seccomp:\t0",
        "CapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb",
        "writable",
        "Read-only file system",
        "/dev/mqueue\n/dev/pts",
    ];
    for part in expected {
        assert!(got.contains(part), "{part:?} is missing:\n{got}");
    }
    assert!(pod.path("shm/x").exists());
    assert!(!got.contains("eth0"), "{got}");
}

#[test]
fn processes_of_others() {
    if !possible() {
        return;
    }
    let pod = Pod::new();
    let cmdline = "cat /proc/1/cmdline";
    let pid = |mode: PidMode| move |f: &mut Fixture| f.config.security.namespaces.pid = mode;
    assert!(pod.shell(cmdline, |_| {}).contains("/proc/1/cmdline"));
    assert!(pod.shell(cmdline, pid(PidMode::Pod)).contains("sleep"));
    let got = pod.shell(cmdline, |f| {
        pid(PidMode::Target("x".into()))(f);
        f.target_pid = Some(pod.namespace("pid"));
    });
    assert!(got.contains("sleep"), "{got}");
    let init = std::fs::read_to_string("/proc/1/cmdline").unwrap();
    let got = pod.shell(cmdline, |f| {
        pid(PidMode::Node)(f);
        f.sandbox.pid = None;
    });
    assert_eq!(got, init.trim_end());
    let got = pod.shell("hostname; ls /sys/class/net", |f| {
        f.sandbox.network = None;
        f.sandbox.uts = None;
        f.config.security.namespaces.host_network = true;
    });
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    assert!(got.starts_with(&host), "{got}");
}
