//! Programs started held, through a real holder.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use camino::Utf8PathBuf;
use nexcage_command::{Command, Program};

const SOON: Duration = Duration::from_secs(10);

/// `examples/hold`, which `cargo test` builds next to the tests.
fn holder() -> Program {
    let test = Utf8PathBuf::try_from(std::env::current_exe().unwrap()).unwrap();
    let target = test.parent().unwrap().parent().unwrap();
    Program::at(target.join("examples/hold")).unwrap()
}

fn program(name: &str) -> Program {
    Program::find(name, "coreutils").unwrap()
}

#[tokio::test]
async fn waits_until_released_and_keeps_its_pid() {
    let dir = tempfile::tempdir().unwrap();
    let ran = dir.path().join("ran");
    let script = format!("touch {}; echo $$; ls /proc/self/fd", ran.display());
    let held = Command::new(&program("sh"), SOON)
        .args(["-c", &script])
        .start_held(&holder())
        .unwrap();
    let pid = held.pid();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!ran.exists());
    let text = held.release().await.unwrap().stdout_text();
    assert!(ran.exists());
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(pid.to_string().as_str()));
    // The pipe is not inherited: the same files are open as without the holder.
    let free = Command::new(&program("sh"), SOON)
        .args(["-c", &script])
        .run()
        .await
        .unwrap()
        .stdout_text();
    assert!(lines.eq(free.lines().skip(1)), "{text} {free}");
}

#[tokio::test]
async fn dropping_it_ends_it_unexecuted() {
    let dir = tempfile::tempdir().unwrap();
    let ran = dir.path().join("ran");
    let held = Command::new(&program("touch"), SOON)
        .arg(ran.as_os_str())
        .start_held(&holder())
        .unwrap();
    let pid = held.pid();
    drop(held);
    let stat = format!("/proc/{pid}/stat");
    for _ in 0..100 {
        // Gone, or a zombie until the runtime reaps it.
        if std::fs::read_to_string(&stat).map_or(true, |s| s.contains(") Z ")) {
            assert!(!ran.exists());
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{pid} still runs");
}

#[tokio::test]
async fn cancelled_it_has_ended_unexecuted() {
    let dir = tempfile::tempdir().unwrap();
    let ran = dir.path().join("ran");
    let held = Command::new(&program("touch"), SOON)
        .arg(ran.as_os_str())
        .start_held(&holder())
        .unwrap();
    let process = format!("/proc/{}", held.pid());
    assert!(std::fs::exists(&process).unwrap());
    held.cancel().await.unwrap();
    assert!(!std::fs::exists(&process).unwrap());
    assert!(!ran.exists());
}

#[tokio::test]
async fn failures_name_the_program_and_not_the_holder() {
    let held = Command::new(&program("ls"), SOON)
        .arg("/no/such/file")
        .start_held(&holder())
        .unwrap();
    let text = held.release().await.unwrap_err().to_string();
    assert!(text.contains("ls /no/such/file` failed"), "{text}");
    assert!(!text.contains("hold"), "{text}");
}
