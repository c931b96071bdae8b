//! What a container sees: mounts, devices, volumes.

use super::*;

#[test]
fn paths_in_proc() {
    insta::assert_snapshot!(
        "proc_mount_unmasked",
        effect(|f| {
            f.config.security.masked_paths.clear();
            f.config.security.readonly_paths.clear();
        })
    );
}

#[test]
fn devices() {
    insta::assert_snapshot!(
        "devices",
        effect(|f| {
            f.devices = vec![
                device("/dev/loop3", DeviceKind::Block),
                device("/dev/fuse", DeviceKind::Char),
            ];
        })
    );
}

#[test]
fn mounts() {
    insta::assert_snapshot!(
        "mounts",
        effect(|f| {
            f.mount("/host/rw", "/data", |_| {});
            f.mount("/host/ro", "/ro", |m| m.readonly = true);
            f.mount("/host/rro", "/rro", |m| {
                m.readonly = true;
                m.recursive_read_only = true;
            });
            f.mount("/host/slave", "/slave", |m| {
                m.propagation = Propagation::HostToContainer;
            });
            f.mount("/host/flags", "/flags", |m| {
                m.options = MountFlag::ALL.to_vec();
            });
            f.mount("/images/x", "/image", |m| {
                m.readonly = true;
                m.source = MountSource::Image {
                    image: ImageSpec::default(),
                    sub_path: "a".into(),
                };
            });
            // These three take the place of the runtime's own.
            f.mount("/kubelet/hosts", "/etc/hosts", |_| {});
            f.mount("/kubelet/resolv", "/etc/resolv.conf", |_| {});
            f.mount("/kubelet/shm", "/dev/shm", |_| {});
        })
    );
    insta::assert_snapshot!(
        "mounts_bidirectional",
        effect(|f| {
            f.mount("/host/shared", "/shared", |m| {
                m.propagation = Propagation::Bidirectional;
            });
            f.mount("/host/slave", "/slave", |m| {
                m.propagation = Propagation::HostToContainer;
            });
        })
    );
    insta::assert_snapshot!(
        "mount_over_dev",
        effect(|f| f.mount("/dev", "/dev", |_| {}))
    );
    insta::assert_snapshot!(
        "image_volumes",
        effect(|f| {
            for path in ["/cache", "/data"] {
                let source = format!("/volumes{path}").into();
                f.image_volumes.push(ImageVolumeMount {
                    container_path: path.into(),
                    source,
                });
            }
            f.mount("/host/data", "/data", |_| {});
        })
    );
}

#[test]
fn no_mount_hides_another() {
    let mut fixture = plain();
    for path in ["/a/b/c", "/a", "/sys/fs/cgroup/x", "/a/b", "/proc/x", "/z"] {
        fixture.mount("/host", path, |_| {});
    }
    let spec = fixture.build().unwrap();
    let paths: Vec<&Utf8Path> = spec
        .mounts()
        .iter()
        .flatten()
        .map(|mount| Utf8Path::from_path(mount.destination()).unwrap())
        .collect();
    for (n, path) in paths.iter().enumerate() {
        let hidden = paths[..n].iter().find(|earlier| earlier.starts_with(path));
        assert_eq!(hidden, None, "by {path} in {paths:?}");
    }
}

#[test]
fn mounts_that_cannot_be() {
    let mut fixture = plain();
    fixture.node.seccomp_target.kernel = (5, 11);
    fixture.mount("/x", "/x", |m| {
        m.readonly = true;
        m.recursive_read_only = true;
    });
    assert_eq!(
        fixture.refused(),
        "config.mounts[0].recursive_read_only: needs Linux 5.12 or newer"
    );
    fixture.mount_sources.clear();
    assert!(
        fixture
            .refused()
            .contains("1 mounts were asked for, and 0 were looked up")
    );
}

#[test]
fn volumes_of_the_image() {
    let volumes = |json: &str| {
        let mut fixture = plain();
        fixture.mount("/x", "/mounted", |_| {});
        let image = image_config(&format!(r#"{{"Volumes": {{{json}}}}}"#));
        image_volumes(&fixture.config, Some(&image)).map_err(|e| e.to_string())
    };
    let got = volumes(r#""/b/": {}, "/a//b/.": {}, "c": {}, "/mounted": {}"#).unwrap();
    assert_eq!(got, ["/a/b", "/b", "/c"]);
    for bad in ["/", "", "../etc", "/a/../../b"] {
        let refused = volumes(&format!(r#""{bad}": {{}}"#)).unwrap_err();
        assert!(refused.contains("no directory"), "{bad}: {refused}");
    }
}
