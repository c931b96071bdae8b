//! Users, rights and namespaces.

use super::*;

#[test]
fn user_namespaces() {
    let range = |host_id| {
        vec![v1::IdMapping {
            container_id: 0,
            host_id,
            length: 65536,
        }]
    };
    let pod = |uids, gids| {
        secured(|s| {
            s.namespace_options = Some(v1::NamespaceOption {
                userns_options: Some(v1::UserNamespace {
                    mode: mode(v1::NamespaceMode::Pod),
                    uids,
                    gids,
                }),
                ..Default::default()
            });
        })
        .map(|s| s.namespaces)
    };
    let asked = pod(range(100_000), range(100_000)).unwrap();
    assert_eq!(asked.user.unwrap().root(), 100_000);
    let at = |name: &str| {
        format!("config.linux.security_context.namespace_options.userns_options.{name}")
    };
    assert_eq!(field(pod(Vec::new(), Vec::new())), at("uids"));
    assert_eq!(field(pod(range(1), range(2))), at("gids"));
    assert_eq!(field(pod(range(u32::MAX), range(1))), at("uids"));

    let mapped = |uids, gids| {
        mounted(|m| {
            m.uid_mappings = uids;
            m.gid_mappings = gids;
        })
    };
    let mount = mapped(range(7), range(7)).unwrap();
    assert_eq!(mount.mapping.as_ref().unwrap().root(), 7);
    assert_eq!(
        field(mapped(range(7), Vec::new())),
        "config.mounts[0].gidMappings"
    );
    let two = [range(1), range(2)].concat();
    assert_eq!(field(mapped(two, range(1))), "config.mounts[0].uidMappings");
}

#[test]
fn users() {
    let at = |name: &str| format!("config.linux.security_context.{name}");
    let number = |value| Some(v1::Int64Value { value });
    assert_eq!(
        field(secured(|s| s.run_as_group = number(5))),
        at("run_as_group")
    );
    let by_name = secured(|s| {
        s.run_as_username = "nobody".into();
        s.run_as_group = number(5);
    });
    let expected = RunAs {
        user: RunAsUser::Name("nobody".into()),
        group: Some(5),
    };
    assert_eq!(by_name.unwrap().run_as, Some(expected));
    let both = secured(|s| {
        s.run_as_username = "nobody".into();
        s.run_as_user = number(5);
    });
    assert_eq!(field(both), at("run_as_username"));
    for bad in [-1, i64::from(u32::MAX), i64::MAX] {
        assert_eq!(
            field(secured(|s| s.run_as_user = number(bad))),
            at("run_as_user")
        );
        let groups = secured(|s| s.supplemental_groups = vec![0, bad]);
        assert_eq!(field(groups), at("supplemental_groups[1]"));
    }
    let policy = secured(|s| s.supplemental_groups_policy = 9);
    assert_eq!(field(policy), at("supplemental_groups_policy"));
}

#[test]
fn capabilities() {
    let changes = |add: &[&str], ambient: &[&str]| {
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        secured(|s| {
            s.capabilities = Some(v1::Capability {
                add_capabilities: list(add),
                add_ambient_capabilities: list(ambient),
                drop_capabilities: Vec::new(),
            });
        })
    };
    let all = changes(&["all", "CHOWN"], &[]).unwrap().capabilities;
    assert!(all.add_all && all.add.len() == 1, "{all:?}");
    let at = "config.linux.security_context.capabilities";
    assert_eq!(
        field(changes(&["NET_ADMINN"], &[])),
        format!("{at}.add_capabilities")
    );
    assert_eq!(
        field(changes(&[], &["ALL"])),
        format!("{at}.add_ambient_capabilities")
    );
}

#[test]
fn namespaces() {
    let options = |change: fn(&mut v1::NamespaceOption)| {
        let mut options = v1::NamespaceOption::default();
        change(&mut options);
        secured(|s| s.namespace_options = Some(options)).map(|s| s.namespaces)
    };
    let at = |name: &str| format!("config.linux.security_context.namespace_options.{name}");
    assert_eq!(options(|o| o.pid = 1).unwrap().pid, PidMode::Container);
    assert_eq!(options(|o| o.pid = 2).unwrap().pid, PidMode::Node);
    assert_eq!(field(options(|o| o.pid = 3)), at("target_id"));
    assert_eq!(
        field(options(|o| o.target_id = "x".into())),
        at("target_id")
    );
    assert_eq!(field(options(|o| o.pid = 4)), at("pid"));
    assert_eq!(field(options(|o| o.network = 1)), at("network"));
    assert_eq!(field(options(|o| o.ipc = 3)), at("ipc"));
    let mapped_node = options(|o| {
        o.userns_options = Some(v1::UserNamespace {
            mode: mode(v1::NamespaceMode::Node),
            uids: vec![v1::IdMapping::default()],
            gids: Vec::new(),
        });
    });
    assert_eq!(field(mapped_node), at("userns_options.uids"));
    let of_target = options(|o| {
        let mode = mode(v1::NamespaceMode::Target);
        o.userns_options = Some(v1::UserNamespace {
            mode,
            ..v1::UserNamespace::default()
        });
    });
    assert_eq!(field(of_target), at("userns_options.mode"));
}

#[test]
#[allow(deprecated, reason = "the old fields are what is tested")]
fn profiles_old_and_new() {
    let message = |profile_type, localhost_ref: &str| {
        Some(v1::SecurityProfile {
            profile_type,
            localhost_ref: localhost_ref.into(),
        })
    };
    let seccomp = |text: &str| secured(|s| s.seccomp_profile_path = text.into()).map(|s| s.seccomp);
    assert_eq!(
        seccomp("runtime/default").unwrap(),
        SeccompProfile::RuntimeDefault
    );
    assert_eq!(seccomp("unconfined").unwrap(), SeccompProfile::Unconfined);
    for path in ["localhost/a/b.json", "localhost//a/b.json"] {
        assert_eq!(
            seccomp(path).unwrap(),
            SeccompProfile::Localhost("/a/b.json".into())
        );
    }
    let at = "config.linux.security_context";
    assert_eq!(
        field(seccomp("a.json")),
        format!("{at}.seccomp_profile_path")
    );

    let apparmor = |text: &str| secured(|s| s.apparmor_profile = text.into()).map(|s| s.apparmor);
    assert_eq!(
        apparmor("runtime/default").unwrap(),
        AppArmorProfile::RuntimeDefault
    );
    assert_eq!(apparmor("unconfined").unwrap(), AppArmorProfile::Unconfined);
    assert_eq!(
        apparmor("localhost/x").unwrap(),
        AppArmorProfile::Localhost("x".into())
    );
    assert_eq!(
        field(apparmor("localhost/")),
        format!("{at}.apparmor_profile")
    );
    assert_eq!(field(apparmor("x")), format!("{at}.apparmor_profile"));

    // The message comes before the old field; an empty one is the default, a missing one is not.
    let both = secured(|s| {
        s.seccomp = message(0, "");
        s.seccomp_profile_path = "unconfined".into();
        s.apparmor = message(2, "new");
        s.apparmor_profile = "localhost/old".into();
    });
    let both = both.unwrap();
    assert_eq!(both.seccomp, SeccompProfile::RuntimeDefault);
    assert_eq!(both.apparmor, AppArmorProfile::Localhost("new".into()));

    let reference = format!("{at}.seccomp.localhost_ref");
    for (kind, path) in [(2, ""), (0, "/a"), (1, "/a"), (2, "a.json"), (2, "/a/../b")] {
        assert_eq!(
            field(secured(|s| s.seccomp = message(kind, path))),
            reference,
            "{path}"
        );
    }
    let unknown = secured(|s| s.apparmor = message(3, ""));
    assert_eq!(field(unknown), format!("{at}.apparmor.profile_type"));
}
