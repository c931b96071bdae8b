//! Mounts and devices.

use super::super::*;
use super::pod::{Pod, Tmpfs, possible};
use crate::containers::config::*;
use crate::containers::devices;

#[test]
fn what_is_mounted() {
    if !possible() {
        return;
    }
    let pod = Pod::new();
    for dir in ["rw", "ro/below", "volume", "nodev"] {
        std::fs::create_dir_all(pod.path("host").join(dir)).unwrap();
    }
    std::fs::write(pod.path("host/hosts"), "from kubelet\n").unwrap();
    let host = |name: &str| pod.path("host").join(name).into_string();
    // A mount below the read-only one, which only a recursive one covers.
    let _below = Tmpfs::mount(pod.path("host/ro/below"));
    let got = pod.shell(
        "cat /etc/hosts; touch /deep/er/rw/x && echo rw; touch /ro/x 2>&1; \
         touch /ro/below/x && echo below; touch /rro/below/y 2>&1; grep ' /flags ' /proc/mounts; \
         touch /volume/v && echo volume; pwd",
        |f| {
            f.mount(&host("hosts"), "/etc/hosts", |m| m.readonly = true);
            f.mount(&host("rw"), "/deep/er/rw", |_| {});
            f.mount(&host("ro"), "/ro", |m| m.readonly = true);
            f.mount(&host("ro"), "/rro", |m| {
                m.readonly = true;
                m.recursive_read_only = true;
            });
            f.mount(&host("nodev"), "/flags", |m| {
                m.options = MountFlag::ALL.to_vec();
            });
            let source = pod.path("host/volume");
            f.image_volumes.push(ImageVolumeMount {
                container_path: "/volume".into(),
                source,
            });
            f.config.working_dir = "/made/by/crun".into();
        },
    );
    for part in [
        "from kubelet\nrw\n",
        "touch: /ro/x: Read-only file system\nbelow\n",
        "touch: /rro/below/y: Read-only file system\n",
        "nosuid,nodev,noexec",
        "volume\n/made/by/crun",
    ] {
        assert!(got.contains(part), "{part:?} is missing:\n{got}");
    }
    assert!(pod.path("host/rw/x").exists() && pod.path("host/volume/v").exists());
}

/// What is mounted in a container reaches the host where it was asked for, and only there.
#[test]
fn mounts_propagate() {
    if !possible() {
        return;
    }
    let pod = Pod::new();
    let shared = pod.path("shared");
    std::fs::create_dir(&shared).unwrap();
    let _shared = Tmpfs::mount(shared.clone());
    let propagation = rustix::mount::MountPropagationFlags::SHARED;
    rustix::mount::mount_change(shared.as_str(), propagation).unwrap();
    for propagation in [
        Propagation::Private,
        Propagation::HostToContainer,
        Propagation::Bidirectional,
    ] {
        std::fs::create_dir_all(shared.join("inner")).unwrap();
        let script = "mount -t tmpfs t /vol/inner && touch /vol/inner/x";
        pod.shell(script, |f| {
            f.config.security.privileged = true;
            f.mount(shared.as_str(), "/vol", |m| m.propagation = propagation);
        });
        let seen = shared.join("inner/x").exists();
        assert_eq!(
            seen,
            propagation == Propagation::Bidirectional,
            "{propagation:?}"
        );
    }
}

#[test]
fn devices_appear() {
    if !possible() {
        return;
    }
    let pod = Pod::new();
    let got = pod.shell("stat -c '%n %F %t %T %a' /dev/mine/zero; ls /dev", |f| {
        f.config.devices.push(Device {
            container_path: "/dev/mine/zero".into(),
            host_path: "/dev/zero".into(),
            permissions: "rw".into(),
        });
        f.devices = devices::resolve(&f.config).unwrap();
    });
    assert!(
        got.starts_with("/dev/mine/zero character special file 1 5 666"),
        "{got}"
    );
    assert!(!got.contains("kmsg"), "{got}");
}
