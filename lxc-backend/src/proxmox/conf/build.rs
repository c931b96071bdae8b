//! The configuration of a pod's container. See pct.conf(5).

use std::fmt::Write as _;

use camino::Utf8Path;
use nexcage_sandbox::{INIT, IdMapping, NamespaceMode, PodResources, SandboxSpec, cpu_weight};

use super::grammar::encode;
use crate::proxmox::node::NodeSize;

/// Proxmox's own mapping of an unprivileged container, if its configuration has none.
const USUAL_IDS: IdMapping = IdMapping {
    container_id: 0,
    host_id: 100_000,
    length: 65_536,
};

/// What Proxmox takes: MiB of memory at least, and CPUs at most.
const LEAST_MEMORY_MIB: u64 = 16;
const MOST_CPUS: u64 = 8192;

/// Length of a host name.
const HOSTNAME_MAX: usize = 63;

/// CFS period when only a quota is given, in microseconds.
const DEFAULT_PERIOD_US: u64 = 100_000;

/// What a container's configuration depends on beside the pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    /// The tree that all sandboxes share.
    pub(crate) rootfs: &'a Utf8Path,
    /// Whether Proxmox can show the tree's files to the container as they are on disk, and not as nobody's.
    pub(crate) idmapped_rootfs: bool,
    /// User and group ids where the spec names none.
    pub(crate) ids: IdMapping,
    /// The node's size.
    pub(crate) node: NodeSize,
    /// The LXC configuration that is put behind what Proxmox generates.
    pub(crate) include: &'a Utf8Path,
}

/// The whole file, keys in Proxmox's own order. Pure. With `locked` Proxmox does nothing with the container yet.
pub(crate) fn build(spec: &SandboxSpec, setting: &Setting<'_>, locked: bool) -> String {
    let mut keys = limits(&spec.resources, setting.node);
    let mut set = |key, value: &str| keys.push((key, Some(value.to_owned())));
    set("arch", architecture());
    set("hostname", shown_name(spec));
    if locked {
        set("lock", "create");
    }
    // Proxmox changes nothing inside.
    set("ostype", "unmanaged");
    // Neither destroyed nor given disks by a click.
    set("protection", "1");
    set("rootfs", &rootfs(setting));
    set("tags", &tags(&spec.namespace));
    set("unprivileged", "1");
    keys.sort_unstable_by_key(|(key, _)| *key);

    let mut text = description(spec);
    let mut line = |key: &str, value: &str| {
        // A line break in a value would be another key: it becomes a space.
        let line = format!("{key}: {}", value.replace(['\n', '\r'], " "));
        let _ = writeln!(text, "{}", line.trim_end());
    };
    for (key, value) in &keys {
        if let Some(value) = value {
            line(key, value);
        }
    }
    line("lxc.init.cmd", &format!("{INIT} -P"));
    // catatonit ends on it; LXC's default is SIGPWR.
    line("lxc.signal.halt", "SIGTERM");
    // Without it Proxmox pins a container with `cores` to as many CPUs, and so the pod: against kubelet's CPU manager.
    line("lxc.cgroup2.cpuset.cpus", "");
    for (kind, ids) in mappings(spec, setting.ids) {
        for m in ids {
            let range = format!("{kind} {} {} {}", m.container_id, m.host_id, m.length);
            line("lxc.idmap", &range);
        }
    }
    line("lxc.include", setting.include.as_str());
    text
}

/// The keys that follow from a pod's limits; `None` where there is no limit. Pure.
pub(crate) fn limits(
    resources: &PodResources,
    node: NodeSize,
) -> Vec<(&'static str, Option<String>)> {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    // Without the key Proxmox takes, and shows, 512 MiB.
    let memory = match resources.memory_bytes {
        Some(bytes) => mib(bytes).max(LEAST_MEMORY_MIB),
        None => node.memory_mib,
    };
    let swap = resources.swap_bytes.map_or(node.swap_mib, mib);
    let cpus = cpu_limit(resources);
    vec![
        ("memory", Some(memory.to_string())),
        ("swap", Some(swap.to_string())),
        ("cores", cpus.map(|cpus| cpus.div_ceil(PARTS).to_string())),
        ("cpulimit", cpus.map(decimal)),
        (
            "cpuunits",
            resources.cpu_shares.map(|s| cpu_weight(s).to_string()),
        ),
    ]
}

/// Parts of a CPU that limits are counted in: as many as Proxmox's hundred thousand microseconds can tell apart, and more.
const PARTS: u64 = 10_000;

/// How many parts of CPUs the pod may use.
fn cpu_limit(resources: &PodResources) -> Option<u64> {
    let quota = resources.cpu_quota_us.filter(|quota| *quota > 0)?;
    let period = resources.cpu_period_us.filter(|period| *period > 0);
    let period = period.unwrap_or(DEFAULT_PERIOD_US);
    let parts = u128::from(quota) * u128::from(PARTS);
    let parts = u64::try_from(parts.div_ceil(u128::from(period))).unwrap_or(u64::MAX);
    Some(parts.clamp(1, MOST_CPUS * PARTS))
}

/// `0.5`, `2`.
fn decimal(parts: u64) -> String {
    let text = format!("{}.{:04}", parts / PARTS, parts % PARTS);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What Proxmox lists it as: the pod's host name. All pods with the host's network have the host's, so these are told apart by their own
/// names; nothing in them sees it.
fn shown_name(spec: &SandboxSpec) -> &str {
    if spec.network == NamespaceMode::Pod {
        return &spec.hostname;
    }
    let end = spec.name.char_indices().nth(HOSTNAME_MAX);
    let name = &spec.name[..end.map_or(spec.name.len(), |(end, _)| end)];
    let name = name.trim_end_matches(['-', '.']);
    match is_hostname(name) {
        true => name,
        false => &spec.hostname,
    }
}

fn description(spec: &SandboxSpec) -> String {
    // Shown as Markdown, where an empty line begins a paragraph.
    let name = encode(&format!("{}/{}", spec.namespace, spec.name));
    let uid = encode(&spec.uid);
    format!("#{name}\n#\n#Kubernetes pod {uid}. Made by nexcage, and removed with the pod.\n")
}

fn rootfs(setting: &Setting<'_>) -> String {
    let idmap = match setting.idmapped_rootfs {
        true => ",idmap=passthrough",
        false => "",
    };
    format!("{},ro=1{idmap}", setting.rootfs)
}

/// `k8s;nexcage;<namespace>`, with nothing in it that a tag may not have.
fn tags(namespace: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '+' | '.');
    let tag = namespace.chars().map(|c| match c.to_ascii_lowercase() {
        c if allowed(c) => c,
        _ => '-',
    });
    let tag: String = tag.collect();
    // The first character is a letter, a digit or an underline.
    let tag = tag.trim_start_matches(['-', '+', '.']);
    match tag {
        "" => "k8s;nexcage".to_owned(),
        tag => format!("k8s;nexcage;{tag}"),
    }
}

/// Mappings of users and groups that are not Proxmox's usual ones.
fn mappings(spec: &SandboxSpec, ids: IdMapping) -> Vec<(&'static str, Vec<IdMapping>)> {
    match &spec.user_namespace {
        Some(users) => vec![("u", users.uids.clone()), ("g", users.gids.clone())],
        None if ids == USUAL_IDS => Vec::new(),
        None => vec![("u", vec![ids]), ("g", vec![ids])],
    }
}

/// This machine's as Proxmox, and Debian, call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "i386",
        "aarch64" => "arm64",
        "arm" => "armhf",
        other => other,
    }
}

/// Whether Proxmox takes it as a host name: RFC 1123, and a Kubernetes host name's length.
pub(crate) fn is_hostname(name: &str) -> bool {
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = bytes.first().zip(bytes.last());
        ends.is_some_and(|(a, z)| a.is_ascii_alphanumeric() && z.is_ascii_alphanumeric())
            && bytes
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    name.len() <= HOSTNAME_MAX && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::super::grammar::Conf;
    use super::*;
    use crate::fixture::spec;
    use nexcage_sandbox::UserNamespace;
    use proptest::prelude::*;

    fn setting() -> Setting<'static> {
        Setting {
            rootfs: "/usr/lib/nexcage/sandbox".into(),
            idmapped_rootfs: true,
            ids: USUAL_IDS,
            node: NodeSize {
                memory_mib: 32_000,
                swap_mib: 8191,
            },
            include: "/run/nexcage/pods/0123/backend/900000.conf".into(),
        }
    }

    fn built(spec: &SandboxSpec, setting: &Setting<'_>, locked: bool) -> String {
        build(spec, setting, locked)
            .replace(&format!("arch: {}\n", architecture()), "arch: <arch>\n")
    }

    #[test]
    fn a_pod_without_limits() {
        insta::assert_snapshot!(built(&spec(), &setting(), false));
    }

    #[test]
    fn a_pod_with_limits() {
        let mut spec = spec();
        spec.resources = PodResources {
            memory_bytes: Some((64 << 20) + 1),
            swap_bytes: Some(0),
            cpu_quota_us: Some(150_000),
            cpu_period_us: Some(100_000),
            cpu_shares: Some(1536),
        };
        insta::assert_snapshot!(built(&spec, &setting(), false));
    }

    #[test]
    fn while_it_is_made() {
        let text = built(&spec(), &setting(), true);
        assert!(text.contains("lock: create\n"));
        assert_eq!(
            text.replace("lock: create\n", ""),
            built(&spec(), &setting(), false)
        );
    }

    #[test]
    fn a_user_namespace_of_its_own_on_an_older_proxmox() {
        let range = |host_id| {
            vec![IdMapping {
                container_id: 0,
                host_id,
                length: 65_536,
            }]
        };
        let spec = SandboxSpec {
            namespace: "kube-system".into(),
            user_namespace: Some(UserNamespace {
                uids: range(200_000),
                gids: range(300_000),
            }),
            ..spec()
        };
        let older = Setting {
            idmapped_rootfs: false,
            ..setting()
        };
        insta::assert_snapshot!(built(&spec, &older, false));
    }

    #[test]
    fn other_ids_than_proxmox_would_take() {
        let ids = IdMapping {
            host_id: 1_000_000,
            ..USUAL_IDS
        };
        let text = built(&spec(), &Setting { ids, ..setting() }, false);
        assert!(text.contains("lxc.idmap: u 0 1000000 65536\nlxc.idmap: g 0 1000000 65536\n"));
    }

    #[test]
    fn limits_that_proxmox_would_not_take_as_they_are() {
        let value = |resources: &PodResources, key: &str| {
            let limits = limits(resources, setting().node);
            limits.into_iter().find(|(name, _)| *name == key).unwrap().1
        };
        let cpu = |quota, period| PodResources {
            cpu_quota_us: Some(quota),
            cpu_period_us: period,
            ..PodResources::default()
        };
        for (quota, period, limit, cores) in [
            (50_000, None, "0.5", "1"),
            (100_000, Some(100_000), "1", "1"),
            (1_000, Some(1_000_000), "0.001", "1"),
            (1, Some(1_000_000), "0.0001", "1"),
            (333_333, Some(100_000), "3.3334", "4"),
            (1_000_000, Some(100_000), "10", "10"),
            (u64::MAX, Some(1), "8192", "8192"),
        ] {
            let resources = cpu(quota, period);
            assert_eq!(value(&resources, "cpulimit").unwrap(), limit);
            assert_eq!(value(&resources, "cores").unwrap(), cores);
        }
        assert_eq!(value(&cpu(0, None), "cpulimit"), None);
        let tiny = PodResources {
            memory_bytes: Some(1),
            swap_bytes: Some(1),
            ..PodResources::default()
        };
        assert_eq!(value(&tiny, "memory").unwrap(), "16");
        assert_eq!(value(&tiny, "swap").unwrap(), "1");
    }

    #[test]
    fn tags_that_proxmox_takes() {
        assert_eq!(tags("default"), "k8s;nexcage;default");
        assert_eq!(tags("Ünder Score;x"), "k8s;nexcage;nder-score-x");
        assert_eq!(tags(""), "k8s;nexcage");
    }

    #[test]
    fn pods_with_the_name_of_the_host_are_told_apart() {
        let shown = |network, name: &str| {
            let spec = SandboxSpec {
                name: name.to_owned(),
                hostname: "pve1".to_owned(),
                network,
                ..spec()
            };
            shown_name(&spec).to_owned()
        };
        assert_eq!(shown(NamespaceMode::Pod, "kube-proxy-x"), "pve1");
        let node = |name: &str| shown(NamespaceMode::Node, name);
        assert_eq!(node("kube-proxy-x"), "kube-proxy-x");
        let long = format!("{}-{}", "a".repeat(62), "b".repeat(40));
        assert_eq!(node(&long), "a".repeat(62));
        for no_name in ["", "-", "a_b", "über"] {
            assert_eq!(node(no_name), "pve1", "{no_name}");
        }
    }

    #[test]
    fn host_names() {
        for good in ["web-0", "a", "1", "web.default.svc"] {
            assert!(is_hostname(good), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "a_b", "a..b", "a.", "ä", "a\nb", &long] {
            assert!(!is_hostname(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_value_becomes_a_key(name in "\\PC*[\n\r]?lxc.hook.pre-start: x", namespace in "[a-z\n:#]{1,20}", uid in "[a-z\n\r]{1,9}", hostname in "[a-z\n]{1,20}") {
            let expected = Conf::parse(&built(&spec(), &setting(), false)).main;
            let spec = SandboxSpec { name, namespace, uid, hostname, ..spec() };
            let conf = Conf::parse(&built(&spec, &setting(), false));
            prop_assert!(conf.others.is_empty());
            let ((mut keys, lxc), (known, known_lxc)) = (conf.main.names(), expected.names());
            // What is nothing but white space is no value.
            let known: Vec<_> = known.collect();
            prop_assert!(keys.all(|key| known.contains(&key)));
            prop_assert!(lxc.eq(known_lxc));
            prop_assert_eq!(conf.main.description.len(), expected.description.len());
        }
    }
}
