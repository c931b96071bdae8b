//! What only Proxmox containers have: numbers, configurations in a cluster, Proxmox's tools.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use camino::Utf8PathBuf;
use nexcage_lxc::{ProxmoxBackend, Pve as _};
use nexcage_sandbox::{
    Audit, PodResources, RunningSandbox, SandboxBackend, SandboxError, SandboxSpec, SandboxState,
    make_netns, unpin_netns,
};

use crate::machine::{Kind, Machine, app_container, can_run, ends, namespace, proxmox, run};
use crate::pve::{Deed, FakePve};

/// Both ways of starting.
const KINDS: [(Kind, &str); 2] = [(Kind::Proxmox, "direct"), (Kind::ProxmoxApi, "api")];

async fn machine(test: &str, kind: Kind, of: &str) -> Machine {
    Machine::new(&format!("pve{test}{of}"), kind, false).await
}

async fn start(machine: &Machine, spec: &SandboxSpec) -> (RunningSandbox, String) {
    let running = machine.backend.start(spec).await;
    let running = running.unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)));
    let vmid = running.container.clone().unwrap();
    (running, vmid)
}

fn include(spec: &SandboxSpec, vmid: &str) -> Utf8PathBuf {
    spec.run_dir.join(format!("backend/{vmid}.conf"))
}

#[tokio::test]
async fn proxmox_sees_it_and_can_stop_it_but_not_start_it_again() {
    if !can_run() {
        return;
    }
    for (kind, of) in KINDS {
        let machine = machine("seen", kind, of).await;
        let mut spec = machine.spec();
        let netns = machine.base.join("netns/pod");
        make_netns(&netns).await.unwrap();
        spec.netns = Some(netns.clone());
        let (running, vmid) = start(&machine, &spec).await;
        let number: u32 = vmid.parse().unwrap();
        assert!((900_000..=900_031).contains(&number));
        let started = machine.pve().started.load(Ordering::SeqCst);
        assert_eq!(started, u32::from(kind == Kind::ProxmoxApi));
        assert!(!machine.base.join(format!("lxc/{vmid}/reboot")).exists());

        let conf = fs::read_to_string(machine.conf(&vmid)).unwrap();
        assert!(
            conf.starts_with("#default/web\n") && !conf.contains("lock:"),
            "{conf}"
        );
        let include = include(&spec, &vmid);
        assert!(
            conf.contains(&format!("lxc.include: {include}\n")),
            "{conf}"
        );
        assert!(include.is_file());
        let path = machine.lxc_path();
        let lxc = |tool: &str, args: &[&str]| {
            run(tool, &[&["-P", path.as_str(), "-n", &vmid], args].concat())
        };
        assert_eq!(lxc("lxc-info", &["-pH"]), running.init.pid.to_string());
        // It is in the network namespace that was made for it, which is the host's root's.
        let owned = run(
            "nsenter",
            &[&format!("--net={netns}"), "readlink", "/proc/self/ns/net"],
        );
        assert_eq!(namespace(running.init.pid, "net"), owned);
        let monitor = fs::read_to_string(running.cgroups.monitor.join("cgroup.procs")).unwrap();
        assert_eq!(monitor.lines().count(), 1, "{monitor}");

        // Somebody edits the configuration, and Proxmox makes LXC's again.
        machine.pve().update_lxc_config(number);
        let mut app = app_container(&running.cgroups.container);
        lxc("lxc-stop", &["--nokill", "-t", "10"]);
        // By the hook, without us, and though one of Proxmox's failed.
        assert!(ends(&mut app));
        assert!(!running.init.is_alive());
        for _ in 0..200 {
            if !include.exists() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert!(!include.exists());
        let state = machine.backend.inspect(&spec).await.unwrap();
        assert_eq!(state, SandboxState::Stopped);
        let error = machine.pve().start(number).await.unwrap_err().to_string();
        assert!(
            error.contains("Failed to load config") || error.contains("parse"),
            "{error}"
        );

        machine.backend.remove(&spec).await.unwrap();
        unpin_netns(&netns).await.unwrap();
        run("umount", &[netns.parent().unwrap().as_str()]);
        let _ = fs::remove_dir_all(&spec.run_dir);
        machine.assert_clean();
    }
}

#[tokio::test]
async fn a_killed_monitor_leaves_nothing_that_can_be_started() {
    if !can_run() {
        return;
    }
    for (kind, of) in KINDS {
        let machine = machine("monitor", kind, of).await;
        let spec = machine.spec();
        let (running, vmid) = start(&machine, &spec).await;
        let monitor = fs::read_to_string(running.cgroups.monitor.join("cgroup.procs")).unwrap();
        run("kill", &["-9", monitor.trim()]);
        while running.init.is_alive() {
            tokio::task::yield_now().await;
        }
        // Nobody ran the hook.
        assert!(include(&spec, &vmid).exists());
        machine.backend.stop(&spec).await.unwrap();
        assert!(!include(&spec, &vmid).exists());
        assert!(machine.pve().start(vmid.parse().unwrap()).await.is_err());
        machine.backend.remove(&spec).await.unwrap();
        machine.assert_clean();
    }
}

#[tokio::test]
async fn another_daemon_finds_it_again() {
    if !can_run() {
        return;
    }
    let machine = machine("again", Kind::Proxmox, "").await;
    let spec = machine.spec();
    let (running, _) = start(&machine, &spec).await;
    let rootfs = machine.base.join("rootfs");
    let pve = Arc::new(FakePve::new(&machine.base, &rootfs));
    let options = proxmox(&machine.base, rootfs, Kind::Proxmox, pve);
    let later = ProxmoxBackend::new(options, Arc::clone(&machine.cgroups));
    let state = later.inspect(&spec).await.unwrap();
    assert_eq!(state, SandboxState::Running(running));
    assert_eq!(later.audit(&spec).await.unwrap(), Audit::AsMade);
    let left = later.leftovers().await.unwrap();
    assert_eq!(left, std::slice::from_ref(&spec.id));
    later.remove(&spec).await.unwrap();
    machine.assert_clean();
}

#[tokio::test]
async fn without_quorum_nothing_starts_and_what_runs_can_be_stopped() {
    if !can_run() {
        return;
    }
    for (kind, of) in KINDS {
        let machine = machine("quorum", kind, of).await;
        let (backend, spec) = (&machine.backend, machine.spec());
        machine.cluster().set_quorate(false).unwrap();
        for error in [
            backend.check().await.unwrap_err(),
            backend.start(&spec).await.unwrap_err(),
        ] {
            assert!(matches!(error, SandboxError::Unavailable { .. }), "{error}");
            assert!(error.to_string().contains("no quorum"), "{error}");
        }
        machine.assert_clean();

        machine.cluster().set_quorate(true).unwrap();
        let (running, vmid) = start(&machine, &spec).await;
        machine.cluster().set_quorate(false).unwrap();
        backend.stop(&spec).await.unwrap();
        assert!(!running.init.is_alive());
        for _ in 0..2 {
            let error = backend.remove(&spec).await.unwrap_err();
            assert!(matches!(error, SandboxError::Unavailable { .. }), "{error}");
            assert!(error.to_string().contains("no quorum"), "{error}");
            assert!(machine.conf(&vmid).exists());
            let left = backend.leftovers().await.unwrap();
            assert_eq!(left, std::slice::from_ref(&spec.id));
        }
        machine.cluster().set_quorate(true).unwrap();
        backend.remove_leftover(&spec.id).await.unwrap();
        let _ = fs::remove_dir_all(&spec.run_dir);
        machine.assert_clean();
    }
}

#[tokio::test]
async fn what_administrators_do_is_seen() {
    if !can_run() {
        return;
    }
    let machine = machine("audit", Kind::Proxmox, "").await;
    let (backend, mut spec) = (&machine.backend, machine.spec());
    spec.resources.memory_bytes = Some(64 << 20);
    let (_, vmid) = start(&machine, &spec).await;
    let audit = async || backend.audit(&spec).await.unwrap();
    assert_eq!(audit().await, Audit::AsMade);

    let conf = machine.conf(&vmid);
    let ours = fs::read_to_string(&conf).unwrap();
    let edited = ours.replace("memory: 64\n", "memory: 128\nonboot: 1\n");
    fs::write(&conf, &edited).unwrap();
    let Audit::Edited(edits) = audit().await else {
        panic!("not seen");
    };
    let keys: Vec<_> = edits.iter().map(|e| e.key.as_str()).collect();
    assert_eq!(keys, ["memory", "onboot"]);
    assert_eq!(edits[0].ours.as_deref(), Some("64"));
    assert_eq!(edits[0].theirs.as_deref(), Some("128"));

    // The pod's limits change: they are written, and nothing else is.
    spec.resources = PodResources {
        memory_bytes: Some(32 << 20),
        cpu_quota_us: Some(50_000),
        ..PodResources::default()
    };
    backend.update(&spec).await.unwrap();
    let updated = fs::read_to_string(&conf).unwrap();
    assert!(updated.contains("memory: 32\nonboot: 1\n"), "{updated}");
    assert!(updated.contains("cpulimit: 0.5\n"), "{updated}");
    let Audit::Edited(edits) = backend.audit(&spec).await.unwrap() else {
        panic!("not seen");
    };
    assert_eq!(edits.len(), 1, "{edits:?}");

    // A cluster file system that is not mounted is no reason to end a pod.
    let (nodes, away) = (
        machine.base.join("pve/nodes"),
        machine.base.join("pve/away"),
    );
    fs::rename(&nodes, &away).unwrap();
    let error = backend.audit(&spec).await.unwrap_err();
    assert!(error.is_retryable());
    fs::rename(&away, &nodes).unwrap();

    fs::remove_file(&conf).unwrap();
    let Audit::Lost { reason } = backend.audit(&spec).await.unwrap() else {
        panic!("not seen");
    };
    assert!(reason.contains("was removed"), "{reason}");
    backend.remove(&spec).await.unwrap();
    machine.assert_clean();
}

#[tokio::test]
async fn one_that_is_taken_away_while_it_starts_has_ended() {
    if !can_run() {
        return;
    }
    let machine = machine("away", Kind::ProxmoxApi, "").await;
    for deed in [Deed::Destroy, Deed::Stop] {
        *machine.pve().deed.lock().unwrap() = Some(deed);
        let spec = machine.spec();
        let started = machine.backend.start(&spec).await;
        let Err(SandboxError::Ended { id, .. }) = started else {
            panic!("{deed:?}: {started:?}");
        };
        assert_eq!(id, spec.id);
    }
    machine.assert_clean();
}

#[tokio::test]
async fn a_configuration_that_became_somebody_elses_stays() {
    if !can_run() {
        return;
    }
    let machine = machine("theirs", Kind::Proxmox, "").await;
    let (backend, spec) = (&machine.backend, machine.spec());
    let (running, vmid) = start(&machine, &spec).await;
    let theirs = "hostname: theirs\ntags: k8s;nexcage;default\n";
    fs::write(machine.conf(&vmid), theirs).unwrap();
    let Audit::Lost { reason } = backend.audit(&spec).await.unwrap() else {
        panic!("not seen");
    };
    assert!(reason.contains("not of this pod"), "{reason}");
    assert!(backend.update(&spec).await.is_err());

    backend.remove(&spec).await.unwrap();
    assert!(!running.init.is_alive());
    assert_eq!(fs::read_to_string(machine.conf(&vmid)).unwrap(), theirs);
    assert!(backend.leftovers().await.unwrap().is_empty());
    // Nobody can tell whose the directory is now: it is not the pod's.
    let directory = machine.lxc_path().join(&vmid);
    assert!(directory.join("config").exists());
    let next = machine.spec();
    let (_, other) = start(&machine, &next).await;
    assert_ne!(other, vmid);
    backend.remove(&next).await.unwrap();
    fs::remove_dir_all(directory).unwrap();
    fs::remove_file(machine.conf(&vmid)).unwrap();
    // Of the container that is not ours.
    let lock = format!("/run/lxc/lock{}/.{vmid}", machine.lxc_path());
    fs::remove_file(lock).unwrap();
    fs::remove_file(machine.base.join(format!("locks/pve-config-{vmid}.lock"))).unwrap();
    machine.assert_clean();
}

#[tokio::test]
async fn a_node_that_cannot_do_it_says_why() {
    if !can_run() {
        return;
    }
    let machine = machine("check", Kind::ProxmoxApi, "").await;
    let rootfs = machine.base.join("rootfs");
    let fake = || Arc::new(FakePve::new(&machine.base, &rootfs));
    let options = || proxmox(&machine.base, rootfs.clone(), Kind::ProxmoxApi, fake());
    let reason = async |options| {
        let backend = ProxmoxBackend::new(options, Arc::clone(&machine.cgroups));
        let checked = backend.check().await;
        checked.err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert_eq!(reason(options()).await, "");

    let mut wrong = options();
    wrong.vmids = 99..=200;
    assert!(reason(wrong).await.contains("between 100 and 99999999"));
    let mut wrong = options();
    wrong.node = "pve2".to_owned();
    assert!(reason(wrong).await.contains("set proxmox.node"));
    let mut wrong = options();
    wrong.pve_dir = machine.base.join("nothing");
    assert!(reason(wrong).await.contains("systemctl start pve-cluster"));
    for (answer, expected) in [
        ("exit 1", "pve-container is not installed"),
        ("echo installed 4.0.1", "4.0.1 is too old"),
        ("echo installed 6.1.0", "upgrade it to 6.1.1"),
    ] {
        let wrong = options();
        crate::pve::script_at(wrong.dpkg_query.path(), &format!("#!/bin/sh\n{answer}\n"));
        let said = reason(wrong).await;
        assert!(said.contains(expected), "{said}");
    }
    let mut wrong = options();
    wrong.vmids = 800_000..=900_000;
    let said = reason(wrong).await;
    assert!(said.contains("VM.PowerMgmt on /vms/800000"), "{said}");
    machine.assert_clean();
}
