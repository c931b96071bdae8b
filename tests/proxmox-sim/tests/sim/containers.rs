//! Real containers.

use std::time::{Duration, Instant};

use nexcage_lxc::{Pve as _, PveError};

use crate::house::{House, ROLE, until};

#[tokio::test]
async fn a_container_lives_by_the_api_and_by_pct() {
    let Some(mut house) = House::with_lxc() else {
        return;
    };
    let client = house.client(ROLE);
    let vmid = house.container("");
    client.start(vmid).await.unwrap();
    client.start(vmid).await.unwrap();
    let status = client.status(vmid).await.unwrap();
    assert!(status.running && status.memory_bytes > 0, "{status:?}");
    assert_eq!(status.name, format!("pod-{vmid}"));
    assert_eq!(
        house.good(&format!("pct status {vmid}")),
        "status: running\n"
    );
    let line = format!(
        "{vmid:<10} {:<10} {:<12} {:<20}\n",
        "running",
        "",
        format!("pod-{vmid}")
    );
    assert!(house.good("pct list").contains(&line));
    let ended = house.run(&format!("pct start {vmid}"));
    assert_eq!(
        (ended.code, &*ended.stderr),
        (Some(255), &*format!("CT {vmid} already running\n"))
    );
    house.settle(vmid);
    client
        .shutdown(vmid, Duration::from_secs(20))
        .await
        .unwrap();
    assert!(!client.status(vmid).await.unwrap().running);

    house.good(&format!("pct start {vmid}"));
    assert!(client.status(vmid).await.unwrap().running);
    house.settle(vmid);
    house.good(&format!("pct reboot {vmid}"));
    client.stop(vmid).await.unwrap();
    let ended = house.run(&format!("pct stop {vmid}"));
    assert_eq!(ended.stderr, format!("CT {vmid} not running\n"));

    // Proxmox leaves things behind.
    house.good(&format!("pct destroy {vmid}"));
    assert!(!house.pve(&format!("lxc/{vmid}.conf")).exists());
    for left in [
        format!("lxc/{vmid}/rules.seccomp"),
        format!("run/ct-{vmid}.stderr"),
        format!("run/ct-{vmid}.warnings"),
    ] {
        assert!(house.path(&left).exists(), "{left}");
    }
    house.finish();
}

#[tokio::test]
async fn an_include_has_the_last_word() {
    let Some(mut house) = House::with_lxc() else {
        return;
    };
    let mark = house.path("mark");
    let include = house.path("include.conf");
    let text = format!(
        "lxc.hook.start-host = /bin/sh -c 'echo $LXC_PID > {mark}'\nlxc.uts.name = other\n"
    );
    std::fs::write(&include, text).unwrap();
    let vmid = house.container(&format!("lxc.include: {include}\n"));
    house.good(&format!("pct start {vmid}"));
    let pid = std::fs::read_to_string(&mark).unwrap();
    let name = std::fs::read_to_string(format!(
        "/proc/{}/root/proc/sys/kernel/hostname",
        pid.trim()
    ));
    // Read in the namespace of the reader, so this tells only that the process is there.
    assert!(name.is_ok());
    let verbose = house.good(&format!("pct status {vmid} --verbose"));
    assert!(
        verbose.contains(&format!("pid: {}", pid.trim())),
        "{verbose}"
    );
    house.good(&format!("pct stop {vmid}"));
    // Whoever starts it later needs the include too.
    std::fs::remove_file(&include).unwrap();
    let ended = house.run(&format!("pct start {vmid}"));
    assert_eq!(ended.code, Some(255));
    assert!(
        ended
            .stderr
            .contains(&format!("startup for container '{vmid}' failed")),
        "{ended:?}"
    );
    house.finish();
}

#[tokio::test]
async fn usage_is_the_containers() {
    let Some(mut house) = House::with_lxc() else {
        return;
    };
    let client = house.client(ROLE);
    // 40 MiB of anonymous memory, and a CPU.
    let script = "x=$(/bin/busybox head -c 41943040 /dev/zero | /bin/busybox tr '\\0' x)\nwhile :; do :; done\n";
    std::fs::write(house.path("root/bin/hog"), script).unwrap();
    let vmid = house.container("lxc.init.cmd: /bin/busybox sh /bin/hog\n");
    client.start(vmid).await.unwrap();
    until("40 MiB", || {
        let status = house.good(&format!("pct status {vmid} --verbose"));
        let memory = status.lines().find_map(|line| line.strip_prefix("mem: "));
        memory.unwrap().parse::<u64>().unwrap() > 40 << 20
    });
    client.status(vmid).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let status = client.status(vmid).await.unwrap();
    assert!((0.1..1.3).contains(&status.cpu), "{status:?}");
    assert!(status.memory_bytes < 130 << 20, "{status:?}");
    client.stop(vmid).await.unwrap();
    house.finish();
}

#[tokio::test]
async fn a_container_that_ignores_its_halt_signal() {
    let Some(mut house) = House::with_lxc() else {
        return;
    };
    let client = house.client(ROLE);
    let vmid = house.container("lxc.init.cmd: /bin/busybox sleep 600\n");
    client.start(vmid).await.unwrap();
    let error = client
        .shutdown(vmid, Duration::from_secs(1))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("container did not stop"),
        "{error}"
    );
    house.good(&format!("pct shutdown {vmid} --timeout 1 --forceStop 1"));
    assert!(!client.status(vmid).await.unwrap().running);
    house.finish();
}

#[tokio::test]
async fn mount_points() {
    let Some(mut house) = House::with_lxc() else {
        return;
    };
    let share = house.path("share");
    std::fs::create_dir(&share).unwrap();
    std::fs::write(share.join("file"), "x").unwrap();
    let vmid = house.container(&format!("mp0: {share},mp=/mnt/v1,idmap=passthrough\n"));
    house.good(&format!("pct start {vmid}"));
    let verbose = house.good(&format!("pct status {vmid} --verbose"));
    let pid = verbose
        .lines()
        .find_map(|line| line.strip_prefix("pid: "))
        .unwrap();
    let file = format!("/proc/{pid}/root/mnt/v1/file");
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&file).unwrap());
    assert_eq!(owner, 100_000, "the container's root");
    let written = std::fs::write(format!("/proc/{pid}/root/x"), "");
    assert!(written.is_err(), "the root is read-only");
    house.good(&format!("pct stop {vmid}"));

    let vmid = house.container(&format!("mp0: {share},mp=/mnt/v2\n"));
    let ended = house.run(&format!("pct start {vmid}"));
    // What the hook says is in LXC's log, if there is one.
    assert!(
        ended.stderr.contains("Failed to run lxc.hook.pre-start"),
        "{ended:?}"
    );
    let hook = house.run(&format!("hook pre-start {vmid} lxc pre-start"));
    assert!(
        hook.stderr.contains("failed to create path: //mnt/v2"),
        "{hook:?}"
    );
    house.finish();
}

#[tokio::test]
async fn configurations_are_rewritten() {
    let Some(mut house) = House::with_lxc() else {
        return;
    };
    let vmid = house.container("nexcage_uid: x\nlxc.hook.start-host: /bin/true\n");
    let conf = house.pve(&format!("lxc/{vmid}.conf"));
    let ended = house.run(&format!(
        "pct set {vmid} --onboot yes -memory 256 --delete swap"
    ));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("unable to parse config: nexcage_uid: x"),
        "{ended:?}"
    );
    let root = house.path("root");
    let wanted = format!(
        "arch: amd64\nhostname: pod-{vmid}\nmemory: 256\nonboot: 1\nostype: unmanaged\nrootfs: {root},ro=1,idmap=passthrough\n\
         tags: nexcage\nunprivileged: 1\nlxc.init.cmd: /catatonit -P\nlxc.signal.halt: SIGTERM\n"
    );
    assert_eq!(std::fs::read_to_string(&conf).unwrap(), wanted);
    assert!(
        house.path(&format!("lxc/{vmid}/config")).exists(),
        "LXC's is made anew with each change"
    );
    let shown = house.good(&format!("pct config {vmid}"));
    assert!(
        shown.contains("memory: 256\n") && shown.ends_with("lxc.signal.halt: SIGTERM\n"),
        "{shown}"
    );

    // Some changes wait until the container has stopped.
    house.good(&format!("pct start {vmid}"));
    house.good(&format!("pct set {vmid} --nameserver 192.0.2.1 --tags a;b"));
    let text = std::fs::read_to_string(&conf).unwrap();
    assert!(
        text.contains("tags: a;b\n") && text.ends_with("\n[pve:pending]\nnameserver: 192.0.2.1\n"),
        "{text}"
    );
    house.good(&format!("pct stop {vmid}"));
    until("it is applied", || {
        let text = std::fs::read_to_string(&conf).unwrap();
        text.contains("nameserver: 192.0.2.1\n") && !text.contains("pending")
    });
    house.finish();
}

#[tokio::test]
async fn locks_and_protection() {
    let Some(mut house) = House::with_lxc() else {
        return;
    };
    let client = house.client(ROLE);
    let vmid = house.container("protection: 1\n");
    let ended = house.run(&format!("pct destroy {vmid}"));
    assert_eq!(
        ended.stderr,
        format!("can't remove CT {vmid} - protection mode enabled\n")
    );
    house.good(&format!("pct set {vmid} --lock backup"));
    let error = client.start(vmid).await.unwrap_err();
    assert!(matches!(error, PveError::Locked { .. }), "{error:?}");
    assert_eq!(
        client.status(vmid).await.unwrap().lock.as_deref(),
        Some("backup")
    );
    let ended = house.run(&format!("pct set {vmid} --memory 64"));
    assert_eq!(ended.stderr, "CT is locked (backup)\n");
    house.good(&format!("pct unlock {vmid}"));
    assert!(
        house
            .run(&format!("pct unlock {vmid}"))
            .stderr
            .contains("no lock found")
    );
    // This one locks everything but starting and stopping.
    house.good(&format!("pct set {vmid} --lock mounted"));
    client.start(vmid).await.unwrap();
    let error = client
        .shutdown(vmid, Duration::from_secs(5))
        .await
        .unwrap_err();
    assert!(matches!(error, PveError::Locked { .. }), "{error:?}");
    client.stop(vmid).await.unwrap();
    house.finish();
}

#[tokio::test]
async fn whoever_comes_second_waits_ten_seconds() {
    let Some(mut house) = House::with_lxc() else {
        return;
    };
    let client = house.client(ROLE);
    let vmid = house.container("");
    house.good(&format!("ctl lock {vmid} 12"));
    let begun = Instant::now();
    // The first task fails after ten seconds, the second one starts it.
    client.start(vmid).await.unwrap();
    assert!(
        begun.elapsed() > Duration::from_secs(11),
        "{:?}",
        begun.elapsed()
    );
    let logs = house.path("sim/tasks").read_dir_utf8().unwrap();
    let logs = logs.flat_map(|dir| dir.unwrap().path().read_dir_utf8().unwrap());
    let texts: Vec<_> = logs
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    let timed_out = format!("lock/pve-config-{vmid}.lock' - got timeout\n");
    assert!(
        texts.iter().any(|text| text.ends_with(&timed_out)),
        "{texts:?}"
    );
    client.stop(vmid).await.unwrap();
    house.finish();
}
