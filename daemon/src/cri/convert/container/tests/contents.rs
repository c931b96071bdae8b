//! Paths, environment, mounts, devices and limits.

use super::*;

#[test]
fn paths() {
    assert_eq!(
        field(with(|c| c.working_dir = "srv".into())),
        "config.working_dir"
    );
    assert_eq!(
        field(with(|c| c.working_dir = "/a/../b".into())),
        "config.working_dir"
    );
    for bad in ["/var/log/x", "../x", "a/../../x", ".", "a/", "a\0b"] {
        assert_eq!(
            field(with(|c| c.log_path = bad.into())),
            "config.log_path",
            "{bad:?}"
        );
    }
    for bad in ["", "relative", "/", "//", "/./", "/a/../b", "/a\0"] {
        let got = field(mounted(|m| m.container_path = bad.into()));
        assert_eq!(got, "config.mounts[0].container_path", "{bad:?}");
    }
    for bad in ["", "relative", "/a/../b"] {
        let got = field(mounted(|m| m.host_path = bad.into()));
        assert_eq!(got, "config.mounts[0].host_path", "{bad:?}");
    }
    let nul = with(|c| c.command = vec!["a".into(), "\0".into()]);
    assert_eq!(field(nul), "config.command[1]");
    assert_eq!(
        field(with(|c| c.args = vec!["\0".into()])),
        "config.args[0]"
    );
    let masked = secured(|s| s.masked_paths = vec!["proc".into()]);
    assert_eq!(
        field(masked),
        "config.linux.security_context.masked_paths[0]"
    );
}

#[test]
fn environment() {
    let env = |key: &str, value: &[u8]| {
        let variable = v1::KeyValue {
            key: key.into(),
            value: value.to_vec(),
        };
        with(|c| c.envs = vec![variable])
    };
    for bad in ["", "A=B", "\0"] {
        assert_eq!(field(env(bad, b"x")), "config.envs[0].key", "{bad:?}");
    }
    let nul = env("SECRET", b"pass\0word");
    assert!(!nul.as_ref().unwrap_err().to_string().contains("pass"));
    assert_eq!(field(nul), "config.envs[0].value");
}

#[test]
fn mounts() {
    let at = |name: &str| format!("config.mounts[0].{name}");
    let rro = |readonly: bool, propagation: v1::MountPropagation| {
        mounted(|m| {
            m.recursive_read_only = true;
            m.readonly = readonly;
            m.propagation = propagation.into();
        })
    };
    let private = v1::MountPropagation::PropagationPrivate;
    assert!(rro(true, private).is_ok());
    assert_eq!(field(rro(false, private)), at("recursive_read_only"));
    for shared in [
        v1::MountPropagation::PropagationHostToContainer,
        v1::MountPropagation::PropagationBidirectional,
    ] {
        assert_eq!(field(rro(true, shared)), at("recursive_read_only"));
    }
    assert_eq!(field(mounted(|m| m.propagation = 7)), at("propagation"));
    assert_eq!(
        field(mounted(|m| m.mount_options = vec!["dax".into()])),
        at("mount_options")
    );
    assert_eq!(
        field(mounted(|m| m.image_sub_path = "x".into())),
        at("image_sub_path")
    );
    let twice = with(|c| {
        let mount = |path: &str| v1::Mount {
            container_path: path.into(),
            host_path: "/x".into(),
            ..v1::Mount::default()
        };
        c.mounts = vec![mount("/a/b"), mount("/a//b/")];
    });
    assert_eq!(field(twice), "config.mounts[1].container_path");

    let of_image = |change: fn(&mut v1::Mount)| {
        mounted(|m| {
            (m.image, m.readonly) = (Some(image("x")), true);
            m.host_path.clear();
            change(m);
        })
    };
    assert!(of_image(|_| {}).is_ok());
    assert_eq!(field(of_image(|m| m.readonly = false)), at("readonly"));
    assert_eq!(
        field(of_image(|m| m.host_path = "/x".into())),
        at("host_path")
    );
    assert_eq!(field(of_image(|m| m.propagation = 2)), at("propagation"));
    assert_eq!(
        field(of_image(|m| m.image = Some(image("")))),
        at("image.image")
    );
    for bad in ["/a", "../a", "a/../.."] {
        let got = mounted(|m| {
            (m.image, m.readonly) = (Some(image("x")), true);
            m.host_path.clear();
            m.image_sub_path = bad.into();
        });
        assert_eq!(field(got), at("image_sub_path"), "{bad}");
    }
}

#[test]
fn devices() {
    let device = |change: fn(&mut v1::Device)| {
        let mut device = v1::Device {
            container_path: "/dev/a".into(),
            host_path: "/dev/b".into(),
            permissions: "r".into(),
        };
        change(&mut device);
        field(with(|c| c.devices = vec![device]))
    };
    assert_eq!(
        device(|d| d.permissions.clear()),
        "config.devices[0].permissions"
    );
    assert_eq!(
        device(|d| d.permissions = "rx".into()),
        "config.devices[0].permissions"
    );
    assert_eq!(
        device(|d| d.container_path = "a".into()),
        "config.devices[0].container_path"
    );
    assert_eq!(
        device(|d| d.host_path.clear()),
        "config.devices[0].host_path"
    );
}

#[test]
fn limits() {
    let at = |name: &str| format!("config.linux.resources.{name}");
    assert_eq!(limited(|_| {}).unwrap(), Resources::default());
    assert_eq!(field(limited(|l| l.cpu_period = -1)), at("cpu_period"));
    assert_eq!(field(limited(|l| l.cpu_shares = -1)), at("cpu_shares"));
    assert_eq!(field(limited(|l| l.cpu_quota = -2)), at("cpu_quota"));
    assert_eq!(
        field(limited(|l| l.memory_limit_in_bytes = i64::MIN)),
        at("memory_limit_in_bytes")
    );
    for adj in [-1001, 1001, i64::MAX] {
        assert_eq!(
            field(limited(|l| l.oom_score_adj = adj)),
            at("oom_score_adj")
        );
    }
    let swap = |memory, swap| {
        limited(|l| {
            l.memory_limit_in_bytes = memory;
            l.memory_swap_limit_in_bytes = swap;
        })
    };
    assert!(swap(10, 10).is_ok() && swap(10, -1).is_ok() && swap(0, 10).is_ok());
    assert_eq!(field(swap(10, 9)), at("memory_swap_limit_in_bytes"));
    assert_eq!(field(swap(-1, 9)), at("memory_swap_limit_in_bytes"));
    assert_eq!(
        field(limited(|l| l.cpuset_cpus = "all".into())),
        at("cpuset_cpus")
    );
    assert_eq!(
        field(limited(|l| l.cpuset_mems = "0\n".into())),
        at("cpuset_mems")
    );
    for bad in ["", "memory", "../memory.max", "memory.max/x", ".x"] {
        let unified = HashMap::from([(bad.to_owned(), "1".to_owned())]);
        assert_eq!(
            field(limited(|l| l.unified = unified)),
            at("unified"),
            "{bad:?}"
        );
    }
    for bad in ["", "2", "MB", "2mb", "2MiB", "é"] {
        let limit = v1::HugepageLimit {
            page_size: bad.into(),
            limit: 1,
        };
        let got = field(limited(|l| l.hugepage_limits = vec![limit]));
        assert_eq!(got, at("hugepage_limits[0].page_size"), "{bad:?}");
    }
}
