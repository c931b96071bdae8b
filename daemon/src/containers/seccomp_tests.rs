//! Profiles that resolve, and texts that are none.

use proptest::prelude::*;

use super::*;

const TARGET: Target = Target {
    arch: Arch::ScmpArchX86_64,
    kernel: (6, 12),
};

fn parse(json: &str) -> Result<Profile, ParseError> {
    Profile::parse(json.as_bytes())
}

/// `action: names` of each rule that is left.
fn rules(profile: &Profile, target: Target, caps: &[Capability]) -> Vec<String> {
    let filter = profile.resolve(target, caps).unwrap();
    let calls = filter.syscalls().clone().unwrap_or_default();
    calls
        .iter()
        .map(|c| format!("{}: {}", c.action(), c.names().join(" ")))
        .collect()
}

#[test]
fn debians_default_resolves() {
    let profile = load(DEFAULT_PATH.into()).unwrap();
    let filter = profile.resolve(TARGET, &[Capability::SysChroot]).unwrap();
    assert_eq!(filter.default_errno_ret(), Some(38));
    let architectures = [Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32];
    assert_eq!(
        filter.architectures().as_deref(),
        Some(architectures.as_slice())
    );
    let rules = rules(&profile, TARGET, &[Capability::SysChroot]);
    // Allowed by the capability; not also refused for want of it.
    assert!(
        rules.contains(&"SCMP_ACT_ALLOW: chroot".to_owned()),
        "{rules:#?}"
    );
    assert!(
        !rules.contains(&"SCMP_ACT_ERRNO: chroot".to_owned()),
        "{rules:#?}"
    );
    assert!(
        rules.contains(&"SCMP_ACT_ALLOW: arch_prctl".to_owned()),
        "{rules:#?}"
    );
    assert!(
        rules.contains(&"SCMP_ACT_ALLOW: modify_ldt".to_owned()),
        "{rules:#?}"
    );
    assert!(
        !rules.iter().any(|r| r.contains("s390_pci_mmio_read")),
        "{rules:#?}"
    );
}

/// Every kind of condition, in the form of Debian's file.
const CONDITIONAL: &str = r#"{
    "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "defaultErrno": "ENOSYS",
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": null}
    ],
    "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": [], "comment": "",
         "includes": {}, "excludes": {}},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "EPERM",
         "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["both"], "action": "SCMP_ACT_ALLOW",
         "includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}},
        {"names": ["arm_call"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm", "arm64"]}},
        {"names": ["not_on_arm"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["arm64"]}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["old"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "4.8"}},
        {"name": "socket", "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 16, "valueTwo": 0, "op": "SCMP_CMP_NE"}]}
    ]
}"#;

#[test]
fn conditions_pick_the_rules() {
    let profile = parse(CONDITIONAL).unwrap();
    insta::assert_debug_snapshot!(rules(&profile, TARGET, &[]), @r#"
    [
        "SCMP_ACT_ALLOW: read write",
        "SCMP_ACT_ERRNO: mount",
        "SCMP_ACT_ALLOW: not_on_arm",
        "SCMP_ACT_ALLOW: ptrace",
        "SCMP_ACT_ALLOW: socket",
    ]
    "#);
    let arm = Target {
        arch: Arch::ScmpArchAarch64,
        kernel: (4, 7),
    };
    let caps = [Capability::SysAdmin, Capability::Bpf];
    insta::assert_debug_snapshot!(rules(&profile, arm, &caps), @r#"
    [
        "SCMP_ACT_ALLOW: read write",
        "SCMP_ACT_ALLOW: mount",
        "SCMP_ACT_ALLOW: both",
        "SCMP_ACT_ALLOW: arm_call",
        "SCMP_ACT_ALLOW: old",
        "SCMP_ACT_ALLOW: socket",
    ]
    "#);
}

#[test]
fn the_filter_is_complete() {
    let filter = parse(CONDITIONAL).unwrap().resolve(TARGET, &[]).unwrap();
    insta::assert_json_snapshot!(filter);
}

#[test]
fn an_oci_filter_passes_through() {
    let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_AARCH64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}]}"#;
    insta::assert_json_snapshot!(parse(text).unwrap().resolve(TARGET, &[]).unwrap(), @r#"
    {
      "defaultAction": "SCMP_ACT_ALLOW",
      "architectures": [
        "SCMP_ARCH_AARCH64"
      ],
      "flags": [
        "SECCOMP_FILTER_FLAG_LOG"
      ],
      "syscalls": [
        {
          "names": [
            "sethostname"
          ],
          "action": "SCMP_ACT_ERRNO"
        }
      ]
    }
    "#);
}

#[test]
fn what_is_wrong_is_named() {
    let problem = |json: &str| {
        let e = parse(json).unwrap_err();
        let source = std::error::Error::source(&e)
            .map(ToString::to_string)
            .unwrap_or_default();
        format!("{e}: {source}")
    };
    for (json, part) in [
        ("", "EOF"),
        ("{}", "defaultAction"),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscals": []}"#,
            "syscals",
        ),
        (r#"{"defaultAction": "ALLOW"}"#, "defaultAction"),
        (r#"{"defaultAction": "SCMP_ACT_ALLOW"} x"#, "end of file"),
        (
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "EPERM"}"#,
            "defaultErrnoRet",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ALLOW"}]}"#,
            "syscalls[0].names",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"],
            "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_NOPE"]}}]}"#,
            "syscalls[0].includes.caps[0]",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"],
            "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#,
            "syscalls[0].args",
        ),
    ] {
        let got = problem(json);
        assert!(got.contains(part), "{json}: {got}");
    }
}

#[test]
fn a_missing_default_names_the_package() {
    let e = SeccompError::NotFound {
        path: DEFAULT_PATH.into(),
    };
    assert!(
        e.to_string()
            .contains("apt install golang-github-containers-common"),
        "{e}"
    );
    let e = load("/no/such/profile.json".into()).unwrap_err();
    assert!(matches!(&e, SeccompError::NotFound { .. }), "{e}");
    assert!(!e.to_string().contains("apt"), "{e}");
    assert!(matches!(
        load("/etc".into()),
        Err(SeccompError::NotAProfile { .. })
    ));
}

#[test]
fn kernel_releases() {
    assert_eq!(kernel_version("6.12.48+deb13-amd64"), Some((6, 12)));
    assert_eq!(kernel_version("4.8"), Some((4, 8)));
    assert_eq!(kernel_version("x"), None);
}

proptest! {
    #[test]
    fn no_text_panics(text in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Profile::parse(&text);
    }

    #[test]
    fn no_mutilated_profile_panics(at in 0..CONDITIONAL.len(), byte in any::<u8>()) {
        let mut text = CONDITIONAL.as_bytes().to_vec();
        text[at] = byte;
        if let Ok(profile) = Profile::parse(&text) {
            let _ = profile.resolve(TARGET, &[]);
        }
    }
}
