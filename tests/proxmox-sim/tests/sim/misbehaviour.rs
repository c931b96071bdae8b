//! A node that does not do what it should, and what nexcage makes of it.

use std::time::{Duration, Instant};

use nexcage_lxc::{Pve as _, PveError};

use crate::house::{House, ROLE};

#[tokio::test]
async fn without_quorum_nothing_starts_and_nothing_is_written() {
    let Some(mut house) = House::with_lxc() else {
        return;
    };
    let client = house.client(&format!("{ROLE} Sys.Audit"));
    house.good("pveum acl modify / --roles Nexcage --users nexcage@pve");
    let (vmid, other) = (house.container(""), house.container(""));
    client.start(other).await.unwrap();
    house.quorum("off");
    assert!(!client.cluster().await.unwrap().quorate);
    let error = client.start(vmid).await.unwrap_err();
    assert!(matches!(error, PveError::NoQuorum { .. }), "{error:?}");
    let ended = house.run(&format!("pct set {vmid} --memory 64"));
    assert!(ended.stderr.contains("Permission denied"), "{ended:?}");
    // What runs goes on, and can be stopped.
    assert!(client.status(other).await.unwrap().running);
    client.stop(other).await.unwrap();
    house.quorum("on");
    client.start(vmid).await.unwrap();
    client.stop(vmid).await.unwrap();
    house.finish();
}

#[tokio::test]
async fn the_api_goes_and_comes() {
    let Some(house) = House::new() else { return };
    let client = house.client(ROLE);
    house.good("ctl api down");
    let error = client.version().await.unwrap_err();
    assert!(
        matches!(error, PveError::Unreachable { .. }) && error.is_retryable(),
        "{error:?}"
    );
    house.good("ctl api up");
    client.version().await.unwrap();

    house.good("ctl daemon down");
    client.version().await.unwrap();
    let error = client.containers().await.unwrap_err();
    assert!(matches!(error, PveError::Unreachable { .. }), "{error:?}");
    house.good("ctl daemon up");
    client.containers().await.unwrap();
    house.finish();
}

#[tokio::test]
async fn answers_that_are_none() {
    let Some(house) = House::new() else { return };
    let client = house.client(ROLE);
    for how in ["html", "truncated", "596 Connection timed out", "502"] {
        house.good(&format!("ctl http {how}"));
        let error = client.version().await.unwrap_err();
        assert!(
            matches!(error, PveError::Unreachable { .. }),
            "{how}: {error:?}"
        );
    }
    house.good("ctl http stall");
    let asked = tokio::time::timeout(Duration::from_secs(2), client.version()).await;
    assert!(asked.is_err(), "{asked:?}");
    house.good("ctl http ok");
    client.version().await.unwrap();
    house.finish();
}

#[tokio::test]
async fn tasks_are_slow_and_end_badly() {
    let Some(mut house) = House::with_lxc() else {
        return;
    };
    let client = house.client(ROLE);
    let vmid = house.container("");
    house.good("ctl task-result error unable to open file");
    let error = client.start(vmid).await.unwrap_err();
    match error {
        PveError::Task { exit_status, .. } => assert_eq!(exit_status, "unable to open file"),
        other => panic!("{other:?}"),
    }
    assert!(!client.status(vmid).await.unwrap().running);
    house.good("ctl task-result warnings");
    house.good("ctl task-delay 1500");
    let begun = Instant::now();
    client.start(vmid).await.unwrap();
    assert!(begun.elapsed() > Duration::from_millis(1500));
    assert!(client.status(vmid).await.unwrap().running);
    house.good("ctl task-delay 0");
    client.stop(vmid).await.unwrap();
    house.finish();
}

#[tokio::test]
async fn a_task_whose_process_dies() {
    let Some(mut house) = House::with_lxc() else {
        return;
    };
    let client = house.client(ROLE);
    let vmid = house.container("");
    house.good("ctl task-delay 30000");
    let starting = async { client.start(vmid).await.unwrap_err() };
    let killing = async {
        let worker = format!("worker\0{vmid}\0");
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let processes = std::fs::read_dir("/proc").unwrap().flatten();
            let pids =
                processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
            let found = pids.into_iter().find(|pid| {
                let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
                line.is_ok_and(|line| line.contains(&worker))
            });
            if let Some(pid) = found.and_then(rustix::process::Pid::from_raw) {
                // Let it have its log first.
                tokio::time::sleep(Duration::from_millis(200)).await;
                return rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            }
        }
    };
    let (error, ()) = tokio::join!(starting, killing);
    assert!(error.to_string().contains("unexpected status"), "{error}");
    house.good("ctl task-delay 0");
    house.finish();
}
