//! LXC's configuration of a container, made of Proxmox's: a pure function. The order of what is emitted is that of the reference, section 2.

use camino::{Utf8Path, Utf8PathBuf};

use crate::conf::{Conf, Property, Section, Volume, parse_property, split_list};

/// What the configuration depends on beside the container's own.
#[derive(Clone, Debug)]
pub struct Facts {
    /// LXC's directory of the container.
    pub dir: Utf8PathBuf,
    /// Included by all: LXC's own, and Proxmox's hooks.
    pub common: Utf8PathBuf,
    /// Included by those in a user namespace.
    pub userns: Utf8PathBuf,
    /// Controllers of cgroup v2.
    pub controllers: Vec<String>,
    /// CPUs to choose from, in the order of choice.
    pub cpus: Vec<u32>,
}

/// LXC's configuration, and the rules of seccomp beyond the common ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LxcConfig {
    /// For `<dir>/config`.
    pub text: String,
    /// For `<dir>/rules.seccomp`, after the common rules.
    pub seccomp: Option<String>,
}

/// System calls that a container in a user namespace does not get.
const KEYCTL: &str = "keyctl errno 38\n";
const IOCTL: &str = "ioctl errno 1 [1,0x9400,SCMP_CMP_MASKED_EQ,0xff00]\n";
const SOCKET: &str = "socket errno 97 [0,38,SCMP_CMP_EQ]\n";

/// Makes it.
///
/// # Errors
///
/// Proxmox's words: something that must be in the configuration is not.
pub fn lxc_config(vmid: u32, conf: &Conf, facts: &Facts) -> Result<LxcConfig, String> {
    let conf = &conf.current;
    let features = Features::of(conf);
    let unprivileged = conf.is("unprivileged") || conf.has_lxc("lxc.idmap");
    let mut lines = Lines(String::new());
    lines.set("lxc.cgroup.relative", 0);
    lines.set("lxc.cgroup.dir.monitor", format!("lxc.monitor/{vmid}"));
    lines.set("lxc.cgroup.dir.container", format!("lxc/{vmid}"));
    lines.set("lxc.cgroup.dir.container.inner", "ns");
    let arch = conf.get("arch").ok_or("missing 'arch' - internal error")?;
    lines.set("lxc.arch", arch);
    conf.get("ostype")
        .ok_or("missing 'ostype' - internal error")?;
    lines.set("lxc.include", &facts.common);
    if unprivileged {
        lines.set("lxc.include", &facts.userns);
    }
    let seccomp = seccomp(&mut lines, conf, &facts.dir, unprivileged, &features);
    apparmor(&mut lines, conf, &features);
    file_systems(&mut lines, conf, unprivileged, &features);
    lines.set("lxc.monitor.unshare", 1);
    if unprivileged && !conf.has_lxc("lxc.idmap") {
        lines.set("lxc.idmap", "u 0 100000 65536");
        lines.set("lxc.idmap", "g 0 100000 65536");
    }
    consoles(&mut lines, vmid, conf);
    limits(&mut lines, conf, facts);
    let rootfs = conf.get("rootfs").ok_or("missing 'rootfs' configuration")?;
    Volume::parse("rootfs", rootfs)?;
    lines.set("lxc.rootfs.path", facts.dir.join("rootfs"));
    if let Some(entrypoint) = conf.get("entrypoint") {
        lines.set("lxc.init.cmd", entrypoint);
    }
    networks(&mut lines, vmid, conf);
    for variable in &conf.env {
        lines.set("lxc.environment.runtime", variable);
    }
    for (key, value) in &conf.lxc {
        lines.set(key, value);
    }
    if !conf.has_lxc("lxc.cgroup2.cpuset.cpus")
        && let Some(cores) = conf.number("cores")
        && !facts.cpus.is_empty()
    {
        lines.set("lxc.cgroup2.cpuset.cpus", cpuset(&facts.cpus, cores));
    }
    Ok(LxcConfig {
        text: lines.0,
        seccomp,
    })
}

/// Lines `key = value`.
struct Lines(String);

impl Lines {
    fn set(&mut self, key: &str, value: impl std::fmt::Display) {
        self.0.push_str(&format!("{key} = {value}\n"));
    }
}

/// The key `features`.
#[derive(Debug, Default)]
struct Features {
    nesting: bool,
    keyctl: bool,
    fuse: bool,
    force_rw_sys: bool,
    mount: Vec<String>,
}

impl Features {
    fn of(conf: &Section) -> Self {
        let mut features = Self::default();
        for part in conf.get("features").unwrap_or_default().split(',') {
            match part.split_once('=') {
                Some(("nesting", "1")) => features.nesting = true,
                Some(("keyctl", "1")) => features.keyctl = true,
                Some(("fuse", "1")) => features.fuse = true,
                Some(("force_rw_sys", "1")) => features.force_rw_sys = true,
                Some(("mount", types)) => {
                    features.mount = split_list(types).into_iter().map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        features
    }
}

fn seccomp(
    lines: &mut Lines,
    conf: &Section,
    dir: &Utf8Path,
    unprivileged: bool,
    features: &Features,
) -> Option<String> {
    if conf.has_lxc("lxc.seccomp.profile") || !unprivileged {
        return None;
    }
    let keyctl = if features.keyctl { "" } else { KEYCTL };
    lines.set("lxc.seccomp.profile", dir.join("rules.seccomp"));
    Some(format!("{IOCTL}{keyctl}{SOCKET}"))
}

fn apparmor(lines: &mut Lines, conf: &Section, features: &Features) {
    if !conf.has_lxc("lxc.apparmor.profile") {
        lines.set("lxc.apparmor.profile", "generated");
        lines.set("lxc.apparmor.raw", "allow mqueue,");
        if features.nesting {
            lines.set("lxc.apparmor.allow_nesting", 1);
            lines.set("lxc.apparmor.raw", "allow userns,");
        } else {
            lines.set("lxc.apparmor.raw", "deny mount -> /proc/,");
            lines.set("lxc.apparmor.raw", "deny mount -> /sys/,");
        }
        for kind in &features.mount {
            lines.set("lxc.apparmor.raw", format!("mount fstype={kind},"));
        }
    }
    if features.fuse {
        lines.set("lxc.apparmor.raw", "mount fstype=fuse,");
    }
}

fn file_systems(lines: &mut Lines, conf: &Section, unprivileged: bool, features: &Features) {
    if features.fuse {
        lines.set(
            "lxc.mount.entry",
            "/dev/fuse dev/fuse none bind,create=file 0 0",
        );
    }
    if unprivileged && !features.force_rw_sys {
        lines.set("lxc.mount.auto", "sys:mixed");
    }
    if conf
        .get("entrypoint")
        .is_some_and(|init| init != "/sbin/init")
    {
        let shm = "shm dev/shm tmpfs rw,nosuid,nodev,create=dir 0 0";
        lines.set("lxc.mount.entry", shm);
    }
}

fn consoles(lines: &mut Lines, vmid: u32, conf: &Section) {
    if conf.get("console").is_some() && !conf.is("console") {
        lines.set("lxc.console.path", "none");
        lines.set("lxc.cgroup2.devices.deny", "c 5:1 rwm");
    }
    lines.set("lxc.tty.max", conf.number("tty").unwrap_or(2));
    lines.set("lxc.environment", "TERM=linux");
    let name = conf.get("hostname");
    let name = name.map_or_else(|| format!("CT{vmid}"), str::to_owned);
    lines.set("lxc.uts.name", name);
}

fn limits(lines: &mut Lines, conf: &Section, facts: &Facts) {
    let has = |name: &str| {
        facts
            .controllers
            .iter()
            .any(|controller| controller == name)
    };
    if has("memory") {
        let memory = conf.number("memory").unwrap_or(512);
        let (max, high) = memory_limits(memory);
        lines.set("lxc.cgroup2.memory.max", max);
        lines.set("lxc.cgroup2.memory.high", high);
        let swap = conf.number("swap").unwrap_or(0);
        lines.set("lxc.cgroup2.memory.swap.max", swap << 20);
    }
    if has("cpu") {
        if let Some(quota) = cpu_quota(conf.get("cpulimit")) {
            lines.set("lxc.cgroup2.cpu.max", format!("{quota} 100000"));
        }
        if let Some(units) = conf.number("cpuunits") {
            lines.set("lxc.cgroup2.cpu.weight", units.min(10_000));
        }
    }
}

/// Bytes that a container may have, and bytes from which on it is slowed down: 1016/1024 of that, and at most 128 MiB less.
pub fn memory_limits(mebibytes: u64) -> (u64, u64) {
    let high = match mebibytes {
        16_384.. => (mebibytes - 128) << 20,
        _ => mebibytes * 1024 * 1016,
    };
    (mebibytes << 20, high)
}

/// Microseconds of CPU in each tenth of a second; `None` is no limit.
pub fn cpu_quota(cpulimit: Option<&str>) -> Option<u64> {
    let limit: f64 = cpulimit?.parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative, and a few thousands at most"
    )]
    let quota = (limit.clamp(0.0, 8192.0) * 100_000.0) as u64;
    (quota > 0).then_some(quota)
}

fn networks(lines: &mut Lines, vmid: u32, conf: &Section) {
    let keys = conf.values.iter();
    let networks = keys.filter_map(|(key, value)| {
        let number = key.strip_prefix("net")?;
        Some((number, value))
    });
    for (number, value) in networks {
        let net = |key: &str| format!("lxc.net.{number}.{key}");
        lines.set(&net("type"), "veth");
        lines.set(&net("veth.pair"), format!("veth{vmid}i{number}"));
        let values = parse_property(value, &NETWORK, None).unwrap_or_default();
        for key in ["hwaddr", "name", "mtu"] {
            if let Some(value) = values.get(key) {
                lines.set(&net(key), value);
            }
        }
    }
}

/// Any key: the configuration has been checked already.
const NETWORK: [Property; 15] = {
    use crate::conf::Kind::Text;
    [
        Property::new("name", Text),
        Property::new("type", Text),
        Property::new("bridge", Text),
        Property::new("hwaddr", Text),
        Property::new("mtu", Text),
        Property::new("ip", Text),
        Property::new("gw", Text),
        Property::new("ip6", Text),
        Property::new("gw6", Text),
        Property::new("firewall", Text),
        Property::new("tag", Text),
        Property::new("trunks", Text),
        Property::new("rate", Text),
        Property::new("link_down", Text),
        Property::new("host-managed", Text),
    ]
};

fn cpuset(cpus: &[u32], cores: u64) -> String {
    let count = usize::try_from(cores).unwrap_or(usize::MAX).min(cpus.len());
    let mut chosen = cpus[..count].to_vec();
    chosen.sort_unstable();
    let names: Vec<_> = chosen.iter().map(u32::to_string).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            dir: "/var/lib/lxc/100".into(),
            common: "/sim/lxc/common.conf".into(),
            userns: "/sim/lxc/userns.conf".into(),
            controllers: ["cpuset", "cpu", "io", "memory", "pids"]
                .map(str::to_owned)
                .into(),
            cpus: vec![2, 0, 3, 1],
        }
    }

    fn made(text: &str) -> Result<LxcConfig, String> {
        let (conf, warnings) = Conf::read(100, text);
        assert_eq!(warnings, [""; 0]);
        lxc_config(100, &conf, &facts())
    }

    #[test]
    fn a_pod() {
        let config = made(
            "arch: amd64\ncores: 2\ncpulimit: 1.5\ncpuunits: 200\nhostname: pod-1\nmemory: 128\nostype: unmanaged\n\
             rootfs: /usr/lib/nexcage/sandbox,ro=1,idmap=passthrough\nswap: 64\nunprivileged: 1\n\
             lxc.environment.runtime: A=b\nlxc.init.cmd: /catatonit -P\nlxc.signal.halt: SIGTERM\nlxc.include: /run/nexcage/x.conf\n",
        )
        .unwrap();
        insta::assert_snapshot!(config.text);
        insta::assert_snapshot!(config.seccomp.unwrap(), @r"
        ioctl errno 1 [1,0x9400,SCMP_CMP_MASKED_EQ,0xff00]
        keyctl errno 38
        socket errno 97 [0,38,SCMP_CMP_EQ]
        ");
    }

    #[test]
    fn a_machine() {
        let config = made(
            "arch: amd64\nconsole: 0\nentrypoint: /app --x\nfeatures: nesting=1,fuse=1,mount=nfs;cifs\nmemory: 32768\n\
             net0: name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:00:01\nostype: debian\nrootfs: nex:subvol-100-disk-0,size=8G\n\
             lxc.cgroup2.cpuset.cpus: 1\n",
        )
        .unwrap();
        insta::assert_snapshot!(config.text);
        assert_eq!(config.seccomp, None);
    }

    #[test]
    fn what_must_be_there() {
        let error = |text: &str| made(text).unwrap_err();
        assert_eq!(
            error("ostype: unmanaged\n"),
            "missing 'arch' - internal error"
        );
        assert_eq!(error("arch: amd64\n"), "missing 'ostype' - internal error");
        let without = error("arch: amd64\nostype: unmanaged\n");
        assert_eq!(without, "missing 'rootfs' configuration");
    }

    #[test]
    fn limits_of_memory() {
        assert_eq!(memory_limits(512), (512 << 20, 512 * 1024 * 1016));
        assert_eq!(memory_limits(16_384), (16_384 << 20, (16_384 - 128) << 20));
    }
}
