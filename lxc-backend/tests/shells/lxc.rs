//! What only LXC containers have: monitors, directories, admins with LXC's tools.

use std::fs;
use std::time::Duration;

use nexcage_sandbox::SandboxState;

use crate::machine::{Kind, Machine, app_container, can_run, ends, run};

fn name(machine: &Machine, id: &nexcage_sandbox::SandboxId) -> String {
    machine.cgroups.name(id)
}

#[tokio::test]
async fn lxc_tools_see_it_and_a_stop_by_them_ends_app_containers() {
    if !can_run() {
        return;
    }
    let machine = Machine::new("tools", Kind::Lxc, false).await;
    let spec = machine.spec();
    let running = machine.backend.start(&spec).await.unwrap();
    let (path, name) = (machine.lxc_path(), name(&machine, &spec.id));
    let lxc = |tool: &str, args: &[&str]| {
        run(tool, &[&["-P", path.as_str(), "-n", &name], args].concat())
    };
    assert_eq!(
        run("lxc-ls", &["-P", path.as_str(), "--running"]).trim(),
        name
    );
    assert_eq!(lxc("lxc-info", &["-pH"]), running.init.pid.to_string());

    let mut app = app_container(&running.cgroups.container);
    lxc("lxc-stop", &["-k"]);
    // By the hook, without us.
    assert!(ends(&mut app));
    assert_eq!(
        machine.backend.inspect(&spec).await.unwrap(),
        SandboxState::Stopped
    );
    machine.backend.remove(&spec).await.unwrap();
    machine.assert_clean();
}

#[tokio::test]
async fn lxc_tools_can_shut_it_down() {
    if !can_run() {
        return;
    }
    let machine = Machine::new("shutdown", Kind::Lxc, false).await;
    let spec = machine.spec();
    let running = machine.backend.start(&spec).await.unwrap();
    let name = name(&machine, &spec.id);
    // Fails after the timeout unless the init ends on lxc.signal.halt.
    run(
        "lxc-stop",
        &[
            "-P",
            machine.lxc_path().as_str(),
            "-n",
            &name,
            "--nokill",
            "-t",
            "10",
        ],
    );
    assert!(!running.init.is_alive());
    machine.backend.remove(&spec).await.unwrap();
    machine.assert_clean();
}

#[tokio::test]
async fn a_killed_monitor_leaves_nothing_in_the_end() {
    if !can_run() {
        return;
    }
    let machine = Machine::new("monitor", Kind::Lxc, false).await;
    let spec = machine.spec();
    let running = machine.backend.start(&spec).await.unwrap();
    let mut app = app_container(&running.cgroups.container);
    let monitor = fs::read_to_string(running.cgroups.monitor.join("cgroup.procs")).unwrap();
    run("kill", &["-9", monitor.trim()]);
    while running.init.is_alive() {
        tokio::task::yield_now().await;
    }
    // Nobody ran the hook.
    assert!(app.try_wait().unwrap().is_none());
    assert_eq!(
        machine.backend.inspect(&spec).await.unwrap(),
        SandboxState::Stopped
    );
    machine.backend.stop(&spec).await.unwrap();
    assert!(ends(&mut app));
    machine.backend.remove(&spec).await.unwrap();
    machine.assert_clean();
}

#[tokio::test]
async fn a_directory_deleted_by_hand_changes_nothing() {
    if !can_run() {
        return;
    }
    let machine = Machine::new("directory", Kind::Lxc, false).await;
    let spec = machine.spec();
    let running = machine.backend.start(&spec).await.unwrap();
    fs::remove_dir_all(machine.lxc_path().join(name(&machine, &spec.id))).unwrap();
    assert_eq!(
        machine.backend.inspect(&spec).await.unwrap(),
        SandboxState::Running(running)
    );
    machine.backend.stop(&spec).await.unwrap();
    machine.backend.remove(&spec).await.unwrap();
    machine.assert_clean();
}

#[tokio::test]
async fn somebody_elses_container_is_refused_and_left_alone() {
    if !can_run() {
        return;
    }
    let machine = Machine::new("foreign", Kind::Lxc, false).await;
    let spec = machine.spec();
    let directory = machine.lxc_path().join(name(&machine, &spec.id));
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("config"), "lxc.uts.name = theirs\n").unwrap();
    let error = machine.backend.start(&spec).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("not of nexcage"), "{source}");
    assert!(machine.backend.leftovers().await.unwrap().is_empty());
    machine.backend.remove(&spec).await.unwrap();
    let config = fs::read_to_string(directory.join("config")).unwrap();
    assert_eq!(config, "lxc.uts.name = theirs\n");
    fs::remove_dir_all(directory).unwrap();
    machine.assert_clean();
}

#[tokio::test]
async fn a_failure_has_lxcs_own_reason() {
    if !can_run() {
        return;
    }
    let machine = Machine::new("reason", Kind::Lxc, false).await;
    fs::remove_file(machine.base.join("rootfs/catatonit")).unwrap();
    let error = machine
        .backend
        .start(&machine.spec())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("catatonit"), "{error}");
    let error = machine.backend.check().await.unwrap_err().to_string();
    assert!(error.contains("catatonit is missing"), "{error}");
    machine.assert_clean();
}

#[tokio::test]
async fn a_start_that_was_given_up_can_be_removed() {
    if !can_run() {
        return;
    }
    for scopes in [false, true] {
        let name = if scopes { "givenupscope" } else { "givenup" };
        let machine = Machine::new(name, Kind::Lxc, scopes).await;
        for step in 0..20 {
            let spec = machine.spec();
            // At some step nobody goes on, and lxc-start is killed wherever it is.
            let start = machine.backend.start(&spec);
            let _ = tokio::time::timeout(Duration::from_millis(2 * step), start).await;
            // What a thread was just doing for it, making a directory perhaps, is still done.
            tokio::time::sleep(Duration::from_millis(50)).await;
            if step % 2 == 0 {
                machine.backend.remove(&spec).await.unwrap();
            } else {
                machine.backend.remove_leftover(&spec.id).await.unwrap();
            }
            machine.assert_clean();
            assert!(machine.backend.leftovers().await.unwrap().is_empty());
        }
    }
}
