//! nexcage's own commands for pods.

use anyhow::{Context as _, ensure};
use nexcage_tests::leak::Baseline;
use nexcage_tests::process::{self, Output};
use nexcage_tests::{Machine, image, tools, wait};
use serde_json::Value;

/// Runs `nexcage` with this machine's daemon.
fn nexcage(machine: &Machine, args: &[&str]) -> anyhow::Result<Output> {
    let socket = machine.socket();
    let all = [&["--socket", socket.as_str()], args].concat();
    process::run(tools::daemon()?.as_str(), &all, 60)
}

fn json(machine: &Machine, args: &[&str]) -> anyhow::Result<Value> {
    let all = [args, &["--output", "json"]].concat();
    let text = nexcage(machine, &all)?.success()?;
    serde_json::from_str(&text).with_context(|| format!("{args:?} printed no JSON: {text}"))
}

/// Expects it to fail, and to say `words`.
fn refused(machine: &Machine, args: &[&str], code: i32, words: &str) -> anyhow::Result<()> {
    let output = nexcage(machine, args)?;
    ensure!(output.code == Some(code), "not exit code {code}: {output}");
    ensure!(output.stderr.contains(words), "no {words:?}: {output}");
    Ok(())
}

const COUNT: &str =
    "trap 'exit 0' TERM; i=0; while :; do echo count $i; i=$((i+1)); sleep 0.2; done";

#[test]
fn a_pod_is_created_started_listed_stopped_and_deleted_by_its_name() {
    Machine::test(|machine| {
        let daemon = machine.start_daemon()?;
        machine.warm_up()?;
        let baseline = Baseline::take(machine);
        // What stands behind `--` is the container's, so that the output's format has to come before.
        let create = [
            "create",
            "--output",
            "json",
            "--runtime",
            "lxc",
            "--name",
            "web",
        ];
        let shell = ["--image", image::BUSYBOX, "--", "sh", "-c", COUNT];
        let made = nexcage(machine, &[&create[..], &shell].concat())?.success()?;
        let made: Value = serde_json::from_str(&made)?;
        ensure!(
            made["state"] == "created" && made["name"] == "web",
            "{made}"
        );
        let id = made["container_id"].as_str().context("no container")?;
        ensure!(
            machine.container_status(id)?["state"] == "CONTAINER_CREATED",
            "it runs"
        );
        let empty = json(machine, &["create", "--runtime", "host", "--name", "empty"])?;
        ensure!(empty["container_id"].is_null(), "{empty}");

        refused(machine, &["create", "--name", "web"], 1, "already")?;
        refused(machine, &["create", "--name", "Web"], 2, "lower case")?;
        refused(
            machine,
            &["create", "--runtime", "proxmox", "--name", "pve"],
            1,
            "proxmox",
        )?;
        refused(machine, &["start", "--name", "empty"], 1, "run --pod empty")?;
        refused(machine, &["start", "--name", "nobody"], 1, "nobody")?;

        let started = json(machine, &["start", "--name", "web"])?;
        ensure!(started["started"] == serde_json::json!([id]), "{started}");
        let again = json(machine, &["start", "web"])?;
        ensure!(again["started"] == serde_json::json!([]), "{again}");
        for command in [
            &["checkpoint", id][..],
            &["checkpoint", id, "--list"],
            &["checkpoint", id, "--remove", "checkpoint-1"],
            &["restore", id],
        ] {
            refused(machine, command, 1, "the overlay storage driver does not")?;
        }
        lists_show_it(machine, &made)?;
        wait::until_true("it counts", 10, || {
            let logs = nexcage(machine, &["logs", "--name", "web"])?.success()?;
            Ok(logs.starts_with("count 0\ncount 1\n"))
        })?;
        let line = nexcage(machine, &["logs", "web", "--tail", "1", "--output", "json"])?;
        let line: Value = serde_json::from_str(&line.success()?)?;
        ensure!(line["stream"] == "stdout", "{line}");

        let stopped = json(machine, &["stop", "--name", "web", "--timeout", "5"])?;
        ensure!(stopped["stopped"] == serde_json::json!([id]), "{stopped}");
        ensure!(stopped["pod_stopped"] == true, "{stopped}");
        ensure!(
            machine.container_status(id)?["exitCode"] == 0,
            "killed, not asked to end"
        );
        refused(machine, &["start", "--name", "web"], 1, "create it anew")?;
        refused(machine, &["delete", "empty"], 1, "--force")?;
        let deleted = json(machine, &["delete", "--force", "--name", "web", "empty"])?;
        ensure!(
            deleted.as_array().is_some_and(|all| all.len() == 2),
            "{deleted}"
        );
        machine.crictl().run(&["rmi", image::BUSYBOX])?;
        baseline.check(machine)?;
        daemon.terminate()
    });
}

fn lists_show_it(machine: &Machine, made: &Value) -> anyhow::Result<()> {
    let pod = made["pod_id"].as_str().context("no pod")?;
    let lxc = json(machine, &["list", "--runtime", "lxc"])?;
    let [row] = lxc.as_array().context("no list")?.as_slice() else {
        anyhow::bail!("not one pod in LXC: {lxc}");
    };
    ensure!(row["id"] == pod && row["backend"] == "lxc", "{row}");
    let name = format!("{}-{pod}", machine.name());
    ensure!(row["container"] == name, "not as lxc-ls shows it: {row}");
    ensure!(
        row["cpu_percent"].is_number() && row["memory_bytes"].is_number(),
        "{row}"
    );
    ensure!(row["edits"] == serde_json::json!([]), "{row}");
    let host = json(machine, &["list", "--runtime", "host"])?;
    ensure!(
        host[0]["name"] == "empty" && host[0]["container"].is_null(),
        "{host}"
    );
    ensure!(host.as_array().is_some_and(|all| all.len() == 1), "{host}");
    Ok(())
}

/// The finding of one check, from `nexcage doctor --output json`.
fn diagnosis(machine: &Machine, check: &str) -> anyhow::Result<Value> {
    let config = machine.config_file();
    let args = ["doctor", "--config", config.as_str(), "--output", "json"];
    let findings: Value = serde_json::from_str(&nexcage(machine, &args)?.stdout)?;
    let findings = findings.as_array().context("no list")?;
    let found = findings.iter().find(|finding| finding["check"] == check);
    found
        .cloned()
        .with_context(|| format!("no {check} among {findings:?}"))
}

#[test]
fn the_doctor_sees_the_daemon_and_what_belongs_to_no_pod() {
    Machine::test(|machine| {
        let daemon = machine.start_daemon()?;
        machine.run_pod("healthy")?;
        for check in [
            "daemon",
            "network",
            "lxc",
            "storage",
            "programs",
            "leftovers",
        ] {
            let finding = diagnosis(machine, check)?;
            ensure!(finding["state"] == "ok", "{finding}");
        }
        // What a crash between two steps of another daemon would leave.
        let id = "ab".repeat(32);
        let left = machine.lxc_dir().join(format!("{}-{id}", machine.name()));
        std::fs::create_dir(&left)?;
        std::os::unix::fs::symlink(&id, left.join("nexcage-sandbox"))?;
        let finding = diagnosis(machine, "leftovers")?;
        ensure!(finding["state"] == "warning", "{finding}");
        ensure!(
            finding["reason"]
                .as_str()
                .is_some_and(|r| r.contains(&id[..12])),
            "{finding}"
        );
        daemon.terminate()?;

        let gone = diagnosis(machine, "daemon")?;
        ensure!(gone["state"] == "failed", "{gone}");
        let args = ["doctor", "--config", machine.config_file().as_str()].map(str::to_owned);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        refused(machine, &args, 1, "")?;
        // Without a daemon, by what it has on record: the pod is known, the other thing is not.
        let finding = diagnosis(machine, "leftovers")?;
        ensure!(
            finding["reason"]
                .as_str()
                .is_some_and(|r| r.starts_with("1 sandbox")),
            "{finding}"
        );
        Ok(())
    });
}

#[test]
fn what_belongs_to_no_pod_goes_while_the_daemon_runs() {
    Machine::test(|machine| {
        let daemon = machine.start_daemon_in_haste(100)?;
        let pod = machine.run_pod("healthy")?;
        let id = "cd".repeat(32);
        let left = machine.lxc_dir().join(format!("{}-{id}", machine.name()));
        std::fs::create_dir(&left)?;
        std::os::unix::fs::symlink(&id, left.join("nexcage-sandbox"))?;
        wait::until_true("it is removed", 20, || Ok(!left.exists()))?;

        // An administrator stops the pod's container: the pod ends, and gives back what it has.
        let name = format!("{}-{}", machine.name(), pod.id);
        let path = machine.lxc_dir();
        process::run("lxc-stop", &["-P", path.as_str(), "-n", &name, "-k"], 20)?.success()?;
        wait::until_true("its network is gone", 20, || {
            Ok(machine.netns_dir().read_dir_utf8()?.next().is_none())
        })?;
        let all = json(machine, &["list", "--runtime", "lxc", "--all"])?;
        ensure!(
            all[0]["state"] == "not_ready" && all[0]["ended"].is_string(),
            "{all}"
        );
        machine.crictl().remove_everything()?;
        daemon.terminate()
    });
}
