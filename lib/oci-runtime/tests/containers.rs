//! Real containers from their creation to their end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::time::Duration;

use common::{Host, eventually, lives, root};
use nexcage_oci_runtime::{CgroupManager, CreateError, OciError, Status};
use serde_json::json;

#[tokio::test]
async fn a_container_runs_logs_and_leaves_its_exit_code() {
    if !root() {
        return;
    }
    let host = Host::new();
    let container = host.script("c1", "echo out; echo err >&2; exit 7");
    let created = host.runtime.create(&container).await.unwrap();
    assert!(container.log_path.exists(), "kubelet links it at once");
    assert_eq!(
        fs::read_to_string(format!("/proc/{}/cgroup", created.conmon_pid))
            .unwrap()
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .unwrap(),
        format!("{}/monitor/c1", host.cgroup.file_name().unwrap())
    );
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", created.pid)).unwrap();
    assert!(groups.contains("/ct/c1\n"), "{groups}");
    let state = host.runtime.state("c1").await.unwrap();
    assert_eq!((state.status, state.pid), (Status::Created, created.pid));
    assert_eq!(host.runtime.exit_record("c1").unwrap(), None);

    host.runtime.start("c1").await.unwrap();
    let exit = host.exit("c1").await;
    assert_eq!((exit.exit_code, exit.oom_killed), (7, false));
    let age = jiff::Timestamp::now().duration_since(exit.finished_at);
    assert!(age.as_secs().abs() < 10, "{age:?}");
    let log = fs::read_to_string(&container.log_path).unwrap();
    assert!(log.contains(" stdout F out\n"), "{log}");
    assert!(log.contains(" stderr F err\n"), "{log}");
    assert_eq!(
        host.runtime.state("c1").await.unwrap().status,
        Status::Stopped
    );

    for _ in 0..2 {
        host.runtime.delete("c1", false).await.unwrap();
        host.runtime.forget("c1").await.unwrap();
    }
    assert_eq!(host.runtime.exit_record("c1").unwrap(), None);
    host.assert_clean().await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found_or_already_gone() {
    if !root() {
        return;
    }
    let host = Host::new();
    let runtime = &host.runtime;
    assert!(matches!(
        runtime.state("no").await,
        Err(OciError::NotFound { .. })
    ));
    assert!(matches!(
        runtime.start("no").await,
        Err(OciError::NotFound { .. })
    ));
    runtime.kill("no", 15, false).await.unwrap();
    runtime.kill("no", 9, true).await.unwrap();
    runtime.delete("no", false).await.unwrap();
    runtime.delete("no", true).await.unwrap();
    runtime.forget("no").await.unwrap();
    assert!(runtime.state("../no").await.is_err());
}

#[tokio::test]
async fn a_process_that_ignores_everything_is_killed_by_sigkill() {
    if !root() {
        return;
    }
    let host = Host::new();
    let script = "trap '' TERM INT HUP QUIT; echo ready; while :; do sleep 1; done";
    let container = host.script("deaf", script);
    let created = host.run(&container).await;
    let ready = || {
        fs::read_to_string(&container.log_path)
            .unwrap()
            .contains("ready")
    };
    eventually("ready", ready).await;
    host.runtime.kill("deaf", 15, false).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(lives(created.pid));
    let refused = host.runtime.delete("deaf", false).await.unwrap_err();
    assert!(matches!(refused, OciError::Refused { .. }), "{refused}");

    host.runtime.kill("deaf", 9, false).await.unwrap();
    assert_eq!(host.exit("deaf").await.exit_code, 137);
    host.runtime.kill("deaf", 9, false).await.unwrap();
    host.runtime.kill("deaf", 15, true).await.unwrap();
    assert!(host.runtime.kill("deaf", 999, false).await.is_err());
    host.runtime.delete("deaf", false).await.unwrap();
    host.runtime.forget("deaf").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn all_processes_of_a_shared_pid_namespace_are_killed() {
    if !root() {
        return;
    }
    let host = Host::new();
    // Without a pid namespace the end of the first process ends no other.
    let script =
        "trap '' TERM; sleep 1000 & echo ready; trap 'echo got' USR1; while :; do sleep 0.1; done";
    let container = host.bundle("many", &["/bin/sh", "-c", script], |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
    });
    host.run(&container).await;
    let log = || fs::read_to_string(&container.log_path).unwrap();
    eventually("ready", || log().contains("ready")).await;
    host.runtime.kill("many", 10, false).await.unwrap();
    eventually("the signal", || log().contains("got")).await;
    host.runtime.kill("many", 9, true).await.unwrap();
    assert_eq!(host.exit("many").await.exit_code, 137);
    eventually("no process", || host.processes().is_empty()).await;
    host.runtime.delete("many", false).await.unwrap();
    host.runtime.forget("many").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn deleting_by_force_ends_a_created_or_running_container() {
    if !root() {
        return;
    }
    let host = Host::new();
    let created = host.script("created", "true");
    host.runtime.create(&created).await.unwrap();
    host.run(&host.script("running", "while :; do sleep 1; done"))
        .await;
    for id in ["created", "running"] {
        let started = std::time::Instant::now();
        host.runtime.delete(id, true).await.unwrap();
        assert!(
            started.elapsed() < Duration::from_millis(900),
            "conmon had to be killed"
        );
        host.runtime.forget(id).await.unwrap();
    }
    host.assert_clean().await;
}

#[tokio::test]
async fn cruns_words_reach_the_caller_and_nothing_is_left() {
    if !root() {
        return;
    }
    let host = Host::new();
    let missing = host.bundle("missing", &["no-such-program"], |_| {});
    let text = match host.runtime.create(&missing).await {
        Ok(_) => host.runtime.start("missing").await.unwrap_err().to_string(),
        Err(e @ CreateError::Refused { .. }) => e.to_string(),
        Err(e) => panic!("{e:?}"),
    };
    assert!(
        text.contains("no-such-program") && text.contains("$PATH"),
        "{text}"
    );
    host.runtime.delete("missing", true).await.unwrap();
    host.runtime.forget("missing").await.unwrap();

    let nowhere = host.bundle("nowhere", &["/bin/true"], |config| {
        config["linux"]["namespaces"][2]["path"] = json!("/proc/0/ns/ipc");
    });
    let e = host.runtime.create(&nowhere).await.unwrap_err();
    assert!(matches!(e, CreateError::Refused { .. }), "{e:?}");
    assert!(e.to_string().contains("/proc/0/ns/ipc"), "{e}");

    let mut elsewhere = host.script("elsewhere", "true");
    elsewhere.log_path = host.dir.join("no/such/directory/0.log");
    let e = host.runtime.create(&elsewhere).await.unwrap_err();
    assert!(matches!(e, CreateError::Monitor { .. }), "{e:?}");
    let source = std::error::Error::source(&e).unwrap().to_string();
    assert!(source.contains("log file"), "{source}");

    elsewhere.log_path = host.dir.join("logs/a:b.log");
    let e = host.runtime.create(&elsewhere).await.unwrap_err();
    let source = std::error::Error::source(&e).unwrap().to_string();
    assert!(source.contains("colon"), "{source}");
    host.assert_clean().await;
}

#[tokio::test]
async fn a_second_container_of_the_same_id_leaves_the_first_alone() {
    if !root() {
        return;
    }
    let host = Host::new();
    let container = host.script("twin", "while :; do sleep 1; done");
    let created = host.run(&container).await;
    host.runtime.create(&container).await.unwrap_err();
    assert!(lives(created.pid) && lives(created.conmon_pid));
    assert_eq!(
        host.runtime.state("twin").await.unwrap().status,
        Status::Running
    );
    host.runtime.delete("twin", true).await.unwrap();
    host.runtime.forget("twin").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn a_terminal_and_standard_input_work() {
    if !root() {
        return;
    }
    let host = Host::new();
    let mut container = host.bundle("tty", &["/bin/busybox", "tty"], |config| {
        config["process"]["terminal"] = json!(true);
        config["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
        }));
    });
    container.terminal = true;
    container.stdin = true;
    host.run(&container).await;
    assert_eq!(host.exit("tty").await.exit_code, 0);
    let log = fs::read_to_string(&container.log_path).unwrap();
    assert!(log.contains("/dev/"), "{log}");

    // Kept open: cat waits.
    let mut container = host.bundle("open", &["/bin/cat"], |_| {});
    container.stdin = true;
    host.run(&container).await;
    // Not asked for: end of file at once.
    host.run(&host.bundle("closed", &["/bin/cat"], |_| {}))
        .await;
    assert_eq!(host.exit("closed").await.exit_code, 0);
    assert_eq!(host.runtime.exit_record("open").unwrap(), None);
    for id in ["tty", "open", "closed"] {
        host.runtime.delete(id, true).await.unwrap();
        host.runtime.forget(id).await.unwrap();
    }
    host.assert_clean().await;
}

#[tokio::test]
async fn limits_are_set_or_refused() {
    if !root() {
        return;
    }
    let host = Host::new();
    let container = host.script("limits", "while :; do sleep 1; done");
    host.run(&container).await;
    let resources = serde_json::from_value(json!({ "pids": { "limit": 77 } })).unwrap();
    let updated = host.runtime.update("limits", &resources).await;
    match host.options.cgroup_manager {
        CgroupManager::Disabled => {
            let e = updated.unwrap_err();
            assert!(e.to_string().contains("cgroup v2"), "{e}");
        }
        CgroupManager::Cgroupfs => {
            updated.unwrap();
            let limit = fs::read_to_string(container.container_cgroup.join("pids.max")).unwrap();
            assert_eq!(limit, "77\n");
        }
    }
    host.runtime.delete("limits", true).await.unwrap();
    host.runtime.forget("limits").await.unwrap();
}

#[tokio::test]
async fn a_plain_container_needs_no_conmon() {
    if !root() {
        return;
    }
    let host = Host::new();
    let container = host.script("pause", "while :; do sleep 1; done");
    let pid_file = host.dir.join("pause.pid");
    let runtime = &host.runtime;
    let (command, creation) = runtime
        .create_plain("pause", &container.bundle, &pid_file)
        .unwrap();
    let pid = creation.finish(command.run().await).await.unwrap();
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), pid.to_string());
    let again = runtime.create_plain("pause", &container.bundle, &pid_file);
    assert!(again.unwrap_err().to_string().contains("already exists"));
    assert_eq!(runtime.state("pause").await.unwrap().pid, pid);
    runtime.start("pause").await.unwrap();
    for stream in 0..3 {
        let target = fs::read_link(format!("/proc/{pid}/fd/{stream}")).unwrap();
        assert_eq!(target.to_str(), Some("/dev/null"));
    }
    // crun's own are closed by the exec of the script.
    let open = || fs::exists(format!("/proc/{pid}/fd/3")).unwrap();
    eventually("no other file", || !open()).await;
    runtime.kill("pause", 9, false).await.unwrap();
    eventually("its end", || !lives(pid)).await;
    assert_eq!(
        runtime.state("pause").await.unwrap().status,
        Status::Stopped
    );
    runtime.delete("pause", false).await.unwrap();
    runtime.forget("pause").await.unwrap();

    let broken = host.bundle("broken", &["no-such-program"], |_| {});
    let (command, creation) = runtime
        .create_plain("broken", &broken.bundle, &pid_file)
        .unwrap();
    match creation.finish(command.run().await).await {
        Ok(_) => runtime.delete("broken", true).await.unwrap(),
        Err(e) => assert!(e.to_string().contains("no-such-program"), "{e}"),
    }
    host.assert_clean().await;
}
