//! The daemon dies, or the ground is pulled from under a pod, and nothing is lost.

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nexcage_cri_api::v1::VersionRequest;
use nexcage_tests::client::Client;
use nexcage_tests::leak::Baseline;
use nexcage_tests::{Machine, Pod, process, spec, tools, wait};

#[test]
fn containers_outlive_a_killed_daemon() {
    Machine::test(|machine| {
        let daemon = machine.start_daemon()?;
        machine.warm_up()?;
        machine.pull_busybox()?;
        let baseline = Baseline::take(machine);
        let pod = machine.run_pod("survivor")?;
        let running = machine.start(&pod, &spec::shell("counter", spec::COUNT))?;
        let ending = machine.start(&pod, &spec::shell("ending", "sleep 3; exit 7"))?;
        let (running_pid, ending_pid) = (
            machine.container_pid(&running)?,
            machine.container_pid(&ending)?,
        );
        let address = machine.crictl().json(&["inspectp", &pod.id])?["status"]["network"].take();

        daemon.kill()?;
        ensure!(
            process::runs(ending_pid),
            "the container died with the daemon"
        );
        let count = machine.last_count(&pod, "counter")?;
        wait::until_true("the log goes on without a daemon", 10, || {
            Ok(machine.last_count(&pod, "counter")? > count)
        })?;
        wait::until_true("one container exits meanwhile", 15, || {
            Ok(!process::runs(ending_pid))
        })?;

        let daemon = machine.start_daemon()?;
        let status = machine.container_status(&ending)?;
        ensure!(status["state"] == "CONTAINER_EXITED", "{status}");
        ensure!(status["exitCode"] == 7, "the exit code is lost: {status}");
        let status = machine.container_status(&running)?;
        ensure!(status["state"] == "CONTAINER_RUNNING", "{status}");
        ensure!(
            machine.container_pid(&running)? == running_pid,
            "it is another process"
        );
        let after = machine.crictl().json(&["inspectp", &pod.id])?["status"]["network"].take();
        ensure!(
            after == address,
            "the pod had {address} and now has {after}"
        );
        ensure!(
            machine.exec(&running, &["echo", "alive"])? == "alive",
            "exec does not work"
        );
        let count = machine.last_count(&pod, "counter")?;
        wait::until_true("the log still goes on", 10, || {
            Ok(machine.last_count(&pod, "counter")? > count)
        })?;

        machine
            .crictl()
            .run(&["stop", "--timeout", "10", &running])?;
        ensure!(
            machine.container_status(&running)?["exitCode"] == 0,
            "it did not get SIGTERM"
        );
        machine.crictl().run(&["rmp", "--force", &pod.id])?;
        baseline.check(machine)?;
        daemon.terminate()
    });
}

#[test]
fn containers_outlive_a_daemon_that_is_asked_to_end() {
    Machine::test(|machine| {
        let daemon = machine.start_daemon()?;
        machine.pull_busybox()?;
        let pod = machine.run_pod("survivor")?;
        let id = machine.start(&pod, &spec::shell("counter", spec::COUNT))?;
        let pid = machine.container_pid(&id)?;
        daemon.terminate()?;
        ensure!(process::runs(pid), "the container ended with the daemon");
        let _daemon = machine.start_daemon()?;
        ensure!(
            machine.container_status(&id)?["state"] == "CONTAINER_RUNNING",
            "it is forgotten"
        );
        Ok(())
    });
}

#[test]
fn a_pod_whose_processes_died_without_a_daemon_is_not_ready() {
    Machine::test(|machine| {
        let daemon = machine.start_daemon()?;
        machine.warm_up()?;
        machine.pull_busybox()?;
        let baseline = Baseline::take(machine);
        let pod = machine.run_pod("dead")?;
        let id = machine.start(&pod, &spec::shell("counter", spec::COUNT))?;
        daemon.kill()?;
        // What a reboot does to all processes of a pod.
        let name = machine.name();
        wait::until_true("all processes of the pod are gone", 20, || {
            let left = process::find(|command, root| command.contains(name) || root.contains(name));
            left.iter().for_each(|process| process::kill(process.pid));
            Ok(left.is_empty())
        })?;

        let _daemon = machine.start_daemon()?;
        let status = machine.crictl().json(&["inspectp", &pod.id])?;
        ensure!(status["status"]["state"] == "SANDBOX_NOTREADY", "{status}");
        let status = machine.container_status(&id)?;
        ensure!(status["state"] == "CONTAINER_EXITED", "{status}");
        ensure!(
            status["exitCode"] != 0,
            "nobody knows that it ended well: {status}"
        );
        machine.crictl().run(&["rmp", "--force", &pod.id])?;
        baseline.check(machine)
    });
}

#[test]
fn a_retried_request_gets_the_first_ones_result() {
    Machine::test(|machine| {
        let daemon = machine.start_daemon()?;
        machine.warm_up()?;
        machine.pull_busybox()?;
        let baseline = Baseline::take(machine);
        let pod = machine.run_pod("again")?;
        let container = machine.create(&pod, &spec::shell("counter", spec::COUNT))?;
        ensure!(
            machine.run_pod("again")?.id == pod.id,
            "a retry makes a second pod"
        );
        let retried = machine.create(&pod, &spec::shell("counter", spec::COUNT))?;
        ensure!(retried == container, "a retry makes a second container");

        daemon.kill()?;
        let _daemon = machine.start_daemon()?;
        ensure!(
            machine.run_pod("again")?.id == pod.id,
            "a retry after a restart makes another pod"
        );
        let retried = machine.create(&pod, &spec::shell("counter", spec::COUNT))?;
        ensure!(
            retried == container,
            "a retry after a restart makes another container"
        );

        // The next attempt is another pod.
        let mut next = spec::pod("again", pod.logs.as_str());
        next["metadata"]["attempt"] = 1.into();
        let next = machine.run_pod_as("again", &next)?;
        ensure!(
            next.id != pod.id,
            "the next attempt gets the last one's pod"
        );
        machine.crictl().run(&["rmp", "--all", "--force"])?;
        baseline.check(machine)
    });
}

/// Runs a pod with a container, lets `destroy` take something away, and expects that stopping
/// and removing the pod succeed all the same and leave nothing.
fn stops_after(destroy: impl FnOnce(&Machine, &Pod) -> anyhow::Result<()>) {
    Machine::test(|machine| {
        let _daemon = machine.start_daemon()?;
        machine.warm_up()?;
        machine.pull_busybox()?;
        let baseline = Baseline::take(machine);
        let pod = machine.run_pod("broken")?;
        machine.start(&pod, &spec::shell("counter", spec::COUNT))?;
        destroy(machine, &pod)?;
        machine.crictl().run(&["stopp", &pod.id])?;
        // Twice: kubelet does.
        machine.crictl().run(&["stopp", &pod.id])?;
        machine.crictl().run(&["rmp", &pod.id])?;
        baseline.check(machine)
    });
}

#[test]
fn a_pod_stops_without_its_network_namespace() {
    stops_after(|machine, _| {
        for entry in machine.netns_dir().read_dir_utf8()? {
            let path = entry?.into_path();
            // Lazily: the daemon, or its containers, may have it open.
            process::run("umount", &["--lazy", path.as_str()], 10)?.success()?;
            fs::remove_file(&path)?;
        }
        Ok(())
    });
}

#[test]
fn a_pod_stops_without_its_network_configuration() {
    stops_after(|machine, _| Ok(fs::remove_file(machine.network_file())?));
}

#[test]
fn a_pod_stops_without_its_lxc_container() {
    stops_after(|machine, pod| {
        let name = format!("{}-{}", machine.name(), pod.id);
        let path = machine.lxc_dir();
        process::run(
            "lxc-stop",
            &["-P", path.as_str(), "-n", &name, "--kill"],
            30,
        )?
        .success()?;
        Ok(fs::remove_dir_all(path.join(name))?)
    });
}

#[test]
fn a_pod_stops_without_its_bridge() {
    stops_after(|machine, _| {
        process::run("ip", &["link", "delete", machine.name()], 10)?
            .success()
            .map(drop)
    });
}

#[test]
fn a_second_daemon_is_refused() {
    Machine::test(|machine| {
        let _daemon = machine.start_daemon()?;
        let config = machine.config_file();
        let program = tools::daemon()?;
        let second = process::run(
            program.as_str(),
            &["daemon", "--config", config.as_str()],
            20,
        )?;
        let code = second
            .code
            .context("the second daemon was ended by a signal")?;
        ensure!(
            code != 0 && code != 137,
            "a second daemon runs on the same socket: {second}"
        );
        ensure!(
            second.stderr.contains(machine.socket().as_str()),
            "it does not name it: {second}"
        );
        machine.crictl().run(&["version"])?;
        Ok(())
    });
}

#[test]
fn an_idle_client_does_not_hold_up_the_end() {
    Machine::test(|machine| {
        let daemon = machine.start_daemon()?;
        // One that says nothing at all, and one that has asked something and then does not even read.
        let _silent = UnixStream::connect(machine.socket())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let _idle = runtime.block_on(async {
            let mut client = Client::connect(machine).await?;
            client.runtime.version(VersionRequest::default()).await?;
            anyhow::Ok(client)
        })?;
        let begun = Instant::now();
        daemon.terminate()?;
        let took = begun.elapsed();
        ensure!(took < Duration::from_secs(5), "it took {took:?}");
        Ok(())
    });
}

#[test]
fn the_sweep_of_networks_spares_pods_that_are_being_made() {
    const PODS: usize = 12;
    Machine::test(|machine| {
        // Far more often than a pod takes, so that it comes between any two of its steps.
        let _daemon = machine.start_daemon_in_haste(2)?;
        machine.warm_up()?;
        machine.pull_busybox()?;
        let baseline = Baseline::take(machine);
        for number in 0..PODS {
            let pod = machine.run_pod(&format!("swept-{number}"))?;
            let id = machine.start(&pod, &spec::shell("shell", spec::COUNT))?;
            let addresses = machine.exec(&id, &["ip", "-o", "addr"])?;
            ensure!(
                addresses.contains("eth0") && addresses.contains("10.213."),
                "pod {number} has no network: {addresses}"
            );
        }
        let pinned = machine.netns_dir().read_dir_utf8()?.count();
        ensure!(pinned == PODS, "{pinned} network namespaces are pinned");
        machine.crictl().run(&["rmp", "--all", "--force"])?;
        baseline.check(machine)
    });
}
