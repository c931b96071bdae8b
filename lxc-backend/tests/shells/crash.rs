//! The backend killed at every step of a Proxmox container's life.

use std::os::unix::process::ExitStatusExt;

use camino::{Utf8Path, Utf8PathBuf};
use nexcage_sandbox::PodResources;

use crate::machine::{Kind, Machine, can_run};

/// Where the process that is to be killed finds its machine.
const PLACE: &str = "NEXCAGE_LXC_TEST_PLACE";
const WAY: &str = "NEXCAGE_LXC_TEST_WAY";

/// Both ways of starting, with the steps that only the other one has.
const WAYS: [(Kind, &str, &[&str]); 2] = [
    (Kind::Proxmox, "direct", &[]),
    (Kind::ProxmoxApi, "api", &["pve.config-written"]),
];

/// Steps that are not of Proxmox alone.
const SHARED: &[&str] = &[
    "lxc.directory-made",
    "sandbox.cgroup-made",
    "lxc.settled",
    "lxc.killed",
    "lxc.cgroups-removed",
];

async fn machine(base: &Utf8Path, kind: Kind, way: &str) -> Machine {
    Machine::at(
        base.to_owned(),
        None,
        &format!("pvecrash{way}"),
        kind,
        false,
    )
    .await
}

/// From nothing to nothing.
async fn live(machine: &Machine) {
    let mut spec = machine.spec();
    machine.backend.start(&spec).await.unwrap();
    spec.resources = PodResources {
        memory_bytes: Some(64 << 20),
        ..PodResources::default()
    };
    machine.backend.update(&spec).await.unwrap();
    machine.backend.stop(&spec).await.unwrap();
    machine.backend.remove(&spec).await.unwrap();
}

/// What the test below runs in a process of its own.
#[tokio::test]
async fn a_life_to_be_cut_short() {
    let (Ok(base), Ok(way)) = (std::env::var(PLACE), std::env::var(WAY)) else {
        return;
    };
    let (kind, way, _) = WAYS.iter().find(|(_, name, _)| *name == way).unwrap();
    let base = Utf8PathBuf::from(base);
    live(&machine(&base, *kind, way).await).await;
}

#[tokio::test]
async fn killed_at_any_step_it_leaves_only_what_is_found_again() {
    if !can_run() {
        return;
    }
    let names = nexcage_failpoint::ALL.iter().copied();
    let own = names.filter(|name| name.starts_with("pve."));
    let names: Vec<_> = own.chain(SHARED.iter().copied()).collect();
    assert!(names.len() > 12);
    for (kind, way, others) in WAYS {
        let temp = tempfile::Builder::new().prefix("nxtsb-").tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(temp.path(), open).unwrap();
        let base = Utf8PathBuf::try_from(temp.path().to_owned()).unwrap();
        for name in names.iter().filter(|name| !others.contains(name)) {
            #[allow(clippy::disallowed_methods, reason = "a test's own process")]
            let output = std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "crash::a_life_to_be_cut_short", "--nocapture"])
                .env(PLACE, &base)
                .env(WAY, way)
                .env("NEXCAGE_FAILPOINT", name)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                output.status.signal(),
                Some(9),
                "{way}: {name} was not reached: {said}"
            );

            let machine = machine(&base, kind, way).await;
            machine.backend.tidy().await.unwrap();
            for id in machine.backend.leftovers().await.unwrap() {
                machine.backend.remove_leftover(&id).await.unwrap();
                assert!(
                    machine.backend.leftovers().await.unwrap().is_empty(),
                    "{way}: {name}"
                );
            }
            // Of these the id says nothing: they are their owner's.
            let _ = std::fs::remove_dir_all(base.join("run"));
            machine.assert_clean();
            live(&machine).await;
            machine.assert_clean();
            eprintln!("{way}: {name}: well");
        }
    }
}
