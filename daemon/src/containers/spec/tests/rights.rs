//! What a container may do.

use super::*;

#[test]
fn rights() {
    insta::assert_snapshot!(
        "privileged",
        effect(|f| {
            f.config.security.privileged = true;
            f.config.security.seccomp = SeccompProfile::Localhost("/profile.json".into());
            f.config.security.apparmor = AppArmorProfile::Localhost("strict".into());
            f.config.security.capabilities.drop_all = true;
            f.node.no_new_privileges = true;
            f.node.read_only_rootfs = true;
            f.devices = vec![device("/dev/sda", DeviceKind::Block)];
        })
    );
    let capabilities =
        |change: CapabilityChanges| effect(|f| f.config.security.capabilities = change);
    insta::assert_snapshot!(
        "capabilities_add_and_drop",
        capabilities(CapabilityChanges {
            add: vec![Capability::NetAdmin, Capability::Chown],
            drop: vec![Capability::NetRaw, Capability::SysTime],
            ..CapabilityChanges::default()
        })
    );
    insta::assert_snapshot!(
        "capabilities_all_but_one",
        capabilities(CapabilityChanges {
            add_all: true,
            drop: vec![Capability::SysAdmin],
            ..CapabilityChanges::default()
        })
    );
    insta::assert_snapshot!(
        "capabilities_none_but_one",
        capabilities(CapabilityChanges {
            drop_all: true,
            add: vec![Capability::NetBindService],
            ..CapabilityChanges::default()
        })
    );
    insta::assert_snapshot!(
        "capabilities_ambient",
        capabilities(CapabilityChanges {
            drop_all: true,
            add_ambient: vec![Capability::NetBindService, Capability::SysTime],
            drop: vec![Capability::SysTime],
            ..CapabilityChanges::default()
        })
    );
    insta::assert_snapshot!(
        "user_and_read_only_root",
        effect(|f| {
            f.user = ResolvedUser {
                uid: 1000,
                gid: 50,
                additional_gids: vec![50, 1234],
                home: "/home/user".into(),
            };
            f.config.security.readonly_rootfs = true;
            f.config.security.no_new_privs = true;
        })
    );
    insta::assert_snapshot!(
        "settings_of_the_node",
        effect(|f| {
            f.node.no_new_privileges = true;
            f.node.read_only_rootfs = true;
            f.node.default_capabilities.push(Capability::SysPtrace);
            let limit = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile);
            f.node.rlimits = vec![limit.soft(1024_u64).hard(524_288_u64).build().unwrap()];
        })
    );
}

#[test]
fn capabilities_the_daemon_lacks() {
    let mut fixture = plain();
    fixture
        .node
        .available_capabilities
        .retain(|capability| *capability != Capability::Mknod);
    let json = json(&fixture.build().unwrap());
    assert!(!json["process"].to_string().contains("CAP_MKNOD"), "{json}");
    fixture.config.security.capabilities.add = vec![Capability::Mknod];
    assert_eq!(
        fixture.refused(),
        "config.linux.security_context.capabilities.add_capabilities: \
         the daemon itself does not have CAP_MKNOD"
    );
}

#[test]
fn host_namespaces() {
    insta::assert_snapshot!(
        "own_users",
        effect(|f| {
            f.sandbox.user = Some("/proc/42/ns/user".into());
            f.mount("/srv/data", "/data", |mount| {
                mount.mapping = Some(nexcage_sandbox::UserNamespace {
                    uids: Vec::new(),
                    gids: Vec::new(),
                });
            });
        })
    );
    insta::assert_snapshot!(
        "host_network",
        effect(|f| {
            f.sandbox.network = None;
            f.sandbox.uts = None;
            f.config.security.namespaces.host_network = true;
        })
    );
    insta::assert_snapshot!(
        "host_pid",
        effect(|f| {
            f.sandbox.pid = None;
            f.config.security.namespaces.pid = PidMode::Node;
        })
    );
    insta::assert_snapshot!(
        "host_ipc",
        effect(|f| {
            f.sandbox.ipc = None;
            f.sandbox.shm = "/dev/shm".into();
            f.config.security.namespaces.host_ipc = true;
        })
    );
    insta::assert_snapshot!(
        "shared_pid",
        effect(|f| {
            f.config.security.namespaces.pid = PidMode::Pod;
        })
    );
    insta::assert_snapshot!(
        "target_pid",
        effect(|f| {
            f.config.security.namespaces.pid = PidMode::Target("abc".into());
            f.target_pid = Some("/proc/815/ns/pid".into());
        })
    );
    // The pod's decision counts where a container says nothing.
    let implied = effect(|f| {
        f.sandbox.pid = None;
        f.config.security.namespaces.pid = PidMode::Pod;
    });
    assert_eq!(implied, r#"- .linux.namespaces[] {"type":"pid"}"#);
}

#[test]
fn host_namespaces_that_the_pod_was_not_given() {
    let at = "config.linux.security_context.namespace_options";
    for (name, change) in [
        (
            "network",
            (|n| n.host_network = true) as fn(&mut Namespaces),
        ),
        ("ipc", |n| n.host_ipc = true),
        ("pid", |n| n.pid = PidMode::Node),
    ] {
        let mut fixture = plain();
        change(&mut fixture.config.security.namespaces);
        let problem = "is NODE, but the pod sandbox has a namespace of its own";
        assert_eq!(fixture.refused(), format!("{at}.{name}: {problem}"));
    }
    let mut fixture = plain();
    fixture.config.security.namespaces.pid = PidMode::Target("abc".into());
    assert_eq!(
        fixture.refused(),
        format!(r#"{at}.target_id: container "abc" does not run in this pod"#)
    );
    let mut fixture = plain();
    fixture.sandbox.privileged = false;
    fixture.config.security.privileged = true;
    assert!(fixture.refused().contains("not made for privileged"));
}

#[test]
fn seccomp() {
    let with = |profile: SeccompProfile| {
        effect(|f| {
            f.config.security.seccomp = profile;
            f.localhost_seccomp = Some(seccomp_profile("chmod"));
        })
    };
    assert_eq!(with(SeccompProfile::Unconfined), "");
    insta::assert_snapshot!("seccomp_default", with(SeccompProfile::RuntimeDefault));
    let localhost = SeccompProfile::Localhost("/p.json".into());
    insta::assert_snapshot!("seccomp_localhost", with(localhost.clone()));
    // The filter is that of the capabilities which the container has in the end.
    let with_admin = effect(|f| {
        f.config.security.seccomp = SeccompProfile::RuntimeDefault;
        f.config.security.capabilities.add = vec![Capability::SysAdmin];
    });
    assert!(!with_admin.contains(r#""mount""#), "{with_admin}");
    let off = effect(|f| {
        f.node.default_seccomp = None;
        f.config.security.seccomp = SeccompProfile::RuntimeDefault;
    });
    assert_eq!(off, "");
    let mut unread = plain();
    unread.config.security.seccomp = localhost;
    assert!(unread.refused().contains("/p.json has not been read"));
}

#[test]
fn apparmor() {
    let on = || AppArmorFacts {
        default_profile: Some("nexcage-default".into()),
        loaded: BTreeSet::from(["nexcage-default".into(), "strict".into()]),
    };
    let profile = |facts: Option<AppArmorFacts>, wanted: AppArmorProfile| {
        let mut fixture = plain();
        fixture.node.apparmor = facts;
        fixture.config.security.apparmor = wanted;
        let spec = fixture.build().map_err(|e| e.to_string())?;
        let process = spec.process().as_ref().unwrap();
        Ok::<_, String>(process.apparmor_profile().clone().unwrap_or_default())
    };
    let localhost = |name: &str| AppArmorProfile::Localhost(name.into());
    for (wanted, name) in [
        (AppArmorProfile::Unset, "nexcage-default"),
        (AppArmorProfile::RuntimeDefault, "nexcage-default"),
        (AppArmorProfile::Unconfined, ""),
        (localhost("strict"), "strict"),
    ] {
        assert_eq!(
            profile(Some(on()), wanted.clone()).as_deref(),
            Ok(name),
            "{wanted:?}"
        );
    }
    let missing = profile(Some(on()), localhost("ghost")).unwrap_err();
    assert!(missing.contains(r#""ghost" is not loaded"#), "{missing}");
    for harmless in [AppArmorProfile::Unset, AppArmorProfile::Unconfined] {
        assert_eq!(profile(None, harmless).as_deref(), Ok(""));
    }
    for asks in [AppArmorProfile::RuntimeDefault, localhost("strict")] {
        assert!(profile(None, asks).unwrap_err().contains("AppArmor is off"));
    }
}
