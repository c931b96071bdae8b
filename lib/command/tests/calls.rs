//! Calls of real programs.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use nexcage_command::{Command, CommandError, Program, Stdin};
use rustix::process::{Pid, Signal};

const SOON: Duration = Duration::from_secs(10);

fn program(name: &str) -> Program {
    Program::find(name, "coreutils").unwrap()
}

#[tokio::test]
async fn output_and_input_pass_through() {
    let out = Command::new(&program("cat"), SOON)
        .stdin(Stdin::Bytes(b"hello".to_vec()))
        .run()
        .await
        .unwrap();
    assert_eq!(out.stdout, b"hello");
}

#[tokio::test]
async fn a_failure_tells_everything() {
    let e = Command::new(&program("ls"), SOON)
        .arg("/no/such/file")
        .run()
        .await
        .unwrap_err();
    let text = e.to_string();
    assert!(text.contains("ls /no/such/file"), "{text}");
    assert!(text.contains("exit status: 2"), "{text}");
    assert!(text.contains("No such file"), "{text}");
    assert!(!e.is_retryable());
}

#[tokio::test]
async fn the_deadline_kills_grandchildren_too() {
    let dir = tempfile::tempdir().unwrap();
    let alive = dir.path().join("alive");
    let script = format!("(sleep 2; touch {}) & sleep 60", alive.display());
    let e = Command::new(&program("sh"), Duration::from_millis(200))
        .args(["-c", &script])
        .run()
        .await
        .unwrap_err();
    assert!(matches!(e, CommandError::Deadline { .. }));
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(!alive.exists());
}

#[tokio::test]
async fn the_environment_is_not_inherited() {
    let out = Command::new(&program("env"), SOON)
        .env("A", "b")
        .run()
        .await
        .unwrap();
    let text = out.stdout_text();
    assert!(
        text.contains("A=b") && text.contains("LC_ALL=C.UTF-8"),
        "{text}"
    );
    assert!(!text.contains("CARGO"), "{text}");
}

#[tokio::test]
async fn output_beyond_the_limit_is_read_and_dropped() {
    let out = Command::new(&program("head"), SOON)
        .args(["-c", "3000000", "/dev/zero"])
        .output_limit(1000)
        .run()
        .await
        .unwrap();
    assert_eq!(out.stdout.len(), 1000);
}

#[tokio::test]
async fn a_process_left_behind_is_waited_for_only_while_lingering() {
    let started = std::time::Instant::now();
    let out = Command::new(&program("sh"), SOON)
        .args(["-c", "sleep 30 & echo $!; echo bad >&2; exit 3"])
        .linger(Duration::from_millis(100))
        .run_any_status()
        .await
        .unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(out.status.code(), Some(3));
    assert_eq!(out.stderr, b"bad\n");
    let left = Pid::from_raw(out.stdout_text().trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(left, Signal::KILL).unwrap();
}

#[tokio::test]
async fn discarded_output_holds_nobody_up() {
    let started = std::time::Instant::now();
    let out = Command::new(&program("sh"), SOON)
        .args(["-c", "sleep 3 & echo lost"])
        .discard_output()
        .run()
        .await
        .unwrap();
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(out.stdout.is_empty());
}

#[tokio::test]
async fn a_missing_cgroup_is_named() {
    let e = Command::new(&program("true"), SOON)
        .cgroup("/sys/fs/cgroup/no-such-group")
        .run()
        .await
        .unwrap_err();
    let source = std::error::Error::source(&e).unwrap().to_string();
    assert!(source.contains("/sys/fs/cgroup/no-such-group"), "{source}");
}

#[tokio::test]
async fn files_arrive_under_their_numbers() {
    let (a_read, a_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (b_read, b_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    rustix::io::write(&a_write, b"first").unwrap();
    rustix::io::write(&b_write, b"second").unwrap();
    drop((a_write, b_write));
    let out = Command::new(&program("sh"), SOON)
        .args(["-c", "cat <&3; cat <&4"])
        .file(b_read, 4)
        .file(a_read, 3)
        .run()
        .await
        .unwrap();
    assert_eq!(out.stdout, b"firstsecond");
}
