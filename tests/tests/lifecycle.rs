//! Images, pods and containers from their beginning to their end, as crictl sees them.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context as _, ensure};
use nexcage_tests::leak::Baseline;
use nexcage_tests::{Machine, image, process, spec, wait};
use serde_json::{Value, json};

/// The one field of the one element of a list that has another field of a given value.
fn find<'a>(list: &'a Value, key: &str, value: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| item[key] == value)
}

#[test]
fn a_pod_lives_and_leaves_nothing() {
    Machine::test(|machine| {
        let daemon = machine.start_daemon()?;
        let crictl = machine.crictl();
        machine.warm_up()?;
        let baseline = Baseline::take(machine);
        machine.pull_busybox()?;

        let pod = machine.run_pod("one")?;
        pod_is_ready(machine, &pod.id)?;

        let id = machine.create(&pod, &spec::shell("counter", spec::COUNT))?;
        ensure!(
            machine.container_status(&id)?["state"] == "CONTAINER_CREATED",
            "not created"
        );
        crictl.run(&["start", &id])?;
        container_runs(machine, &id)?;
        wait::until_true("the container counts", 10, || {
            Ok(machine
                .last_count(&pod, "counter")?
                .is_some_and(|count| count >= 2))
        })?;
        log_is_in_cri_format(&fs::read_to_string(pod.logs.join("counter.log"))?)?;
        ensure!(
            crictl
                .run(&["logs", &id])?
                .starts_with("count 0\ncount 1\n"),
            "crictl logs"
        );

        container_sees_its_pod(machine, &id)?;
        container_is_measured(machine, &pod.id, &id)?;

        crictl.run(&["stop", "--timeout", "10", &id])?;
        let status = machine.container_status(&id)?;
        ensure!(
            status["state"] == "CONTAINER_EXITED",
            "not exited: {status}"
        );
        ensure!(
            status["exitCode"] == 0,
            "the trap on SIGTERM exits with 0: {status}"
        );
        ensure!(status["reason"] == "Completed", "{status}");
        times_are_in_order(&status)?;

        crictl.run(&["rm", &id])?;
        ensure!(
            find(
                &crictl.json(&["ps", "-a", "-o", "json"])?["containers"],
                "id",
                &id
            )
            .is_none()
        );
        crictl.run(&["stopp", &pod.id])?;
        let status = crictl.json(&["inspectp", &pod.id])?;
        ensure!(status["status"]["state"] == "SANDBOX_NOTREADY", "{status}");
        crictl.run(&["rmp", &pod.id])?;
        ensure!(
            find(
                &crictl.json(&["pods", "-o", "json"])?["items"],
                "id",
                &pod.id
            )
            .is_none()
        );

        crictl.run(&["rmi", image::BUSYBOX])?;
        baseline.check(machine)?;
        daemon.terminate()?;
        baseline.check(machine)
    });
}

fn pod_is_ready(machine: &Machine, id: &str) -> anyhow::Result<()> {
    let pods = machine.crictl().json(&["pods", "-o", "json"])?;
    let listed = find(&pods["items"], "id", id).context("the pod is not listed")?;
    ensure!(listed["state"] == "SANDBOX_READY", "{listed}");
    ensure!(listed["metadata"]["namespace"] == "nxt", "{listed}");
    ensure!(listed["labels"] == json!({ "app": "one" }), "{listed}");
    ensure!(
        listed["annotations"] == json!({ "nxt/note": "kept as it is" }),
        "{listed}"
    );

    let answer = machine.crictl().json(&["inspectp", id])?;
    let address = answer["status"]["network"]["ip"]
        .as_str()
        .context("the pod has no address")?;
    let octets = address.parse::<Ipv4Addr>()?.octets();
    ensure!(
        octets[..2] == [10, 213],
        "the address is not of our network: {address}"
    );
    ensure!(
        answer["info"]["pid"].as_i64().is_some_and(|pid| pid > 1),
        "{}",
        answer["info"]
    );

    let pinned = machine.netns_dir().read_dir_utf8()?.count();
    ensure!(pinned == 1, "{pinned} network namespaces are pinned");
    let path = machine.lxc_dir();
    let running =
        process::run("lxc-ls", &["-P", path.as_str(), "--running", "-1"], 10)?.success()?;
    let name = format!("{}-{id}", machine.name());
    ensure!(
        running.lines().any(|line| line.trim() == name),
        "lxc-ls shows no {name}: {running}"
    );
    Ok(())
}

fn container_runs(machine: &Machine, id: &str) -> anyhow::Result<()> {
    let answer = machine.crictl().json(&["inspect", id])?;
    ensure!(answer["status"]["state"] == "CONTAINER_RUNNING", "{answer}");
    ensure!(
        answer["info"]["runtimeSpec"]["process"]["args"].is_array(),
        "{}",
        answer["info"]
    );
    ensure!(
        process::runs(machine.container_pid(id)?),
        "its process does not run"
    );
    let listed = machine.crictl().json(&["ps", "-o", "json"])?;
    let listed = find(&listed["containers"], "id", id).context("crictl ps does not list it")?;
    let image = listed["imageId"].as_str().context("no image id")?;
    ensure!(
        image.starts_with("sha256:"),
        "the image id is no digest: {image}"
    );
    Ok(())
}

/// `<RFC 3339 time> <stdout|stderr> <F|P> <text>`, as kubelet reads it.
fn log_is_in_cri_format(log: &str) -> anyhow::Result<()> {
    for line in log.lines() {
        let mut fields = line.splitn(4, ' ');
        let time = fields.next().unwrap_or_default();
        let well_formed = time.len() > 20 && time.as_bytes()[10] == b'T' && time.contains('.');
        ensure!(well_formed, "no time with fractions: {line}");
        ensure!(
            matches!(fields.next(), Some("stdout" | "stderr")),
            "no stream: {line}"
        );
        ensure!(matches!(fields.next(), Some("F" | "P")), "no tag: {line}");
    }
    Ok(())
}

fn container_sees_its_pod(machine: &Machine, id: &str) -> anyhow::Result<()> {
    let seen = machine.exec(id, &["sh", "-c", "echo $NXT"])?;
    ensure!(seen == "from the environment", "environment: {seen}");
    ensure!(machine.exec(id, &["hostname"])? == "one", "hostname");
    let resolv = machine.exec(id, &["cat", "/etc/resolv.conf"])?;
    for line in [
        "nameserver 10.96.0.10",
        "search nxt.local",
        "options ndots:5",
    ] {
        ensure!(
            resolv.lines().any(|found| found == line),
            "no `{line}` in: {resolv}"
        );
    }
    let shm = machine.exec(id, &["df", "-k", "/dev/shm"])?;
    ensure!(shm.contains(" 65536 "), "/dev/shm is not 64 MiB: {shm}");
    ensure!(
        machine
            .exec(id, &["cat", "/proc/1/cmdline"])?
            .starts_with("sh"),
        "not its own pid 1"
    );
    let failed = machine
        .crictl()
        .try_run(&["exec", "--sync", id, "sh", "-c", "exit 3"])?;
    ensure!(
        failed.code != Some(0),
        "exit code 3 is taken for success: {failed}"
    );
    Ok(())
}

fn container_is_measured(machine: &Machine, pod: &str, id: &str) -> anyhow::Result<()> {
    let answer = machine
        .crictl()
        .json(&["stats", "-o", "json", "--id", id])?;
    let stats = find_by_attributes(&answer["stats"], id).context("no stats of the container")?;
    let layer = &stats["writableLayer"];
    ensure!(
        layer["fsId"]["mountpoint"]
            .as_str()
            .is_some_and(|path| path.starts_with('/')),
        "{stats}"
    );
    ensure!(layer["timestamp"] != "0", "{stats}");
    let answer = machine
        .crictl()
        .json(&["statsp", "-o", "json", "--id", pod])?;
    find_by_attributes(&answer["stats"], pod).context("no stats of the pod")?;
    Ok(())
}

fn find_by_attributes<'a>(list: &'a Value, id: &str) -> Option<&'a Value> {
    list.as_array()?
        .iter()
        .find(|item| item["attributes"]["id"] == id)
}

fn times_are_in_order(status: &Value) -> anyhow::Result<()> {
    let time = |key: &str| -> anyhow::Result<String> {
        let text = status[key]
            .as_str()
            .with_context(|| format!("no {key}: {status}"))?;
        ensure!(!text.starts_with("1970"), "{key} is not set: {status}");
        // RFC 3339 in UTC sorts as text, once the fractions are of one length.
        let (seconds, fraction) = text
            .trim_end_matches('Z')
            .split_once('.')
            .unwrap_or((text, ""));
        Ok(format!("{seconds}.{fraction:0<9}"))
    };
    let (created, started, finished) =
        (time("createdAt")?, time("startedAt")?, time("finishedAt")?);
    ensure!(
        created <= started && started <= finished,
        "times are out of order: {status}"
    );
    Ok(())
}

#[test]
fn containers_of_a_pod_share_its_network() {
    Machine::test(|machine| {
        let _daemon = machine.start_daemon()?;
        machine.warm_up()?;
        machine.pull_busybox()?;
        machine.crictl().run(&["pull", image::NGINX])?;
        let baseline = Baseline::take(machine);

        let pod = machine.run_pod("web")?;
        let mut server = spec::shell("server", "");
        server["image"]["image"] = json!(image::NGINX);
        server["command"] = json!([]);
        machine.start(&pod, &server)?;
        let client = machine.start(&pod, &spec::shell("client", spec::COUNT))?;
        wait::until_true("the server answers on localhost", 15, || {
            let fetch = ["wget", "-q", "-O", "-", "http://127.0.0.1/"];
            Ok(machine
                .exec(&client, &fetch)
                .is_ok_and(|page| page.contains("nginx")))
        })?;

        // Another pod reaches it by its address, and not by localhost.
        let address =
            machine.crictl().json(&["inspectp", &pod.id])?["status"]["network"]["ip"].take();
        let address = address
            .as_str()
            .context("the pod has no address")?
            .to_owned();
        let other = machine.run_pod("other")?;
        let client = machine.start(&other, &spec::shell("client", spec::COUNT))?;
        let page = machine.exec(
            &client,
            &["wget", "-q", "-O", "-", &format!("http://{address}/")],
        )?;
        ensure!(
            page.contains("nginx"),
            "the pod's address does not answer: {page}"
        );
        let fetch = ["wget", "-q", "-T", "2", "-O", "-", "http://127.0.0.1/"];
        ensure!(
            machine.exec(&client, &fetch).is_err(),
            "pods share localhost"
        );

        machine.crictl().run(&["rmp", "--all", "--force"])?;
        baseline.check(machine)
    });
}

#[test]
fn exit_codes_and_reasons_are_told() {
    Machine::test(|machine| {
        let _daemon = machine.start_daemon()?;
        machine.pull_busybox()?;
        let pod = machine.run_pod("exits")?;
        for (name, command, code, reason) in [
            ("zero", "exit 0", 0, "Completed"),
            ("seven", "exit 7", 7, "Error"),
            ("killed", "kill -9 $$; sleep 1", 137, "Error"),
        ] {
            // In a shell below the first process, which no signal of its own namespace can kill.
            let command = format!("sh -c '{command}'; exit $?");
            let id = machine.start(&pod, &spec::shell(name, &command))?;
            let status = wait::until(&format!("{name} has exited"), 10, || {
                let status = machine.container_status(&id)?;
                Ok((status["state"] == "CONTAINER_EXITED").then_some(status))
            })?;
            ensure!(status["exitCode"] == code, "{name}: {status}");
            ensure!(status["reason"] == reason, "{name}: {status}");
        }
        // Ignores SIGTERM, so it is killed when the time is over.
        let stubborn = "trap '' TERM; echo count 0; while true; do sleep 1; done";
        let id = machine.start(&pod, &spec::shell("stubborn", stubborn))?;
        wait::until("it ignores SIGTERM", 10, || {
            machine.last_count(&pod, "stubborn")
        })?;
        machine.crictl().run(&["stop", "--timeout", "2", &id])?;
        let status = machine.container_status(&id)?;
        ensure!(status["exitCode"] == 137, "stubborn: {status}");
        Ok(())
    });
}

#[test]
fn a_timeout_ends_an_exec_and_nothing_else() {
    Machine::test(|machine| {
        let _daemon = machine.start_daemon()?;
        machine.pull_busybox()?;
        let pod = machine.run_pod("execs")?;
        // Its first process reaps no orphans, as those of most containers do not.
        let id = machine.start(&pod, &spec::shell("top", "exec top -b >/dev/null"))?;
        for command in [["sleep", "4321", ""], ["sh", "-c", "sleep 4321 & wait"]] {
            let command: Vec<_> = command
                .into_iter()
                .filter(|word| !word.is_empty())
                .collect();
            let exec = [
                &["exec", "--sync", "--timeout", "1", id.as_str()],
                &command[..],
            ]
            .concat();
            let output = machine.crictl().try_run(&exec)?;
            ensure!(
                output.code != Some(0),
                "a timeout is taken for success: {output}"
            );
            // At once: a probe that timed out must not pile up processes, not even dead ones. Only a child whose parent was
            // killed with it is left to the container's first process, dead: the kernel knows nobody else in there.
            let processes = machine.exec(&id, &["ps", "-o", "pid,ppid,stat,args"])?;
            let is_child = command.len() > 2;
            let left = processes.lines().filter(|line| line.contains("sleep"));
            let left: Vec<_> = left.filter(|line| !(is_child && is_dead(line))).collect();
            ensure!(left.is_empty(), "{command:?} is left:\n{processes}");
        }
        container_runs(machine, &id)
    });
}

/// Whether a line of `ps -o pid,ppid,stat,args` is of a zombie; a letter for its priority may follow.
fn is_dead(line: &str) -> bool {
    let stat = line.split_ascii_whitespace().nth(2);
    stat.is_some_and(|stat| stat.starts_with('Z'))
}

#[test]
fn a_log_is_reopened() {
    Machine::test(|machine| {
        let _daemon = machine.start_daemon()?;
        machine.pull_busybox()?;
        let pod = machine.run_pod("logs")?;
        let id = machine.start(&pod, &spec::shell("counter", spec::COUNT))?;
        let log = pod.logs.join("counter.log");
        let rotated = pod.logs.join("counter.log.1");
        fs::rename(&log, &rotated)?;
        machine.crictl().run(&["logs", "--reopen", &id])?;
        wait::until_true("the new log is written", 10, || {
            Ok(log.exists() && machine.last_count(&pod, "counter")?.is_some())
        })?;
        let size = fs::metadata(&rotated)?.len();
        let count = machine.last_count(&pod, "counter")?;
        wait::until_true("it goes on", 10, || {
            Ok(machine.last_count(&pod, "counter")? > count)
        })?;
        ensure!(
            fs::metadata(&rotated)?.len() == size,
            "the old log is still written"
        );

        machine.crictl().run(&["stop", &id])?;
        fs::remove_file(&log)?;
        let refused = machine.crictl().try_run(&["logs", "--reopen", &id])?;
        ensure!(
            refused.code != Some(0),
            "the log of an exited container is reopened: {refused}"
        );
        ensure!(!log.exists(), "a refused reopen makes a file");
        Ok(())
    });
}

#[test]
fn ids_may_be_shortened_and_filters_filter() {
    Machine::test(|machine| {
        let _daemon = machine.start_daemon()?;
        let crictl = machine.crictl();
        machine.pull_busybox()?;
        let (left, right) = (machine.run_pod("left")?, machine.run_pod("right")?);
        let container = machine.start(&left, &spec::shell("counter", spec::COUNT))?;
        for id in [&left.id, &right.id, &container] {
            let hex = id.len() == 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            ensure!(hex, "an id is not 64 hexadecimal digits: {id}");
        }

        let ids = |args: &[&str], list: &str| -> anyhow::Result<Vec<String>> {
            let answer = crictl.json(&[args, &["-o", "json"]].concat())?;
            let items = answer[list].as_array().context("no list")?.iter();
            Ok(items
                .filter_map(|item| item["id"].as_str().map(str::to_owned))
                .collect())
        };
        let short = |id: &str| id[..13].to_owned();
        ensure!(
            ids(&["pods", "--label", "app=left"], "items")? == [left.id.clone()],
            "label"
        );
        ensure!(
            ids(&["pods", "--id", &short(&right.id)], "items")? == [right.id.clone()],
            "pod id"
        );
        ensure!(
            ids(&["pods", "--state", "notready"], "items")?.is_empty(),
            "pod state"
        );
        let found = ids(&["ps", "-a", "--id", &short(&container)], "containers")?;
        ensure!(found == [container.clone()], "container id");
        let found = ids(&["ps", "-a", "--pod", &short(&right.id)], "containers")?;
        ensure!(found.is_empty(), "containers of the other pod");
        let found = ids(&["ps", "-a", "--state", "exited"], "containers")?;
        ensure!(found.is_empty(), "container state");

        ensure!(
            machine.exec(&short(&container), &["echo", "hi"])? == "hi",
            "exec by a short id"
        );
        crictl.run(&["stop", &short(&container)])?;
        crictl.run(&["rm", &short(&container)])?;
        for pod in [&left, &right] {
            crictl.run(&["stopp", &short(&pod.id)])?;
            crictl.run(&["rmp", &short(&pod.id)])?;
        }
        ensure!(ids(&["pods"], "items")?.is_empty(), "a pod is left");
        Ok(())
    });
}
