//! Pods with `hostUsers: false`: who is who inside, outside and on disk.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context as _, ensure};
use camino::Utf8Path;
use nexcage_tests::leak::Baseline;
use nexcage_tests::users::{BASE, LENGTH, fill_volume, mapped, own};
use nexcage_tests::{Machine, Pod, spec};
use serde_json::{Value, json};

#[test]
fn ids_are_right_inside_outside_and_on_disk() {
    Machine::test(|machine| {
        let daemon = machine.start_daemon()?;
        machine.warm_up()?;
        let baseline = Baseline::take(machine);
        machine.pull_busybox()?;
        for handler in ["", "host"] {
            a_life(machine, handler).with_context(|| format!("runtime handler {handler:?}"))?;
        }
        machine.crictl().remove_everything()?;
        baseline.check(machine)?;
        daemon.terminate()
    });
}

fn a_life(machine: &Machine, handler: &str) -> anyhow::Result<()> {
    let name = format!("users{handler}");
    let pod = run_pod(machine, &name, handler)?;
    let volume = machine.temporary_directory().join(format!("volume-{name}"));
    fill_volume(&volume)?;
    let mut config = container("app", spec::COUNT);
    config["mounts"] = json!([mapped(&volume)]);
    config["linux"]["security_context"]["supplemental_groups"] = json!([2000]);
    let id = machine.start(&pod, &config)?;

    let uid = fs::metadata(format!("/proc/{}", machine.container_pid(&id)?))?.uid();
    ensure!(uid == BASE, "root of the container is {uid} on the host");
    let inside = |command: &str| machine.exec(&id, &["sh", "-c", command]);
    ensure!(inside("id -u")?.trim() == "0");
    ensure!(inside("id -G")?.contains("2000"));
    let map = inside("cat /proc/self/uid_map")?;
    let map: Vec<_> = map.split_whitespace().collect();
    let (base, length) = (BASE.to_string(), LENGTH.to_string());
    ensure!(map == ["0", &base, &length], "the map is {map:?}");

    // The image's files are root's inside, and the root filesystem can be written.
    ensure!(inside("stat -c %u /bin/busybox")?.trim() == "0");
    inside("echo mine > /file; chown 5:6 /file; test \"$(stat -c %u:%g /file)\" = 5:6")?;
    // What fsGroup set on the host is seen as it is, and what is written is on disk with the ids it has inside.
    ensure!(inside("stat -c %u:%g /data/of-1000")?.trim() == "1000:2000");
    inside("echo new > /data/new; echo more >> /data/group/shared")?;
    let new = fs::metadata(volume.join("new"))?;
    ensure!(
        (new.uid(), new.gid()) == (0, 0),
        "{}:{}",
        new.uid(),
        new.gid()
    );
    // The pod's network belongs to it: its root has rights over that, and none over the host's.
    ensure!(inside("ip link show lo")?.contains("UP"), "lo is down");
    ensure!(
        inside("ip addr show eth0")?.contains("10.213."),
        "no address"
    );
    inside("touch /dev/shm/x && test \"$(stat -c %u /dev/shm)\" = 0")?;
    machine.crictl().run(&["stop", "--timeout", "5", &id])?;
    a_user_with_a_group(machine, &pod, &volume)
}

/// A process that is not root reaches a volume by its `fsGroup` alone, and what it makes there is the group's.
fn a_user_with_a_group(machine: &Machine, pod: &Pod, volume: &Utf8Path) -> anyhow::Result<()> {
    let user = |name: &str, groups: &[u32]| {
        let mut config = container(name, spec::COUNT);
        config["mounts"] = json!([mapped(volume)]);
        let security = &mut config["linux"]["security_context"];
        security["run_as_user"] = json!({ "value": 1000 });
        security["run_as_group"] = json!({ "value": 1000 });
        security["supplemental_groups"] = json!(groups);
        machine.start(pod, &config)
    };
    let write = ["sh", "-c", "echo mine > /data/group/made"];
    let member = user("member", &[2000])?;
    machine.exec(&member, &write)?;
    let made = fs::metadata(volume.join("group/made"))?;
    ensure!(
        (made.uid(), made.gid()) == (1000, 2000),
        "{}:{} on disk",
        made.uid(),
        made.gid()
    );
    let stranger = user("stranger", &[3000])?;
    let refused = machine.exec(&stranger, &write);
    ensure!(refused.is_err(), "somebody else writes there");
    for id in [&member, &stranger] {
        machine.crictl().run(&["stop", "--timeout", "5", id])?;
    }
    Ok(())
}

#[test]
fn a_pod_outlives_the_daemon_and_what_cannot_be_is_refused() {
    Machine::test(|machine| {
        let daemon = machine.start_daemon()?;
        machine.warm_up()?;
        let baseline = Baseline::take(machine);
        machine.pull_busybox()?;
        let pod = run_pod(machine, "users", "")?;
        let id = machine.start(&pod, &container("app", spec::COUNT))?;
        daemon.kill()?;
        let daemon = machine.start_daemon()?;
        ensure!(machine.exec(&id, &["id", "-u"])?.trim() == "0");

        let mut config = container("sysfs", "true");
        config["mounts"] = json!([mapped(Utf8Path::new("/sys/kernel"))]);
        refused(machine, &pod, &config, &["mounts[0].uidMappings", "sysfs"])?;

        let mut config = container("user", "true");
        config["linux"]["security_context"]["run_as_user"] = json!({ "value": LENGTH });
        refused(machine, &pod, &config, &["run_as_user", "not mapped"])?;

        let mut config = container("host", "true");
        config["linux"]["security_context"]["namespace_options"]["userns_options"] =
            json!({ "mode": 2 });
        refused(machine, &pod, &config, &["userns_options", "NODE"])?;

        machine.crictl().remove_everything()?;
        baseline.check(machine)?;
        daemon.terminate()
    });
}

fn refused(machine: &Machine, pod: &Pod, config: &Value, words: &[&str]) -> anyhow::Result<()> {
    let created = machine.create(pod, config);
    let error = match created {
        Ok(id) => anyhow::bail!("{config} was accepted: {id}"),
        Err(error) => format!("{error:#}"),
    };
    for word in words {
        ensure!(error.contains(word), "{word} is not in: {error}");
    }
    Ok(())
}

fn run_pod(machine: &Machine, name: &str, handler: &str) -> anyhow::Result<Pod> {
    let logs = machine.log_directory(name)?;
    let config = own(spec::pod(name, logs.as_str()));
    let file = machine.file(&format!("pod-{name}.json"), &config)?;
    let id = machine
        .crictl()
        .run(&["runp", "--runtime", handler, &file])?;
    Ok(Pod { id, file, logs })
}

fn container(name: &str, command: &str) -> Value {
    own(spec::shell(name, command))
}
