//! What holds when this process dies, and what conmon does on its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::time::Duration;

use camino::Utf8PathBuf;
use common::{Host, eventually, lives, root};
use nexcage_oci_runtime::{OciError, Status};

#[tokio::test]
async fn conmon_is_a_daemon_with_no_stream_of_ours() {
    if !root() {
        return;
    }
    let host = Host::new();
    let container = host.script("d1", "while :; do echo tick; sleep 0.1; done");
    let created = host.run(&container).await;
    let conmon = created.conmon_pid;
    let stat = fs::read_to_string(format!("/proc/{conmon}/stat")).unwrap();
    let fields: Vec<_> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(fields[3], conmon.to_string(), "it leads its own session");
    assert_ne!(
        fields[1],
        std::process::id().to_string(),
        "it is not our child"
    );
    for stream in 0..3 {
        let target = fs::read_link(format!("/proc/{conmon}/fd/{stream}")).unwrap();
        assert_eq!(target.to_str(), Some("/dev/null"));
    }
    let cwd = fs::read_link(format!("/proc/{conmon}/cwd")).unwrap();
    assert!(cwd.ends_with("m/d1"), "{cwd:?}");
    let status = fs::read_to_string(format!("/proc/{conmon}/status")).unwrap();
    let ignored = status
        .lines()
        .find_map(|l| l.strip_prefix("SigIgn:\t"))
        .unwrap();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    assert_ne!(ignored & (1 << 12), 0, "SIGPIPE is ignored");
    assert!(
        host.dir.join("m/s/d1/attach").exists(),
        "for attaching clients"
    );
    host.runtime.delete("d1", true).await.unwrap();
    host.runtime.forget("d1").await.unwrap();
    host.assert_clean().await;
}

/// The part of the next two tests that runs in a process of its own: makes a container, then waits to be killed.
#[tokio::test]
async fn victim() {
    let Ok(name) = std::env::var("NXOCI_VICTIM") else {
        return;
    };
    let host = std::mem::ManuallyDrop::new(Host::named(&name));
    let container = host.script(
        "v1",
        "for i in 1 2 3 4 5 6 7 8; do echo line$i; sleep 0.2; done; exit 9",
    );
    println!("begin");
    host.run(&container).await;
    println!("ready");
    tokio::time::sleep(Duration::from_secs(60)).await;
}

/// Starts the victim and returns when it has said this.
async fn victim_until(name: &str, word: &'static str) -> std::process::Child {
    #[allow(clippy::disallowed_methods, reason = "a second process to kill")]
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env("NXOCI_VICTIM", name)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let seen = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        let mut buffer = [0; 256];
        while !text.contains(word) {
            let read = stdout.read(&mut buffer).unwrap();
            assert_ne!(read, 0, "the victim ended early: {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        stdout
    });
    child.stdout = Some(seen.await.unwrap());
    child
}

#[tokio::test]
async fn a_container_survives_the_death_of_its_maker() {
    if !root() {
        return;
    }
    let name = format!("nxoci-{}-v", std::process::id());
    let host = Host::named(&name);
    let mut child = victim_until(&name, "ready").await;
    child.kill().unwrap();
    child.wait().unwrap();

    assert_eq!(
        host.runtime.state("v1").await.unwrap().status,
        Status::Running
    );
    let exec = host.exec("echo alive", None);
    assert_eq!(
        host.runtime.exec_sync("v1", &exec).await.unwrap().stdout,
        b"alive\n"
    );
    assert_eq!(host.exit("v1").await.exit_code, 9);
    let log = fs::read_to_string(host.dir.join("logs/v1.log")).unwrap();
    assert!(log.contains("line1") && log.contains("line8"), "{log}");
    assert_eq!(host.runtime.list().await.unwrap(), ["v1"]);
    host.runtime.delete("v1", false).await.unwrap();
    host.runtime.forget("v1").await.unwrap();
    host.assert_clean().await;
}

#[tokio::test]
async fn a_maker_killed_at_any_time_leaves_what_can_be_removed() {
    if !root() {
        return;
    }
    for step in 0..16 {
        let name = format!("nxoci-{}-k{step}", std::process::id());
        let host = Host::named(&name);
        let mut child = victim_until(&name, "begin").await;
        tokio::time::sleep(Duration::from_millis(step * 3)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        for id in host.runtime.list().await.unwrap() {
            host.runtime.delete(&id, true).await.unwrap();
            host.runtime.forget(&id).await.unwrap();
        }
        host.assert_clean().await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        host.assert_clean().await;
    }
}

#[tokio::test]
async fn a_conmon_that_has_made_nothing_yet_is_ended() {
    if !root() {
        return;
    }
    let host = Host::new();
    let created = host
        .run(&host.script("nopid", "while :; do sleep 1; done"))
        .await;
    // As before crun has done anything: neither pid file nor state.
    fs::remove_file(host.dir.join("m/nopid/conmon.pid")).unwrap();
    fs::remove_dir_all(host.dir.join("crun/nopid")).unwrap();
    fs::remove_file(host.dir.join("m/nopid/cgroup")).unwrap();
    host.runtime.delete("nopid", true).await.unwrap();
    assert!(!lives(created.conmon_pid));
}

#[tokio::test]
async fn creation_broken_off_anywhere_is_cleaned_up() {
    if !root() {
        return;
    }
    let host = Host::new();
    // The future is dropped after more and more time, so between all of the steps.
    for step in 0..40u64 {
        let id = format!("b{step:02}");
        let container = host.script(&id, "while :; do sleep 1; done");
        let create = host.runtime.create(&container);
        let _ = tokio::time::timeout(Duration::from_micros(step * 1000), create).await;
        host.runtime.delete(&id, true).await.unwrap();
        host.runtime.forget(&id).await.unwrap();
        assert_eq!(
            host.runtime.list().await.unwrap(),
            Vec::<String>::new(),
            "{id}"
        );
    }
    host.assert_clean().await;
    // Nothing comes back later.
    tokio::time::sleep(Duration::from_millis(500)).await;
    host.assert_clean().await;
}

#[tokio::test]
async fn a_killed_conmon_leaves_a_container_that_can_be_removed() {
    if !root() {
        return;
    }
    let host = Host::new();
    let container = host.script("orphan", "while :; do sleep 1; done");
    let created = host.run(&container).await;
    let conmon = i32::try_from(created.conmon_pid).unwrap();
    let conmon = rustix::process::Pid::from_raw(conmon).unwrap();
    rustix::process::kill_process(conmon, rustix::process::Signal::KILL).unwrap();
    eventually("conmon's end", || !lives(created.conmon_pid)).await;
    let gone = host
        .runtime
        .reopen_log(
            "orphan",
            &container.bundle,
            &host.dir.join("logs/other.log"),
        )
        .await;
    assert!(matches!(gone, Err(OciError::Unable { .. })), "{gone:?}");
    host.runtime.delete("orphan", true).await.unwrap();
    host.runtime.forget("orphan").await.unwrap();
    host.assert_clean().await;
}

/// crun's own mount, as one leaves it that is killed before it has taken it away.
fn mount_crun(host: &Host, directory: &str) -> Utf8PathBuf {
    let point = host.dir.join(directory).join("crun.X8fJ9q");
    fs::write(&point, "").unwrap();
    rustix::mount::mount_bind(host.options.crun.path().as_std_path(), point.as_std_path()).unwrap();
    point
}

#[tokio::test]
async fn a_crun_killed_at_its_mount_keeps_nothing_from_being_removed() {
    if !root() {
        return;
    }
    let host = Host::new();
    host.run(&host.script("k1", "while :; do sleep 1; done"))
        .await;
    let in_monitor = mount_crun(&host, "m/k1");
    let in_root = mount_crun(&host, "crun");
    host.runtime.delete("k1", true).await.unwrap();
    host.runtime.forget("k1").await.unwrap();
    assert!(!in_monitor.exists());
    host.runtime.tidy().await.unwrap();
    assert!(!in_root.exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(host.dir.as_str()), "{mounts}");
    host.assert_clean().await;
}

#[tokio::test]
async fn a_renamed_log_is_opened_anew() {
    if !root() {
        return;
    }
    let host = Host::new();
    let container = host.script(
        "log",
        "i=0; while :; do echo tick$i; i=$((i+1)); sleep 0.05; done",
    );
    host.run(&container).await;
    let log = &container.log_path;
    eventually("a line", || {
        fs::read_to_string(log).unwrap().contains("tick0")
    })
    .await;
    let reopen = || host.runtime.reopen_log("log", &container.bundle, log);

    // Nothing renamed: nothing lost.
    reopen().await.unwrap();
    assert!(fs::read_to_string(log).unwrap().contains("tick0"));

    let old = host.dir.join("logs/old.log");
    fs::rename(log, &old).unwrap();
    reopen().await.unwrap();
    assert!(log.exists(), "at once");
    eventually("new lines", || {
        fs::read_to_string(log).unwrap().contains("tick")
    })
    .await;
    assert!(!fs::read_to_string(log).unwrap().contains("tick0\n"));
    let length = fs::metadata(&old).unwrap().len();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(
        fs::metadata(&old).unwrap().len(),
        length,
        "the old one is closed"
    );

    // The directory is gone: an error, and conmon lives to write on.
    let (logs, away) = (host.dir.join("logs"), host.dir.join("away"));
    fs::rename(&logs, &away).unwrap();
    assert!(matches!(reopen().await, Err(OciError::File { .. })));
    assert!(!log.exists());
    fs::rename(&away, &logs).unwrap();
    reopen().await.unwrap();

    host.runtime.kill("log", 9, false).await.unwrap();
    host.exit("log").await;
    eventually("conmon's end", || host.processes().is_empty()).await;
    fs::remove_file(log).unwrap();
    assert!(matches!(reopen().await, Err(OciError::Unable { .. })));
    assert!(!log.exists(), "no file with an error");
    host.runtime.delete("log", false).await.unwrap();
    host.runtime.forget("log").await.unwrap();
    host.assert_clean().await;
}

/// The reason why conmon is not held on its start pipe: it does not end when the holder dies. Should a later conmon
/// do so, this test says that the crate's documentation is out of date.
#[tokio::test]
async fn conmon_goes_on_when_its_start_pipe_closes() {
    if !root() {
        return;
    }
    let host = Host::new();
    let container = host.script("held", "true");
    fs::create_dir_all(host.dir.join("m/held")).unwrap();
    let (read, write) = rustix::pipe::pipe().unwrap();
    let fd = read.as_raw_fd();
    rustix::io::fcntl_setfd(&write, rustix::io::FdFlags::CLOEXEC).unwrap();
    #[allow(
        clippy::disallowed_methods,
        reason = "conmon as it is, without this crate"
    )]
    let mut conmon = std::process::Command::new(host.options.conmon.path())
        .args([
            "--api-version",
            "--cid=held",
            "--cuuid=held",
            "--runtime=/bin/false",
        ])
        .arg(format!("--bundle={}", container.bundle))
        .arg(format!("--socket-dir-path={}", host.dir))
        .arg(format!("--log-path=k8s-file:{}", container.log_path))
        .env("_OCI_STARTPIPE", fd.to_string())
        .spawn()
        .unwrap();
    drop(read);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(conmon.try_wait().unwrap().is_none(), "held");
    drop(write);
    let status = tokio::task::spawn_blocking(move || conmon.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success(), "it daemonized");
    let control = container.bundle.join("ctl");
    eventually("its control pipe", || control.exists()).await;
    eventually("its end", || !any_process_with(container.bundle.as_str())).await;
}

fn any_process_with(argument: &str) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(argument)
    })
}
