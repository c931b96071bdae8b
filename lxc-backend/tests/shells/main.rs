//! Every shell of a pod keeps the promises of [`SandboxBackend`], for real: LXC, Proxmox containers started by nexcage and by Proxmox, and
//! `host`, with scopes and without.
//!
//! Needs root, LXC, crun and catatonit. Everything has the prefix `nxtsb-`, and each test ends by proving that nothing of it is left.
#![allow(clippy::unwrap_used, reason = "tests")]

mod crash;
mod lxc;
mod machine;
mod proxmox;
mod pve;

use std::fs;
use std::time::Instant;

use machine::{Kind, Machine, app_container, can_run, ends, namespace, run};
use nexcage_sandbox::{
    IdMapping, NamespaceMode, SandboxBackend, SandboxSpec, SandboxState, UserNamespace, pin_netns,
    unpin_netns,
};

/// All kinds, with what tests' names have of them.
const ALL: [(Kind, &str); 4] = [
    (Kind::Lxc, "lxc"),
    (Kind::Host, "host"),
    (Kind::Proxmox, "pve"),
    (Kind::ProxmoxApi, "pveapi"),
];

/// One test for each shell.
macro_rules! for_all {
    ($($test:ident)*) => {
        mod with_lxc { $(
            #[tokio::test]
            async fn $test() {
                if !super::can_run() { return }
                let name = concat!("lxc-", stringify!($test)).replace('_', "");
                let machine = super::Machine::new(&name, super::Kind::Lxc, false).await;
                super::$test(&machine).await;
                machine.assert_clean();
            }
        )* }
        mod without_lxc { $(
            #[tokio::test]
            async fn $test() {
                if !super::can_run() { return }
                let name = concat!("host-", stringify!($test)).replace('_', "");
                let machine = super::Machine::new(&name, super::Kind::Host, false).await;
                super::$test(&machine).await;
                machine.assert_clean();
            }
        )* }
        mod as_proxmox_containers { $(
            #[tokio::test]
            async fn $test() {
                if !super::can_run() { return }
                for (kind, of) in [(super::Kind::Proxmox, "pve"), (super::Kind::ProxmoxApi, "pveapi")] {
                    let name = format!("{of}{}", stringify!($test)).replace('_', "");
                    let machine = super::Machine::new(&name, kind, false).await;
                    super::$test(&machine).await;
                    machine.assert_clean();
                }
            }
        )* }
        mod in_scopes { $(
            #[tokio::test]
            async fn $test() {
                if !super::can_run() { return }
                for (kind, of) in super::ALL {
                    let name = format!("{of}scope{}", stringify!($test)).replace('_', "");
                    let machine = super::Machine::new(&name, kind, true).await;
                    super::$test(&machine).await;
                    machine.assert_clean();
                }
            }
        )* }
    };
}

for_all! {
    lives_and_ends
    applies_sysctls
    has_a_user_namespace
    uses_the_hosts_network
    ends_app_containers
    ends_an_init_that_was_killed
    is_removed_by_its_id_alone
    leaves_nothing_when_it_cannot_start
    pins_its_network_namespace
}

async fn state(backend: &dyn SandboxBackend, spec: &SandboxSpec) -> SandboxState {
    backend.inspect(spec).await.unwrap()
}

async fn lives_and_ends(machine: &Machine) {
    let (backend, spec) = (&*machine.backend, machine.spec());
    assert_eq!(state(backend, &spec).await, SandboxState::Stopped);
    backend.stop(&spec).await.unwrap();
    backend.remove(&spec).await.unwrap();

    let running = backend.start(&spec).await.unwrap();
    assert_eq!(
        state(backend, &spec).await,
        SandboxState::Running(running.clone())
    );
    let pid = running.init.pid;
    let me = std::process::id();
    for kind in ["net", "ipc", "uts", "pid", "mnt"] {
        assert_ne!(namespace(pid, kind), namespace(me, kind), "{kind}");
    }
    let hostname = run("nsenter", &["-t", &pid.to_string(), "-u", "hostname"]);
    assert_eq!(hostname, spec.hostname);
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let below = machine.cgroups.relative(&running.cgroups.container);
    assert!(cgroup.contains(&format!("0::/{below}/sandbox")), "{cgroup}");
    assert!(running.cgroups.monitor.is_dir());
    assert!(!running.cgroups.pod.join("start").exists());
    // Only lo, and it is down.
    let devices = run(
        "nsenter",
        &["-t", &pid.to_string(), "-n", "cat", "/proc/net/dev"],
    );
    assert_eq!(devices.lines().count(), 3, "{devices}");

    backend.stop(&spec).await.unwrap();
    assert_eq!(state(backend, &spec).await, SandboxState::Stopped);
    assert!(!running.init.is_alive());
    assert!(!running.cgroups.pod.exists());
    backend.stop(&spec).await.unwrap();
    backend.remove(&spec).await.unwrap();
    backend.remove(&spec).await.unwrap();

    // The same again: nothing of the first life is in the way.
    backend.start(&spec).await.unwrap();
    backend.remove(&spec).await.unwrap();
}

async fn applies_sysctls(machine: &Machine) {
    let sysctls = [
        ("net.ipv4.ip_unprivileged_port_start", "17"),
        ("net/ipv4/ping_group_range", "0\t2147483647"),
        ("kernel.shm_rmid_forced", "1"),
        ("kernel.msgmax", "8193"),
        ("kernel.sem", "32000\t1024000000\t500\t32001"),
        ("fs.mqueue.msg_max", "11"),
    ];
    let ids = |host_id| {
        vec![IdMapping {
            container_id: 0,
            host_id,
            length: 65_536,
        }]
    };
    let users = UserNamespace {
        uids: ids(300_000),
        gids: ids(300_000),
    };
    for user_namespace in [None, Some(users)] {
        let mut spec = machine.spec();
        spec.sysctls = sysctls.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        spec.user_namespace = user_namespace;
        // Of its mapping; ping_group_range takes only ids that exist.
        if spec.user_namespace.is_some() || machine.base.as_str().contains("-lxc") {
            spec.sysctls
                .insert("net/ipv4/ping_group_range".into(), "100000\t100001".into());
        }
        let before = run(
            "sysctl",
            &["-n", "net.ipv4.ip_unprivileged_port_start", "kernel.msgmax"],
        );
        let running = machine.backend.start(&spec).await;
        let running =
            running.unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)));
        let pid = running.init.pid.to_string();
        for (name, value) in &spec.sysctls {
            if name.contains("ping") {
                continue;
            }
            let seen = run("nsenter", &["-t", &pid, "-i", "-n", "sysctl", "-n", name]);
            assert_eq!(seen, *value, "{name}");
        }
        let after = run(
            "sysctl",
            &["-n", "net.ipv4.ip_unprivileged_port_start", "kernel.msgmax"],
        );
        assert_eq!(before, after);
        machine.backend.remove(&spec).await.unwrap();
    }
}

async fn has_a_user_namespace(machine: &Machine) {
    let mut spec = machine.spec();
    let range = |host_id| {
        vec![IdMapping {
            container_id: 0,
            host_id,
            length: 65_536,
        }]
    };
    spec.user_namespace = Some(UserNamespace {
        uids: range(200_000),
        gids: range(300_000),
    });
    let running = machine.backend.start(&spec).await.unwrap();
    let pid = running.init.pid;
    let map = |file| {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        text.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(map("uid_map"), ["0", "200000", "65536"]);
    assert_eq!(map("gid_map"), ["0", "300000", "65536"]);
    machine.backend.remove(&spec).await.unwrap();
}

async fn uses_the_hosts_network(machine: &Machine) {
    let mut spec = machine.spec();
    spec.network = NamespaceMode::Node;
    let running = machine.backend.start(&spec).await.unwrap();
    let (pid, me) = (running.init.pid, std::process::id());
    assert_eq!(namespace(pid, "net"), namespace(me, "net"));
    assert_ne!(namespace(pid, "ipc"), namespace(me, "ipc"));
    assert_ne!(namespace(pid, "pid"), namespace(me, "pid"));
    machine.backend.remove(&spec).await.unwrap();
}

async fn ends_app_containers(machine: &Machine) {
    let spec = machine.spec();
    let running = machine.backend.start(&spec).await.unwrap();
    let mut app = app_container(&running.cgroups.container);
    machine.backend.stop(&spec).await.unwrap();
    assert!(ends(&mut app));
    machine.backend.remove(&spec).await.unwrap();
}

async fn ends_an_init_that_was_killed(machine: &Machine) {
    let spec = machine.spec();
    let running = machine.backend.start(&spec).await.unwrap();
    run("kill", &["-9", &running.init.pid.to_string()]);
    while running.init.is_alive() {
        tokio::task::yield_now().await;
    }
    assert_eq!(state(&*machine.backend, &spec).await, SandboxState::Stopped);
    machine.backend.remove(&spec).await.unwrap();
}

async fn is_removed_by_its_id_alone(machine: &Machine) {
    let spec = machine.spec();
    let running = machine.backend.start(&spec).await.unwrap();
    let mut app = app_container(&running.cgroups.container);
    let left = machine.backend.leftovers().await.unwrap();
    assert_eq!(left, std::slice::from_ref(&spec.id));
    machine.backend.remove_leftover(&spec.id).await.unwrap();
    assert!(ends(&mut app));
    assert!(machine.backend.leftovers().await.unwrap().is_empty());
    machine.backend.remove_leftover(&spec.id).await.unwrap();
    // The run directory is its owner's to remove: of it the id says nothing.
    let _ = fs::remove_dir_all(&spec.run_dir);
}

async fn leaves_nothing_when_it_cannot_start(machine: &Machine) {
    let mut spec = machine.spec();
    spec.sysctls
        .insert("net.ipv4.ip_forward".into(), "perhaps".into());
    let error = machine.backend.start(&spec).await.unwrap_err();
    assert!(error.to_string().contains("sysctls"), "{error}");
    machine.assert_clean();
    spec.sysctls.clear();
    machine.backend.start(&spec).await.unwrap();
    machine.backend.remove(&spec).await.unwrap();
}

async fn pins_its_network_namespace(machine: &Machine) {
    let spec = machine.spec();
    let running = machine.backend.start(&spec).await.unwrap();
    let path = machine.base.join("netns/pod");
    pin_netns(running.init.pid, &path).await.unwrap();
    pin_netns(running.init.pid, &path).await.unwrap();
    let net = namespace(running.init.pid, "net");
    let seen = run(
        "nsenter",
        &[&format!("--net={path}"), "readlink", "/proc/self/ns/net"],
    );
    assert_eq!(seen, net);
    machine.backend.remove(&spec).await.unwrap();
    // The pin outlives the sandbox.
    let seen = run(
        "nsenter",
        &[&format!("--net={path}"), "readlink", "/proc/self/ns/net"],
    );
    assert_eq!(seen, net);

    // Another namespace takes its place.
    let running = machine.backend.start(&spec).await.unwrap();
    pin_netns(running.init.pid, &path).await.unwrap();
    let seen = run(
        "nsenter",
        &[&format!("--net={path}"), "readlink", "/proc/self/ns/net"],
    );
    assert_eq!(seen, namespace(running.init.pid, "net"));
    machine.backend.remove(&spec).await.unwrap();
    unpin_netns(&path).await.unwrap();
    unpin_netns(&path).await.unwrap();
    assert!(!path.exists());
    run("umount", &[path.parent().unwrap().as_str()]);
}

#[tokio::test]
async fn many_at_once_and_how_fast() {
    if !can_run() {
        return;
    }
    for (kind, of) in ALL {
        let name = &format!("{of}many");
        let machine = Machine::new(name, kind, true).await;
        let mut times = Vec::new();
        for _ in 0..20 {
            let spec = machine.spec();
            let begin = Instant::now();
            machine.backend.start(&spec).await.unwrap();
            times.push(begin.elapsed());
            machine.backend.remove(&spec).await.unwrap();
        }
        times.sort();
        eprintln!("{name}: start p50 {:?}, p95 {:?}", times[10], times[18]);

        let specs: Vec<SandboxSpec> = (0..10).map(|_| machine.spec()).collect();
        let mut tasks = tokio::task::JoinSet::new();
        for spec in specs {
            let backend = std::sync::Arc::clone(&machine.backend);
            tasks.spawn(async move {
                backend.start(&spec).await.unwrap();
                backend.remove(&spec).await.unwrap();
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        machine.assert_clean();
    }
}
