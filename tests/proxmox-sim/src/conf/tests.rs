use proptest::prelude::*;

use super::*;

fn rewritten(text: &str) -> (String, Vec<String>) {
    let (conf, warnings) = Conf::read(100, text);
    (conf.write(), warnings)
}

#[test]
fn a_rewrite_sorts_and_drops() {
    let (text, warnings) = rewritten(
        "#nexcage pod default/web%3A1\n\
         unprivileged: yes\n\
         swap: 0\n\
         lxc.init.cmd = /catatonit -P\n\
         nexcage_uid: 0b6e\n\
         nexcage-uid: 0b6e\n\
         rootfs: /usr/lib/nexcage/sandbox,ro=1,idmap=passthrough\n\
         lxc.include:/run/nexcage/x/lxc.conf\n\
         arch: amd64\n\
         memory: 0128\n\
         \n\
         lxc.hook.start-host: /bin/true\n\
         lxc.rootfs.path: /\n\
         lxc.cgroup.dir.container: x\n\
         lxc.environment.runtime: A=b\n\
         hostname: pod_1\n\
         ostype: unmanaged\n\
         tags: k8s;nexcage\n",
    );
    insta::assert_snapshot!(text, @r"
    #nexcage pod default/web%3A1
    arch: amd64
    hostname: pod_1
    memory: 128
    ostype: unmanaged
    rootfs: /usr/lib/nexcage/sandbox,ro=1,idmap=passthrough
    swap: 0
    tags: k8s;nexcage
    unprivileged: 1
    lxc.environment.runtime: A=b
    lxc.init.cmd: /catatonit -P
    lxc.include: /run/nexcage/x/lxc.conf
    lxc.cgroup.dir.container: x
    ");
    insta::assert_snapshot!(warnings.join("\n"), @r"
    vm 100 - unable to parse config: nexcage_uid: 0b6e
    vm 100 - unable to parse config: nexcage-uid: 0b6e
    vm 100 - unable to parse config: lxc.hook.start-host: /bin/true
    vm 100 - lxc.rootfs.path: lxc.rootfs.path is auto generated from rootfs
    vm 100 - lxc.cgroup.dir.container is deprecated, this will be a hard error in the future!
    vm 100 - unable to parse value of 'hostname' - value does not look like a valid DNS name
    ");
}

#[test]
fn pending_changes_and_snapshots_stay() {
    let text = "arch: amd64\n\
                cores: 2\n\
                \n\
                [pve:pending]\n\
                delete: net0,mp0\n\
                hostname: other\n\
                lxc.init.cmd: /x\n\
                \n\
                [before]\n\
                #taken at night\n\
                arch: amd64\n";
    let (conf, warnings) = Conf::read(100, text);
    assert_eq!(warnings, [""; 0]);
    assert_eq!(conf.delete, ["net0", "mp0"]);
    assert_eq!(conf.pending.get("hostname"), Some("other"));
    assert_eq!(conf.snapshots["before"].description, "taken at night\n");
    assert_eq!(conf.write(), text);
}

#[test]
fn a_description_is_one_comment_for_each_line() {
    let (conf, _) = Conf::read(100, "#one%0Atwo\n#three\n");
    assert_eq!(conf.current.description, "one\ntwo\nthree\n");
    assert_eq!(conf.write(), "#one\n#two\n#three\n");
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,6}[0-9]{0,2}: .{0,10}",
        "(memory|swap|cores|onboot|hostname|tags|rootfs|arch): .{0,12}",
        "lxc\\.[a-z.]{1,12} ?[:=] ?.{0,8}",
        "lxc\\.(include|init\\.cmd|environment\\.runtime)[:=].{0,8}",
        "#.{0,12}",
        "\\[[a-z:]{1,12}\\]",
        ".{0,12}",
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_and_written_the_same(lines in proptest::collection::vec(line(), 0..12)) {
        let (once, _) = rewritten(&lines.join("\n"));
        let (twice, warnings) = rewritten(&once);
        prop_assert_eq!(&once, &twice);
        // Whatever was dropped stays so.
        prop_assert!(warnings.iter().all(|w| w.contains("unable to parse value") || w.contains("deprecated")), "{:?}", warnings);
    }
}
