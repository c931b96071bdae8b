//! Changes of containers, which are tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::server::{Reply, Seen, Server, answer, data, refusal};
use super::{House, chain};
use crate::api::error::PveError;
use crate::api::transport::Limits;
use crate::api::verbs::Pve as _;

const UPID: &str = "UPID:pve1:0003A5B1:0A1B2C3D:6921F0A7:vzstart:100:nexcage@pve!node:";
const ENCODED: &str =
    "UPID%3Apve1%3A0003A5B1%3A0A1B2C3D%3A6921F0A7%3Avzstart%3A100%3Anexcage%40pve%21node%3A";

fn running() -> Reply {
    state("running", None)
}

fn stopped(exit_status: &str) -> Reply {
    state("stopped", Some(exit_status))
}

fn state(status: &str, exit_status: Option<&str>) -> Reply {
    let mut task = json!({
        "upid": UPID, "node": "pve1", "pid": 239_025, "pstart": 169_552_957, "starttime": 1_763_831_975, "type": "vzstart", "id": "100",
        "user": "nexcage@pve", "tokenid": "node", "status": status,
    });
    if let Some(exit_status) = exit_status {
        task["exitstatus"] = exit_status.into();
    }
    data(&task)
}

fn log(lines: &[&str]) -> Reply {
    let lines = lines.iter().enumerate();
    let lines = lines.map(|(n, line)| json!({"n": n + 1, "t": line}));
    data(&Value::Array(lines.collect()))
}

/// Begins a task at each POST. `after` is told how often it was asked after one, and answers.
async fn tasks(
    begin: impl Fn(usize) -> Reply + Send + Sync + 'static,
    after: impl Fn(usize) -> Reply + Send + Sync + 'static,
) -> Server {
    let begun = AtomicUsize::new(0);
    let asked = AtomicUsize::new(0);
    Server::start(move |seen: &Seen| {
        if seen.line.starts_with("POST ") {
            return begin(begun.fetch_add(1, Ordering::Relaxed));
        }
        assert!(seen.line.contains(ENCODED), "{}", seen.line);
        if seen.line.ends_with("/status") {
            return after(asked.fetch_add(1, Ordering::Relaxed));
        }
        assert!(seen.line.ends_with("/log?limit=500"), "{}", seen.line);
        log(&[
            "lxc-start: 100: ../src/lxc/start.c: lxc_spawn: 1832 Failed to spawn container",
            "TASK ERROR: startup for container '100' failed",
        ])
    })
    .await
}

#[tokio::test]
async fn a_task_is_awaited() {
    let server = tasks(
        |_| data(&UPID.into()),
        |n| if n < 2 { running() } else { stopped("OK") },
    )
    .await;
    House::new(&server).client.start(100).await.unwrap();
    let status = format!("GET nodes/pve1/tasks/{ENCODED}/status");
    let start = "POST nodes/pve1/lxc/100/status/start".to_owned();
    assert_eq!(
        server.lines(),
        [start, status.clone(), status.clone(), status]
    );
}

#[tokio::test]
async fn verbs_have_their_paths_and_parameters() {
    let server = tasks(|_| data(&UPID.into()), |_| stopped("OK")).await;
    let house = House::new(&server);
    house.client.stop(100).await.unwrap();
    let timeout = Duration::from_millis(29_500);
    house.client.shutdown(100, timeout).await.unwrap();
    let seen = server.seen();
    let posts: Vec<_> = seen.iter().filter(|s| s.line.starts_with("POST")).collect();
    assert!(posts[0].line.ends_with("/nodes/pve1/lxc/100/status/stop"));
    assert_eq!(posts[0].body, "");
    assert!(
        posts[0].head.contains("content-length: 0\r\n"),
        "{}",
        posts[0].head
    );
    assert!(
        posts[1]
            .line
            .ends_with("/nodes/pve1/lxc/100/status/shutdown")
    );
    assert_eq!(posts[1].body, "timeout=30");
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    assert!(posts[1].head.contains(form), "{}", posts[1].head);
}

#[tokio::test]
async fn warnings_are_success() {
    let server = tasks(|_| data(&UPID.into()), |_| stopped("WARNINGS: 2")).await;
    House::new(&server).client.start(100).await.unwrap();
}

#[tokio::test]
async fn a_failed_task_says_why() {
    let failed = "startup for container '100' failed";
    let server = tasks(|_| data(&UPID.into()), move |_| stopped(failed)).await;
    let error = House::new(&server).client.start(100).await.unwrap_err();
    insta::assert_snapshot!(error, @"the Proxmox task UPID:pve1:0003A5B1:0A1B2C3D:6921F0A7:vzstart:100:nexcage@pve!node: failed: startup for container '100' failed (lxc-start: 100: ../src/lxc/start.c: lxc_spawn: 1832 Failed to spawn container)");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn words_of_tasks_have_meanings() {
    for (words, wanted) in [
        ("cluster not ready - no quorum?", "NoQuorum"),
        ("CT is locked (backup)", "Locked"),
        (
            "Configuration file 'nodes/pve1/lxc/100.conf' does not exist",
            "NotFound",
        ),
        ("unexpected status", "Task"),
    ] {
        let server = tasks(|_| data(&UPID.into()), move |_| stopped(words)).await;
        let error = House::new(&server).client.start(100).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(wanted), "{error:?}");
    }
}

const LOCKED: &str = "can't lock file '/run/lock/lxc/pve-config-100.lock' - got timeout";

#[tokio::test]
async fn a_lock_that_was_not_had_is_tried_again() {
    // The lock is taken in the task, or, for some requests, before.
    for in_task in [true, false] {
        let begin = move |n| match n == 0 && !in_task {
            true => refusal(500, LOCKED),
            false => data(&UPID.into()),
        };
        let after = move |n| match n == 0 && in_task {
            true => stopped(LOCKED),
            false => stopped("OK"),
        };
        let server = tasks(begin, after).await;
        House::new(&server).client.start(100).await.unwrap();
        let lines = server.lines();
        let posts = lines.iter().filter(|line| line.starts_with("POST"));
        assert_eq!(posts.count(), 2);
    }
}

#[tokio::test]
async fn but_not_for_ever() {
    let server = tasks(|_| refusal(500, LOCKED), |_| running()).await;
    let error = House::new(&server).client.stop(100).await.unwrap_err();
    assert!(matches!(error, PveError::Locked { .. }), "{error:?}");
    assert!(error.is_retryable());
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_change_is_never_sent_twice_on_a_guess() {
    let broken = || Reply::Last(String::new());
    for reply in [broken(), answer("596 Connection timed out", "")] {
        let server = tasks(move |_| reply.clone(), |_| running()).await;
        let error = House::new(&server).client.start(100).await.unwrap_err();
        assert!(matches!(error, PveError::Unreachable { .. }), "{error:?}");
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_container_that_is_as_it_should_be() {
    let server = tasks(|_| refusal(500, "CT 100 already running"), |_| running()).await;
    let house = House::new(&server);
    house.client.start(100).await.unwrap();
    let error = house.client.stop(100).await.unwrap_err();
    assert!(
        matches!(error, PveError::Refused { status: 500, .. }),
        "{error:?}"
    );

    let server = tasks(|_| refusal(500, "CT 100 not running"), |_| running()).await;
    let house = House::new(&server);
    house.client.stop(100).await.unwrap();
    house.client.shutdown(100, Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_task_outlives_the_api() {
    let down = || answer("595 Connection refused", "");
    let after = move |n| if n < 4 { down() } else { stopped("OK") };
    let server = tasks(|_| data(&UPID.into()), after).await;
    House::new(&server).client.start(100).await.unwrap();
}

#[tokio::test]
async fn what_is_no_task_is_not_awaited() {
    let server = tasks(|_| data(&"../../version".into()), |_| running()).await;
    let error = House::new(&server).client.start(100).await.unwrap_err();
    assert!(
        chain(&error).contains("instead of the name of a task"),
        "{}",
        chain(&error)
    );
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn changes_of_one_container_do_not_meet() {
    let working = Arc::new(AtomicUsize::new(0));
    let (begun, ended) = (working.clone(), working.clone());
    let begin = move |_| {
        assert_eq!(begun.fetch_add(1, Ordering::SeqCst), 0, "two at a time");
        data(&UPID.into())
    };
    let after = move |n| match n % 2 {
        0 => running(),
        _ => {
            ended.fetch_sub(1, Ordering::SeqCst);
            stopped("OK")
        }
    };
    let server = tasks(begin, after).await;
    let house = House::new(&server);
    let (one, two, three) = tokio::join!(
        house.client.start(100),
        house.client.stop(100),
        house.client.start(100),
    );
    one.and(two).and(three).unwrap();
    let lines = server.lines();
    assert_eq!(
        lines.iter().filter(|line| line.starts_with("POST")).count(),
        3
    );
}

#[tokio::test]
async fn a_task_that_never_ends() {
    let server = tasks(|_| data(&UPID.into()), |_| running()).await;
    let url = format!("https://127.0.0.1:{}", server.port);
    let limit = Duration::from_secs(1);
    let house = House::with(&url, "ca.pem", Limits::default(), limit);
    let error = house.client.start(100).await.unwrap_err();
    insta::assert_snapshot!(error, @"Proxmox did not start container 100 within 1 s");
    assert!(error.is_retryable());
}
