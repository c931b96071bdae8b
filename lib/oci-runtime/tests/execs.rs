//! Processes run in a real container.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{Host, eventually, exec, lives, root};
use nexcage_oci_runtime::{CreateContainer, ExecError};

const FOREVER: &str = "while :; do sleep 1; done";

async fn running(host: &Host, id: &str) -> CreateContainer {
    let container = host.script(id, FOREVER);
    host.run(&container).await;
    container
}

async fn remove(host: &Host, id: &str) {
    host.runtime.delete(id, true).await.unwrap();
    host.runtime.forget(id).await.unwrap();
    host.assert_clean().await;
}

/// Names of the cgroups of execs.
fn exec_cgroups(container: &CreateContainer) -> Vec<String> {
    container
        .container_cgroup
        .read_dir_utf8()
        .unwrap()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().to_owned())
        .collect()
}

#[tokio::test]
async fn output_and_exit_code_come_back() {
    if !root() {
        return;
    }
    let host = Host::new();
    let container = running(&host, "e1").await;
    let script = "echo out; echo err >&2; cat; echo $0 $HOME $LC_ALL; ls /proc/self/fd; exit 3";
    let output = host
        .runtime
        .exec_sync("e1", &host.exec(script, None))
        .await
        .unwrap();
    // Standard input is empty, the environment is the process's own, and no file of ours is open (3 is ls's).
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "out\nsh /\n0\n1\n2\n3\n"
    );
    assert_eq!(output.stderr, b"err\n");
    assert_eq!(output.exit_code, 3);
    let killed = host.exec("kill -9 $$", None);
    assert_eq!(
        host.runtime
            .exec_sync("e1", &killed)
            .await
            .unwrap()
            .exit_code,
        137
    );
    assert!(exec_cgroups(&container).is_empty());
    remove(&host, "e1").await;
}

#[tokio::test]
async fn what_cannot_start_is_an_error_with_cruns_words() {
    if !root() {
        return;
    }
    let host = Host::new();
    running(&host, "e2").await;
    // In the words of crun 1.8, or of 1.21.
    for (program, words) in [
        ("/no/such/program", ["not found in $PATH", "not found"]),
        (
            "no-such-program",
            ["not found in $PATH", "not found in $PATH"],
        ),
        ("/proc/version", ["Permission denied", "not executable"]),
    ] {
        let e = host.runtime.exec_sync("e2", &exec(&[program], None)).await;
        match e {
            Err(ExecError::Start { message, .. }) => assert!(
                words.iter().any(|words| message.contains(words)),
                "{message}"
            ),
            other => panic!("{program}: {other:?}"),
        }
    }
    // crun 1.21 has closed its log by then.
    let broken = exec(&["/bin/broken"], None);
    match host.runtime.exec_sync("e2", &broken).await {
        Err(ExecError::Start { message, .. }) => {
            assert!(message.contains("Exec format error"), "{message}");
        }
        Ok(output) => assert_eq!(
            (output.exit_code, &*output.stderr),
            (1, &b"exec: Exec format error\n"[..])
        ),
        Err(e) => panic!("{e:?}"),
    }
    // The shell's own words are not crun's.
    let output = host
        .runtime
        .exec_sync("e2", &host.exec("no-such-program", None))
        .await
        .unwrap();
    assert_eq!(output.exit_code, 127);

    let mut terminal = host.exec("true", None);
    terminal.process.set_terminal(Some(true));
    assert!(host.runtime.exec_sync("e2", &terminal).await.is_err());
    remove(&host, "e2").await;
}

#[tokio::test]
async fn a_container_that_does_not_run_is_told_apart() {
    if !root() {
        return;
    }
    let host = Host::new();
    let none = host
        .runtime
        .exec_sync("none", &host.exec("true", None))
        .await;
    assert!(
        matches!(none, Err(ExecError::NotRunning { .. })),
        "{none:?}"
    );
    host.run(&host.script("ended", "true")).await;
    host.exit("ended").await;
    let ended = host
        .runtime
        .exec_sync("ended", &host.exec("true", None))
        .await;
    assert!(
        matches!(ended, Err(ExecError::NotRunning { .. })),
        "{ended:?}"
    );
    remove(&host, "ended").await;
}

#[tokio::test]
async fn a_timeout_kills_all_that_the_process_started_and_nothing_else() {
    if !root() {
        return;
    }
    let host = Host::new();
    let container = running(&host, "e3").await;
    let before = host.processes();
    // Children, a daemon in a session of its own whose parent is gone, and one that ignores signals.
    let script = "sleep 1001 & setsid sh -c 'sleep 1002 & sleep 1003 &' & \
                  trap '' TERM HUP INT; sh -c \"trap '' TERM; sleep 1004\" & sleep 1005";
    let started = Instant::now();
    let timeout = Duration::from_secs(1);
    let e = host
        .runtime
        .exec_sync("e3", &host.exec(script, Some(timeout)))
        .await;
    assert!(
        matches!(&e, Err(ExecError::Timeout { timeout: told, .. }) if *told == timeout),
        "{e:?}"
    );
    let took = started.elapsed();
    assert!(took >= timeout && took < timeout * 3, "{took:?}");
    assert!(exec_cgroups(&container).is_empty());
    let left = host.exec("cat /proc/[0-9]*/cmdline", None);
    let left = host.runtime.exec_sync("e3", &left).await.unwrap().stdout;
    let left = String::from_utf8_lossy(&left).into_owned();
    assert!(left.contains("sleep"), "the container's own: {left:?}");
    assert!(!left.contains("sleep\x00100"), "{left:?}");
    assert!(before.iter().any(|pid| lives(*pid)), "the container lives");
    remove(&host, "e3").await;
}

#[tokio::test]
async fn a_dropped_call_kills_what_it_started() {
    if !root() {
        return;
    }
    let host = Host::new();
    let container = running(&host, "e4").await;
    let long = host.exec("setsid sleep 1001 & sleep 1002", None);
    let call = host.runtime.exec_sync("e4", &long);
    tokio::time::timeout(Duration::from_millis(500), call)
        .await
        .unwrap_err();
    let busy = || {
        exec_cgroups(&container).iter().any(|name| {
            let procs = container.container_cgroup.join(name).join("cgroup.procs");
            fs::read_to_string(procs).is_ok_and(|list| !list.is_empty())
        })
    };
    eventually("nothing runs", || !busy()).await;
    remove(&host, "e4").await;
}

#[tokio::test]
async fn a_background_process_outlives_its_exec_and_holds_nobody_up() {
    if !root() {
        return;
    }
    let host = Host::new();
    let container = running(&host, "e5").await;
    let started = Instant::now();
    let script = host.exec(
        "sleep 1001 & echo started; exit 4",
        Some(Duration::from_secs(30)),
    );
    let output = host.runtime.exec_sync("e5", &script).await.unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    assert_eq!((output.exit_code, &*output.stdout), (4, &b"started\n"[..]));
    assert!(exec_cgroups(&container).is_empty());
    let procs = fs::read_to_string(container.container_cgroup.join("cgroup.procs")).unwrap();
    let sleeps = procs.lines().any(|pid| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("1001"))
    });
    assert!(sleeps, "it went on in the container's cgroup");
    remove(&host, "e5").await;
}

#[tokio::test]
async fn output_is_capped_and_the_rest_drained() {
    if !root() {
        return;
    }
    let host = Host::new();
    running(&host, "e6").await;
    let script = "head -c 40000000 /proc/self/../../dev/zero 2>/dev/null || \
                  busybox yes | head -c 40000000; busybox yes | head -c 20000000 >&2; exit 5";
    let output = host
        .runtime
        .exec_sync("e6", &host.exec(script, Some(Duration::from_secs(60))))
        .await
        .unwrap();
    assert_eq!(output.exit_code, 5, "it could write everything");
    assert_eq!(output.stdout.len(), 16 << 20);
    assert_eq!(output.stderr.len(), 16 << 20);

    let mut small = host.exec("echo 1234567890", None);
    small.output_limit = 4;
    let output = host.runtime.exec_sync("e6", &small).await.unwrap();
    assert_eq!(output.stdout, b"1234");
    remove(&host, "e6").await;
}

#[tokio::test]
async fn many_execs_at_once_do_not_mix() {
    if !root() {
        return;
    }
    let host = Host::new();
    let container = running(&host, "e7").await;
    let calls = (0..20).map(|n| {
        let runtime = host.runtime.clone();
        let exec = host.exec(&format!("echo {n}"), Some(Duration::from_secs(20)));
        tokio::spawn(async move { runtime.exec_sync("e7", &exec).await })
    });
    for (n, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        let output = call.await.unwrap().unwrap();
        assert_eq!(output.stdout, format!("{n}\n").into_bytes());
    }
    assert!(exec_cgroups(&container).is_empty());
    remove(&host, "e7").await;
}
